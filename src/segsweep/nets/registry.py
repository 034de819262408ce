"""The nets that a configuration or a checkpoint may name.

A checkpoint names its net by target, and the name is only ever looked up here, never imported: a checkpoint from a
stranger can ask for one of segsweep's own nets and for nothing else.
"""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import nn

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
    _check_arguments(target, net_class, arguments)
    try:
        return net_class(**arguments)
    except ValueError as error:
        raise UserError(f"{target}: {error}") from error


def _check_arguments(target: str, net_class: Callable[..., nn.Module], arguments: dict[str, Any]) -> None:
    parameters = inspect.signature(net_class).parameters
    unknown = [name for name in arguments if name not in parameters]
    if unknown:
        raise UserError(f"{target} takes no argument {unknown[0]!r}; it takes {', '.join(parameters)}")
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is inspect.Parameter.empty and name not in arguments
    ]
    if missing:
        raise UserError(f"{target} needs a value for {missing[0]!r}")
    annotations = get_type_hints(net_class.__init__)
    for name, value in arguments.items():
        try:
            TypeAdapter(annotations[name], config=ConfigDict(strict=True)).validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            place = "".join(f"[{part}]" for part in first["loc"])
            raise UserError(f"{target}: {name}{place}={first['input']!r}: {_lower_first(first['msg'])}") from error


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
