"""Which jobs of a sweep were scored on the same images, by settings made up here."""

import itertools
from typing import Any

import pytest
from sweep_support import Sweep

from segsweep.data import SOURCES
from segsweep.fingerprint import typed
from segsweep.sweeps.plan import broken
from segsweep.sweeps.scored import Scoring, scored_settings, scoring
from segsweep.sweeps.state import Job, SweepRecord

FOLDER, TEXTURES = "segsweep.data.FolderSource", "segsweep.data.Textures"


def record(
    axes: dict[str, list[Any]], settings: dict[str, Any], objective: str = "val/iou", **follow: Any
) -> SweepRecord:
    """A grid; `follow` are settings as functions of a job's values."""
    jobs = []
    for number, values in enumerate(itertools.product(*axes.values())):
        own = dict(zip(axes, values, strict=True))
        full = {"seed": 0, **settings, **own} | {key.replace("__", "."): by(own) for key, by in follow.items()}
        name = ",".join(f"{key}={typed(value)}" for key, value in own.items())
        jobs.append(Job(f"{number:012d}", number, [], name, own, full, scored=scored_settings(full, objective)))
    return SweepRecord([], {"name": objective, "mode": "max"}, jobs, list(axes))


def groups(sweep: SweepRecord) -> Scoring:
    return scoring(sweep, sweep.jobs)


def partition(found: Scoring) -> list[int]:
    order = list(dict.fromkeys(found.group.values()))
    return [order.index(name) for name in found.group.values()]


@pytest.mark.parametrize(
    "key", ["data.split_seed", "data.fractions", "data.ignore_ids", "data.tile_size", "data.mystery"]
)
def test_what_changes_the_scored_images_parts_jobs_and_is_named(key: str):
    found = groups(record({key: [1, 2], "lr": [0.1, 0.2], "seed": [0, 1]}, {"data._target_": FOLDER}))
    assert partition(found) == [0] * 4 + [1] * 4
    assert found.axes == (key,)
    assert found.why == f"{key} may change the images that are scored: each group is ranked alone"
    assert set(found.group.values()) == {f"{key}=1", f"{key}=2"}


@pytest.mark.parametrize(
    ("source", "key"),
    [
        (FOLDER, "data.image_size"), (FOLDER, "data.batch_size"), (FOLDER, "data.flips"), (FOLDER, "lr"),
        (FOLDER, "loss._target_"), (TEXTURES, "data.samples_per_epoch"), (TEXTURES, "data.test_size"),
        ("mine.Own", "data.seed"),
    ],
)  # fmt: skip
def test_what_changes_training_alone_parts_nothing(source: str, key: str):
    found = groups(record({key: [1, 2], "seed": [0, 1]}, {"data._target_": source}))
    assert partition(found) == [0] * 4
    assert (found.axes, found.why) == ((), "")


@pytest.mark.parametrize(
    "key", ["data.image_size", "data.sigma1", "data.eval_seed", "data.val_size", "data.limit_samples"]
)
def test_textures_are_other_images_by_any_of_their_settings(key: str):
    assert partition(groups(record({key: [1, 2]}, {"data._target_": TEXTURES}))) == [0, 1]


def test_a_setting_that_a_source_does_not_declare_counts():
    assert partition(groups(record({"data.crop": [1, 2]}, {"data._target_": "mine.Own"}))) == [0, 1]


def test_every_setting_that_is_declared_is_one_of_its_source():
    import inspect

    for source in SOURCES.values():
        known = {name for kind in source.__mro__ if kind.__module__.startswith("segsweep")
                 for name in inspect.signature(kind).parameters}  # fmt: skip
        assert source.unscored <= known


def test_in_an_overfit_check_training_crops_are_what_is_scored():
    settings = {"data._target_": FOLDER, "data.overfit_samples": 2}
    assert partition(groups(record({"data.image_size": [32, 64]}, settings))) == [0, 1]


def test_what_follows_the_seed_parts_nothing():
    axes = {"lr": [0.1, 0.2], "seed": [0, 1]}
    assert not groups(record(axes, {"data._target_": FOLDER}, data__split_seed=lambda own: own["seed"])).why


def test_a_folder_counts_by_its_content_and_is_named_as_typed():
    contents = {"a": "x", "copy of a": "x", "b": "y"}
    sweep = record(
        {"data.root": list(contents)}, {"data._target_": FOLDER}, data__content=lambda own: contents[own["data.root"]]
    )
    for job in sweep.jobs:  # where a folder lies is none of the settings that count
        del job.scored["data.root"]
    found = groups(sweep)
    assert partition(found) == [0, 0, 1]
    assert list(found.group.values()) == ["data.root=a,copy of a"] * 2 + ["data.root=b"]


def test_only_the_axis_that_parts_is_named():
    sweep = record(
        {"experiment": ["texture", "other", "scenes"], "lr": [0.1, 0.2]}, {},
        data___target_=lambda own: FOLDER if own["experiment"] == "scenes" else TEXTURES,
    )  # fmt: skip
    found = groups(sweep)
    assert partition(found) == [0, 0, 0, 0, 1, 1]
    assert found.axes == ("experiment",)


def test_groups_have_names_of_their_own_where_jobs_are_no_grid():
    sweep = record({"data.split_seed": [0, 1], "data.by": ["a", "b"], "lr": [0.1]}, {"data._target_": FOLDER})
    for kept in itertools.combinations(sweep.jobs, 3):
        found = scoring(sweep, kept)
        assert len(set(found.group.values())) == 3


def test_losses_are_not_ranked_by_themselves():
    axes = {"loss.smooth": [0.0, 1.0]}
    assert partition(groups(record(axes, {}, "val/loss"))) == [0, 1]
    assert "what val/loss is" in groups(record(axes, {}, "val/loss")).why
    assert partition(groups(record(axes, {}, "val/iou"))) == [0, 0]


def test_a_job_that_cannot_be_composed_parts_nothing_and_is_in_its_group():
    sweep = record({"data.split_seed": [0, 1], "optim": ["adam"]}, {"data._target_": FOLDER})
    sweep.jobs.append(broken(["data.split_seed=1", "optim=admm"], sweep.axes, "no such choice"))
    sweep.jobs[-1].directory = "broken"
    assert partition(groups(sweep)) == [0, 1, 1]
    lr = record({"lr": [0.1]}, {"data._target_": FOLDER})
    lr.jobs.append(broken(["lr=no"], lr.axes, "lr=no"))
    assert not groups(lr).why


def test_groups_survive_sweep_json():
    sweep = record({"data.split_seed": [0, 1], "lr": [0.1, 0.2]}, {"data._target_": FOLDER, "data.snap": None})
    assert groups(SweepRecord.from_dict(sweep.to_dict())) == groups(sweep)


@pytest.mark.parametrize("search", ["hydra/sweeper=coordinate", 'hydra.sweeper.final=["seed=9"]'])
def test_an_axis_that_changes_the_scored_images_is_not_searched(sweep: Sweep, tmp_path, search: str):
    outcome = sweep("lr=0.1,0.2", "data.sigma2=1.0,1.2", search, "name=refused")
    assert outcome.code == 1
    (error,) = outcome.error_lines
    assert error.startswith("error: data.sigma2: ")
    assert not (tmp_path / "multirun/refused").exists()
