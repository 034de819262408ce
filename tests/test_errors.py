"""A UserError is one printable line of bounded length."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segsweep.errors import LONGEST, UserError, shown


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
