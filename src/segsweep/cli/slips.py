"""Common slips in what is typed: for each, one line that says what was read and what to type.

Looks at the words of a command before Hydra does, whose own messages come from its parser.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from segsweep.console import hydra_argument, quoted, shell_word
from segsweep.errors import UserError
from segsweep.invocation import to_type
from segsweep.keys import KEYS, SWEEPER, meant

FLAGS = (
    "--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun", "-m", "--shell-completion",
    "-sc",
)  # fmt: skip
"""Hydra's options without a value."""
VALUED = (
    "--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd",
    "--experimental-rerun", "--info", "-i",
)  # fmt: skip
"""Hydra's options with a value, in the same word after `=` or in the next."""
TEXT = ("name", "run", "input", "output", "resume", "code", "init", "settings_of", "data.root", "data.labels")
"""Keys whose values may hold spaces."""
PATH_KEYS = {"evaluate": "run", "export": "run", "check_data": "data.root"}
"""The key that a path without one is meant for; train and predict have several."""

_WHOLE = re.compile(r"(?<![\w.+-])(\d+(?:\.\d*)?(?:[eE]\+?\d+)?)(?![\w.])")
_COUNTS = re.compile(r"\+{0,2}[\w.]*(?:steps|epochs|samples|samples_per_epoch|size)=")


def whole_numbers(words: Sequence[str]) -> list[str]:
    """Writes whole numbers of steps, epochs, samples and sizes without exponent or point: max_steps=1e3 is 1000."""

    def digits(found: re.Match[str]) -> str:
        return f"{float(found[1]):.0f}" if float(found[1]).is_integer() and float(found[1]) < 2**53 else found[1]

    return [_WHOLE.sub(digits, word) if _COUNTS.match(word) else word for word in words]


def refuse_slips(command: str, words: Sequence[str]) -> None:
    """Refuses words that are neither an option of Hydra nor KEY=VALUE.

    Args:
        command: a key of `keys.KEYS`; words of other programs are not looked at.
        words: the arguments as typed.

    Raises:
        UserError: names what was read and says what to type.
    """
    if command not in KEYS:
        return
    at = 0
    while at < len(words):
        word, rest = words[at], words[at + 1 :]
        option, equals, _ = word.partition("=")
        if option in VALUED:
            at += 1 if equals or not rest or (option in ("--info", "-i") and "=" in rest[0]) else 2
        elif word in FLAGS or word.startswith("~"):
            at += 1
        elif word.startswith("-") and not word[1:2].isdigit():
            raise UserError(dashed(word, rest))
        elif not equals or word.startswith("="):
            raise UserError(bare(command, words, at))
        else:
            check_pair(word, rest)
            at += 1


def dashed(word: str, rest: Sequence[str]) -> str:
    """The line for --lr 0.1, --lr=0.1, -lr=0.1 and --overwrite."""
    name, equals, value = word.lstrip("-").partition("=")
    read, name = word, name.replace("-", "_")
    if name in ("multi_run", "sweep", "multi"):
        return f"{word}: no such option; type -m"
    if not equals and rest and "=" not in rest[0] and not rest[0].startswith("-"):
        value, read = rest[0], f"{word} {rest[0]}"
    key = meant(name)
    typed = shell_word(f"{key}={value}") if value else f"{key}=VALUE"
    return f"{read}: a key has no dashes before it; type {typed}"


def bare(command: str, words: Sequence[str], at: int) -> str:
    """The line for a word that is no KEY=VALUE: help, a path, a key, the rest of a value that has a space."""
    word, rest = words[at], words[at + 1 :]
    before = words[at - 1] if at else ""
    key, equals, value = before.partition("=")
    script = to_type()
    if word.lower() in ("help", "h", "?", "usage"):
        return f"{word}: type {script} --help"
    if word.startswith("="):  # a key before it would have been refused first
        return f"{word}: has no key; type KEY=VALUE"
    if rest and rest[0].startswith("="):
        typed = f"{word}={rest[0][1:] or ' '.join(rest[1:2])}"
        return f"{' '.join(words[at : at + 3])}: = takes no spaces; type {shell_word(typed)}"
    if (colon := re.fullmatch(r"([\w.]+):([^/\\].*)", word)) is not None:
        return f"{word}: a value follows =; type {shell_word(f'{colon[1]}={colon[2]}')}"
    if equals and not value:
        typed = before + word
        return f"{before} {word}: = takes no spaces; type {shell_word(typed if readable(typed) else quoted(key, word))}"
    spaced = key in TEXT and Path(f"{value} {word}").exists()
    if not spaced and ("/" in word or Path(word).exists() or word.endswith(".ckpt")):
        return f"{word}: a path needs its key; type {path_argument(command, words, word)}"
    if key in TEXT:
        return f"{before} {word}: a space ends a value; type {hydra_argument(key, f'{value} {word}')}"
    near = meant(word)
    if near.partition(".")[0] in (*KEYS[command], *(SWEEPER if command == "train" else ())):
        value = rest[0] if rest and "=" not in rest[0] and not rest[0].startswith("-") else "VALUE"
        return f"{word}: needs a value; type {near}={value}"
    return f"{word}: is not KEY=VALUE; {script} --help lists the keys"


def path_argument(command: str, words: Sequence[str], word: str) -> str:
    """KEY=VALUE for a path that was typed without its key."""
    path = Path(word)
    is_run = path.suffix == ".ckpt" or (path / "run.json").exists() or path.parts[:1] in (("outputs",), ("multirun",))
    if command == "train":
        if path.suffix == ".py":
            return hydra_argument("code", word)
        if (path / "sweep.json").exists():
            return f"-m {hydra_argument('settings_of', word)}"
        if path.suffix == ".ckpt":
            return hydra_argument("init", word)
        return hydra_argument("resume", word) if is_run else f"data=folder {hydra_argument('data.root', word)}"
    if command == "predict":
        given = any(each.startswith("input=") for each in words)
        return hydra_argument("run" if is_run else "output" if given else "input", word)
    paths = [each for each in words if "=" not in each and not each.startswith("-")]
    if command == "evaluate" and len(paths) > 1:
        return shell_word(quoted("run", paths))
    return hydra_argument(PATH_KEYS[command], word)


def check_pair(word: str, rest: Sequence[str]) -> None:
    """Refuses KEY=VALUE if Hydra cannot read it, or if the value goes on after a space.

    Raises:
        UserError: says what to type.
    """
    if readable(word):
        return
    key, _, value = word.partition("=")
    parts = [word]
    for part in rest:
        if not (parts[-1].endswith((",", ":")) or part.startswith(",") or unclosed("".join(parts))) or "=" in part:
            break
        parts.append(part)
    joined = "".join(parts).rstrip(",")
    read = " ".join(parts)
    if readable(joined):
        why = "a space ends a value" if len(parts) > 1 else "ends in a comma"
        raise UserError(f"{read}: {why}; type {shell_word(joined)}")
    if unclosed(value):
        raise UserError(f"{word}: a bracket or a quote is not closed")
    if readable(colors := re.sub(r"#\w+", r'"\g<0>"', word)):
        raise UserError(f"{word}: # needs quotes; type {shell_word(colors)}")
    if value.startswith("=") and readable(once := f"{key}{value}"):
        raise UserError(f"{word}: has two =; type {shell_word(once)}")
    if not readable(f"{key}=1"):
        raise UserError(f"{word}: {key} is no key; {to_type()} --help lists the keys")
    raise UserError(f"{word}: needs quotes; type {hydra_argument(key, value)}")


def readable(word: str) -> bool:
    """Whether Hydra can read a word as an override."""
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return True


def unclosed(value: str) -> bool:
    """Whether a value opens a bracket, a brace or a quote that it does not close."""
    value = re.sub(r"\\.", "", value)
    outside = re.sub(r"'[^']*'|\"[^\"]*\"", "", value)
    return any(outside.count(each[0]) > outside.count(each[1]) for each in ("[]", "{}", "()")) or outside[:1] in (
        "'",
        '"',
    )
