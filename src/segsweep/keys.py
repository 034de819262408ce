"""The keys of each command, and the nearest known key for an unknown one.

Hydra refuses an unknown key and suggests `+key`. With the `+` it accepts the key, but nothing ever reads it.
"""

import contextlib
import difflib
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segsweep.errors import UserError
from segsweep.invocation import called, conf_folder, to_type

GROUPS = ("data", "model", "loss", "optim", "scheduler", "trainer", "callbacks", "logger")
"""Groups of a training's configuration."""
KEYS = {
    "train": ("lr", "momentum", "seed", "name", "objective", "objective_at", "resume", "init", "on_error", "code", *GROUPS),
    "check_data": ("seed", "workers", "sheet_pairs", "data"),
    "evaluate": ("run", "split", "index", "pictures", "output", "accelerator", "code", "data"),
    "predict": (
        "run", "input", "output", "overlays", "probabilities", "tile", "overlap", "overwrite", "accelerator", "precision",
        "code", "data",
    ),
    "export": ("run", "format", "output", "overwrite", "code"),
}  # fmt: skip
"""Keys at the root of conf/<command>.yaml once it is composed."""

OPEN = {"evaluate": "data", "predict": "data"}
"""Groups that are empty in a command's configuration: which keys they take depends on the settings of the run."""

SWEEPER = ("settings_of", "keep")
"""Keys of train.py that the sweeper reads."""

READING = ("alpha", "exif", "white", "bands")
"""Keys of predict's open group; evaluate accepts every data setting of the run."""

FOLDS = ("data.folds", "data.fold")
"""Keys of cross-validation, which only a folder has."""

CUTOFF = 0.8
"""Least similarity, 0 to 1, of a suggested key. At 0.7 "dropout" suggests "root", and "pretrained" suggests "trainer"."""
SYNONYMS = {
    "optim": "optimizer optimiser opt solver",
    "lr": "learning_rate base_lr max_lr initial_lr eta",
    "momentum": "beta1",
    "model": "net network architecture arch backbone",
    "loss": "criterion loss_fn loss_function",
    "data": "dataset datamodule",
    "scheduler": "schedule lr_scheduler lr_schedule sched",
    "seed": "random_seed manual_seed random_state",
    "objective": "metric monitor",
    "name": "run_name exp_name experiment_name",
    "resume": "resume_from checkpoint ckpt ckpt_path",
    "init": "init_from finetune finetune_from pretrained_weights load_weights",
    "run": "checkpoint ckpt ckpt_path weights model model_path run_dir",
    "accelerator": "device cuda gpu",
    "input": "image images folder path source",
    "output": "out out_dir output_dir save_dir dest destination",
    "data.batch_size": "batch bs minibatch train_batch_size per_device_train_batch_size",
    "data.num_workers": "workers n_workers dataloader_num_workers",
    "data.root": "root path folder data_dir data_path data_root dataset_dir dataset_path",
    "data.image_size": "size img_size imgsz crop_size patch_size resolution",
    "data.folds": "n_folds num_folds kfold k_fold n_splits cross_validation cv",
    "data.labels": "labels classes num_classes class_names",
    "trainer.max_steps": "steps num_steps iterations num_iterations iters max_iters train_steps total_steps",
    "trainer.max_epochs": "epochs num_epochs n_epochs num_train_epochs",
    "trainer.max_minutes": "minutes max_time time_limit",
    "trainer.accelerator": "device cuda gpu",
    "trainer.devices": "gpus num_gpus",
    "trainer.gradient_clip_val": "clip grad_clip gradient_clip clip_grad",
    "trainer.precision": "amp fp16 bf16 mixed_precision",
    "trainer.compile": "torch_compile",
    "trainer.accumulate": "accumulate_grad_batches gradient_accumulation_steps grad_accum accumulation_steps",
    "trainer.val_every_n_steps": "val_check_interval eval_steps eval_interval val_interval",
    "trainer.log_every_n_steps": "log_interval logging_steps log_every",
    "optim.weight_decay": "wd l2",
    "data.images": "image_dir images_dir img_dir",
    "data.masks": "mask_dir masks_dir",
    "overwrite": "force",
    "format": "fmt",
}
"""Names of a key in other projects; the first key that the command has is suggested."""

# The root key of an interpolation: "base" in ${base}, ${..base.lr}, ${base[0]} and ${oc.select:base, 1}.
_REFERENCE = re.compile(
    r"\$\{\s*(?:oc\.(?:select|dict\.keys|dict\.values|deprecated)\s*:\s*)?\.*([A-Za-z_]\w*)\s*[.\[,}]"
)


def require_known(config: DictConfig, command: str, typed: Iterable[str] = ()) -> None:
    """Refuses keys at the root that the command does not have, typed with or without `+`, and missing keys.

    Keys that an interpolation refers to are accepted, as in `+base=0.1 lr='${base}'`.

    Args:
        config: composed, with Hydra's node.
        command: a key of `KEYS`.
        typed: more keys to check, with dots.

    Raises:
        UserError: names the key and the nearest known one.
    """
    known = {"hydra", *KEYS[command]}
    used = set(_REFERENCE.findall(repr(_raw(config))))
    for key in [*typed, *(str(key) for key in config)]:
        if (root := key.partition(".")[0]) not in known and root not in used:
            raise UserError(unknown(key, OmegaConf.masked_copy(config, [key for key in config if key in known])))
    for key in KEYS[command]:
        if key not in config:
            raise UserError(f"{key}: cannot be left out; remove ~{key}")


def _raw(config: DictConfig) -> dict[Any, Any]:
    """The configuration as plain data, its interpolations unresolved."""
    raw = OmegaConf.to_container(config, resolve=False)
    assert isinstance(raw, dict)
    return raw


def opened(command: str, arguments: Iterable[str]) -> list[str]:
    """Rewrites arguments that Hydra would refuse.

    Puts `++` before those that set a key in the command's open group, so that any key is accepted there. Gives `SWEEPER`
    keys to the sweeper: they are no settings of a training.
    """
    words, group = list(arguments), OPEN.get(command)
    if command == "train":
        words = [re.sub(rf"^(?=({'|'.join(SWEEPER)})=)", "++hydra.sweeper.", word) for word in words]
    return [f"++{word}" if group and re.match(rf"{group}\.[^=]+=", word) else word for word in words]


def typed_keys(config: DictConfig) -> list[str]:
    """The keys that the overrides of a configuration with Hydra's node set, without choices from groups.

    Includes the keys that a sweep varies, typed or from a study; the configuration does not contain those yet.
    """
    hydra, loader = _raw(config)["hydra"], GlobalHydra.instance().config_loader()
    swept = (f"{key}=0" for key in hydra["sweeper"].get("params") or {})
    parsed = OverridesParser.create(config_loader=loader).parse_overrides([*hydra["overrides"]["task"], *swept])
    found = (override.key_or_group for override in parsed if override.package is None)
    return [key for key in found if "." in key or not loader.get_group_options(key)]  # a group has no dot


def no_folds(key: str, data: str) -> str:
    """One line for `data.folds` or `data.fold` where nothing can be divided.

    Args:
        key: as typed.
        data: the choice of the group `data`, or the target of its node.
    """
    line = f"{key}: only a folder of images has folds, data=folder data.root=PATH data.folds=5 data.fold=0"
    if "demo" in data.lower():
        return f"{line}; the demo's scenes are one once they are written, data.root=outputs/rgb_demo"
    return f"{line}; images made on the fly have none, because a new seed is new data: type seed=0,1,2"


def unknown(key: str, config: DictConfig | None = None) -> str:
    """One line for an unknown key that suggests the nearest known one.

    Args:
        key: as typed, without `+`: "optimizer", "data.batchsize".
        config: the command's, with Hydra's node; None composes it from the command line of this process.
    """
    script = to_type()
    if config is None and (config := _composed()) is None:
        return f"{key}: no such key; {script} --help lists what there is"
    folder, settings, others = _known(config)
    chosen = config.hydra.runtime.choices
    if key in FOLDS and str(config.hydra.job.config_name) == "train":
        return no_folds(key, str(chosen["data"]))
    near = nearest(key, settings, others)
    if near is None:
        return f"{key}: no such key; {script} --help lists what there is"
    group, _, name = near.partition(".")
    if near not in dict(_flat(settings)):
        choice, now = others[group][name], f"{group}={chosen[group]}"
        arguments = [re.sub(rf"^\+*{re.escape(key)}=", f"{near}=", word) for word in called()[1]]
        typed = shlex.join([f"{group}={choice}", *arguments])
        return f"{key}: no such key with {now}; add {group}={choice}: {script} {typed}"
    if near == key:
        return f"{key}: has no choices here; type its settings one by one, as {key}.KEY=VALUE"
    choices = ", ".join(sorted(path.stem for path in (folder / near).glob("*.yaml"))) if near in chosen else ""
    return f"{key}: no such key; did you mean {near}{choices and f' ({choices})'}?"


def meant(key: str) -> str:
    """The known key that is nearest to a key of this process's command; the key itself if none is similar."""
    if (config := _composed()) is None:
        return key
    _, settings, others = _known(config)
    return nearest(key, settings, others) or key


def _known(config: DictConfig) -> tuple[Path, dict[str, Any], dict[str, dict[str, str]]]:
    """The folder of a command's configuration, its settings, and by group the keys of the other choices."""
    folder = next(Path(source.path) for source in config.hydra.runtime.config_sources if source.provider == "main")
    settings = {str(name): value for name, value in _raw(config).items() if name != "hydra"}
    command, chosen = str(config.hydra.job.config_name), config.hydra.runtime.choices
    if (group := OPEN.get(command)) is not None:
        settings[group] = dict.fromkeys(READING if command == "predict" else _choice_by_key(folder / group))
    others = {group: _choice_by_key(folder / group) for group in GROUPS if group in chosen and group in settings}
    return folder, settings, others


def nearest(key: str, settings: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]] | None = None) -> str | None:
    """The known key nearest to an unknown one; None if none is similar.

    Args:
        key: "batch_size", "data.batchsize".
        settings: the composed configuration, nested.
        others: by group, the keys of its other choices. Only those of `data` and of the typed group are suggested: a
            user does not change the net to get a setting.
    """
    root, _, rest = key.partition(".")
    if rest and root not in settings:
        groups = {name: value for name, value in settings.items() if isinstance(value, Mapping)}
        group = alike(root, groups)
        return None if group is None else nearest(f"{group}.{rest}", settings, others) or group
    real = [name for name, _ in _flat(settings)]
    wider = [f"{group}.{name}" for group, names in (others or {}).items() if group in ("data", root) for name in names]
    for cutoff in (1.0, CUTOFF):
        for names in (real, [*real, *wider]):
            if key in names:
                return key
            # First within the typed group, if there is one; then anywhere.
            for part in ([name for name in names if name.startswith(f"{root}.")], names) if rest else (names,):
                if (near := alike(key.rpartition(".")[2], part, cutoff)) is not None:
                    return near
    return None


def alike(word: str, names: Iterable[str], cutoff: float = CUTOFF) -> str | None:
    """The name whose last part, or a synonym of it, is spelt most like a word; None if none is similar enough.

    Args:
        word: without dots.
        names: with dots, or without.
        cutoff: least similarity, 0 to 1; 1 ignores only capitals, dashes and underscores.
    """
    names = sorted(names, key=lambda name: name.count("."), reverse=True)
    meant = {_letters(word): name for name in reversed(SYNONYMS) if name in names for word in SYNONYMS[name].split()}
    meant |= {_letters(name.rpartition(".")[2]): name for name in names}
    close = difflib.get_close_matches(_letters(word), meant, n=1, cutoff=cutoff)
    return meant[close[0]] if close else None


def _letters(word: str) -> str:
    return re.sub(r"[^a-z0-9]", "", word.lower())


def _flat(settings: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key with its value, with dots, groups included: "data", "data.root"."""
    for key, value in settings.items():
        if not str(key).startswith("_"):
            yield f"{prefix}{key}", value
            if isinstance(value, Mapping):
                yield from _flat(value, f"{prefix}{key}.")


def _choice_by_key(folder: Path) -> dict[str, str]:
    """Every key in the files of a group's folder, with the first choice that has it."""
    found: dict[str, str] = {}
    for path in sorted(folder.glob("*.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            keys = (str(key) for key in content if not str(key).startswith("_") and key != "defaults")
            found = dict.fromkeys(keys, path.stem) | found
    return found


def _composed() -> DictConfig | None:
    """The command's configuration with the typed choices from groups; None if Hydra cannot compose it."""
    (command, words), folder = called(), conf_folder()
    if command not in KEYS:
        return None
    typed = [word for word in words if re.fullmatch(r"\+?[a-z_]+=[\w/]+", word)]
    typed = [word for word in typed if (folder / word.lstrip("+").partition("=")[0]).is_dir()]
    for overrides in (typed, []):
        ready = GlobalHydra.instance().is_initialized()
        initialized = contextlib.nullcontext() if ready else initialize_config_dir(str(folder), version_base="1.3")
        with contextlib.suppress(HydraException, OmegaConfBaseException), initialized:
            return GlobalHydra.instance().config_loader().load_configuration(command, overrides, RunMode.RUN)
    return None
