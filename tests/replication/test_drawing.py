"""The figures draw every run, every printed number and every name."""

import numpy as np
import pytest

from replication.drawing import beside, picture_rows


def legend(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def lines(figure, marker):
    return [line for line in figure.axes[0].get_lines() if line.get_marker() == marker]


def test_every_run_is_a_dot_and_every_other_number_a_cross():
    ours = {"a": [1.0, 2.0, float("nan")], "b": [4.0], "unknown": [9.0]}
    figure = beside({"a": 1.5, "b": None, "c": 3.0}, ours, value="loss")
    assert sorted(number for line in lines(figure, "o") for number in line.get_ydata()) == [1.0, 2.0, 4.0]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in lines(figure, "x")] == [(0, 1.5), (2, 3.0)]
    assert [collection.get_segments()[0][0, 1] for collection in figure.axes[0].collections] == [1.5, 4.0]
    assert [text.get_text() for text in figure.axes[0].texts] == ["1 diverged"]
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["a", "b", "c"]
    assert figure.axes[0].get_yscale() == "log"


def test_the_legend_names_only_drawn_things():
    assert legend(beside({"a": 1.5}, {"a": [1.0]}, value="loss", printed_name="theirs")) == [
        "theirs", "ours: runs and their mean",
    ]  # fmt: skip
    assert legend(beside({"a": None}, {"a": [1.0]}, value="loss")) == ["ours: runs and their mean"]
    assert legend(beside({"a": 1.5}, {}, value="loss")) == ["printed"]


@pytest.mark.parametrize("log_y", [True, False])
def test_numbers_of_0_need_no_logarithm(log_y):
    figure = beside({"a": 0.0, "b": -1.0}, {"a": [0.0]}, value="loss", log_y=log_y)
    assert figure.axes[0].get_yscale() == "linear"


def test_nothing_to_draw_is_an_error():
    with pytest.raises(ValueError, match="nothing to draw"):
        beside({}, {}, value="loss")


@pytest.mark.parametrize("size", [(128, 640), (40, 20)])
def test_long_names_of_pictures_are_not_cut_off(size):
    names = ["a", "a name that is as long as one of an optimizer with its momentum"]
    figure = picture_rows([np.zeros((*size, 3), np.uint8)] * 2, names)
    figure.draw_without_rendering()
    assert [axes.get_ylabel() for axes in figure.axes] == names
    for axes in figure.axes:
        assert axes.yaxis.label.get_window_extent().x0 >= 0
    with pytest.raises(ValueError, match="2 pictures and 1 names"):
        picture_rows([np.zeros((4, 4, 3), np.uint8)] * 2, ["a"])
