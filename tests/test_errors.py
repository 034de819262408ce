"""A UserError is one printable line of bounded length; a signal is found behind the errors that it leads to."""

import pickle
import signal
import sys
from collections.abc import Callable
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from segsweep.errors import LONGEST, Interrupted, UserError, shown, signal_behind


@given(st.text(max_size=300))
def test_an_error_is_one_printable_line_whatever_is_in_it(text: str) -> None:
    line = str(UserError(f"{text}: is wrong"))
    assert line.isprintable()
    assert len(line) <= LONGEST
    line.encode()  # a terminal can show it


@given(st.text(max_size=100))
def test_showing_twice_changes_nothing(text: str) -> None:
    assert shown(shown(text)) == shown(text)
    error = UserError(text)
    assert str(UserError(error)) == str(error) == str(pickle.loads(pickle.dumps(error)))


def test_a_long_error_keeps_its_beginning_and_its_end() -> None:
    line = str(UserError(f"x.png: {'a' * 100_000}; set data.by=index"))
    assert line.startswith("x.png: aaa")
    assert line.endswith("aaa; set data.by=index")
    assert len(line) < LONGEST


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "\udcff", "\u2028", "\0"])
def test_characters_that_could_break_or_forge_a_line_are_escaped(name: str) -> None:
    assert "\\" in shown(name)
    assert shown("é 名 'x' #=,") == "é 名 'x' #=,"


def error_of(change: Callable[[], object], interrupted_at: int) -> BaseException | None:
    """What a change raises that a signal interrupts at its n-th call of a function; None if it makes fewer calls."""
    left = interrupted_at

    def interrupt(frame: FrameType, event: str, _: object) -> None:
        nonlocal left
        left -= event == "call"
        if left == 0:
            raise Interrupted(signal.SIGTERM)

    sys.setprofile(interrupt)
    try:
        change()
    except BaseException as error:
        return error
    finally:
        sys.setprofile(None)
    return None


def test_a_signal_at_any_moment_of_a_change_is_found_behind_whatever_omegaconf_raises() -> None:
    raised: list[BaseException] = []
    while True:
        config = OmegaConf.create({"a": {"b": [0]}})
        if (error := error_of(lambda config=config: setattr(config.a, "b", [1, 2]), len(raised) + 1)) is None:
            break
        raised.append(error)
    assert all((found := signal_behind(error)) is not None and found.signum == signal.SIGTERM for error in raised)
    assert not all(isinstance(error, Interrupted) for error in raised)


@pytest.mark.parametrize("error", [UserError("lr: is wrong"), OSError(28, "No space left on device")], ids=str)
def test_a_mistake_and_a_failed_write_after_a_signal_are_told(error: Exception) -> None:
    error.__context__ = Interrupted(signal.SIGINT)
    assert signal_behind(error) is None


def test_ctrl_c_is_a_signal_and_a_bug_is_none() -> None:
    found = signal_behind(KeyboardInterrupt())
    assert found is not None
    assert found.signum == signal.SIGINT
    assert signal_behind(ValueError("lr")) is None
