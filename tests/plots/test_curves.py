from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.text import Text

from segsweep import plots
from segsweep.plots.curves import LABELLED
from segsweep.plots.series import spread, thin_band


def history(seed=0, steps=20, **columns):
    random = np.random.default_rng(seed)
    base = {"step": np.arange(1, steps + 1), "train/loss": random.random(steps), "val/iou": random.random(steps)}
    return pd.DataFrame(base | columns)


def lines(axes):
    return {line.get_label(): line for line in axes.get_lines() if not line.get_label().startswith("_")}


def labels(axes):
    return [text.get_text() for text in axes.texts]


def legend(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_a_curve_is_the_history():
    histories = {"a": history(0), "b": history(1, steps=7)}
    figure = plots.curves(histories, ["train/loss", "val/iou"])
    for axes, column in zip(figure.axes, ["train/loss", "val/iou"], strict=True):
        for name, line in lines(axes).items():
            assert np.array_equal(line.get_xdata(), histories[name]["step"])
            assert np.array_equal(line.get_ydata(), histories[name][column])


def test_rows_of_other_metrics_are_skipped():
    sparse = history(**{"val/iou": [0.5 if step % 5 == 0 else np.nan for step in range(1, 21)]})
    (line,) = lines(plots.curves({"a": sparse}, "val/iou").axes[0]).values()
    assert line.get_xdata().tolist() == [5, 10, 15, 20]


@given(arrays(np.float64, st.integers(1, 50), elements=st.floats(-1e6, 1e6)))
def test_the_running_mean_is_the_mean_of_all_values_so_far(values):
    expected = [values[: place + 1].mean() for place in range(len(values))]
    assert np.allclose(plots.running_mean(values), expected, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("band", ["minmax", "std"])
def test_replicates_are_one_curve_their_mean_with_a_band(band):
    histories = {f"adam,seed={seed}": history(seed) for seed in range(3)}
    figure = plots.curves(histories, "val/iou", settings=dict.fromkeys(histories, "adam"), band=band)
    (axes,) = figure.axes
    values = np.stack([table["val/iou"] for table in histories.values()])
    assert np.allclose(lines(axes)["adam"].get_ydata(), values.mean(axis=0))
    corners = axes.collections[0].get_paths()[0].vertices
    low, high = (values.min(0), values.max(0)) if band == "minmax" else (values.mean(0) - values.std(0, ddof=1),) * 2
    for step in range(1, 21):
        heights = corners[corners[:, 0] == step][:, 1]
        assert heights.min() == pytest.approx(low[step - 1])
        if band == "minmax":
            assert heights.max() == pytest.approx(high[step - 1])
    assert labels(axes) == ["adam (n=3)"]
    assert figure.get_suptitle() == "3 runs, 1 setting"
    assert any(("lowest to highest" if band == "minmax" else "standard deviation") in text for text in legend(figure))


def test_replicates_can_be_drawn_each():
    histories = {"a": history(0), "b": history(1), "cut off": history(2).head(8)}
    figure = plots.curves(histories, "val/iou", settings=dict.fromkeys(histories, "same"), band="runs")
    (axes,) = figure.axes
    thin = [line for line in axes.get_lines() if line.get_label().startswith("_")]
    assert not axes.collections
    for line, table in zip(thin, histories.values(), strict=True):
        assert np.array_equal(line.get_xdata(), table["step"])
        assert np.array_equal(line.get_ydata(), table["val/iou"])
    assert [text.partition(" ")[0] for text in legend(figure)] == ["mean", "replicates"]


def test_limits_cut_off_a_few_values_and_the_legend_says_so():
    histories = {"a": history(0), "b": history(1)}
    histories["a"].loc[3, "val/iou"] = 18_668
    histories["b"].loc[5, "val/iou"] = 0
    how = {"settings": dict.fromkeys(histories, "same"), "band": "runs", "log_y": True}
    figure = plots.curves(histories, "val/iou", limits=(0.1, 10), **how)
    assert figure.axes[0].get_ylim() == (0.1, 10)
    assert all(part in legend(figure)[-1] for part in ("not all shown", "val/iou", "from 0 to 19,000"))
    histories = {"a": history(0), "b": history(1)}
    assert "not all shown" not in " ".join(legend(plots.curves(histories, "val/iou", limits=(0.001, 10), **how)))


@pytest.mark.parametrize("number", [1, 999, 1000, 1001, 12345])
def test_a_thinned_band_has_few_points_and_covers_the_whole_band(number):
    random = np.random.default_rng(0)
    x, low = np.arange(number) * 10.0, random.random(number)
    high = low + random.random(number)
    thin_x, thin_low, thin_high = thin_band(x, low, high, most=1000)
    assert len(thin_x) <= 1001
    assert (thin_x[0], thin_x[-1]) == (x[0], x[-1])
    assert (thin_low.min(), thin_high.max()) == (low.min(), high.max())
    block = np.searchsorted(thin_x, x, side="right") - 1
    assert (thin_low[block] <= low).all()
    assert (thin_high[block] >= high).all()


def test_the_mean_covers_the_steps_all_replicates_have_and_later_steps_are_thin_lines():
    histories = {"a": history(0), "b": history(1), "cut off": history(2).head(8)}
    (axes,) = plots.curves(histories, "val/iou", settings=dict.fromkeys(histories, "same")).axes
    assert lines(axes)["same"].get_xdata().tolist() == list(range(1, 9))
    tails = [line for line in axes.get_lines() if line.get_label().startswith("_")]
    assert [line.get_xdata().tolist() for line in tails] == [list(range(8, 21))] * 2
    assert np.array_equal(tails[1].get_ydata(), histories["b"]["val/iou"][7:])


def test_replicates_without_a_common_step_are_thin_lines():
    other = history(1).assign(step=np.arange(1, 21) + 0.5)
    (axes,) = plots.curves({"a": history(0), "b": other}, "val/iou", settings={"a": "same", "b": "same"}).axes
    assert sorted(len(line.get_xdata()) for line in axes.get_lines()) == [0, 20, 20]
    assert labels(axes) == ["same (n=2)"]


def test_a_step_logged_again_after_a_resume_counts_with_its_later_value():
    twice = pd.DataFrame({"step": [1, 2, 2, 3], "v": [0.0, 9.0, 1.0, 2.0]})
    once = pd.DataFrame({"step": [1, 2, 3], "v": [0.0, 1.0, 2.0]})
    (axes,) = plots.curves({"a": twice, "b": once}, "v", settings={"a": "same", "b": "same"}).axes
    assert lines(axes)["same"].get_ydata().tolist() == [0, 1, 2]


def test_a_group_has_one_color_and_one_marker_and_settings_in_it_differ_in_line():
    names = [f"{optimizer},{rate}" for optimizer in ("sgd", "adam", "rmsprop") for rate in (0.001, 0.01, 0.1)]
    histories = {name: history(index) for index, name in enumerate(names)}
    figure = plots.curves(histories, "val/iou", groups={name: name.split(",")[0] for name in names})
    look = {
        name: (line.get_color(), line.get_marker(), line.get_linestyle())
        for name, line in lines(figure.axes[0]).items()
    }
    for place in (0, 1):
        per_group = {
            group: {value[place] for name, value in look.items() if name.startswith(group)}
            for group in ("sgd", "adam", "rmsprop")
        }
        assert all(len(found) == 1 for found in per_group.values())
        assert len(set.union(*per_group.values())) == 3
    assert len(set(look.values())) == len({value[1:] for value in look.values()}) == 9
    assert legend(figure) == ["sgd", "adam", "rmsprop"]


def test_without_groups_up_to_sixteen_curves_all_look_different_without_color():
    histories = {f"run {index}": history(index) for index in range(LABELLED)}
    (axes,) = plots.curves(histories, "val/iou").axes
    assert len({(line.get_marker(), str(line._dash_pattern)) for line in lines(axes).values()}) == LABELLED
    assert sorted(labels(axes)) == sorted(histories)


@pytest.mark.parametrize(("best", "pick"), [("max", slice(-6, None)), ("min", slice(6))])
@pytest.mark.parametrize("grouped", [True, False])
def test_only_the_best_of_a_hundred_curves_are_named(best, pick, grouped):
    histories = {f"run {index}": history(index, 5) for index in range(100)}
    groups = {name: str(index % 3) for index, name in enumerate(histories)} if grouped else None
    (axes,) = plots.curves(histories, "val/iou", groups=groups, best=best).axes
    ends = sorted(histories, key=lambda name: histories[name]["val/iou"].iloc[-1])
    assert sorted(labels(axes)) == sorted(ends[pick])
    assert len(lines(axes)) == 100


def test_labels_do_not_cover_one_another():
    histories = {f"run {index}": history(index).assign(**{"val/iou": 0.5}) for index in range(12)}
    figure = plots.curves(histories, "val/iou")
    plots.to_image(figure)
    # An annotation's own extent would include the line to its curve.
    boxes = sorted((Text.get_window_extent(text) for text in figure.axes[0].texts), key=lambda box: box.y0)
    assert all(lower.y1 <= upper.y0 for lower, upper in pairwise(boxes))
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width for box in boxes)


@given(arrays(np.float64, st.integers(1, 20), elements=st.floats(0, 1)), st.floats(0.001, 0.2))
def test_spread_labels_keep_order_distance_and_limits(positions, gap):
    placed = spread(positions, gap)
    room = min(gap, 1 / max(len(positions) - 1, 1))
    order = np.argsort(positions, kind="stable")
    assert (np.diff(placed[order]) >= room - 1e-9).all()
    assert placed.min() >= -1e-9
    assert placed.max() <= 1 + 1e-9
    if (np.diff(np.sort(positions)) >= gap).all():
        assert np.allclose(placed, positions, atol=1e-9)


def test_diverged_runs_end_in_a_cross_at_their_last_finite_value_and_are_named():
    exploded = history(0, **{"train/loss": [0.5] * 10 + [np.inf] * 10})
    stopped = history(1).head(4)
    figure = plots.curves(
        {"good": history(2), "exploded": exploded, "stopped": stopped}, "train/loss", diverged=["stopped"]
    )
    crosses = {tuple(np.ravel(line.get_xydata())) for line in figure.axes[0].get_lines() if line.get_gid() == "stop"}
    assert crosses == {(10, 0.5), (4, stopped["train/loss"].iloc[-1])}
    assert {"exploded diverged", "stopped diverged", "good"} == set(labels(figure.axes[0]))
    assert "diverged here" in legend(figure)


def test_a_run_without_the_metric_is_named_in_the_legend():
    figure = plots.curves({"a": history(), "early": history().head(0)}, "val/iou")
    assert legend(figure) == ["no val/iou: 1 (early)"]
    figure = plots.curves({"early": history().head(0)}, "val/iou")
    assert labels(figure.axes[0]) == ["nothing logged yet"]


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([1000.0, 0.1, 0.2], "log"),
        ([0.001, 0.5, 0.99], "linear"),
        ([2.0, 3.0, 4.0], "linear"),
        ([-1.0, 5.0, 500.0], "linear"),
    ],
)
def test_the_axis_is_logarithmic_if_a_loss_spans_decades_and_never_for_a_share(values, scale):
    table = pd.DataFrame({"step": [1, 2, 3], "v": values})
    assert plots.curves({"a": table}, "v").axes[0].get_yscale() == scale
    assert plots.curves({"a": table}, "v", log_y=False).axes[0].get_yscale() == "linear"
    assert plots.curves({"a": table}, "v", log_y=True).axes[0].get_yscale() == "log"


@settings(deadline=None, max_examples=40)
@given(st.floats(1e-5, 1e6), st.floats(0.05, 9.0))
def test_a_logarithmic_axis_always_has_several_labelled_ticks(least, decades):
    table = pd.DataFrame({"step": [1, 2], "v": [least, least * 10**decades]})
    axes = plots.curves({"a": table}, "v", log_y=True).axes[0]
    low, high = axes.get_ylim()
    shown = [tick.get_text() for tick in axes.get_yticklabels() if low <= tick.get_position()[1] <= high]
    assert len(set(filter(None, shown))) >= 2


@pytest.mark.parametrize("band", ["minmax", "runs"])
def test_the_ticks_of_a_logarithmic_axis_cover_everything_drawn(band):
    histories = {str(seed): pd.DataFrame({"step": [1, 2], "v": [1.0, value]}) for seed, value in enumerate([1e-6, 1.0])}
    figure = plots.curves(histories, "v", settings=dict.fromkeys(histories, "one"), log_y=True, band=band)
    shown = {tick.get_text() for tick in figure.axes[0].get_yticklabels()}
    assert {"1", "0.001"} <= shown or {"1", "0.01"} <= shown


def test_curves_refuses_arguments_that_do_not_fit():
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.curves({}, "val/iou")
    with pytest.raises(ValueError, match=r"'step' and 'val/dice'; there are: step, train/loss, val/iou"):
        plots.curves({"a": history()}, "val/dice")
    with pytest.raises(ValueError, match="groups has no entry for run 'a'"):
        plots.curves({"a": history()}, "val/iou", groups={})
    with pytest.raises(ValueError, match="settings has no entry for run 'a'"):
        plots.curves({"a": history()}, "val/iou", settings={})
    with pytest.raises(ValueError, match="replicates of 's' are in 'x' and 'y'"):
        plots.curves(
            {"a": history(), "b": history()}, "val/iou", groups={"a": "x", "b": "y"}, settings={"a": "s", "b": "s"}
        )
    with pytest.raises(ValueError, match="a: column 'v' does not hold numbers"):
        plots.curves({"a": pd.DataFrame({"step": [1], "v": ["high"]})}, "v")
    with pytest.raises(ValueError, match="band is 'ci'"):
        plots.curves({"a": history()}, "val/iou", band="ci")
    with pytest.raises(ValueError, match="best is 'most'"):
        plots.curves({"a": history()}, "val/iou", best="most")


def test_the_loss_curve_shows_each_loss_and_the_mean_so_far():
    table = history(steps=50)
    drawn = lines(plots.loss_curve(table).axes[0])
    assert np.array_equal(drawn["train/loss"].get_ydata(), table["train/loss"])
    assert np.allclose(drawn["running mean"].get_ydata(), table["train/loss"].expanding().mean())
    assert np.array_equal(drawn["running mean"].get_xdata(), table["step"])


def test_the_loss_curve_refuses_a_history_without_losses():
    with pytest.raises(ValueError, match="'loss'; there are: step, train/loss, val/iou"):
        plots.loss_curve(history(), "loss")
    with pytest.raises(ValueError, match="no row with both"):
        plots.loss_curve(history().head(0))
