"""Groups of jobs that were scored on the same images, from made-up settings."""

import itertools
from typing import Any

import pytest
from sweep_support import Sweep

from segsweep.data import SOURCES
from segsweep.fingerprint import typed
from segsweep.sweeps.plan import broken_job
from segsweep.sweeps.scored import Scoring, scored_settings, scoring
from segsweep.sweeps.state import Job, SweepRecord

FOLDER, TEXTURES = "segsweep.data.FolderSource", "segsweep.data.Textures"


def record(
    axes: dict[str, list[Any]], settings: dict[str, Any], objective: str = "val/iou", **follow: Any
) -> SweepRecord:
    """A sweep over a grid. `follow` has settings that are functions of the swept values; `__` stands for a dot."""
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
def test_a_setting_that_changes_the_scored_images_makes_groups_and_is_named(key: str):
    found = groups(record({key: [1, 2], "lr": [0.1, 0.2], "seed": [0, 1]}, {"data._target_": FOLDER}))
    assert partition(found) == [0] * 4 + [1] * 4
    assert found.axes == (key,)
    assert found.why.startswith(f"{key} may change the images")
    assert set(found.group.values()) == {f"{key}=1", f"{key}=2"}


@pytest.mark.parametrize(
    ("source", "key"),
    [
        (FOLDER, "data.image_size"), (FOLDER, "data.batch_size"), (FOLDER, "data.flips"), (FOLDER, "lr"),
        (FOLDER, "loss._target_"), (TEXTURES, "data.samples_per_epoch"), (TEXTURES, "data.test_size"),
        ("mine.Own", "data.seed"),
    ],
)  # fmt: skip
def test_a_setting_that_changes_only_the_training_makes_no_groups(source: str, key: str):
    found = groups(record({key: [1, 2], "seed": [0, 1]}, {"data._target_": source}))
    assert partition(found) == [0] * 4
    assert (found.axes, found.why) == ((), "")


@pytest.mark.parametrize(
    "key", ["data.image_size", "data.sigma1", "data.eval_seed", "data.val_size", "data.limit_samples"]
)
def test_any_setting_of_the_textures_makes_groups(key: str):
    assert partition(groups(record({key: [1, 2]}, {"data._target_": TEXTURES}))) == [0, 1]


def test_a_setting_that_a_source_does_not_declare_harmless_makes_groups():
    assert partition(groups(record({"data.crop": [1, 2]}, {"data._target_": "mine.Own"}))) == [0, 1]


def test_every_setting_that_a_source_declares_harmless_exists():
    import inspect

    for source in SOURCES.values():
        known = {name for kind in source.__mro__ if kind.__module__.startswith("segsweep")
                 for name in inspect.signature(kind).parameters}  # fmt: skip
        assert source.unscored <= known


def test_in_an_overfit_check_settings_of_the_training_crops_make_groups():
    settings = {"data._target_": FOLDER, "data.overfit_samples": 2}
    assert partition(groups(record({"data.image_size": [32, 64]}, settings))) == [0, 1]


def test_a_setting_that_follows_the_seed_makes_no_groups():
    axes = {"lr": [0.1, 0.2], "seed": [0, 1]}
    assert not groups(record(axes, {"data._target_": FOLDER}, data__split_seed=lambda own: own["seed"])).why


def test_folders_are_grouped_by_content_and_named_by_path():
    contents = {"a": "x", "copy of a": "x", "b": "y"}
    sweep = record(
        {"data.root": list(contents)}, {"data._target_": FOLDER}, data__content=lambda own: contents[own["data.root"]]
    )
    for job in sweep.jobs:  # the path of a folder does not count
        del job.scored["data.root"]
    found = groups(sweep)
    assert partition(found) == [0, 0, 1]
    assert list(found.group.values()) == ["data.root=a,copy of a"] * 2 + ["data.root=b"]


def test_only_the_axis_that_makes_groups_is_named():
    sweep = record(
        {"experiment": ["texture", "other", "scenes"], "lr": [0.1, 0.2]}, {},
        data___target_=lambda own: FOLDER if own["experiment"] == "scenes" else TEXTURES,
    )  # fmt: skip
    found = groups(sweep)
    assert partition(found) == [0, 0, 0, 0, 1, 1]
    assert found.axes == ("experiment",)


def test_groups_have_different_names_if_the_jobs_form_no_grid():
    sweep = record({"data.split_seed": [0, 1], "data.by": ["a", "b"], "lr": [0.1]}, {"data._target_": FOLDER})
    for kept in itertools.combinations(sweep.jobs, 3):
        found = scoring(sweep, kept)
        assert len(set(found.group.values())) == 3


def test_different_losses_make_groups_if_val_loss_is_the_objective():
    axes = {"loss.smooth": [0.0, 1.0]}
    assert partition(groups(record(axes, {}, "val/loss"))) == [0, 1]
    assert "loss.smooth" in groups(record(axes, {}, "val/loss")).why
    assert "val/loss" in groups(record(axes, {}, "val/loss")).why
    assert partition(groups(record(axes, {}, "val/iou"))) == [0, 0]


def test_a_job_that_cannot_be_composed_makes_no_group_and_joins_one_by_its_values():
    sweep = record({"data.split_seed": [0, 1], "optim": ["adam"]}, {"data._target_": FOLDER})
    sweep.jobs.append(broken_job(["data.split_seed=1", "optim=admm"], sweep.axes, "no such choice"))
    sweep.jobs[-1].directory = "broken"
    assert partition(groups(sweep)) == [0, 1, 1]
    lr = record({"lr": [0.1]}, {"data._target_": FOLDER})
    lr.jobs.append(broken_job(["lr=no"], lr.axes, "lr=no"))
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
