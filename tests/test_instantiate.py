"""Settings that do not fit a signature are refused before the call, in one line that names the key."""

import copy
import inspect
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from pydantic import Field

from segsweep import tasks
from segsweep.data.textures import Textures
from segsweep.errors import UserError
from segsweep.instantiate import (
    ROOT_KEYS,
    AtLeast1,
    Positive,
    build,
    check_arguments,
    checked,
    flattened,
    naming_keys,
    part,
    to_plain,
)
from segsweep.nets.padding import KernelSize


@dataclass(frozen=True, kw_only=True)
class Rate:
    rate: Positive = 0.1


@dataclass(frozen=True, kw_only=True)
class Size:
    size: AtLeast1 = 3
    name: str | None = None


@dataclass(frozen=True)
class Both(Size, Rate):
    root: str


@checked
class Flat:
    @flattened(Both)
    def __init__(self, settings: Both) -> None:
        self.rate, self.size = part(settings, Rate), part(settings, Size)


def test_a_flattened_constructor_takes_the_fields_of_its_parts_and_nothing_else():
    assert list(inspect.signature(Flat).parameters) == ["root", "rate", "size", "name"]
    made = Flat("x", size=4, rate=0.5)
    assert (made.rate, made.size) == (Rate(rate=0.5), Size(size=4))
    with pytest.raises(TypeError, match="sise"):
        Flat("x", sise=4)
    for wrong, key in (({"size": 0}, "size"), ({"rate": 0.0}, "rate"), ({"name": 3}, "name"), ({"sise": 4}, "sise")):
        with pytest.raises(UserError, match=rf"^data\.{key}\b"):
            check_arguments(Flat, {"root": "x", **wrong}, prefix="data.")
    with pytest.raises(UserError, match=r"^size=0"):
        Flat("x", size=0)


def example(
    count: int,
    ratio: float = 0.5,
    name: str | None = None,
    flag: bool = False,
    mode: Literal["fast", "exact"] = "fast",
    sigma: float | Sequence[float] = 1.0,
    sizes: Sequence[int] = (),
    anything=None,
) -> dict[str, Any]:
    """Returns its arguments."""
    return locals()


GOOD: dict[str, list[Any]] = {
    "count": [0, -3, 10**12],
    "ratio": [0.25, 1, -2, float("inf")],
    "name": [None, "", "a b"],
    "flag": [True, False],
    "mode": ["fast", "exact"],
    "sigma": [2, 0.5, [0.1, 3]],
    "sizes": [[], [1, 2]],
    "anything": [None, "x", {}, 3],
}
BAD: dict[str, list[Any]] = {
    "count": ["16", 1.5, True, None, [1]],
    "ratio": ["0.5", True, None, [0.5], {}],
    "name": [3, True, ["a"]],
    "flag": [1, 0, "true", None],
    "mode": ["slow", None, 1],
    "sigma": ["1", True, None, [0.1, "3"], {"low": 1}],
    "sizes": ["12", 3, [1, "2"], [True]],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in GOOD.items() for value in values])
def test_value_of_the_annotated_type_passes(name: str, value: Any):
    check_arguments(example, {"count": 1, name: value})


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_value_of_another_type_is_refused_in_one_line_that_names_the_key(name: str, value: Any):
    with pytest.raises(UserError, match=rf"^data\.{name}(\[\d+\])?=.+: .+") as caught:
        check_arguments(example, {"count": 1, name: value}, prefix="data.")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("value", "place", "shown"), [([0.1, "3"], 1, "3"), (["x", 0.1], 0, "x")])
def test_error_inside_a_list_says_where(value: list[Any], place: int, shown: str):
    with pytest.raises(UserError, match=rf"^sigma\[{place}\]={shown}: "):
        check_arguments(example, {"count": 1, "sigma": value})


@given(st.text(st.characters(categories=["Ll"]), min_size=1))
@settings(max_examples=30, deadline=None)
def test_unknown_name_is_refused_with_the_names_there_are(name: str):
    if name in GOOD:
        return
    with pytest.raises(UserError) as caught:
        check_arguments(example, {"count": 1, name: 1}, prefix="data.")
    message = str(caught.value)
    assert message.startswith(f"data.{name}: no such setting")
    assert all(known in message for known in GOOD)


def test_missing_value_is_refused_unless_the_caller_adds_it():
    with pytest.raises(UserError, match=r"^data\.count: needs a value$"):
        check_arguments(example, {}, prefix="data.")
    check_arguments(example, {}, known=("count",))


def test_names_that_the_caller_adds_are_not_offered():
    with pytest.raises(UserError) as caught:
        check_arguments(example, {"counts": 1}, known=("count",))
    assert "count," not in str(caught.value)


def test_class_is_checked_like_its_constructor():
    check_arguments(Textures, {"image_size": 32, "sigma1": [0.5, 2], "sigma": None})
    with pytest.raises(UserError, match=r"^image_size=32: "):
        check_arguments(Textures, {"image_size": "32"})
    with pytest.raises(UserError, match=r"^sigma3: no such setting"):
        check_arguments(Textures, {"sigma3": 1.0})


@pytest.mark.parametrize(
    "made", [*tasks.LOSSES.values(), tasks.SGD, tasks.Adam, tasks.AdamW, tasks.RMSprop, tasks.Cosine, tasks.OneCycle]
)
def test_no_part_of_a_task_takes_a_setting_that_it_does_not_have(made: type):
    with pytest.raises(UserError, match=r"^lrr: no such setting"):
        check_arguments(made, {"lr": 0.1, "lrr": 0.1} if "lr" in getattr(made, "__annotations__", {}) else {"lrr": 0.1})


class Example:
    def __init__(
        self,
        count: AtLeast1,
        rate: Positive = 1.0,
        share: Annotated[float, Field(ge=0, lt=1)] | None = None,
        devices: AtLeast1 | Literal["auto"] = "auto",
        widths: Annotated[Sequence[AtLeast1], Field(min_length=2, max_length=3)] = (1, 2),
        mode: Literal["fast", "exact"] = "fast",
        *,
        kernel: KernelSize = 3,
    ) -> None:
        self.given = count, rate, share, devices, widths, mode, kernel


OUTSIDE = [
    ({"count": 0}, "count=0: must be at least 1"),
    ({"rate": 0.0}, "rate=0.0: must be above 0"),
    ({"rate": math.nan}, "rate=nan: must be finite"),
    ({"rate": math.inf}, "rate=inf: must be finite"),
    ({"share": 1.0}, "share=1.0: must be below 1; or null"),
    ({"share": -0.5}, "share=-0.5: must be at least 0; or null"),
    ({"devices": 0}, "devices=0: must be at least 1; or must be 'auto'"),
    ({"widths": [1, 0]}, "widths[1]=0: must be at least 1"),
    ({"widths": [1]}, "widths=[1]: must have at least 2 entries"),
    ({"widths": (1, 2, 3, 4)}, "widths=(1, 2, 3, 4): must have at most 3 entries"),
    ({"mode": "slow"}, "mode=slow: must be 'fast' or 'exact'"),
    ({"kernel": 4}, "kernel=4: an even kernel has no centre"),
]


@pytest.mark.parametrize(("wrong", "message"), OUTSIDE)
def test_range_or_choice_is_refused_alike_from_a_configuration_and_in_python(wrong: dict[str, Any], message: str):
    arguments = {"count": 1} | wrong
    with pytest.raises(UserError, match=f"^data.{re.escape(message)}") as caught:
        check_arguments(Example, arguments, prefix="data.")
    assert "\n" not in str(caught.value)
    check_arguments(Example, {"count": 1})
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        checked(type("Direct", (Example,), {"__init__": Example.__init__}))(**arguments)


def test_checked_class_gets_its_values_as_they_came_and_keeps_its_signature():
    direct = checked(type("Direct", (Example,), {"__init__": Example.__init__}))
    assert inspect.signature(direct) == inspect.signature(Example)
    widths = [3, 4, 5]
    made = direct(2, 3, widths=widths, kernel=5)
    assert made.given == (2, 3, None, "auto", widths, "fast", 5)
    assert made.given[4] is widths
    assert copy.deepcopy(made).given == made.given
    with pytest.raises(TypeError, match="'count'"):
        direct()
    with pytest.raises(TypeError, match="counts"):
        direct(1, counts=1)


def test_function_that_takes_anything_is_given_anything():
    def takes_all(count: int, **others: Any) -> None: ...

    check_arguments(takes_all, {"count": 1, "whatever": "x"})
    with pytest.raises(UserError, match=r"^count=x: "):
        check_arguments(takes_all, {"count": "x"})


# ---- from the configuration


def test_build_calls_the_target_with_what_is_configured_and_what_is_added():
    node = {"_target_": "segsweep.tasks.SGD", "momentum": 0.9}
    assert build(node, "optim", lr=0.1) == tasks.SGD(lr=0.1, momentum=0.9)
    assert build(node | {"_partial_": True}, "optim")(lr=0.2) == tasks.SGD(lr=0.2, momentum=0.9)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"_target_": "segsweep.tasks.SGD", "lr": 0.1, "momentun": 0.9}, r"^optim\.momentun: no such setting"),
        ({"_target_": "segsweep.tasks.SGD"}, r"^lr: needs a value|^optim\.lr: needs a value"),
        ({"_target_": "segsweep.tasks.SGD", "lr": 0.1, "weight_decay": "big"}, r"^optim\.weight_decay=big: "),
        ({"_target_": "segsweep.tasks.SGD", "lr": 0.1, "weight_decay": -1.0}, r"^optim\.weight_decay=-1\.0: "),
        ({"_target_": "segsweep.tasks.SGD", "lr": 0.1, "nesterov": True}, r"^optim\.nesterov=true: "),
        ({"_target_": "segsweep.tasks.Adam", "lr": 0.1, "beta2": 1.0}, r"^optim\.beta2=1\.0: "),
        # Keys at the root are named as they are typed.
        ({"_target_": "segsweep.tasks.SGD", "lr": 0.0}, r"^lr=0\.0: "),
        ({"_target_": "segsweep.tasks.SGD", "lr": "fast"}, r"^lr=fast: "),
        ({"_target_": "segsweep.tasks.SGD", "lr": 0.1, "momentum": 1.0}, r"^momentum=1\.0: "),
        ({"_target_": "segsweep.tasks.Nothing"}, r"^optim\._target_=segsweep\.tasks\.Nothing: cannot be imported"),
        ({"_target_": "no_such_module.Nothing"}, r"^optim\._target_=no_such_module\.Nothing: cannot be imported"),
        ({"lr": 0.1}, r"^optim: has no _target_"),
        ({"_target_": None, "lr": 0.1}, r"^optim: has no _target_"),
    ],
)
def test_bad_node_is_refused_in_one_line_that_names_its_key(node: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message) as caught:
        build(node, "optim")
    assert "\n" not in str(caught.value)


def test_setting_that_the_program_makes_itself_is_refused():
    with pytest.raises(UserError, match=r"^optim\.lr: follows from other settings"):
        build({"_target_": "segsweep.tasks.SGD", "lr": 0.1}, "optim", lr=0.2)


@given(st.sampled_from(["image_size", "sigma1", "weights", *ROOT_KEYS]), st.sampled_from(["=", ":", "["]))
@settings(max_examples=30, deadline=None)
def test_error_of_a_value_names_its_key_once_however_deep_it_comes_from(name: str, separator: str):
    message = f"{name}{separator}3: is wrong"
    with pytest.raises(UserError) as caught, naming_keys("data"):
        raise ValueError(message)
    assert str(caught.value) == (message if name in ROOT_KEYS else f"data.{message}")


def test_error_that_names_no_key_is_put_under_the_group():
    with pytest.raises(UserError, match=r"^loss: BCE is a loss for binary$"), naming_keys("loss"):
        raise ValueError("BCE is a loss for binary")


def test_errors_that_are_no_mistake_of_the_user_pass_as_they_are():
    with pytest.raises(KeyError), naming_keys("data"):
        raise KeyError("lr")
    with naming_keys("data"):
        pass


def test_plain_configuration_is_resolved_python_data():
    config = OmegaConf.create({"lr": 0.1, "optim": {"lr": "${lr}", "betas": [0.9, "${lr}"]}, "name": None, "seed": 0})
    plain = to_plain(config)
    assert plain == {"lr": 0.1, "optim": {"lr": 0.1, "betas": [0.9, 0.1]}, "name": None, "seed": 0}
    assert (type(plain["optim"]), type(plain["optim"]["betas"])) == (dict, list)


@pytest.mark.parametrize("value", ["???", "${nowhere}"])
def test_value_that_is_missing_or_leads_nowhere_is_refused_by_its_full_key(value: str):
    config = OmegaConf.create({"data": {"root": value}})
    with pytest.raises(UserError, match=r"^data\.root: needs a value") as caught:
        to_plain(config)
    assert "\n" not in str(caught.value)
