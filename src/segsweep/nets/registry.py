"""The nets that a configuration or a checkpoint may name.

A checkpoint names its net by a target that is looked up here and never imported, so an untrusted checkpoint can only
build one of the registered nets.
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

from segsweep.errors import UserError, first_line, one_line
from segsweep.instantiate import check_arguments, checked

NetClass = TypeVar("NetClass", bound=type[nn.Module])

NETS: dict[str, type[nn.Module]] = {}
"""Net classes by target, such as `segsweep.nets.TextureCNN`."""

SLACK_BYTES = 256 << 20
"""Bytes that a net may need in addition to its stored weights, for buffers that are computed and not stored."""


def register_net(net_class: NetClass) -> NetClass:
    """Class decorator: registers a net of this package as `segsweep.nets.<class name>` and checks its arguments.

    A net in a user's own file needs no decorator: see `segsweep.load_code`.

    Raises:
        ValueError: the name is taken by another class.
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
        arguments: the net's arguments by name; missing ones take their defaults. Types are strict: "16" is not an
            integer, and True is not a number.

    Raises:
        UserError: an unknown target, or an argument that is unknown, of another type, out of range or missing.
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
    """Builds a registered net and loads untrusted weights.

    The net is first built on the meta device, without memory, and only as far as there are weights for it: arguments for
    a net of terabytes, or of a million layers, are refused before memory is taken.

    Args:
        target: a key of `NETS`.
        arguments: as for `build_net`.
        weights: every entry of the net's state dict, on the CPU.
        size: size of the weights' file, in bytes. Shapes are no limit: a view of a single number can have any shape.

    Raises:
        UserError: as `build_net`, or the weights do not fit the net.
    """
    try:
        with _limited(2 * len(weights) + 64, size + SLACK_BYTES):
            plan = _build_on_meta(target, arguments)
    except UserError:
        raise
    except _TooLargeError as error:
        raise UserError(f"its weights do not fit its net: {error}") from error
    except (RuntimeError, ArithmeticError, MemoryError) as error:  # sizes too large for torch
        raise UserError(f"{target}: cannot be built ({first_line(error)})") from error
    if (mismatch := misfit(plan.state_dict(), weights)) is not None:
        raise UserError(f"its weights do not fit its net: {mismatch}")
    net = build_net(target, arguments)
    load_state(net, weights)
    return net


def _build_on_meta(target: str, arguments: dict[str, Any]) -> nn.Module:
    try:
        with torch.device("meta"), _NoInit():
            return build_net(target, arguments)
    except RuntimeError as error:
        if "meta" not in str(error):
            raise
        # The net needs values while it is built, so build it in memory; `_limited` stops it if it gets too large.
        return build_net(target, arguments)


def load_state(net: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Calls `net.load_state_dict(weights)`; raises UserError, a message of one line, if the weights do not fit."""
    if (mismatch := misfit(net.state_dict(), weights)) is not None:
        raise UserError(f"its weights do not fit its net: {mismatch}")
    try:
        net.load_state_dict(dict(weights))
    except (RuntimeError, ValueError) as error:  # raised by the net's hooks
        raise UserError(f"its weights do not fit its net: {one_line(error)}") from error


def misfit(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str | None:
    """Describes the first difference of two state dicts in names, shapes or types, and counts the others; None if equal."""
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
    """A net is larger than its weights."""


class _NoInit(TorchFunctionMode):
    """Skips random weight init, which takes seconds on the meta device and has no effect there."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func in (Tensor.normal_, Tensor.uniform_) else func(*args, **(kwargs or {}))


@contextmanager
def _limited(tensors: int, size: int) -> Iterator[None]:
    """Raises `_TooLargeError` once a net that this thread builds has more than `tensors` tensors or `size` bytes."""
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
