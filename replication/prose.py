"""What docs/replication.md says around its tables."""

import json

from replication import ROOT
from replication.published import CROP, EPOCH


def _ceiling() -> str:
    """The best possible iou of float32 textures, as the best method and the genie estimate it."""
    measured = json.loads((ROOT / "docs/measured/ceiling.json").read_text(encoding="utf-8"))
    best = {
        method: max(row["iou"] for row in measured["rows"] if (row["method"], row["rounding"]) == (method, "float32"))
        for method in ("image", "genie")
    }
    return f"about 0.999, estimated at {best['image']:.4f} and {best['genie']:.4f} on 32 images ([ceiling](ceiling.md))"


CEILING = _ceiling()

HEAD = """# Replication

The figures that the two documents print, beside ours. Written by `python -m replication report` from finished
runs; no number of ours is typed by hand. What the documents are, and their mistakes: [sources](sources.md).

Ours are mean ± sample standard deviation over n seeds. A printed figure is of one run, so the question is whether it
could be one more of ours: **within** gives the 95 % prediction interval for one further run, mean ± t · s · √(1 + 1/n),
and whether the printed figure lies in it. It supposes normally distributed figures, of losses their logarithms. Of twenty
figures that could be ours one falls outside; and "yes" means that nothing contradicts it, no more, which says little
where the interval is wide: with five runs it reaches three standard deviations to each side. Where it reaches beyond 1,
which these losses and shares cannot, the figures are not normally distributed (one run learns and another does not) or too
few: nothing is said, and each of ours is listed. Nothing can be said of one seed.

Ours is the net with its mistakes put right: statistics of the batch norm for each place, estimated anew before each
validation ([sources](sources.md)).

train/... are figures of the training's last step. val/... and test/... are of the checkpoint with the best objective,
in eval mode; test/iou of the textures is of 256 images.
"""

NOT_SHOWN = (
    "Not here: the values of the one mask that the notebook prints (3.1), which come from a GPU's random numbers; "
    "what has no effect in the optimizer's state (foreach, capturable, differentiable, fused; and initial_lr, which "
    "is lr); and the times of the first training after each 1,000 steps, of which the last is below, at the commands. "
    "The report prints no number of parameters; 282,486 follows from its layers."
)

FIRST = (
    "Plain SGD at 0.001, 10,000 steps; the mean of the losses of all steps so far. These ten figures are of one training, "
    "so if all of them lie within, that is one agreement and not ten."
)

ONE_BATCH = (
    'Section 4.2 prints one more figure, once as "Precision" and once as IoU: the share of confident pixels of a '
    "single training batch. Of which training it is cannot be told, as the cells were not run in the order shown "
    "([sources](sources.md)): {printed} may be of this one or of one in 4.3, of which SGD with momentum comes "
    "nearest. Ours are means of the last 50 training batches: {first} of this one, {momentum} of that. A mean of 50 "
    "varies less than a single batch does, so that nothing is said of within."
)

RATES = (
    "Adam, 1,000 steps, a new net for each; the running mean of the loss, and beside it what the net has learnt, of "
    f"which the best possible is {CEILING}. One class everywhere has a loss of about 0.5, and an iou of about 0.5 or of 0."
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

TUNING = (
    "The tuning, by the validation loss; 10 epochs, a new net for each. What counts of each is its best validation, as in "
    "a sweep; the last column is of the last one, and the picture shows every one. A net that holds all six classes for "
    "equally likely has a loss of 1.79."
)

OWN = (
    "The report tunes the momentum at the best rate. Here that is {rate}, which has the lowest mean of those that never "
    "diverge. It was chosen with momentum 0.9, which favours that one. The momenta at {rate}, each with the figures of the "
    "test, which do not choose:"
)

OVERFIT = (
    "Of the trainings on two samples {learnt} of {all} reach an iou of {goal}, which is by heart, in 50 steps{trivial}. "
    "The figure that the report goes by does not show it."
)

UNET = f"""## The U-Net report

Its data set, its sizes, two of its momenta, the length of its last training and the optimizer of its overfit are not
known, so these rows show its protocol on other data and cannot be compared. The data are scenes that this project draws
(`data=rgb_demo`), and 54 aerial images of Dubai, which are not part of it. Not only the data differ: crops have {CROP}
pixels a side instead of 320, and an epoch has {EPOCH} steps, because 320 takes hours on a CPU; every rate and momentum
starts with a new net; and the training on two samples is scored on both of them, the report's on one image, which may be
another. `foreground_iou` is what the report prints as IoU: anything but the background against anything but the
background, so a net that gives one class other than the background everywhere scores the foreground's share of the pixels.
The background is the class that a table names so: Ground in the scenes, and in the aerial images Unlabeled, which is about
1 % of the training's pixels, 0.2 % of validation's and 0.3 % of the test's, so that foreground_iou is near 1 there
whatever a net has learnt. iou is the mean over classes.
"""

VERDICTS = (
    "Each by the paired t-test and the 5 % that a sweep ranks its settings with ([statistics](statistics.md)): each "
    "claimed setting beside each of the others, over the seeds, corrected for these pairs (Holm) and no others, as "
    "the conclusions were drawn before our runs. By the measure that the documents use and, where that is another "
    "one, by the iou on validation. Of settings with fewer than five runs nothing is said. A run diverged if its loss "
    "or its weights were no longer finite; one that merely stopped learning did not. A setting of which some runs "
    "diverged is compared by the others, which flatters it, so it may be worse but is not called better; where it "
    "says in how many seeds a setting is better, a run that diverged is behind one that did not. Each line is "
    "corrected for its own comparisons, not for the number of lines. A setting that learns in one run and not in the "
    "next varies so much that the test cannot place it, even where it is behind in every seed."
)

EXPERIMENTS = (
    "Each shown by an experiment (`python -m replication mistakes`). [Sources](sources.md) lists more, and "
    "what is done here."
)

MISTAKES = {
    "one norm for three layers": (
        "One batch norm for three layers",
        "The published module trained with Adam for 1,000 steps. In eval mode its one set of running statistics fits none "
        "of the three layers, and it takes nearly every pixel for the same class, the one or the other. The weights are "
        "good, as statistics for each place show. Class 1 everywhere would score the last row, class 0 everywhere 0:",
        ("scored", "iou of 64 test images", "of each training"),
    ),
    "cross-entropy of one channel": (
        "A cross-entropy that is always 0",
        "Of the published net on a batch of its images:",
        ("figure", "value"),
    ),
    "momentum": (
        'The momentum in "SGD"',
        "Two of the four rows of the comparison are one setting, SGD with momentum 0.9. First how far these two differ. "
        "Then how far two further runs of that setting would, by the spread of ours, and the two of ours that differ most "
        "do:",
        (
            "",
            "between the two printed rows",
            "between two further runs, less in 95 %",
            "between ours, at most",
            "plain SGD",
        ),
    ),
    "not reset between rates": (
        "A net that is not reset between learning rates",
        "SGD with momentum 0.9 on textures of 32 x 32, 100 steps of new images a rate, from left to right; the validation "
        "loss behind each. A net that is not reset starts each rate with what it has learnt before, so the same rate tried "
        "again is better, and which rate leads depends on the order they are tried in:",
        ("net", "first", "second", "third", "leads"),
    ),
    "precision that is none": (
        '"Precision" is a share of confident pixels',
        "Of made-up outputs; half of the true pixels are of class 1:",
        ("output", "published", "precision"),
    ),
    "IoU that ignores classes": (
        "An IoU that ignores which class",
        "Of made-up masks with six classes; where every pixel is wrong, none is of the background:",
        ("predicted against true", "published", "mean over classes"),
    ),
    "map that is thrown away": (
        "A map of 640 x 640 of which three quarters are thrown away",
        "The published head beside one that computes only what is read; multiplications for an image of 320 x 320. "
        "What eight of upconv3's nine taps (4,096 weights) compute is never read; a few other weights have no gradient "
        "because a ReLU in front of them is shut:",
        ("figure", "value"),
    ),
}

ABLATION = (
    "The question that the texture notebook leaves. Each net differs from the published one, with the norm's statistics "
    "put right, in one thing; Adam 0.001, 1,000 steps: `python train.py -m study=ablation seed=0,1,2,3,4`. The published "
    "net is what the others are compared with, by paired t-tests over the seeds, corrected for the number of other nets "
    "(Holm, 5 %): that is the answer; ± is half of the 95 % interval of one difference alone. The learning rate and the "
    "number of steps are those of the published net, so worse means worse with these. The best that any method can reach "
    f"is {CEILING}."
)

ABLATION_RANKED = (
    "Which net is the best was not asked beforehand. Ranked as a sweep is, with all pairs compared, which is the price "
    "of picking the best by the same numbers:"
)

ALL_FIGURES = (
    "What the two documents draw, made here from our own runs and data. The notebook's single curves of 4.3 are lines of "
    "the one for all optimizers; it draws no curve of their losses, and ours is beside."
)

NOT_DRAWN = "not drawn yet"
WAITING = "What is not drawn yet waits for its runs."

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
    "`python -m replication run` trains them all, each as a sweep of its own name that goes on where it was "
    "stopped (`--data-root PATH` names the aerial images); `python -m replication report` then writes this page. "
    "A run counts by its settings, wherever it was trained, and in every study that has them. Ours is the median, and from "
    "the quickest to the slowest where they differ, of all seconds of a run that was neither stopped nor diverged, with "
    "validation and test, two runs at a time on two cores with other work; printed is the training loop alone, on a GPU "
    "that is not named."
)

EXPERIMENT_TIMES = "The experiments on what the documents got wrong took {minutes} min in all, on the same two cores."
