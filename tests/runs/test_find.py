"""Finding the runs that a user names."""

from pathlib import Path

import pytest

from segsweep.errors import UserError
from segsweep.runs.find import find_runs, short_names


def make(root: Path, *files: str) -> None:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("{}")


def test_directories_checkpoints_and_patterns_are_found_once_and_in_order(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path, "out/b/checkpoints/best.ckpt", "out/a/checkpoints/best.ckpt", "out/a/checkpoints/last.ckpt")
    make(tmp_path, "out/begun/run.json", "out/notes.txt", "moved.ckpt")
    found = find_runs(["out/b", "out/*", "moved.ckpt", "out/a/checkpoints/last.ckpt"])
    assert [str(path) for path in found] == ["out/b", "out/a", "moved.ckpt", "out/a/checkpoints/last.ckpt"]
    assert find_runs("out/**/best.ckpt") == [Path(f"out/{name}/checkpoints/best.ckpt") for name in "ab"]


def test_an_existing_path_is_not_taken_for_a_pattern(tmp_path: Path):
    make(tmp_path, "data=[1],lr=0.1/checkpoints/best.ckpt")
    assert find_runs(str(tmp_path / "data=[1],lr=0.1")) == [tmp_path / "data=[1],lr=0.1"]


@pytest.mark.parametrize(
    ("files", "given", "message"),
    [
        (["run/run.json"], "run", r"run: this run has no checkpoint \(its run.json cannot be read\)"),
        (["s/sweep.json", "s/a/run.json", "s/b/run.json"], "s", r"s: is a sweep of 2 runs; give one of its runs$"),
        (["d/t/run.json"], ".", r"is not a run, but a folder with 1 run; give one$"),
        (["o/d/t/run.json", "o/d/t/checkpoints/best.ckpt"], "o", r"or all with \"run='o/\*/\*'\"$"),
        (["o/d/t/run.json", "o/d/t/checkpoints/best.ckpt"], "o/*", r"no run with a best.ckpt; give \"run='o/\*/\*'\"$"),
        (["o/d/t/run.json", "o/d/t/checkpoints/best.ckpt"], "*", r"no run with a best.ckpt; give \"run='\*/\*/\*'\"$"),
        (["x/notes.txt"], "x/*", r"x/\*: matches 1 paths, but no run with a best.ckpt"),
        ([], "y/*", r"y/\*: matches nothing"),
        ([], [], "names no run"),
    ],
)
def test_a_path_that_is_not_a_run_is_refused_with_what_it_is(tmp_path: Path, monkeypatch, files, given, message: str):
    monkeypatch.chdir(tmp_path)
    make(tmp_path, *files)
    with pytest.raises(UserError, match=message):
        find_runs(given)


def test_short_names_leave_out_the_folders_that_all_share(tmp_path: Path):
    sweep = [tmp_path / "multirun/x" / job for job in ("lr=0.1", "lr=0.01")]
    assert short_names(sweep) == ["lr=0.1", "lr=0.01"]
    assert short_names(sweep[:1]) == ["lr=0.1"]
    assert short_names([tmp_path / "a", tmp_path / "a/checkpoints/last.ckpt"]) == ["a", "checkpoints/last.ckpt"]
    assert len(set(short_names([*sweep, tmp_path / "outputs/lr=0.1"]))) == 3
