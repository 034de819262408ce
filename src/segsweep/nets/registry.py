"""The nets that a configuration or a checkpoint may name.

A checkpoint names its net by target, and the name is only ever looked up here, never imported: a checkpoint from a
stranger can ask for one of segsweep's own nets and for nothing else.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.overrides import TorchFunctionMode

from segsweep.errors import UserError, first_line
from segsweep.instantiate import check_arguments, checked

NetClass = TypeVar("NetClass", bound=type[nn.Module])

NETS: dict[str, type[nn.Module]] = {}
"""Net classes by target, as in `segsweep.nets.TextureCNN`."""

SLACK_BYTES = 256 << 20
"""What a net may take beyond the bytes of the weights it is built for: buffers that are computed and not stored."""


def register_net(net_class: NetClass) -> NetClass:
    """Class decorator: makes a net of this package known to checkpoints as `segsweep.nets.<class name>`, and `checked`.

    A net in a file of a user's own needs no decorator: see `segsweep.load_code`.

    Raises:
        ValueError: another class already has the name.
    """
    target = f"segsweep.nets.{net_class.__name__}"
    if NETS.get(target, net_class) is not net_class:
        raise ValueError(f"{target} is already registered, by {NETS[target].__module__}")
    if target not in NETS:
        NETS[target] = checked(net_class)
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


def build_net_for(target: str, arguments: dict[str, Any], weights: Mapping[str, Tensor], size: int) -> nn.Module:
    """Builds a registered net and loads weights that anybody may have sent.

    The net is laid out without memory first, and no further than it has weights to fill it: arguments that ask for a
    net of terabytes, or of a million layers, are refused and not tried.

    Args:
        target: a key of `NETS`.
        arguments: as `build_net` takes them.
        weights: every entry of the net's state dict, on the CPU.
        size: of the file that holds them, in bytes. The shapes say less: a view of one number can have any.

    Raises:
        UserError: as `build_net`, or the net does not have these weights.
    """
    try:
        with _limited(2 * len(weights) + 64, size + SLACK_BYTES):
            plan = _plan(target, arguments)
    except UserError:
        raise
    except _TooLargeError as error:
        raise UserError(f"its weights do not fit its net: {error}") from error
    except (RuntimeError, ArithmeticError, MemoryError) as error:  # sizes beyond what torch can count
        raise UserError(f"{target}: cannot be built ({first_line(error)})") from error
    if (mismatch := misfit(plan.state_dict(), weights)) is not None:
        raise UserError(f"its weights do not fit its net: {mismatch}")
    net = build_net(target, arguments)
    load_weights(net, weights)
    return net


def _plan(target: str, arguments: dict[str, Any]) -> nn.Module:
    try:
        with torch.device("meta"), _NoNumbers():
            return build_net(target, arguments)
    except RuntimeError as error:
        if "meta" not in str(error):
            raise
        # A net that computes with values as it is built. It stops where a layer becomes too large to be the net's.
        return build_net(target, arguments)


def load_weights(net: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """`net.load_state_dict(weights)` whose errors are one line.

    Raises:
        UserError: the weights are not the net's.
    """
    if (mismatch := misfit(net.state_dict(), weights)) is not None:
        raise UserError(f"its weights do not fit its net: {mismatch}")
    try:
        net.load_state_dict(dict(weights))
    except (RuntimeError, ValueError) as error:  # what a net's own hooks have to say
        raise UserError(f"its weights do not fit its net: {' '.join(str(error).split())}") from error


def misfit(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str | None:
    """The first difference of two state dicts in names, shapes or types, and how many more there are; None where equal."""
    differences = [f"{name} is missing" for name in expected if name not in given]
    differences += [f"{name} is not in the net" for name in given if name not in expected]
    for name in (name for name in expected if name in given):
        ours, theirs = expected[name], given[name]
        if ours.shape != theirs.shape:
            differences.append(f"{name} has shape {list(theirs.shape)}, not {list(ours.shape)}")
        elif ours.dtype != theirs.dtype:
            differences.append(f"{name} is {theirs.dtype}, not {ours.dtype}".replace("torch.", ""))
    if not differences:
        return None
    more = f" (and {len(differences) - 1} more)" if len(differences) > 1 else ""
    return differences[0] + more


class _TooLargeError(RuntimeError):
    """A net is about to become larger than its weights."""


class _NoNumbers(TorchFunctionMode):
    """Draws no weights: tensors without memory keep none, and torch takes seconds to find that out."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func in (Tensor.normal_, Tensor.uniform_) else func(*args, **(kwargs or {}))


@contextmanager
def _limited(tensors: int, size: int) -> Iterator[None]:
    """Stops the building of a net, in this thread, at so many tensors or bytes of them."""
    thread = threading.get_ident()
    counted = {"tensors": 0, "bytes": 0}

    def count(module: nn.Module, name: str, value: Tensor | None) -> None:
        if value is None or threading.get_ident() != thread:
            return
        counted["tensors"] += 1
        counted["bytes"] += value.numel() * value.element_size()
        if counted["tensors"] > tensors or counted["bytes"] > size:
            raise _TooLargeError("it asks for a larger net than it has weights for")

    hooks = (register_module_parameter_registration_hook(count), register_module_buffer_registration_hook(count))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
