"""The prose of docs/replication.md, around its tables."""

import json

from replication import ROOT
from replication.published import CROP, EPOCH


def _ceiling() -> str:
    """The best possible iou of float32 textures, estimated by the best method and by the genie."""
    measured = json.loads((ROOT / "docs/measured/ceiling.json").read_text(encoding="utf-8"))
    best = {
        method: max(row["iou"] for row in measured["rows"] if (row["method"], row["rounding"]) == (method, "float32"))
        for method in ("image", "genie")
    }
    return (
        f"about 0.999, estimated near {best['image']:.4f} and {best['genie']:.4f} on 32 images ([ceiling](ceiling.md))"
    )


CEILING = _ceiling()

HEAD = """# Replication

The figures that the two documents print, next to ours. [Sources](sources.md) describes the documents and lists their
mistakes.
"""

FOUND_FIGURES = (
    "**Figures of the texture notebook.** Of {all} printed figures, {yes} could be one more run of ours, {no} could not, "
    "and for {unsaid} nothing is concluded. Ten of them come from one training."
)

FOUND_CONCLUSIONS = (
    "**Conclusions.** Of {all} tests of the documents' conclusions, {holds} hold, {fails} do not, and {open} cannot be "
    "told from our runs."
)

FOUND_NORM = (
    "**One batch norm for three layers** ruins the published net in eval mode: iou {shared}. The same weights with "
    "separate statistics for each place: {separate}."
)

FOUND_ZERO = (
    "**Cross-entropy over one channel** is always 0, with a largest gradient of {gradient}: that training learns "
    "nothing."
)

FOUND_IOU = (
    'The report\'s **"IoU"** ignores which class: it scores {score} where every pixel is wrong. Its figures cannot be '
    "compared with ours, because it does not name its data."
)

FOUND_BEST = f"**Test iou** of the notebook's net, Adam at 0.001: {{iou}}. The best possible is {CEILING}."

FOUND_ABLATION = "**Layers.** Of {all} changed nets, better than the published one: {better}; worse: {worse}."

READ = """## How to read this page

`python -m replication report` writes this page from finished runs. No number of ours is typed by hand.

Ours are mean ± sample standard deviation over n seeds. A printed figure comes from one run, so the question is whether it
could be one more run of ours. **within** gives the 95 % prediction interval for one further run, mean ± t · s · √(1 + 1/n),
and whether the printed figure lies in it.

- The interval assumes normally distributed figures; for losses, normally distributed logarithms.
- One of twenty figures that could be ours falls outside by chance.
- "yes" only means that nothing contradicts the figure. That is little if the interval is wide: with five runs it reaches
  three standard deviations to each side.
- These losses and shares cannot exceed 1. An interval that does shows figures that are not normally distributed (one run
  learns and another does not), or too few of them. Then each of our figures is listed and nothing is concluded.
- Nothing is concluded from one seed either.

Our net has the published net's mistakes corrected: each place has its own batch-norm statistics, estimated before each
validation ([sources](sources.md)).

train/... are figures of the training's last step. val/... and test/... are of the checkpoint with the best objective,
in eval mode; test/iou of the textures is over 256 images.
"""

NOT_SHOWN = (
    "Not compared: the values of the one mask that the notebook prints (3.1), because they come from a GPU's random "
    "numbers; the optimizer's entries without effect (foreach, capturable, differentiable, fused; and initial_lr, "
    "which equals lr); and the first training's times after each 1,000 steps, of which only the last is shown, under "
    "Commands and times. The report prints no number of parameters; 282,486 follows from its layers."
)

WIDTHS = (
    "`python -m replication sigma` measures the study's eight pairs with σ = 15 in half a minute, on 32 test images that "
    "have the same masks and noise for every pair. The notebook judges one picture of each by eye. Two areas can be found "
    "by their textures or by the edge between them. **texture**: how often Bayes' rule, which knows the widths, says which "
    "of two patches of 5 x 5 pixels shows texture 1, if the other one shows texture 2; images have 8 bits, like a picture. "
    "0.5 is guessing, and no method that sees only these patches is right noticeably more often. **edge**: the mean step "
    "between neighbouring pixels of a row across the border, divided by the mean step elsewhere; 1 is no edge."
)

FIRST = (
    "Plain SGD at 0.001, 10,000 steps; the mean of the losses of all steps so far. The ten figures come from one "
    "training: if all of them lie within, that is one agreement and not ten."
)

ONE_BATCH = (
    'Section 4.2 prints one more figure, once as "Precision" and once as IoU: the share of confident pixels of a '
    "single training batch. The notebook does not tell which training it comes from, because its cells were not run in "
    "the order shown ([sources](sources.md)): {printed} may come from this one or from one in 4.3, of which SGD with "
    "momentum is nearest. Ours are means over the last 50 training batches: {first} here, {momentum} with momentum. A "
    "mean over 50 batches varies less than a single batch, so there is no answer for within."
)

RATES = (
    "Adam, 1,000 steps, a new net for each rate: the running mean of the loss, and the test/iou that the net reaches. "
    f"The best possible iou is {CEILING}. Predicting one class everywhere has a loss of about 0.5, and an iou of about "
    "0.5 or of 0."
)

OPTIMIZERS = (
    'At 0.001, 1,000 steps. The "precision" is a share of confident pixels, `confident_accuracy` here; both figures '
    "are means since the first step. The last printed row was meant to be plain SGD; the loss of plain SGD after 1,000 "
    "steps is printed for the first training."
)

SGD_RATES = (
    "The notebook says that the two runs of SGD have their best learning rate, but that rate was tuned with Adam. Plain "
    "SGD, which was meant, after 1,000 steps:"
)

STOOD_STILL = (
    "The softmax of one channel is 1, its logarithm is 0, and so is the gradient: the net learns nothing, whatever it "
    "outputs."
)

TUNING = (
    "The tuning by validation loss: 10 epochs, a new net for each setting. As in a sweep, the best validation of a "
    "setting counts; the last column shows its last validation, and the picture shows all of them. A net that gives "
    "all six classes the same probability has a loss of 1.79."
)

OWN = (
    "The report tunes the momentum at the best rate. Here the best rate is {rate}: it has the lowest mean of the rates "
    "that never diverge. It was chosen with momentum 0.9, which favours that momentum. The momenta at {rate}, with "
    "their test figures, which play no part in the choice:"
)

OVERFIT = (
    "{learnt} of {all} trainings on two samples reach an iou of {goal} in 50 steps, which means learnt by "
    "heart{trivial}. The report's own figure does not show that."
)

UNET = f"""## The U-Net report

The report does not name its data set, its sizes, two of its momenta, the length of its last training and the optimizer of
its overfit. So these rows repeat its protocol on other data and cannot be compared with its figures. The data are scenes
that this project draws (`data=rgb_demo`), and 54 aerial images of Dubai, which this project does not contain. More than the
data differs: crops have {CROP} pixels a side instead of 320, and an epoch has {EPOCH} steps, because 320 takes hours on a
CPU; every rate and momentum starts with a new net; and the training on two samples is scored on both samples, the report's
on one image, which may be a different one. The report prints `foreground_iou` as IoU: it only distinguishes background from
anything else, so a net that predicts one class other than the background everywhere scores the foreground's share of the
pixels. The background is the class that the class table declares as background: Ground in the scenes, and Unlabeled in the
aerial images. Unlabeled is about 1 % of the training's pixels, 0.2 % of validation's and 0.3 % of the test's, so
foreground_iou is near 1 there whatever a net has learnt. iou is the mean over classes.
"""

VERDICTS = (
    "Each conclusion is tested by paired t-tests at 5 %, as in a sweep's ranking ([statistics](statistics.md)): each "
    "claimed setting against each of the others, over the seeds. Losses are compared by their logarithms, as in the "
    "intervals above; shares as they are, where a sweep takes their logits. The tests are corrected for these pairs "
    "(Holm) and no others, because the conclusions were drawn before our runs. Each is tested by the document's "
    "measure and, if that is another one, by the iou on validation. Settings with fewer than five runs are not "
    "tested. A run diverged if its loss or its weights were no longer finite; a run that merely stopped learning did "
    "not. A setting with diverged runs is compared by its other runs, which favours it: it can be called worse, but "
    "not better. In the number of seeds in which a setting is better, a diverged run is behind one that did not "
    "diverge. Each line is corrected for its own comparisons, not for the number of lines. A setting that learns in "
    "one run and not in the next varies so much that the test cannot place it, even if it is behind in every seed."
)

OTHER_VERDICTS = (
    "Some conclusions are not about the settings of one study:",
    "",
    "- **Widths**: pairs of widths take the place of settings, images that of seeds. The pair further from σ against the "
    "next one nearer to it, and at each σ₁ the larger difference against the smaller.",
    "- **The first training**: Adam at 0.001 trains the same net for a tenth of the steps; it should be better.",
    "- **Over 85 %**: the trainings on two samples should be better than 0.85 with either momentum, on these samples.",
    "- **The model works**: the last training should be better on the test images than predicting everywhere the class "
    "that is most frequent in training (`python benchmarks/folder_baselines.py PATH`).",
)

RAW_LOSSES = "Without logarithms these lines on losses would have another answer: {lines}."

EXPERIMENTS = (
    "Each mistake is shown by an experiment (`python -m replication mistakes`). [Sources](sources.md) lists more, and "
    "what this project does instead."
)

MISTAKES = {
    "one norm for three layers": (
        "One batch norm for three layers",
        "The published module, trained with Adam for 1,000 steps. In eval mode its only set of running statistics fits "
        "none of the three layers, and it predicts the same class for nearly every pixel. Separate statistics for each "
        "place show that the weights are good. Class 1 everywhere scores the last row, class 0 everywhere scores 0:",
        ("scored", "iou of 64 test images", "of each training"),
    ),
    "cross-entropy of one channel": (
        "A cross-entropy that is always 0",
        "The published net on a batch of its images:",
        ("figure", "value"),
    ),
    "momentum": (
        'The momentum in "SGD"',
        "Two of the four rows of the comparison are the same setting, SGD with momentum 0.9. The table shows the "
        "difference of these two rows, the one to expect between two further runs, and the largest one between ours:",
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
        "SGD with momentum 0.9 on textures of 32 x 32: 100 steps of new images for each rate, from left to right, and "
        "the validation loss after each. A net that is not reset keeps what it has learnt with the earlier rates. So "
        "the same rate is better the second time, and the order decides which rate leads:",
        ("net", "first", "second", "third", "leads"),
    ),
    "precision that is none": (
        '"Precision" is a share of confident pixels',
        "Made-up outputs; half of the true pixels belong to class 1:",
        ("output", "published", "precision"),
    ),
    "IoU that ignores classes": (
        "An IoU that ignores which class",
        "Made-up masks with six classes; if every pixel is wrong, none belongs to the background:",
        ("predicted against true", "published", "mean over classes"),
    ),
    "map that is thrown away": (
        "Three quarters of a 640 x 640 map are thrown away",
        "The published head, and one that computes only the values that are read; multiplications for an image of 320 "
        "x 320. The results of eight of upconv3's nine taps (4,096 weights) are never read; a few other weights have "
        "no gradient because the ReLU before them outputs 0:",
        ("figure", "value"),
    ),
}

ABLATION = (
    "The texture notebook's open question. Each net differs in one thing from the published one with corrected "
    "batch-norm statistics; Adam 0.001, 1,000 steps: `python train.py -m study=ablation seed=0,1,2,3,4`. Paired "
    "t-tests over the seeds compare each net with the published one, corrected for the number of other nets (Holm, 5 "
    "%); they give the answer. ± is half of the 95 % interval of one difference alone. The learning rate and the "
    f"number of steps are those of the published net, so worse means worse with these. The best that any method can "
    f"reach is {CEILING}."
)

ABLATION_RANKED = (
    "Which net is the best was not asked beforehand. Picking the best by the same numbers means comparing all pairs, "
    "as in a sweep's ranking:"
)

ALL_FIGURES = (
    "The two documents' figures, made here from our own runs and data. The notebook's single curves of 4.3 are lines "
    "in our figure of all optimizers; the notebook does not draw the losses of the optimizers, our figure does."
)

NOT_DRAWN = "not drawn yet"
WAITING = "Figures that are not drawn yet wait for their runs."

NO_PICTURE = "the GRAPHS tab of TensorBoard, of every run"

FIGURES = (
    ("notebook 3.1", "an image beside its mask", "texture_pair.png"),
    ("notebook 3.2", "one mask under eight pairs of widths (`python -m replication sigma`)", "sigma_study.png"),
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
    "`python -m replication run` trains all of them, each as a named sweep that resumes if it was stopped "
    "(`--data-root PATH` names the aerial images); `python -m replication report` then writes this page. A run is "
    "found by its settings, in any folder, and counts for every study with these settings. Ours is the median of a "
    "run's seconds, validation and test included, followed by the range if the slowest took over 1.5 times as long as "
    "the quickest. It leaves out runs that were interrupted or diverged; two runs shared two cores with other work. "
    "Printed is the training loop alone, on an unnamed GPU."
)

EXPERIMENT_TIMES = "The experiments on the documents' mistakes took {minutes} min in all, on the same two cores."
