"""The page's sections on the documents' trainings: printed figures next to ours."""

from collections.abc import Mapping
from typing import Any

from replication import prose
from replication.intervals import as_printed, as_printed_iou, spread, within
from replication.page_parts import Pictures, Rows, table
from replication.published import (
    CONFIDENT,
    FIRST,
    FIRST_LOSSES,
    LOSS,
    MOMENTUM_SGD,
    ONE_BATCH,
    PLAIN_SGD,
    SECOND_SGD,
    STOOD_STILL,
    STUDIES,
    named,
    tuning,
)
from replication.results import last_values, runs_of, values, values_at
from segsweep import training

SHOWN = (LOSS, "val/iou", "test/iou")
UNET_SHOWN = ("val/loss", "val/iou", "val/foreground_iou")


def first(results: Mapping[str, Any], shown: Pictures) -> list[str]:
    name = named("texture_first", FIRST)
    rows = []
    for step, printed in FIRST_LOSSES.items():
        ours = values_at(results, name, LOSS, step)
        rows.append([f"{step:,}", as_printed(printed), spread(ours), within(printed, ours, LOSS)])
    scores = values(results, name, "test/iou")
    one_batch = prose.ONE_BATCH.format(
        printed=as_printed(ONE_BATCH, 4),
        first=spread(values(results, name, "train/confident_accuracy")),
        momentum=spread(values(results, f"texture_optimizers: {MOMENTUM_SGD}", "train/confident_accuracy")),
    )
    return [
        "## The first training (texture notebook, 3.3)", "",
        prose.FIRST, "",
        *table(["steps", "printed", "ours", "within"], rows),
        f"The notebook does not measure what the net has learnt in the end: test/iou {spread(scores)}.", "",
        one_batch, "",
        *shown("first.png", "Running loss of the first training, printed and ours"),
        *shown("predictions.png", "Predictions of the first training every 1,000 steps"),
    ]  # fmt: skip


def rates(results: Mapping[str, Any], shown: Pictures) -> list[str]:
    rows = []
    for setting in STUDIES["texture_rates"].settings:
        name = named("texture_rates", setting)
        printed, ours = setting.printed[LOSS], values(results, name, LOSS)
        rows.append(
            [setting.name.removeprefix("Adam "), as_printed(printed), spread(ours), within(printed, ours, LOSS),
             spread(values(results, name, "test/iou"))]
        )  # fmt: skip
    return [
        "## Learning rates (texture notebook, 4.1)", "",
        prose.RATES, "",
        *table(["learning rate", "printed", "ours", "within", "test/iou"], rows),
        *shown("rates.png", "Running loss by learning rate"),
        *shown("rate_curves.png", "Running loss against steps, by learning rate"),
    ]  # fmt: skip


def optimizers(results: Mapping[str, Any], shown: Pictures) -> list[str]:
    rows = []
    for setting in STUDIES["texture_optimizers"].settings:
        name = named("texture_optimizers", setting)
        row = [setting.name + (", the loss from 3.3" if setting.name == PLAIN_SGD else "")]
        for metric, digits in ((LOSS, 5), (CONFIDENT, 4)):
            printed, ours = setting.printed.get(metric), values(results, name, metric)
            row += ["" if printed is None else as_printed(printed, digits), spread(ours)]
            row.append("" if printed is None else within(printed, ours, metric))
        rows.append([*row, spread(values(results, name, "test/iou"))])
        if setting.name == MOMENTUM_SGD:
            again = ['"SGD", which has momentum 0.9 too']
            for metric, digits in ((LOSS, 5), (CONFIDENT, 4)):
                printed = SECOND_SGD[metric]
                found = values(results, name, metric)
                again += [as_printed(printed, digits), "the same", within(printed, found, metric)]
            rows.append([*again, ""])
    sgd = [
        [setting.name, *(spread(values(results, named("texture_sgd_rates", setting), metric)) for metric in SHOWN)]
        for setting in STUDIES["texture_sgd_rates"].settings
    ]
    header = ["", "loss, printed", "ours", "within", '"precision", printed', "ours", "within", "test/iou"]
    return [
        "## Optimizers (texture notebook, 4.3)", "",
        prose.OPTIMIZERS, "",
        *table(header, rows),
        *shown("optimizers.png", "Running loss and confident accuracy by optimizer"),
        *shown("optimizer_predictions.png", "Predictions of each optimizer's net after 1,000 steps"),
        prose.SGD_RATES, "",
        *table(["learning rate", "running loss", "val/iou", "test/iou"], sgd),
    ]  # fmt: skip


def stood_still(results: Mapping[str, Any]) -> list[str]:
    name = named("texture_exponential", STOOD_STILL)
    zero = results["mistakes"].get("cross-entropy of one channel")
    said = (
        f"{zero['loss'][0]:.1f}, with a largest gradient of {zero['largest gradient'][0]:g}" if zero else "not run yet"
    )
    rows = [
        ["cross-entropy over one channel, printed 99 times", "-0.0", said],
        [
            "the same training with BCE and a step for every batch: test/iou",
            "",
            spread(values(results, name, "test/iou")),
        ],
        ["its running loss (BCE)", "", spread(values(results, name, LOSS))],
    ]
    return [
        "## The training that stood still (texture notebook, 4.1)", "",
        prose.STOOD_STILL, "",
        *table(["", "printed", "ours"], rows),
    ]  # fmt: skip


def unet(results: Mapping[str, Any], shown: Pictures) -> list[str]:
    parts = [prose.UNET]
    for data, title in (("demo", "On the demo scenes"), ("dubai", "On the aerial images")):
        rows = [
            *_printed_ious(results, f"{data}_overfit", "two samples, 50 steps, rate 0.1, momentum {}; of these two"),
            *_printed_ious(results, f"{data}_final", "last training, rate {}; of the test split"),
        ]
        tuned = [
            [
                shown_as,
                *(spread(values(results, name, metric)) for metric in UNET_SHOWN),
                spread(last_values(results, name, "val/loss")),
            ]
            for shown_as, name in tuning(data).items()
        ]
        parts += [
            f"### {title}", "",
            *table(["", 'printed "IoU"', "foreground_iou", "iou", "loss"], rows),
            *_learnt_by_heart(results, f"{data}_overfit"),
            prose.TUNING, "",
            *table(["", *UNET_SHOWN, "val/loss in the end"], tuned),
            *_own_tuning(results, f"{data}_own"),
            *shown(f"{data}_rates.png", "Validation loss by learning rate and momentum"),
            *shown(f"{data}_overfit.png", "Loss of the training on two samples"),
            *shown(f"{data}_overlay.png", "A test image, its mask, the prediction, and the prediction laid over it"),
        ]  # fmt: skip
    return parts


def _printed_ious(results: Mapping[str, Any], study: str, what: str) -> Rows:
    rows = []
    for setting in STUDIES[study].settings:
        ((metric, printed),) = setting.printed.items()
        split = metric.partition("/")[0]
        each = (values(results, named(study, setting), name) for name in (metric, f"{split}/iou", f"{split}/loss"))
        rows.append([what.format(setting.name), as_printed_iou(printed), *map(spread, each)])
    return rows


def _learnt_by_heart(results: Mapping[str, Any], study: str) -> list[str]:
    runs = [run["metrics"] for setting in STUDIES[study].settings for run in runs_of(results, named(study, setting))]
    if not runs:
        return []
    learnt = [metrics for metrics in runs if metrics.get("val/iou", 0.0) >= training.OVERFIT_IOU]
    trivial = sum(sum(name.startswith("val/iou/") for name in metrics) == 1 for metrics in learnt)
    aside = f"; in {trivial} of these the two crops hold only one class" if trivial else ""
    return [prose.OVERFIT.format(learnt=len(learnt), all=len(runs), goal=training.OVERFIT_IOU, trivial=aside), ""]


def _own_tuning(results: Mapping[str, Any], study: str) -> list[str]:
    """The momenta at our best rate; nothing if that is the report's best rate too."""
    if study not in STUDIES:
        return []
    settings = STUDIES[study].settings
    shown = ("val/loss", "test/foreground_iou", "test/iou")
    rows = [
        [f"momentum {setting.name}", *(spread(values(results, named(study, setting), name)) for name in shown)]
        for setting in settings
    ]
    (rate,) = (word.removeprefix("lr=") for word in settings[0].overrides if word.startswith("lr="))
    return [prose.OWN.format(rate=rate), "", *table(["", *shown], rows)]
