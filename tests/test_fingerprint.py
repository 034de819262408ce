"""Two trainings are the same job exactly when their results are the same."""

import functools
import shutil
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from support import ROOT

from segsweep import cli  # noqa: F401  (registers the resolvers that the configuration needs)
from segsweep.data.demo import write_demo_folder
from segsweep.errors import UserError
from segsweep.fingerprint import differences, flatten, folder_digest, job_key, result_settings
from segsweep.instantiate import to_plain

# Settings that do not affect the result. A new setting that is neither here nor in the key fails the test below: decide
# which it is.
HARMLESS = {
    "name", "resume", "on_error",
    "code",  # counts if it defines a target
    "experiment", "study", "debug",  # the settings that they override count
    "data.num_workers", "data.cache", "data.cache_dir", "data.cache_gib",
    "data.root", "init",  # their contents count
    "trainer._target_", "trainer.accelerator", "trainer.strategy", "trainer.threads", "trainer.log_every_n_steps",
    "trainer.progress_bar", "trainer.profile",
    "callbacks.last_checkpoint._target_", "callbacks.last_checkpoint.every_n_steps",
    "callbacks.last_checkpoint.every_n_minutes",
    "callbacks.panel._target_", "callbacks.panel.samples", "callbacks.graph._target_", "callbacks.confusion._target_",
    "callbacks.precision_recall._target_",
    "logger.tensorboard",
}  # fmt: skip


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    write_demo_folder(folder, scenes=(2, 1, 1), size=32)
    return folder


@functools.cache
def composed(*overrides: str) -> dict:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return to_plain(compose("train", overrides=list(overrides)))


def key(*overrides: str) -> str:
    return job_key(result_settings(composed(*overrides)))


def replaced(settings: dict, name: str, value: object) -> dict:
    """A copy of `settings` with the key `name` set to `value`."""
    head, _, rest = name.partition(".")
    return settings | {head: replaced(settings.get(head) or {}, rest, value) if rest else value}


@pytest.mark.parametrize("source", ["textures", "folder", "rgb_demo"])
@pytest.mark.parametrize("more", [[], ["scheduler=onecycle", "optim=sgd", "momentum=0.9"], ["loss=dice"]])
def test_every_setting_is_in_the_key_or_known_to_be_harmless(source: str, more: list[str], scenes: Path):
    overrides = [f"data={source}", *more] + ([f"data.root={scenes}"] if source != "textures" else [])
    settings = composed(*overrides)
    before = job_key(result_settings(settings))
    for name in flatten(settings):
        if name == "data.root":
            continue  # moved and changed below
        changed = job_key(result_settings(replaced(settings, name, "something else")))
        assert (changed == before) == (name in HARMLESS), name


def test_what_is_added_to_a_group_that_counts_is_in_the_key():
    before = composed()
    for name in ("data.new", "model.new", "loss.new", "optim.new", "scheduler.new", "callbacks.new._target_"):
        assert job_key(result_settings(replaced(before, name, 1))) != job_key(result_settings(before)), name


@pytest.mark.parametrize(
    "overrides",
    [
        ["trainer=cpu"], ["trainer=gpu"], ["trainer.accelerator=cpu"], ["data.num_workers=3"],
        ["trainer.progress_bar=false"], ["logger=csv"], ["trainer.log_every_n_steps=7"], ["trainer.profile=true"],
        ["callbacks.panel=null", "callbacks.graph=null", "callbacks.confusion=null"], ["callbacks.panel.samples=1"],
        ["callbacks.last_checkpoint.every_n_steps=1", "callbacks.last_checkpoint.every_n_minutes=null"],
        ["name=a"], ["on_error=stop"], ["hydra.run.dir=elsewhere"], ["hydra.sweep.dir=elsewhere"],
        ["lr=0.0010"], ["lr=1e-3"], ["optim=adam"], ["optim.lr=0.001"], ["data.seed=0"], ["scheduler=none"],
        ["model=texture_cnn"], ["data.smoothing=1"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_device_workers_paths_logging_and_defaults_do_not_change_the_key(overrides: list[str]):
    assert key(*overrides) == key()


@pytest.mark.parametrize(
    "override",
    [
        "lr=0.002", "momentum=0.5", "momentum=0", "seed=1", "objective=val/loss", "optim=sgd", "optim=adamw",
        "scheduler=cosine", "loss=mse", "loss=bce", "model=unet", "model.channels=8", "data.batch_size=4",
        "data.image_size=64", "data.sigma1=[0.1,0.2]", "data.eval_seed=1", "data.test_size=8", "data.overfit_samples=2",
        "trainer.max_steps=999", "trainer.max_epochs=3", "trainer.precision=bf16-mixed", "trainer.gradient_clip_val=1",
        "trainer.val_every_n_steps=5", "trainer.test=false", "trainer.channels_last=false", "trainer.compile=true",
        "trainer.devices=2", "callbacks.precise_bn.batches=2", "callbacks.precise_bn=null",
        "+callbacks.mine._target_=mine.Callback",
    ],
)  # fmt: skip
def test_what_a_result_depends_on_changes_the_key(override: str):
    # `loss=default_for_textures` is a name for one of the losses.
    default = composed()["loss"]["_target_"].rsplit(".", 1)[-1].lower()
    if override == f"loss={default}":
        assert key(override) == key()
    else:
        assert key(override) != key()


def test_the_order_of_overrides_and_of_keys_does_not_matter():
    assert key("lr=0.1", "optim=sgd") == key("optim=sgd", "lr=0.1")
    settings = result_settings(composed())
    assert job_key(dict(reversed(settings.items()))) == job_key(settings)


@pytest.mark.slow
def test_no_two_settings_of_a_grid_share_a_key():
    keys = [
        key(f"optim={optim}", f"lr={lr}", f"momentum={momentum}", f"seed={seed}")
        for optim in ("sgd", "adam", "rmsprop") for lr in (0.1, 0.01) for momentum in (0, 0.9, "null") for seed in (0, 1)
    ]  # fmt: skip
    assert len(set(keys)) == len(keys)


def test_a_moved_folder_is_the_same_data_and_one_changed_byte_another(scenes: Path, tmp_path: Path):
    moved = tmp_path / "elsewhere" / "my scenes=1, really"
    shutil.copytree(scenes, moved)

    def now(root: Path) -> str:
        return job_key(result_settings(replaced(composed("data=folder", "data.root=x"), "data.root", str(root))))

    before = now(scenes)
    assert now(moved) == before
    (moved / ".DS_Store").write_bytes(b"x")
    (moved / ".cache").mkdir()
    (moved / ".cache/some").write_bytes(b"x")
    assert now(moved) == before
    for name in ("outputs/2026-01-01/10-00-00/run.json", "multirun/first/sweep.json"):
        (moved / name).parent.mkdir(parents=True)
        (moved / name).write_text("{}")
        (moved / name).with_name("train.log").write_text("written by a run in the folder")
    assert now(moved) == before
    mask = min((moved / "train/masks").iterdir())
    content = mask.read_bytes()
    mask.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert now(moved) != before
    mask.write_bytes(content)
    assert now(moved) == before
    mask.rename(mask.with_name("renamed.png"))
    assert now(moved) != before


def test_the_relative_way_to_a_folder_does_not_matter(scenes: Path, monkeypatch: pytest.MonkeyPatch):
    before = key("data=folder", f"data.root={scenes}")
    monkeypatch.chdir(scenes.parent)
    assert key("data=folder", "data.root=scenes") == before


def test_a_class_table_and_split_lists_count_by_their_content(scenes: Path, tmp_path: Path):
    table = tmp_path / "classes.csv"
    shutil.copy(scenes / "classes.csv", table)
    overrides = ["data=folder", f"data.root={scenes}", f"data.labels={table}"]
    before = key(*overrides)
    other = tmp_path / "other.csv"
    table.rename(other)
    assert key(*overrides[:2], f"data.labels={other}") == before
    other.write_text(other.read_text().replace("Ground", "Soil"))
    assert key(*overrides[:2], f"data.labels={other}") != before


def test_a_folder_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"data\.root=.*nowhere: no such folder"):
        key("data=folder", f"data.root={tmp_path}/nowhere")
    with pytest.raises(UserError, match="no such folder"):
        folder_digest(tmp_path / "nowhere")


def test_a_newer_setting_that_changes_nothing_leaves_every_key_as_it_was(scenes: Path):
    for overrides in ((), ("loss=bce",), ("loss=dice",), ("data=folder", f"data.root={scenes}", "loss=bce_dice")):
        now = composed(*overrides)
        data, model, loss = now["data"], now["model"], now["loss"]
        before = replaced(
            now, "data", {key: data[key] for key in data if key not in ("limit_samples", "bands", "task")}
        )
        before = replaced(before, "model", {k: model[k] for k in model if k not in ("blocks", "residual", "dilation")})
        before = replaced(before, "loss", {key: loss[key] for key in loss if key != "weights"})
        if "white" in data:
            before = replaced(before, "data.white", 65535)
        assert result_settings(now) == result_settings(before)
        # The same for the settings stored in sweep.json.
        assert job_key(flatten(now)) == job_key(flatten(before))
        assert differences(flatten(now), flatten(before)) == {}
        for key, value in (
            ("data.limit_samples", 4),
            ("data.white", 4095),
            ("data.bands", [0, 1, 2]),
            ("data.task", "binary"),
            ("loss.weights", "balanced"),
        ):
            if key in flatten(now):
                changed = result_settings(replaced(now, key, value))
                assert set(differences(result_settings(before), changed)) == {key}


def test_whole_numbers_are_equal_however_they_are_typed_and_nothing_else_is():
    assert job_key({"lr": 1}) == job_key({"lr": 1.0})
    values = [1, True, "1", "1.0", None, 0, False, "null", "", 1.5, "[1]", float("nan"), float("inf")]
    assert len({job_key({"lr": value}) for value in values}) == len(values)
    assert job_key({}) != job_key({"lr": None})
    assert len(job_key({"lr": 1})) == 12
    int(job_key({"lr": 1}), 16)


def test_differences_name_each_key_with_both_values():
    before = {"lr": 0.1, "seed": 0, "momentum": None, "loss": "mse", "same": 1}
    now = {"lr": 0.2, "seed": 0, "momentum": 0.9, "data": True, "same": 1.0}
    assert differences(before, now) == {
        "lr": "0.1 before, 0.2 now",
        "momentum": "null before, 0.9 now",
        "loss": "mse before, nothing now",
        "data": "nothing before, true now",
    }
    assert differences(before, before) == {}
    assert differences({"a": 1}, {"a": True}) == {"a": "1 before, true now"}
    assert differences({"a": None}, {}) == {"a": "null before, nothing now"}


def test_differences_are_empty_exactly_for_equal_keys():
    values = [1, 1.0, True, "1", None, 0, 0.0, False, 0.1 + 0.2, 0.3, "[1]"]
    for one in values:
        for other in values:
            assert (differences({"a": one}, {"a": other}) == {}) == (job_key({"a": one}) == job_key({"a": other}))


def test_differences_show_numbers_apart():
    (shown,) = differences({"lr": 0.1 + 0.2}, {"lr": 0.3}).values()
    before, now = shown.removesuffix(" now").split(" before, ")
    assert before != now
