"""How often the decisions are right: scores, calibration, and a picture of the errors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from replication.ceiling.bayes import (
    PixelOdds,
    best_threshold,
    crossing_share,
    fit_mask_prior,
    genie,
    line_masks,
    local_energy,
    patch_posterior,
    sample,
)
from replication.ceiling.texture_model import ROUNDINGS, Array, Mask, Model, Rounding, Scene
from segsweep import plots
from segsweep.data.textures import TEXTURE_LABELS, Textures
from segsweep.tasks.metrics import class_iou, confusion_per_image

MARGIN = 8
"""The scores of the interior leave out this many pixels at the image's border."""

BINS = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)
"""Edges of the bins of the calibration."""


def scores(decisions: Sequence[Mask], masks: Sequence[Mask]) -> dict[str, float]:
    """IoU of texture 1 over all pixels of all images [H, W], as the project counts it, and where the errors are.

    Returns:
        `iou`, `accuracy`, `iou_interior` without the outer `MARGIN` pixels, and `wrong_at_border`, the share of the wrong
        pixels that touch the other class (NaN if no pixel is wrong).
    """
    guess, truth = (torch.from_numpy(np.stack(list(part)).astype(np.int64)) for part in (decisions, masks))
    inner = slice(MARGIN, -MARGIN)
    confusion, interior = (
        confusion_per_image(guess[:, part, part], truth[:, part, part], 2).sum(0) for part in (slice(None), inner)
    )
    wrong = (guess != truth).numpy()
    touching = np.stack([plots.border_distance(mask) <= 1 for mask in masks])
    return {
        "iou": float(class_iou(confusion)[1]),
        "accuracy": float(confusion.diagonal().sum() / confusion.sum()),
        "iou_interior": float(class_iou(interior)[1]),
        "wrong_at_border": float((wrong & touching).sum() / wrong.sum()) if wrong.any() else float("nan"),
    }


def calibration(probability: Array, truth: Mask) -> list[dict[str, float]]:
    """Compares the predicted probability of texture 1 with its frequency, bin by bin.

    Returns:
        A row for each bin that is not empty: `mean` probability, `share` of texture 1, and number of `pixels`.
    """
    place = np.clip(np.digitize(probability, BINS) - 1, 0, len(BINS) - 2)
    return [
        {
            "mean": float(probability[place == number].mean()),
            "share": float(truth[place == number].mean()),
            "pixels": int((place == number).sum()),
        }
        for number in range(len(BINS) - 1)
        if (place == number).any()
    ]


def generator_lines(rounding: Rounding, masks: Sequence[Mask], patch: int) -> tuple[Mask, Array]:
    """`line_masks` for a patch, with borders as frequent as in `masks`."""
    extent = patch / 2**0.5 + 0.5
    return line_masks(
        patch + 2 * rounding.reach, extent, crossing_share(masks, extent), rounding.directions, rounding.step
    )


def known_masks(source: Textures) -> list[Mask]:
    """Training masks, to fit the prior without test masks."""
    return [mask.numpy() == 1 for mask in source.make(range(256), "train")[1]]


def evaluate(
    source: Textures, name: str, rounding: Rounding, images: int, sweeps: int, scale_error: float = 0.0
) -> list[dict[str, Any]]:
    """Scores every method on the first test images; returns the rows of the table.

    Args:
        source: textures with fixed widths.
        name: name of the rounding, a key of `ROUNDINGS`.
        rounding: the rounding, with the patches and windows to try.
        images: number of images.
        sweeps: sweeps of `sample`.
        scale_error: relative error of the known scale.

    Returns:
        Dicts of `rounding`, `method`, `pixels` (p, or the width of the energy's window), the `scores` and `calibration`.
    """
    model = Model.of(source, rounding)
    known = known_masks(source)
    prior = fit_mask_prior(known)
    lines = {patch: generator_lines(rounding, known, patch) for patch in rounding.patches}
    scenes = [Scene.of(source, index, name, scale_error) for index in range(images)]
    truth = [scene.mask for scene in scenes]
    found: dict[tuple[str, float], list[Array]] = {}
    for index, scene in enumerate(scenes):
        for patch in rounding.patches:
            from_patch = patch_posterior(scene, model, rounding, patch, *lines[patch])
            found.setdefault(("patch", patch), []).append(from_patch)
        for window in rounding.windows:
            odds = PixelOdds(scene, model, rounding, window, prior)
            drawn = sample(odds, from_patch > 0.5, sweeps, np.random.default_rng([source.eval_seed, index]))
            found.setdefault(("image", window), []).append(drawn)
            found.setdefault(("genie", window), []).append(genie(odds, scene.mask).astype(float))
    widths = (1.0, 1.5, 2.0, 3.0, 4.0)
    # The texture of the narrower filter has more energy in the Laplacians.
    sign = 1 if source.sigmas[1] <= source.sigmas[2] else -1
    energies = {width: np.stack([sign * local_energy(scene, width) for scene in scenes]) for width in widths}
    best = {width: best_threshold(energies[width], np.stack(truth)) for width in widths}
    width = max(widths, key=lambda candidate: best[candidate][1])
    rows: list[dict[str, Any]] = [
        {"method": "energy", "pixels": width} | scores(list(energies[width] > best[width][0]), truth)
    ]
    for (method, size), values in sorted(found.items(), key=lambda item: ("patch", "image", "genie").index(item[0][0])):
        rows.append({"method": method, "pixels": size} | scores([value > 0.5 for value in values], truth))
        if method != "genie":
            rows[-1]["calibration"] = calibration(np.stack(values), np.stack(truth))
    return [{"rounding": name} | row for row in rows]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of `evaluate` as a Markdown table."""
    lines = ["| rounding | method | p | IoU | IoU, interior | accuracy | errors at the border |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        figures = [f"{row[key]:.4f}" for key in ("iou", "iou_interior", "accuracy")] + [f"{row['wrong_at_border']:.2f}"]
        lines.append(f"| {row['rounding']} | {row['method']} | {row['pixels']:g} | " + " | ".join(figures) + " |")
    return "\n".join(lines)


def figure(source: Textures, index: int = 0, sweeps: int = 32) -> Figure:
    """Draws a test image, its mask and the errors of the decision from the whole image, a row for each rounding."""
    known = known_masks(source)
    prior = fit_mask_prior(known)
    images, masks, decisions = [], [], []
    for name, rounding in ROUNDINGS.items():
        scene, model = Scene.of(source, index, name), Model.of(source, rounding)
        patch = rounding.patches[-1]
        start = patch_posterior(scene, model, rounding, patch, *generator_lines(rounding, known, patch)) > 0.5
        odds = PixelOdds(scene, model, rounding, rounding.windows[-1], prior)
        drawn = sample(odds, start, sweeps, np.random.default_rng([source.eval_seed, index]))
        images.append(scene.image)
        masks.append(scene.mask)
        decisions.append(drawn > 0.5)
    return plots.samples(
        images,
        masks,
        decisions,
        colors=TEXTURE_LABELS.colors,
        class_names=TEXTURE_LABELS.names,
        titles=["as made, in float32", "rounded to 8 bits"],
    )
