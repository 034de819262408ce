"""What neighbours of the test patches among the training patches are worth: trainings in pairs, with them and without.

    python benchmarks/leak.py PATH OUT --json docs/measured/leak.json --page docs/results.md
    python benchmarks/leak.py PATH OUT --models unet,residual_unet_deep --steps 300 --tiles "Tile 1,Tile 6" --seeds 0,1,2

PATH is a folder of the Dubai tiles; for another folder of tiles add its settings as for train.py. Images are cut into
patches in OUT, which also gets the runs. Of each held-out tile, `leaking_patches.divide` takes every second patch as test.
Both trainings of a pair have the same net, seed, steps, number of training patches and test patches. They validate once,
after the last step, so no checkpoint is chosen. `colour` is the colour classifier of folder_baselines.py.

FILE is written as each training ends. The same command goes on where it was stopped, within a training too; other models,
steps, tiles and seeds add to FILE.
"""

import argparse
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from folder_baselines import colour_classifier, opened, score, scored_samples
from leaking_patches import Division, cut_folder, divide
from measure import put_in
from omegaconf import OmegaConf

from segsweep.console import mistakes_in_one_line, quoted
from segsweep.data.finding import require_pairs, scan
from segsweep.errors import Interrupted
from segsweep.runs.files import write_json, write_text
from segsweep.runs.stored import read_json
from segsweep.sweeps.statistics import standard_error, t_quantile
from segsweep.training import train

COLOUR, BINS = "colour", 32
"""The colour classifier in `--models`, and its bins a channel."""
CASE = ("model", "steps", "tile", "seed", "neighbours")
"""What tells trainings apart; those of a pair differ in the last."""


def trained(case: dict[str, Any], division: Division, patches: Path, out: Path, settings: list[str]) -> dict[str, Any]:
    """Trains one case, or goes on with its run, and scores it on the test patches.

    Args:
        case: the values of `CASE`.
        division: of its tile and seed.
        patches: the folder of all patches.
        out: gets lists of patches and runs.
        settings: as for train.py.
    """
    arm = "with" if case["neighbours"] else "without"
    lists = {"train": division.train[case["neighbours"]], "val": division.val, "test": division.test}
    typed = [*settings, f"seed={case['seed']}", "data.split=lists"]
    for part, names in lists.items():
        path = out.absolute() / f"lists/{case['tile']}, seed {case['seed']}, {arm}, {part}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "\n".join(names) + "\n")
        typed.append(quoted(f"data.{part}", [path]))
    sizes = {f"{part}_patches": len(names) for part, names in lists.items()}
    if case["model"] == COLOUR:
        with opened(str(patches), typed) as (_, source):
            predict = colour_classifier(source.arrays("train"), len(source.labels), source.channels, BINS)
            return case | sizes | {"test": score(predict, scored_samples(source), source.labels)}
    steps = case["steps"]
    typed += [f"model={case['model']}", f"trainer.max_steps={steps}", f"trainer.val_every_n_steps={steps}"]
    name = ", ".join([case["model"].replace("/", "-"), f"{steps} steps", case["tile"], f"seed {case['seed']}", arm])
    with opened(str(patches), typed) as (node, _):
        run = train(OmegaConf.create(node), out / "runs" / name, typed, resume=None)
    metrics = {key.removeprefix("test/"): value for key, value in run.metrics.items() if key.startswith("test/")}
    about = {key: getattr(run, key) for key in ("parameters", "seconds", "device", "precision")}
    return case | sizes | {"test": metrics, "train_iou": run.metrics["train/iou"]} | about


def pairs(content: dict[str, Any]) -> pd.DataFrame:
    """A row for each complete pair, indexed by model, steps, tile and seed.

    Returns:
        Columns in twos, as "iou without" and "iou with": `iou` and `accuracy` on the test patches, `learnt`, the iou on the
        last training crops, and `shared`, the number of test patches for each training patch.
    """
    rows = [
        {key: entry[key] for key in CASE}
        | {key: entry["test"][key] for key in ("iou", "accuracy")}
        | {"learnt": entry.get("train_iou"), "shared": entry["test_patches"] / entry["train_patches"]}
        for entry in content["trainings"]
    ]
    frame = pd.DataFrame(rows, columns=[*CASE, "iou", "accuracy", "learnt", "shared"]).astype({"learnt": float})
    arms = [
        frame[frame["neighbours"] == arm].drop(columns="neighbours").set_index(list(CASE[:4])) for arm in (False, True)
    ]
    return arms[0].merge(arms[1], left_index=True, right_index=True, suffixes=(" without", " with"))


def section(content: dict[str, Any]) -> str:
    """Two tables in Markdown: each net over the held-out tiles, and each tile with every net.

    The seeds of a tile are averaged first. The interval of the mean difference is a paired t-interval over tiles, with the
    variance of Nadeau and Bengio, because the trainings of two tiles share most of their patches.
    """
    found = pairs(content)
    if found.empty:
        return "No pair of trainings is complete yet.\n"
    rows, each = [], {}
    for (model, steps), own in found.groupby(level=["model", "steps"], sort=False):
        tiles = own.groupby(level="tile", sort=False).mean()
        difference = (tiles["iou with"] - tiles["iou without"]).to_numpy()
        mean, interval = difference.mean(), ""
        if len(tiles) > 1:
            half = t_quantile(len(tiles)) * standard_error(difference, float(tiles["shared with"].mean()))
            interval = f"{mean - half:+.3f} to {mean + half:+.3f}"
        shown = {name: "" if pd.isna(value) else f"{value:.3f}" for name, value in tiles.mean().items()}
        name = f"{model}, {steps:,} steps" if steps else f"colour classifier, {BINS} bins a channel"
        rows.append(
            [
                name, str(len(tiles)), str(len(own)), shown["iou without"], shown["iou with"], f"{mean:+.3f}", interval,
                shown["accuracy without"], shown["accuracy with"], shown["learnt without"], shown["learnt with"],
            ]
        )  # fmt: skip
        each[name] = {tile: f"{row['iou without']:.3f}, {row['iou with']:.3f}" for tile, row in tiles.iterrows()}
    patches = {
        entry["tile"]: [str(entry["test_patches"]), str(entry["train_patches"])] for entry in content["trainings"]
    }
    held = [tile for tile in patches if any(tile in cells for cells in each.values())]
    header = [
        "", "tiles", "pairs", "iou without neighbours", "iou with", "difference", "95 % interval", "accuracy without",
        "accuracy with", "iou on its training crops without", "with",
    ]  # fmt: skip
    return "\n".join(
        [
            *table(header, rows), "", "By held-out tile, the iou without and with neighbours:", "",
            *table(
                ["tile", "test patches", "training patches", *each],
                [[tile, *patches[tile], *(cells.get(tile, "") for cells in each.values())] for tile in held],
            ), "",
        ]
    )  # fmt: skip


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows]]


def listed(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="images and masks in a folder for each tile")
    parser.add_argument("out", type=Path, help="folder for patches and runs")
    parser.add_argument("settings", nargs="*", help="settings as for train.py")
    parser.add_argument("--models", type=listed, default=[COLOUR, "unet", "residual_unet_deep"], metavar="NAMES")
    parser.add_argument("--steps", type=int, default=1500, help="optimizer steps of each training (default 1500)")
    parser.add_argument("--tiles", type=listed, metavar="NAMES", help="tiles to hold out (default: each in turn)")
    parser.add_argument("--seeds", type=listed, default=["0"], metavar="NUMBERS", help="seeds (default 0)")
    parser.add_argument("--size", type=int, default=256, help="height and width of a patch in pixels (default 256)")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the results to FILE, or add to those there"
    )
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="also put the tables into this page, between its marks"
    )
    options = parser.parse_intermixed_args()  # settings may stand at the end
    content: dict[str, Any] = {
        "benchmark": "leak", "patch": options.size, "settings": options.settings, "trainings": [],
    }  # fmt: skip
    if options.json and options.json.exists():
        stored = read_json(options.json)
        if any(stored[key] != content[key] for key in ("patch", "settings")):
            had = f"--size {stored['patch']} {' '.join(stored['settings'])}".rstrip()
            raise SystemExit(f"{options.json}: has trainings with {had}; give the same, or another FILE")
        content = stored
    try:
        with mistakes_in_one_line():
            run(options, content)
    except (Interrupted, KeyboardInterrupt):
        raise SystemExit("stopped; the same command goes on") from None
    print(section(content))


def run(options: argparse.Namespace, content: dict[str, Any]) -> None:
    """Trains the cases that `content` lacks; adds each to it, and writes it, as the training ends."""
    patches = options.out / f"patches_{options.size}"
    if not patches.exists():
        cut_folder(options.folder, patches, options.size)
    names = [pair.name for pair in require_pairs(scan(patches))]
    tiles = sorted({name.partition("/")[0] for name in names})
    if unknown := set(options.tiles or ()) - set(tiles):
        raise SystemExit(f"--tiles {','.join(sorted(unknown))}: there are {', '.join(tiles)}")
    write(options, content)  # a page without marks is refused before anything is trained
    done = [[entry[key] for key in CASE] for entry in content["trainings"]]
    for seed, model, tile, neighbours in product(options.seeds, options.models, options.tiles or tiles, (False, True)):
        values = [model, 0 if model == COLOUR else options.steps, tile, int(seed), neighbours]
        if values not in done:
            division = divide(names, tile, options.size, int(seed))
            case = dict(zip(CASE, values, strict=True))
            entry = trained(case, division, patches, options.out, options.settings)
            print(
                ", ".join(f"{key} {case[key]}" for key in CASE), f"iou {entry['test']['iou']:.4f}", sep=": ", flush=True
            )
            content["trainings"].append(entry)
            write(options, content)


def write(options: argparse.Namespace, content: dict[str, Any]) -> None:
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.json, content)
    if options.page:
        put_in(options.page, "leak", section(content))


if __name__ == "__main__":
    main()
