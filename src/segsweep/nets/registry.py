"""The nets that a configuration or a checkpoint may name.

A checkpoint names its net by target, and the name is only ever looked up here, never imported: a checkpoint from a
stranger can ask for one of segsweep's own nets and for nothing else.
"""

from typing import Any, TypeVar

from torch import nn

from segsweep.arguments import check_arguments
from segsweep.errors import UserError

NetClass = TypeVar("NetClass", bound=type[nn.Module])

NETS: dict[str, type[nn.Module]] = {}
"""Net classes by target, as in `segsweep.nets.TextureCNN`."""


def register_net(net_class: NetClass) -> NetClass:
    """Class decorator: makes a net known to configurations and checkpoints as `segsweep.nets.<class name>`.

    A project that has a net of its own registers it in the same way, and from then on its checkpoints load.

    Raises:
        ValueError: another class already has the name.
    """
    target = f"segsweep.nets.{net_class.__name__}"
    if NETS.get(target, net_class) is not net_class:
        raise ValueError(f"{target} is already registered, by {NETS[target].__module__}")
    NETS[target] = net_class
    return net_class


def build_net(target: str, arguments: dict[str, Any]) -> nn.Module:
    """Builds a registered net from plain values.

    Args:
        target: a key of `NETS`.
        arguments: the net's arguments by name; what is missing takes its default. Types are checked strictly: "16" is
            no integer, True is no number.

    Raises:
        UserError: the target is unknown, or an argument is unknown, of another type, out of range or missing.
    """
    if target not in NETS:
        raise UserError(f"unknown net {target!r}; the nets are {', '.join(sorted(NETS))}")
    net_class = NETS[target]
    check_arguments(net_class, arguments, prefix=f"{target}: ")
    try:
        return net_class(**arguments)
    except ValueError as error:
        raise UserError(f"{target}: {error}") from error
