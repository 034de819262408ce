import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Rectangle

from segsweep import plots
from segsweep.plots.confusion import compact


def grid(seeds=1):
    random = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {"optim": optim, "lr": rate, "seed": seed, "val/iou": random.random(), "status": "completed"}
            for optim in ("sgd", "adam", "rmsprop")
            for rate in (0.1, 0.001, 0.01)
            for seed in range(seeds)
        ]
    )


def texts(figure):
    """Returns the texts of each cell, by (row, column)."""
    found = {}
    for text in figure.axes[0].texts:
        column, row = text.get_position()
        found.setdefault((round(row), round(column)), []).append(text.get_text())
    return found


def patches(figure, *, hatched=False, framed=False):
    """Returns the (row, column) of cells that are hatched, or framed as the best."""
    found = set()
    for patch in figure.axes[0].patches:
        assert isinstance(patch, Rectangle)
        is_frame = not patch.get_fill() and patch.get_width() < 1
        if (hatched and patch.get_hatch()) or (framed and is_frame):
            column, row = patch.get_center()
            found.add((round(row), round(column)))
    return found


def ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_each_cell_shows_the_value_of_the_table_in_its_place():
    table = grid()
    figure = plots.heatmap(table, "optim", "lr", "val/iou")
    axes = figure.axes[0]
    assert ticks(axes.yaxis) == ["sgd", "adam", "rmsprop"]
    assert ticks(axes.xaxis) == ["0.001", "0.01", "0.1"]
    for row, optim in enumerate(("sgd", "adam", "rmsprop")):
        for column, rate in enumerate((0.001, 0.01, 0.1)):
            value = table[(table["optim"] == optim) & (table["lr"] == rate)]["val/iou"].item()
            shown = float(texts(figure)[row, column][0])
            assert shown == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize("best", ["max", "min"])
def test_the_best_cell_is_framed_and_starred_and_no_other(best):
    table = grid()
    figure = plots.heatmap(table, "optim", "lr", "val/iou", best=best)
    values = table.pivot_table(index="optim", columns="lr", values="val/iou").loc[["sgd", "adam", "rmsprop"]].to_numpy()
    place = np.unravel_index(values.argmax() if best == "max" else values.argmin(), values.shape)
    assert patches(figure, framed=True) == {place}
    assert [cell for cell, found in texts(figure).items() if "★" in found] == [place]


def test_a_cell_with_a_failed_run_has_no_star_even_if_its_mean_equals_the_best():
    rows = [("a", 0.1, 0.9), ("a", 0.1, 0.9), ("b", 0.1, 0.9), ("b", 0.1, np.nan)]
    table = pd.DataFrame(rows, columns=["optim", "lr", "val/iou"])
    figure = plots.heatmap(table, "optim", "lr", "val/iou")
    assert patches(figure, framed=True) == {(0, 0)}


@pytest.mark.parametrize("best", ["max", "min"])
def test_better_cells_are_lighter_in_grey_too(best):
    table = grid()
    figure = plots.heatmap(table, "optim", "lr", "val/iou", best=best)
    grey, value = [], []
    for patch in figure.axes[0].patches:
        if patch.get_fill():
            column, row = patch.get_center()
            grey.append(np.dot(patch.get_facecolor()[:3], [0.2126, 0.7152, 0.0722]))
            value.append(float(texts(figure)[round(row), round(column)][0]))
    assert (np.diff(np.array(grey)[np.argsort(value)]) * (1 if best == "max" else -1) > 0).all()


def test_replicates_are_shown_as_mean_deviation_and_number():
    table = grid(seeds=3)
    figure = plots.heatmap(table, "optim", "lr", "val/iou")
    runs = table[(table["optim"] == "adam") & (table["lr"] == 0.001)]["val/iou"]
    mean, deviation = texts(figure)[1, 0]
    assert float(mean) == pytest.approx(runs.mean(), rel=1e-3)
    assert deviation.endswith("(n=3)")
    assert float(deviation.split()[0].removeprefix("±")) == pytest.approx(runs.std(), abs=1e-3)


def test_reduce_best_shows_the_best_of_a_third_axis():
    table = grid(seeds=3)
    figure = plots.heatmap(table, "optim", "lr", "val/iou", best="min", reduce="best")
    runs = table[(table["optim"] == "sgd") & (table["lr"] == 0.1)]["val/iou"]
    assert float(texts(figure)[0, 2][0]) == pytest.approx(runs.min(), rel=1e-3)
    assert texts(figure)[0, 2][1] == "of 3"


def test_cells_without_a_number_are_hatched_and_named():
    table = grid()
    table.loc[0, "val/iou"] = np.nan
    table.loc[4, "val/iou"] = np.inf
    table.loc[4, "status"] = "failed"
    figure = plots.heatmap(table.drop(index=8), "optim", "lr", "val/iou", status="status")
    assert texts(figure)[0, 2] == ["diverged"]
    assert texts(figure)[1, 0] == ["failed"]
    assert texts(figure)[2, 1] == ["not run"]
    assert patches(figure, hatched=True) == {(0, 2), (1, 0), (2, 1)}


def test_a_cell_in_which_a_run_diverged_says_so_and_is_not_the_best():
    table = grid(seeds=2)
    table["val/iou"] = 0.5
    table.loc[0, "val/iou"] = np.nan
    table.loc[1, "val/iou"] = 0.99
    figure = plots.heatmap(table, "optim", "lr", "val/iou")
    assert texts(figure)[0, 2] == ["0.9900", "1 of 2 failed"]
    assert (0, 2) not in patches(figure, framed=True)
    assert len(patches(figure, framed=True)) == 8


def test_axes_are_in_order_of_size_with_text_and_missing_values_last():
    table = pd.DataFrame({"momentum": [None, "0.9", 0, 0.5, "null_"], "lr": [1e-05, 10.0, 1.0, 0.5, 10000], "v": 1.0})
    rows, columns, _ = plots.heatmap_cells(table, "momentum", "lr", "v")
    assert rows == [0, 0.5, 0.9, "null_", None]
    assert columns == [1e-05, 0.5, 1, 10, 10000]
    figure = plots.heatmap(table, "momentum", "lr", "v")
    assert ticks(figure.axes[0].yaxis) == ["0", "0.5", "0.9", "null_", "default"]
    assert ticks(figure.axes[0].xaxis) == ["0.00001", "0.5", "1", "10", "10000"]


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (8, 4), (3, 12), (1, 5)])
@pytest.mark.parametrize("finite", [True, False])
def test_heatmaps_of_any_size_render(rows, columns, finite):
    table = pd.DataFrame(
        [{"a": f"name_{row}$", "b": 10.0**-column, "v": row + 1.0} for row in range(rows) for column in range(columns)]
    )
    figure = plots.heatmap(table if finite else table.assign(v=np.nan), "a", "b", "v", best="min")
    assert plots.to_image(figure, dpi=30).ndim == 3
    assert len(texts(figure)) == rows * columns


def test_heatmap_refuses_arguments_that_do_not_fit():
    table = grid()
    with pytest.raises(ValueError, match="'loss'; there are: optim, lr, seed, val/iou, status"):
        plots.heatmap(table, "optim", "lr", "loss")
    with pytest.raises(ValueError, match="rows and columns are both 'lr'"):
        plots.heatmap(table, "lr", "lr", "val/iou")
    with pytest.raises(ValueError, match="has no rows"):
        plots.heatmap(table.head(0), "optim", "lr", "val/iou")
    with pytest.raises(ValueError, match="'status' does not hold numbers"):
        plots.heatmap(table, "optim", "lr", "status")
    with pytest.raises(ValueError, match="best is 'most'"):
        plots.heatmap(table, "optim", "lr", "val/iou", best="most")


def test_confusion_rows_are_shares_of_the_true_class():
    counts = np.array([[8, 2, 0], [0, 0, 0], [1, 1, 2]])
    shares = plots.row_shares(counts)
    assert np.array_equal(shares[[0, 2]], [[0.8, 0.2, 0], [0.25, 0.25, 0.5]])
    assert np.isnan(shares[1]).all()


def test_confusion_shows_share_and_count_and_an_absent_class_as_absent():
    figure = plots.confusion([[8000, 2000, 0], [0, 0, 0], [1, 1, 2]], ["sky", "sea", "land"])
    found = texts(figure)
    assert found[0, 0] == ["80.0 %\n8.00k"]
    assert found[0, 2] == ["0 %\n0"]
    assert found[2, 2] == ["50.0 %\n2"]
    assert found[1, 1] == ["absent"]
    assert patches(figure, hatched=True) == {(1, 1)}
    assert ticks(figure.axes[0].yaxis) == ["sky", "sea (absent)", "land"]
    assert ticks(figure.axes[0].child_axes[0].yaxis) == ["10.0k", "0", "4"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2, 12, 13, 30])
def test_confusions_of_any_number_of_classes_render(number):
    counts = np.random.default_rng(0).integers(0, 10**6, (number, number))
    figure = plots.confusion(counts, [f"class {index} $" for index in range(number)])
    assert plots.to_image(figure, dpi=30).ndim == 3
    found, shares = texts(figure), plots.row_shares(counts) * 100
    for (row, column), (text,) in found.items():
        share = shares[row, column]
        if text == "" or text.startswith("<"):
            assert share < (0.5 if text == "" else 0.05)
        else:
            assert float(text.split()[0]) == pytest.approx(share, abs=0.5 if number > 12 else 0.05)
    assert len(found) == number**2


def test_an_empty_confusion_has_only_absent_classes():
    figure = plots.confusion(np.zeros((4, 4), dtype=int), list("abcd"))
    assert [text.get_text() for text in figure.axes[0].texts] == ["absent"] * 4


@pytest.mark.parametrize(
    ("matrix", "names", "message"),
    [
        (np.zeros((2, 3)), ["a", "b"], r"shape \[2, 3\]"),
        (np.zeros((2, 2)), ["a"], "1 names for 2 classes"),
        ([[0.5, 0.5], [0, 1]], ["a", "b"], "holds no counts"),
        ([[-1, 0], [0, 1]], ["a", "b"], "negative count -1"),
        ([[np.nan]], ["a"], "holds no counts"),
    ],
)
def test_confusion_refuses_arguments_that_do_not_fit(matrix, names, message):
    with pytest.raises(ValueError, match=message):
        plots.confusion(matrix, names)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (950, "950"),
        (999, "999"),
        (1000, "1.00k"),
        (12345, "12.3k"),
        (999_400, "999k"),
        (999_999, "1.00M"),
        (4_567_000, "4.57M"),
    ],
)
def test_counts_take_at_most_five_characters(count, text):
    assert compact(count) == text
    assert len(text) <= 5
