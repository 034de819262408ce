"""The documents' figures from our runs: curves from the collected numbers, pictures from existing run directories."""

import io
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from replication.ablation import scores_of
from replication.drawing import beside, picture_rows
from replication.published import (
    CONFIDENT,
    FIRST,
    FIRST_LOSSES,
    LOSS,
    PUBLISHED,
    STUDIES,
    Setting,
    named,
    tuning,
)
from replication.results import overrides_of, runs_of, values
from replication.runs import FinishedRun, FinishedRuns
from segsweep import plots
from segsweep.data.demo import write_demo_folder
from segsweep.evaluation_data import data_of
from segsweep.plots.curves import Best
from segsweep.plots.style import counted
from segsweep.runs.load import load_run

EVERY = 1_000
"""Steps between the notebook's pictures of the first training."""
PANEL = "image, mask, prediction at 0.5, error, overlay"
SAMPLE = 1
"""Validation sample that is drawn; sample 0 shows only one texture."""


def draw(results: Mapping[str, Any], folder: Path, found: FinishedRuns, data_root: Path | None) -> list[Path]:
    """Writes every figure that has numbers or runs, and returns the files.

    Args:
        results: collected by `collect`.
        folder: where to write; created if missing.
        found: finished runs, for the pictures that need more than numbers.
        data_root: folder of the aerial images; None leaves their overlay out.
    """
    made: dict[str, Figure | None] = {
        "first.png": _first(results), "rates.png": _rates(results), "optimizers.png": _optimizers(results),
        "rate_curves.png": _rate_curves(results), "ablation.png": _ablation(results),
        "predictions.png": _predictions(_first_whole(found, STUDIES["texture_first"].settings[0], None)),
        "optimizer_predictions.png": _last_predictions(found, "texture_optimizers"),
    }  # fmt: skip
    for data in ("demo", "dubai"):
        made[f"{data}_rates.png"] = _tuning(results, data)
        made[f"{data}_overfit.png"] = _overfit(results, data)
        root = data_root if data == "dubai" else None
        if data == "demo" or data_root is not None:
            last = _first_whole(found, STUDIES[f"{data}_final"].settings[0], root)
            made[f"{data}_overlay.png"] = _overlay(last, data_root=root)
    folder.mkdir(parents=True, exist_ok=True)
    return [plots.save(figure, folder / name, dpi=90) for name, figure in made.items() if figure is not None]


def _first_whole(found: FinishedRuns, setting: Setting, data_root: Path | None) -> FinishedRun | None:
    return next((run for run in found.of(overrides_of(setting, data_root)) if not run.diverged), None)


def _first(results: Mapping[str, Any]) -> Figure | None:
    title = "The first training: mean of the losses since the first step"
    figure = _curves(results, {"ours": named("texture_first", FIRST)}, LOSS, log_y=True, title=title)
    if figure is not None:
        axes = figure.axes[0]
        axes.plot(
            list(FIRST_LOSSES), list(FIRST_LOSSES.values()), "x", color="black", markersize=8, markeredgewidth=2,
            label="printed", zorder=5,
        )  # fmt: skip
        axes.legend(handles=axes.get_lines()[-1:], loc="upper right", frameon=False, fontsize=8)
    return figure


def _rates(results: Mapping[str, Any]) -> Figure | None:
    settings = STUDIES["texture_rates"].settings
    printed = {setting.name.removeprefix("Adam "): setting.printed[LOSS] for setting in settings}
    ours = {
        setting.name.removeprefix("Adam "): list(values(results, named("texture_rates", setting), LOSS).values())
        for setting in settings
    }
    if not any(ours.values()):
        return None
    return beside(printed, ours, value="mean loss of 1,000 steps", title="Adam, by learning rate")


def _rate_curves(results: Mapping[str, Any]) -> Figure | None:
    title = "Adam: mean of the losses since the first step"
    return _curves(results, _of_study("texture_rates"), LOSS, best="min", log_y=True, title=title)


def _ablation(results: Mapping[str, Any]) -> Figure | None:
    scores = scores_of(results, "val/iou")
    if len(scores) < 2 or PUBLISHED not in scores:
        return None
    errors = {name: [1 - score for score in found.values()] for name, found in scores.items()}
    means = {name: np.nanmean(each) if np.isfinite(each).any() else math.inf for name, each in errors.items()}
    order = sorted(means, key=lambda name: float(means[name]))
    title = f"The published net and {counted(len(order) - 1, 'other')}"
    return beside(dict.fromkeys(order), errors, value="1 - val/iou", title=title)


def _optimizers(results: Mapping[str, Any]) -> Figure | None:
    best: dict[str, Best] = {LOSS: "min", CONFIDENT: "max"}
    title = "Means since the first step, by optimizer"
    return _curves(results, _of_study("texture_optimizers"), [LOSS, CONFIDENT], best=best, title=title)


def _tuning(results: Mapping[str, Any], data: str) -> Figure | None:
    title = "Validation loss by learning rate and momentum"
    return _curves(results, tuning(data), "val/loss", best="min", log_y=True, title=title)


def _overfit(results: Mapping[str, Any], data: str) -> Figure | None:
    settings = {f"momentum {name}": key for name, key in _of_study(f"{data}_overfit").items()}
    # The limits cut off samples of one class, which are learnt at once, and single steps that go far astray.
    how = {"best": "min", "log_y": True, "limits": (0.1, 10)}
    return _curves(results, settings, "train/loss", **how, title="The training on two samples")


def _of_study(study: str) -> dict[str, str]:
    return {setting.name: named(study, setting) for setting in STUDIES[study].settings}


def _curves(
    results: Mapping[str, Any], settings: Mapping[str, str], y: str | Sequence[str], **how: Any
) -> Figure | None:
    """Draws the collected curves of every run of some settings; `settings` maps their labels to the names of `collect`."""
    histories, shown, diverged = {}, {}, []
    for name, key in settings.items():
        for run in runs_of(results, key):
            if run["curve"]:
                replicate = f"{name}, seed {run['seed']}"
                histories[replicate] = pd.DataFrame(run["curve"]).astype(float)
                shown[replicate] = name
                diverged += [replicate] if run["diverged"] else []
    if not any(column in history for history in histories.values() for column in ([y] if isinstance(y, str) else y)):
        return None
    # A line for each run: a band would hide which of five seeds is unlike the others.
    return plots.curves(histories, y, settings=shown, diverged=diverged, band="runs", **how)


def _predictions(run: FinishedRun | None) -> Figure | None:
    """The first training's TensorBoard panels, one every 1,000 steps."""
    if run is None or not (pictures := sample_panels(run.directory)):
        return None
    steps = [step for step in pictures if step % EVERY == 0]
    rows = [pictures[step] for step in steps]
    return picture_rows(
        rows, [f"step {step:,}" for step in steps], title=f"Seed {run.record.seed}, in eval mode: {PANEL}"
    )


def _last_predictions(found: FinishedRuns, study: str) -> Figure | None:
    """The last panel of one run of each setting; the notebook shows one for each optimizer."""
    panels = {}
    for setting in STUDIES[study].settings:
        run = _first_whole(found, setting, None)
        if run is not None and (pictures := sample_panels(run.directory)):
            panels[setting.name] = pictures[max(pictures)]
    if not panels:
        return None
    return picture_rows(list(panels.values()), list(panels), title=f"The first seed of each: {PANEL}")


def sample_panels(directory: Path, sample: int = SAMPLE) -> dict[int, NDArray[np.uint8]]:
    """Reads a sample's panels of a run, one for each validation: uint8 [H, W, 3] by step, empty if none was written.

    Args:
        directory: the run directory.
        sample: index of the validation sample.
    """
    events = EventAccumulator(str(directory / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    tags = sorted(tag for tag in events.Tags()["images"] if tag.startswith(f"samples/{sample}:"))
    if not tags:
        return {}
    found = {}
    for event in events.Images(tags[0]):
        with Image.open(io.BytesIO(event.encoded_image_string)) as picture:
            found[event.step] = np.asarray(picture.convert("RGB"))
    return found


def _overlay(run: FinishedRun | None, data_root: Path | None) -> Figure | None:
    """Draws a test image with its mask, prediction and overlay, as in the U-Net report.

    Args:
        run: None draws nothing.
        data_root: None writes the demo scenes again, to a temporary folder.
    """
    if run is None:
        return None
    opened = load_run(run.directory)
    with tempfile.TemporaryDirectory() as folder:
        if data_root is None:
            data_root = Path(folder) / "scenes"
            train, val, test = opened.config["data"]["scenes"]
            write_demo_folder(data_root, (train, val, test), opened.config["data"]["scene_size"])
        scored = data_of(opened, {"root": str(data_root)}, split="test")
        batch = scored.module().first_batch("test", 1, "cpu")
    labels = opened.labels
    return plots.overlay_panels(
        batch.image[0], batch.mask[0], opened.predict(batch.image[0]), labels.colors, class_names=labels.names,
        background=None if labels.background is None else labels.index(labels.background),
    )  # fmt: skip
