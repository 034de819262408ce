from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.colors import to_hex
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


# The axes of few validations, and the enlarged panel


def sweep_of(ends, seeds=1, steps=(100, 200, 300, 400), start=0.1):
    """Histories that approach each of the `ends`, their settings, and the last mean of each setting."""
    histories, settings = {}, {}
    for place, end in enumerate(ends):
        for seed in range(seeds):
            values = [end - (end - start) * 0.2**number for number in range(1, len(steps))] + [end]
            histories[f"{place},{seed}"] = pd.DataFrame({"step": steps, "val/iou": values})
            settings[f"{place},{seed}"] = f"setting {place}"
    return histories, settings


def named(axes):
    return [text for text in labels(axes) if "see below" not in text]


@pytest.mark.parametrize("steps", [(1000,), (300, 1000), (300, 600, 900), tuple(range(50, 1050, 50))])
def test_the_x_axis_starts_at_0_and_ticks_stand_at_few_steps(steps):
    histories, _ = sweep_of([0.5, 0.7], steps=steps)
    (axes,) = plots.curves(histories, "val/iou").axes
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    if len(steps) <= 6:
        assert ticks == list(steps)
    if len(steps) > 1:
        assert low == 0
    assert high < 1.1 * steps[-1]
    assert all(line.get_marker() not in ("", "None") for line in lines(axes).values())


def test_curves_of_one_step_stand_side_by_side_and_their_bands_are_lines():
    histories, settings = sweep_of([0.5, 0.6, 0.7, 0.8], seeds=2, steps=(1000,))
    for place in range(4):
        histories[f"{place},1"]["val/iou"] += 0.01
    (axes,) = plots.curves(histories, "val/iou", settings=settings).axes
    places = [float(line.get_xdata()[0]) for line in lines(axes).values()]
    assert len(set(places)) == 4
    assert np.mean(places) == pytest.approx(1000)
    low, high = axes.get_xlim()
    assert all(low < place < high for place in places)
    assert all(band.get_linewidth()[0] > 0 for band in axes.collections)
    assert "side by side" in axes.get_xlabel()


def test_leader_lines_are_grey_dotted_and_thinner_than_curves():
    histories, _ = sweep_of([0.5, 0.7, 0.9])
    (axes,) = plots.curves(histories, "val/iou").axes
    colors = {line.get_color() for line in lines(axes).values()}
    for text in axes.texts:
        assert to_hex(text.arrow_patch.get_edgecolor()) not in map(to_hex, colors)
        assert text.arrow_patch.get_linestyle() not in ("-", "solid")
        assert text.arrow_patch.get_linewidth() < min(line.get_linewidth() for line in lines(axes).values())


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.floats(0.01, 0.999), min_size=2, max_size=24),
    st.floats(0.0, 0.002),
    st.sampled_from(["max", "min"]),
    st.sampled_from([(1000,), (500, 1000), (100, 200, 300, 400, 500, 600)]),
    st.booleans(),
)
def test_every_curve_is_drawn_whole_once_and_the_enlarged_panel_counts_what_ends_outside(ends, near, best, steps, log):
    crowd = [0.98 + near * place for place in range(len(ends))]
    histories, _ = sweep_of([*ends, *crowd], steps=steps)
    figure = plots.curves(histories, "val/iou", best=best, enlarge=True, log_y=log)
    last = {name: float(table["val/iou"].iloc[-1]) for name, table in histories.items()}
    low, high = figure.axes[0].get_ylim()
    assert all(low <= value <= high for value in last.values())
    assert len(lines(figure.axes[0])) == len(last)
    if len(figure.axes) == 1:
        return
    overview, enlarged = figure.axes
    low, high = enlarged.get_ylim()
    inside = {name for name, value in last.items() if low <= value <= high}
    assert f"{len(inside)} of {len(last)} curves end here" in enlarged.get_title("left")
    assert f"{len(inside)} curves: see below" in labels(overview)
    winner = (max if best == "max" else min)(last.values())
    assert low < winner < high
    many = len(last) > LABELLED
    assert set(named(enlarged)) <= inside
    assert set(named(overview)).isdisjoint(inside)
    assert len(named(enlarged)) + len(named(overview)) == (6 if many else len(last))


def test_the_crowded_best_are_enlarged_and_evenly_spread_curves_are_not():
    ends = [0.85, 0.956, 0.9735, 0.983, 0.9824, 0.9812, 0.9832, 0.9786, 0.65]
    histories, _ = sweep_of(ends)
    overview, enlarged = plots.curves(histories, "val/iou", best="max", enlarge=True).axes
    assert sorted(named(overview)) == ["0,0", "1,0", "8,0"]
    heights = sorted(text.xy[1] for text in enlarged.texts)
    assert np.allclose(heights, sorted(ends)[3:])
    assert np.ptp(enlarged.get_ylim()) < np.ptp(overview.get_ylim()) / 4
    for how in ({"enlarge": False}, {"best": None}, {"limits": (0, 1)}):
        assert len(plots.curves(histories, "val/iou", **{"best": "max", "enlarge": True} | how).axes) == 1
    histories, _ = sweep_of(np.linspace(0.2, 0.9, 8))
    assert len(plots.curves(histories, "val/iou", best="max", enlarge=True).axes) == 1


@pytest.mark.parametrize("number", [2, 9, 16, 40])
def test_labels_of_both_panels_do_not_cover_one_another(number):
    histories, _ = sweep_of([0.3, *(0.98 + 0.0001 * place for place in range(number))])
    figure = plots.curves(histories, ["val/iou", "val/iou"], best="max", enlarge=True)
    plots.to_image(figure)
    assert len(figure.axes) == 4
    for axes in figure.axes:
        boxes = sorted((Text.get_window_extent(text) for text in axes.texts), key=lambda box: box.y0)
        assert all(lower.y1 <= upper.y0 for lower, upper in pairwise(boxes))
        assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width for box in boxes)
    (box,) = (legend.get_window_extent() for legend in figure.legends) if figure.legends else (figure.bbox,)
    assert 0 <= box.x0 <= box.x1 <= figure.bbox.width


def test_a_setting_of_which_one_run_learns_shows_its_runs_instead_of_a_band():
    histories, settings = sweep_of([0.98, 0.97, 0.6], seeds=3)
    for seed, end in enumerate((0.98, 0.48, 0.49)):
        histories[f"2,{seed}"].loc[3, "val/iou"] = end
    figure = plots.curves(histories, "val/iou", settings=settings)
    (axes,) = figure.axes
    assert len(axes.collections) == 2
    thin = [line for line in axes.get_lines() if line.get_label().startswith("_")]
    assert sorted(float(line.get_ydata()[-1]) for line in thin) == [0.48, 0.49, 0.98]
    assert "replicates" in legend(figure)


def test_the_legend_names_line_styles_which_mean_the_same_in_every_group():
    # The second group lacks the first rate, so that places in the groups differ.
    names = [("sgd", 0.1), ("sgd", 0.2), ("sgd", 0.3), ("adam", 0.2), ("adam", 0.3)]
    histories = {f"{optimizer},{rate}": history(place) for place, (optimizer, rate) in enumerate(names)}
    groups = {name: name.split(",")[0] for name in histories}
    rates = {name: f"lr={name.split(',')[1]}" for name in histories}
    figure = plots.curves(histories, "val/iou", groups=groups, lines=rates)
    drawn = lines(figure.axes[0])
    said = {
        text.get_text(): handle.get_linestyle()
        for legend in figure.legends
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
    }
    assert list(said) == ["sgd", "adam", "lr=0.1", "lr=0.2", "lr=0.3"]
    assert all(line.get_linestyle() == said[rates[name]] for name, line in drawn.items())


def test_curves_refuses_arguments_that_do_not_fit():
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.curves({}, "val/iou")
    with pytest.raises(ValueError, match=r"'step' and 'val/dice'; there are: step, train/loss, val/iou"):
        plots.curves({"a": history()}, "val/dice")
    with pytest.raises(ValueError, match="groups has no entry for run 'a'"):
        plots.curves({"a": history()}, "val/iou", groups={})
    with pytest.raises(ValueError, match="lines has no entry for run 'a'"):
        plots.curves({"a": history()}, "val/iou", lines={})
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
