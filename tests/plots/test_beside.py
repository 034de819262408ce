import pytest

from segsweep import plots


def legend(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def lines(figure, marker):
    return [line for line in figure.axes[0].get_lines() if line.get_marker() == marker]


def test_every_run_is_a_dot_and_every_other_number_a_cross():
    ours = {"a": [1.0, 2.0, float("nan")], "b": [4.0], "unknown": [9.0]}
    figure = plots.beside({"a": 1.5, "b": None, "c": 3.0}, ours, value="loss")
    assert sorted(number for line in lines(figure, "o") for number in line.get_ydata()) == [1.0, 2.0, 4.0]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in lines(figure, "x")] == [(0, 1.5), (2, 3.0)]
    assert [collection.get_segments()[0][0, 1] for collection in figure.axes[0].collections] == [1.5, 4.0]
    assert [text.get_text() for text in figure.axes[0].texts] == ["1 diverged"]
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["a", "b", "c"]
    assert figure.axes[0].get_yscale() == "log"


def test_the_legend_speaks_of_what_is_drawn():
    assert legend(plots.beside({"a": 1.5}, {"a": [1.0]}, value="loss", printed_name="theirs")) == [
        "theirs", "ours: runs and their mean",
    ]  # fmt: skip
    assert legend(plots.beside({"a": None}, {"a": [1.0]}, value="loss")) == ["ours: runs and their mean"]
    assert legend(plots.beside({"a": 1.5}, {}, value="loss")) == ["printed"]


@pytest.mark.parametrize("log_y", [True, False])
def test_numbers_of_0_need_no_logarithm(log_y):
    figure = plots.beside({"a": 0.0, "b": -1.0}, {"a": [0.0]}, value="loss", log_y=log_y)
    assert figure.axes[0].get_yscale() == "linear"


def test_nothing_to_draw_is_an_error():
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.beside({}, {}, value="loss")
