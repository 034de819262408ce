"""From a configuration node to an object, its arguments checked; errors name the key."""

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from types import NoneType
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar, get_args, get_type_hints

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ConfigDict, Field, InstanceOf, TypeAdapter, ValidationError

from segsweep.errors import UserError, first_line

Callee = TypeVar("Callee", bound=Callable[..., Any])
P = ParamSpec("P")
Self = TypeVar("Self")
Settings = TypeVar("Settings")

AtLeast1 = Annotated[int, Field(ge=1)]
AtLeast0 = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
From0To1 = Annotated[float, Field(ge=0, le=1)]
From0Below1 = Annotated[float, Field(ge=0, lt=1)]
Above0To1 = Annotated[float, Field(gt=0, le=1)]

_SAID = {
    "greater_than_equal": "must be at least {ge:g}",
    "greater_than": "must be above {gt:g}",
    "less_than_equal": "must be at most {le:g}",
    "less_than": "must be below {lt:g}",
    "finite_number": "must be finite",
    "literal_error": "must be {expected}",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "value_error": "{error}",
}
"""What is said for pydantic's types of error; for others its own words."""


def checked(callee: Callee) -> Callee:
    """Decorator for a class or a function: a call from Python refuses what one from a configuration refuses.

    Every call, of a class its constructor's, is compared with the annotations as `check_arguments` does; the values are
    passed on as they came.
    """
    if inspect.isclass(callee):
        callee.__init__ = checked(callee.__init__)  # type: ignore[method-assign]
        return callee
    signature = inspect.signature(callee)

    @functools.wraps(callee)
    def checking(*args: Any, **kwargs: Any) -> Any:
        _check_values(callee, signature.bind(*args, **kwargs).arguments)
        return callee(*args, **kwargs)

    return checking  # type: ignore[return-value]


def flattened(
    settings: Callable[P, Settings],
) -> Callable[[Callable[[Self, Settings], None]], Callable[Concatenate[Self, P], None]]:
    """Decorator for a constructor that takes a dataclass: it is called with the fields of the dataclass instead.

    The signature lists every field, with its type and default, so a caller, `check_arguments` and mypy see them all.
    """

    def decorate(constructor: Callable[[Self, Settings], None]) -> Callable[Concatenate[Self, P], None]:
        @functools.wraps(constructor)
        def flat(self: Self, /, *args: P.args, **kwargs: P.kwargs) -> None:
            constructor(self, settings(*args, **kwargs))

        own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
        parameters = [own, *inspect.signature(settings).parameters.values()]
        flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        flat.__annotations__ = get_type_hints(settings.__init__, include_extras=True)
        return flat

    return decorate


def part(settings: Any, kind: type[Settings]) -> Settings:
    """The fields that a dataclass has from its base `kind`, as an object of that class alone.

    Raises:
        UserError: what `kind` refuses.
    """
    return kind(**{entry.name: getattr(settings, entry.name) for entry in fields(kind)})  # type: ignore[arg-type]


def check_arguments(
    function: Callable[..., Any], arguments: Mapping[str, Any], prefix: str = "", known: tuple[str, ...] = ()
) -> None:
    """Refuses arguments that `function` does not take, misses, or takes in another type.

    Types are checked strictly: "16" is no integer and True no number, but 1 is a float; ranges and choices as the
    annotation has them, `Annotated[int, Field(ge=1)]` or `Literal[...]`. Parameters without an annotation are not checked.

    Args:
        function: a class or a function.
        arguments: by name, plain values.
        prefix: what the names have before them where the user wrote them, as in "data.".
        known: arguments that the caller adds, and that must not be there.

    Raises:
        UserError: names the argument, its value and what would be right.
    """
    parameters, _ = _signature(function)
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    offered = [name for name in parameters if name not in known]
    for name in arguments:
        if name in known:
            raise UserError(f"{prefix}{name}: follows from other settings; leave it out")
        if name not in parameters and not takes_any:
            raise UserError(f"{prefix}{name}: no such setting; there are {', '.join(offered)}")
    for name, parameter in parameters.items():
        anything = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        required = parameter.default is parameter.empty and not anything
        if required and name not in arguments and name not in known:
            raise UserError(f"{prefix}{name}: needs a value")
    _check_values(function, arguments, prefix)


def _check_values(function: Callable[..., Any], arguments: Mapping[str, Any], prefix: str = "") -> None:
    _, hints = _signature(function)
    for name in (name for name in arguments if name in hints):
        try:
            _adapter(function, name).validate_python(arguments[name], strict=True)
        except ValidationError as error:
            raise UserError(f"{prefix}{name}{_said(error, hints[name])}") from error


def _said(error: ValidationError, hint: Any) -> str:
    """Where in the value the error is, what stands there, and what would be right."""
    # Of a type with alternatives, those that came furthest into a list: a list is then what is meant. Where the type is
    # right and the value is not, another type is no advice.
    errors = error.errors()
    furthest = max(len(_positions(entry["loc"])) for entry in errors)
    errors = [entry for entry in errors if len(_positions(entry["loc"])) == furthest]
    if any(entry["type"] in _SAID and entry["type"] != "literal_error" for entry in errors):
        errors = [entry for entry in errors if entry["type"] in _SAID]
    place = _positions(errors[0]["loc"])
    right = [
        _SAID[entry["type"]].format(**entry.get("ctx", {}))
        if entry["type"] in _SAID
        else entry["msg"][:1].lower() + entry["msg"][1:]
        for entry in errors
    ]
    if not place and NoneType in get_args(hint):
        right.append("null")
    value = errors[0]["input"]
    shown = value if isinstance(value, str) else repr(value)
    return f"{''.join(f'[{part}]' for part in place)}={shown}: {'; or '.join(dict.fromkeys(right))}"


@functools.lru_cache(maxsize=256)
def _signature(function: Callable[..., Any]) -> tuple[Mapping[str, inspect.Parameter], dict[str, Any]]:
    hints = get_type_hints(function.__init__ if inspect.isclass(function) else function, include_extras=True)
    return inspect.signature(function).parameters, hints


# Making an adapter takes a hundred times as long as using it.
@functools.lru_cache(maxsize=1024)
def _adapter(function: Callable[..., Any], name: str) -> TypeAdapter[Any]:
    hint = _signature(function)[1][name]
    if is_dataclass(hint):  # ours are built by others, and not looked into
        return TypeAdapter(InstanceOf[hint])  # type: ignore[misc, valid-type]
    # Pydantic refuses a configuration for types that bring their own.
    own = hasattr(hint, "__pydantic_config__")
    return TypeAdapter(hint, config=None if own else ConfigDict(arbitrary_types_allowed=True))


def _positions(location: tuple[int | str, ...]) -> list[int]:
    return [part for part in location if isinstance(part, int)]


ROOT_KEYS = ("lr", "momentum", "seed")
"""Keys at the root of the configuration that groups refer to; errors name them as the user types them."""


def to_plain(config: DictConfig) -> dict[str, Any]:
    """The resolved configuration as dicts, lists, strings, numbers, booleans and None.

    Raises:
        UserError: a value is missing, or an interpolation leads nowhere.
    """
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        reason = str(error).splitlines()[0]
        raise UserError(f"{key}: needs a value ({reason})" if key else reason) from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def build(node: Mapping[str, Any], where: str, **extra: Any) -> Any:
    """Calls a node's `_target_` with the node's other values.

    Args:
        node: plain values; `_partial_: true` gives a partial instead of calling.
        where: the node's key, for errors.
        extra: arguments that the program adds.

    Raises:
        UserError: the target cannot be found, or refuses a value; names the key.
    """
    target = node.get("_target_")
    if not isinstance(target, str):
        raise UserError(f"{where}: has no _target_ that says what to build")
    try:
        function = get_object(target)
    except Exception as error:  # whatever the import of a user's module raises
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        own = f"; a class in a file of yours needs code=FILE, and is {target.split('.')[0]}.<class>"
        hint = "" if target.startswith("segsweep.") else own
        raise UserError(f"{where}._target_={target}: cannot be imported ({first_line(cause)}){hint}") from error
    arguments = {name: value for name, value in node.items() if not name.startswith("_")}
    if twice := sorted(arguments.keys() & extra.keys()):
        raise UserError(f"{where}.{twice[0]}: follows from other settings; leave it out")
    with naming_keys(where):
        if node.get("_partial_"):
            return partial(function, **arguments, **extra)
        check_arguments(function, arguments, known=tuple(extra))
        return function(**arguments, **extra)


class naming_keys:  # noqa: N801  (reads as a statement)
    """Turns a ValueError that starts with `name=` into a UserError that starts with the name's key."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, ValueError):
            name = re.match(r"[a-z_0-9]+(?=[=:\[])", str(error))
            if name is None:
                message = str(error) if str(error).startswith(f"{self.where}.") else f"{self.where}: {error}"
            else:
                message = str(error) if name.group() in ROOT_KEYS else f"{self.where}.{error}"
            raise UserError(message) from error
