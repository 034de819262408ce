"""What docs/replication.md says around its tables."""

import json
from pathlib import Path

from segsweep.replication.published import CROP, EPOCH


def _ceiling() -> str:
    """The best possible iou of float32 textures: what the best method reaches, and what none exceeds."""
    measured = json.loads((Path(__file__).parents[3] / "docs/measured/ceiling.json").read_text(encoding="utf-8"))
    best = {
        method: max(row["iou"] for row in measured["rows"] if (row["method"], row["rounding"]) == (method, "float32"))
        for method in ("image", "genie")
    }
    return f"between {best['image']:.4f} and {best['genie']:.4f} ([ceiling](ceiling.md))"


CEILING = _ceiling()

HEAD = """# Replication

The figures that the two documents print, beside ours. Written by `python -m segsweep.replication report` from finished
runs; no number of ours is typed by hand. What the documents are, and their mistakes: [sources](sources.md).

Ours are mean ± sample standard deviation over n seeds. A printed figure is of one run, so the question is whether it
could be one more of ours: **within** says that it lies in the 95 % prediction interval for one further run,
mean ± t · s · √(1 + 1/n), as for normally distributed figures; of twenty that could, one falls outside. Nothing can be
said of one seed.

train/... are figures of the training's last step. val/... and test/... are of the checkpoint with the best objective,
in eval mode; test/iou of the textures is of 256 images.
"""

FIRST = (
    "Plain SGD at 0.001, 10,000 steps; the mean of the losses of all steps so far. These ten figures are of one training, "
    "so that all of them lie within is one agreement and not ten."
)

ONE_BATCH = (
    'Section 4.2 prints one more figure, once as "Precision" and once as IoU: the share of confident pixels of a single '
    "training batch, of the net of this training as far as can be told. Ours is the mean of the last 50 training "
    "batches, which vary less than single ones, so that nothing is said of within:"
)

RATES = (
    "Adam, 1,000 steps, a new net for each; the running mean of the loss, and beside it what the net has learnt, of "
    f"which the best possible is {CEILING}."
)

OPTIMIZERS = (
    'At 0.001, 1,000 steps. The "precision" is a share of confident pixels, `confident_accuracy` here; both figures '
    "are means since the first step. Plain SGD is what the last printed row was meant to be; its loss after 1,000 steps "
    "is printed of the first training."
)

SGD_RATES = (
    "The two runs of SGD are said to have their best learning rate, which was tuned with Adam. Of the plain SGD that was "
    "meant, 1,000 steps:"
)

STOOD_STILL = (
    "The softmax of one channel is 1, its logarithm 0, and so is the gradient: nothing is learnt, whatever the net "
    "gives."
)

TUNING = "The tuning, by the validation loss; 10 epochs, a new net for each."

UNET = f"""## The U-Net report

Its data set, its sizes, two of its momenta, the length of its last training and the optimizer of its overfit are not
known, so these rows show the same protocol on other data and cannot be compared. The data are scenes that this project
draws (`data=rgb_demo`), and 54 aerial images of Dubai, which are not part of it. Crops have {CROP} pixels instead of
320, and an epoch {EPOCH} steps, because 320 takes hours on a CPU. `foreground_iou` is what the report prints as IoU:
anything but the background against anything but the background, so a net that gives one class everywhere scores the
foreground's share of the pixels. iou is the mean over classes.
"""

VERDICTS = (
    "Each conclusion by the test that a sweep ranks its settings with ([statistics](statistics.md)): paired over the "
    "seeds, corrected for all pairs, 5 %. Where several settings are called better than the others, or runs diverged, "
    "each claimed setting is tested against each of the others, corrected for these pairs (Holm); what diverges "
    "sometimes is compared by its other runs, which flatters it, so it may be worse but is not called better. By the "
    "measure that the documents use and, where that is another one, by the iou on validation. Of fewer than five "
    "seeds nothing is said. Each line is corrected for its own comparisons, not for the number of lines. A setting "
    "that learns in one run and not in the next varies so much that five seeds cannot place it."
)

EXPERIMENTS = (
    "Each shown by an experiment (`python -m segsweep.replication mistakes`). [Sources](sources.md) lists more, and "
    "what is done here."
)

MISTAKES = {
    "one norm for three layers": (
        "One batch norm for three layers",
        "The published module trained with Adam for 1,000 steps, once. In eval mode its one set of running statistics "
        "fits none of the three layers; the weights are good, as statistics for each place show:",
        ("scored", "iou of 64 test images"),
    ),
    "cross-entropy of one channel": (
        "A cross-entropy that is always 0",
        "Of the published net on a batch of its images:",
        ("figure", "value"),
    ),
    "momentum": (
        'The momentum in "SGD"',
        "Two of the four rows of the comparison are one setting, SGD with momentum 0.9. How far they differ, and how far "
        "two runs of that setting do, by the spread of ours:",
        (),
    ),
    "not reset between rates": (
        "A net that is not reset between learning rates",
        "SGD with momentum 0.9 on textures of 32 x 32, 100 steps a rate, in the order shown, once each. A net that is "
        "not reset starts each rate with what it has learnt before, so the same rate tried again is better, and the rate "
        "that comes last has an advantage:",
        ("net, place and rate", "validation loss"),
    ),
    "precision that is none": (
        '"Precision" is a share of confident pixels',
        "Of made-up outputs; half of the true pixels are of class 1:",
        ("output", "published", "precision"),
    ),
    "IoU that ignores classes": (
        "An IoU that ignores which class",
        "Of made-up masks with six classes:",
        ("predicted against true", "published", "mean over classes"),
    ),
    "map that is thrown away": (
        "A map of 640 x 640 of which three quarters are thrown away",
        "The published head beside one that computes only what is read; multiplications for an image of 320 x 320. "
        "Of what eight of upconv3's nine taps, 4,096 weights, make, nothing is read; single other weights have no "
        "gradient because a ReLU in front of them is shut:",
        ("figure", "value"),
    ),
}

ABLATION = (
    "The question that the texture notebook leaves. Each net differs from the published one in one thing; Adam 0.001, "
    "1,000 steps: `python train.py -m study=ablation`. The published net is what the others are compared with, by "
    "paired t-tests over the seeds, corrected for the number of other nets (Holm, 5 %); ± is half of the 95 % interval "
    "of one difference alone. The learning rate and the number of steps are those of the published net, so worse means "
    f"worse with these. The best that any method can reach is {CEILING}."
)

ABLATION_RANKED = "Ranked as a sweep is, with all pairs compared:"

ALL_FIGURES = (
    "What the two documents draw, made here from our own runs and data. The notebook's single curves of 4.3 are lines of "
    "the one for all optimizers; it draws no curve of their losses, and ours is beside. What is not drawn yet waits for "
    "its runs."
)

NO_PICTURE = "the GRAPHS tab of TensorBoard, of every run"

FIGURES = (
    ("notebook 3.1", "an image beside its mask", "texture_pair.png"),
    ("notebook 3.2", "one mask under eight pairs of widths", "sigma_study.png"),
    ("notebook 3.3", "the network", ""),
    ("notebook 3.3", "predictions every 1,000 steps", "replication/predictions.png"),
    ("notebook 3.3", "loss of the first training", "replication/first.png"),
    ("notebook 4.1", "loss by learning rate", "replication/rate_curves.png"),
    ("notebook 4.3", '"precision" by optimizer', "replication/optimizers.png"),
    ("notebook 4.3", "predictions of each optimizer's net", "replication/optimizer_predictions.png"),
    ("report, Experiments and Results", "two samples", "replication/demo_overfit.png"),
    ("report, Experiments and Results", "two samples, aerial images", "replication/dubai_overfit.png"),
    ("report, Hyper parameter tuning", "validation loss by rate and by momentum", "replication/demo_rates.png"),
    ("report, Hyper parameter tuning", "the same, aerial images", "replication/dubai_rates.png"),
    ("report, Hyper parameter tuning", "mask laid over a picture", "replication/demo_overlay.png"),
    ("report, Hyper parameter tuning", "the same, aerial images", "replication/dubai_overlay.png"),
)

COMMANDS = (
    "`python -m segsweep.replication run` trains them all, each as a sweep of its own name that goes on where it was "
    "stopped (`--data-root PATH` names the aerial images); `python -m segsweep.replication report` then writes this page. "
    "A run counts by its settings, wherever it was trained, and in every study that has them. Ours is the median, two "
    "runs at a time on two cores with other work; printed is a GPU that is not named."
)
