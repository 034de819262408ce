"""Arguments that come from a configuration or a file, checked against the signature they are passed to."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from segsweep.errors import UserError


def check_arguments(
    function: Callable[..., Any], arguments: Mapping[str, Any], prefix: str = "", known: tuple[str, ...] = ()
) -> None:
    """Refuses arguments that `function` does not take, misses, or takes in another type.

    Types are checked strictly: "16" is no integer and True no number, but 1 is a float. Parameters without an annotation
    are not checked.

    Args:
        function: a class or a function.
        arguments: by name, plain values.
        prefix: what the names have before them where the user wrote them, as in "data.".
        known: arguments that the caller adds, and that need not be there.

    Raises:
        UserError: names the argument, its value and what would be right.
    """
    parameters = inspect.signature(function).parameters
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    offered = [name for name in parameters if name not in known]
    for name in arguments:
        if name not in parameters and not takes_any:
            raise UserError(f"{prefix}{name}: no such setting; there are {', '.join(offered)}")
    for name, parameter in parameters.items():
        anything = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        required = parameter.default is parameter.empty and not anything
        if required and name not in arguments and name not in known:
            raise UserError(f"{prefix}{name}: needs a value")
    hints = get_type_hints(function.__init__ if inspect.isclass(function) else function)
    for name, value in arguments.items():
        if name not in hints:
            continue
        try:
            TypeAdapter(hints[name], config=_config(hints[name])).validate_python(value, strict=True)
        except ValidationError as error:
            # Of a type with alternatives, those that came furthest into a list: a list is then what is meant.
            furthest = max(len(_positions(entry["loc"])) for entry in error.errors())
            errors = [entry for entry in error.errors() if len(_positions(entry["loc"])) == furthest]
            first = errors[0]
            place = "".join(f"[{part}]" for part in _positions(first["loc"]))
            choices = "; or ".join(dict.fromkeys(_lower_first(entry["msg"]) for entry in errors))
            raise UserError(f"{prefix}{name}{place}={_shown(first['input'])}: {choices}") from error


def _config(hint: Any) -> ConfigDict | None:
    # Pydantic refuses a configuration for types that bring their own.
    return None if hasattr(hint, "__pydantic_config__") else ConfigDict(arbitrary_types_allowed=True)


def _positions(location: tuple[int | str, ...]) -> list[int]:
    return [part for part in location if isinstance(part, int)]


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
