"""Builds objects from configuration nodes and checks their arguments; errors name the key."""

import contextlib
import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from types import NoneType
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar, get_args, get_type_hints

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ConfigDict, Field, InstanceOf, TypeAdapter, ValidationError

from segsweep.errors import UserError, causes, first_line

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

_MESSAGES = {
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
"""Our wording for pydantic's error types; other types keep pydantic's wording."""


def checked(callee: Callee) -> Callee:
    """Decorator for a class or a function: calls from Python are checked like those from a configuration.

    Compares the arguments of every call, or of the constructor, with the annotations and passes them on unchanged.
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
    """Decorator for a constructor that takes a dataclass: callers pass the fields of the dataclass instead.

    The signature lists every field with its type and default, for callers, `check_arguments` and mypy.
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
    """Copies the fields that a dataclass inherits from its base `kind` into a `kind`.

    Raises:
        UserError: `kind` refuses a value.
    """
    return kind(**{entry.name: getattr(settings, entry.name) for entry in fields(kind)})  # type: ignore[arg-type]


def check_arguments(
    function: Callable[..., Any], arguments: Mapping[str, Any], prefix: str = "", known: tuple[str, ...] = ()
) -> None:
    """Refuses unknown, missing and mistyped arguments of `function`.

    Types are checked strictly: "16" is no integer and True no number, but 1 is a float. Ranges and choices come from the
    annotation: `Annotated[int, Field(ge=1)]`, `Literal[...]`. Parameters without an annotation accept any value.

    Args:
        function: a class or a function.
        arguments: plain values by name.
        prefix: precedes the names in error messages, as in "data.".
        known: arguments that the caller adds; the user must not set them.

    Raises:
        UserError: names the argument, its value and what is allowed.
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
            raise UserError(f"{prefix}{name}{_describe(error, hints[name])}") from error


def _describe(error: ValidationError, hint: Any) -> str:
    """Where in the value the error is, the wrong value and what is allowed: "[1]=0: must be at least 1"."""
    placed = [([part for part in entry["loc"] if isinstance(part, int)], entry) for entry in error.errors()]
    # A union gives errors for each of its types. The deepest ones belong to the type that the user meant: a list.
    depth = max(len(place) for place, _ in placed)
    placed = [(place, entry) for place, entry in placed if len(place) == depth]
    # If a type fits and only the value is out of range, the other types are no help.
    if any(entry["type"] in _MESSAGES and entry["type"] != "literal_error" for _, entry in placed):
        placed = [(place, entry) for place, entry in placed if entry["type"] in _MESSAGES]
    allowed = [
        _MESSAGES[entry["type"]].format(**entry.get("ctx", {}))
        if entry["type"] in _MESSAGES
        else entry["msg"][:1].lower() + entry["msg"][1:]
        for _, entry in placed
    ]
    place, first = placed[0]
    if not place and NoneType in get_args(hint):
        allowed.append("null")
    value = first["input"] if isinstance(first["input"], str) else repr(first["input"])
    return f"{''.join(f'[{index}]' for index in place)}={value}: {'; or '.join(dict.fromkeys(allowed))}"


@functools.lru_cache(maxsize=256)
def _signature(function: Callable[..., Any]) -> tuple[Mapping[str, inspect.Parameter], dict[str, Any]]:
    hints = get_type_hints(function.__init__ if inspect.isclass(function) else function, include_extras=True)
    return inspect.signature(function).parameters, hints


# Making an adapter takes about 100 times as long as using it.
@functools.lru_cache(maxsize=1024)
def _adapter(function: Callable[..., Any], name: str) -> TypeAdapter[Any]:
    hint = _signature(function)[1][name]
    if is_dataclass(hint):  # already checked when it was built
        return TypeAdapter(InstanceOf[hint])  # type: ignore[misc, valid-type]
    # Pydantic raises if a type with its own configuration gets another one.
    own = hasattr(hint, "__pydantic_config__")
    return TypeAdapter(hint, config=None if own else ConfigDict(arbitrary_types_allowed=True))


ROOT_KEYS = ("lr", "momentum", "seed")
"""Root keys that groups refer to, as in `optim.lr: ${lr}`; errors name the root key, which the user typed."""


def to_plain(config: DictConfig) -> dict[str, Any]:
    """The resolved configuration as dicts, lists, strings, numbers, booleans and None.

    Raises:
        UserError: a value is missing, or an interpolation cannot be resolved.
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
        node: plain values; `_partial_: true` returns a partial instead of calling the target.
        where: the node's key, for error messages.
        extra: arguments that the program adds.

    Raises:
        UserError: the target cannot be imported, or refuses a value; names the key.
    """
    target = node.get("_target_")
    if not isinstance(target, str):
        raise UserError(f"{where}: has no _target_, the class to build")
    try:
        function = get_object(target)
    except Exception as error:  # importing a user's module can raise anything
        *_, cause = causes(error)
        module = target.partition(".")[0]
        hint = "" if module == "segsweep" else f"; if {module} is a file of yours, add code={module}.py"
        raise UserError(f"{where}._target_={target}: cannot be imported ({first_line(cause)}){hint}") from error
    arguments = {name: value for name, value in node.items() if not name.startswith("_")}
    if twice := sorted(arguments.keys() & extra.keys()):
        raise UserError(f"{where}.{twice[0]}: follows from other settings; leave it out")
    with naming_keys(where):
        if node.get("_partial_"):
            return partial(function, **arguments, **extra)
        check_arguments(function, arguments, known=tuple(extra))
        return function(**arguments, **extra)


@contextlib.contextmanager
def naming_keys(where: str) -> Iterator[None]:
    """Turns a ValueError "name=value: ..." into a UserError "<where>.name=value: ...", which names the key."""
    try:
        yield
    except ValueError as error:
        message = str(error)
        if (name := re.match(r"[a-z_0-9]+(?=[=:\[])", message)) is not None:
            message = message if name.group() in ROOT_KEYS else f"{where}.{message}"
        elif not message.startswith(f"{where}."):
            message = f"{where}: {message}"
        raise UserError(message) from error
