"""Cross-validation: which pairs are in which fold."""

from collections import Counter
from pathlib import Path

import pytest
from data_folders import Folder
from hypothesis import given, settings
from hypothesis import strategies as st
from test_splits import PAIRS, ROOT, pairs_of, refused

from segsweep.data.check import check_folder
from segsweep.data.folder import FolderSource
from segsweep.data.folds import absences, divide
from segsweep.data.pairs import Pair
from segsweep.data.splits import PARTS, SplitRule, Splits, split_pairs
from segsweep.errors import UserError

GROUPED = st.dictionaries(st.text("abc/é", min_size=1).map(lambda text: f"g{text}"), st.integers(1, 9), min_size=3)


@st.composite
def divided(draw: st.DrawFn) -> tuple[dict[str, str], int, bool | None]:
    """The group of each pair, a possible number of folds, and `whole_groups`."""
    sizes = draw(GROUPED)
    group_of = {f"{number}-{group}": group for group, size in sizes.items() for number in range(size)}
    whole = draw(st.sampled_from([True, False, None]))
    units = len(group_of) if whole is False else len(sizes)
    return group_of, draw(st.integers(3, max(3, min(units, 12)))), whole


@settings(max_examples=100, deadline=None)
@given(case=divided(), seed=st.integers(0, 9), data=st.data())
def test_folds_hold_every_pair_once_keep_groups_whole_are_balanced_and_do_not_depend_on_order(
    case: tuple[dict[str, str], int, bool | None], seed: int, data: st.DataObject
) -> None:
    group_of, number, whole = case
    folds = divide(group_of, number, whole, seed)
    assert len(folds) == number
    assert sorted(name for fold in folds for name in fold.pairs) == sorted(group_of)
    sizes = [len(fold.pairs) for fold in folds]
    largest = 1 if whole is False else max(Counter(group_of.values()).values())
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= largest
    if whole is not False:
        groups = [{group_of[name] for name in fold.pairs} for fold in folds]
        assert sum(map(len, groups)) == len(set(group_of.values()))
        assert [set(fold.groups) for fold in folds] == groups
    order = data.draw(st.permutations(list(group_of)))
    assert divide({name: group_of[name] for name in order}, number, whole, seed) == folds


@settings(max_examples=40, deadline=None)
@given(pairs=PAIRS, seed=st.integers(0, 5), data=st.data())
def test_each_fold_is_test_once_and_val_once_and_is_never_trained_on_then(
    pairs: list[Pair], seed: int, data: st.DataObject
) -> None:
    folds = data.draw(st.integers(3, len({pair.group for pair in pairs})))
    splits = [split_pairs(pairs, ROOT, SplitRule(folds=folds, fold=fold, split_seed=seed)) for fold in range(folds)]
    for part in ("val", "test"):
        assert sorted(pair.name for each in splits for pair in each[part]) == sorted(pair.name for pair in pairs)
    for fold, each in enumerate(splits):
        assert each.val == splits[(fold + 1) % folds].test
        assert Counter(pair for part in PARTS for pair in each[part]) == Counter(pairs)
        assert not each.unused
        assert each.folds == splits[0].folds
        groups = [{pair.group for pair in each[part]} for part in PARTS]
        assert sum(map(len, groups)) == len(set.union(*groups))


def test_another_split_seed_makes_other_folds() -> None:
    pairs = pairs_of(*map(str, range(40)))
    first, other = (split_pairs(pairs, ROOT, SplitRule(folds=5, fold=0, split_seed=seed)).test for seed in (0, 1))
    assert first != other
    assert len(first) == len(other) == 8


def grouped(splits: Splits) -> bool:
    """Whether whole groups were divided, which the reason must say."""
    assert ("of whole groups" in splits.reason) == bool(splits.folds[0].groups)
    return bool(splits.folds[0].groups)


@pytest.mark.parametrize(
    ("names", "whole", "together"),
    [
        (["A/1", "A/2", "B/1", "C/1"], None, True),
        (["A/1", "A/2", "B/1", "C/1"], False, False),
        (["A/1", "A/2", "A/3"], None, False),  # a single folder is no grouping
        (["A/1", "B/1", "C/1", "loose"], None, False),
        (["A/1", "A/2", "B/1", "loose"], True, True),
        (["train/1", "train/2", "val/1", "test/1"], None, False),  # folders of splits are no groups
        (["train/a/1", "train/a/2", "val/b/1", "test/c/1"], None, True),
        (["A/1", "B/1", "test/1"], None, True),  # without train it is a group like any other
    ],
)
def test_groups_are_kept_whole_where_there_are_some(names: list[str], whole: bool | None, together: bool) -> None:
    rule = SplitRule(folds=3, fold=1, whole_groups=whole)
    assert grouped(split_pairs(pairs_of(*names), ROOT, rule)) == together


@pytest.mark.parametrize(
    ("rule", "instead"),
    [
        ({}, "data.fractions"),
        ({"split": "fraction"}, "data.fractions"),
        ({"split": "folders"}, "data.split=folders"),
        ({"train": ("train",), "val": ("val",)}, "data.train, data.val"),
        ({"split": "lists", "train": ("missing.txt",)}, "data.train"),
    ],
)
def test_folds_win_over_every_other_rule_and_say_so(rule: dict[str, object], instead: str) -> None:
    pairs = pairs_of(*(f"{group}/{number}" for group in "ABC" for number in range(2)))
    plain = split_pairs(pairs, ROOT, SplitRule(folds=3, fold=0))
    splits = split_pairs(pairs, ROOT, SplitRule(folds=3, fold=0, **rule))  # type: ignore[arg-type]
    assert splits.folds == plain.folds
    assert splits.reason.endswith(f"instead of {instead}")


def test_folds_win_over_folders_and_lists_that_are_there_and_say_so(tmp_path: Path) -> None:
    pairs = pairs_of(*(f"{part}/{number}" for part in ("train", "testing") for number in range(3)))
    splits = split_pairs(pairs, tmp_path, SplitRule(folds=3, fold=0))
    assert splits.reason.endswith("instead of testing, train")
    (tmp_path / "train.txt").write_text("train/0")
    assert split_pairs(pairs, tmp_path, SplitRule(folds=3, fold=0)).reason.endswith("instead of train.txt")


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (
            {"folds": 4, "fold": 0},
            ("data.folds=4", "only 3 groups (A, B, C)", "type data.folds=3", "whole_groups=false"),
        ),
        ({"folds": 9, "fold": 0, "whole_groups": False}, ("data.folds=9", "only 6 pairs", "type data.folds=6")),
        ({"folds": 3}, ("data.folds=3", "data.fold=0", "-m data.fold=0,1,2")),
    ],
)
def test_folds_that_cannot_be_made_are_refused(rule: dict[str, object], words: tuple[str, ...]) -> None:
    pairs = pairs_of(*(f"{group}/{number}" for group in "ABC" for number in range(2)))
    message = refused(pairs, SplitRule(**rule))  # type: ignore[arg-type]
    assert all(word in message for word in words)


def test_two_groups_make_no_folds_and_the_way_out_is_files() -> None:
    pairs = pairs_of(*(f"{group}/{number}" for group in "AB" for number in range(2)))
    message = refused(pairs, SplitRule(folds=3, fold=0))
    assert "type data.folds" not in message
    assert "data.whole_groups=false" in message
    assert split_pairs(pairs, ROOT, SplitRule(folds=3, fold=0, whole_groups=False)).test


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"fold": 6}, ("data.fold=6", "data.folds=7")),
        ({"fold": 0}, ("data.fold=0", "data.folds=5")),
        ({"folds": 2}, ("data.folds=2", "data.folds=3")),
        ({"folds": 5, "fold": 5}, ("data.fold=5", "0 to 4")),
        ({"folds": 5, "fold": -1}, ("data.fold=-1", "0 to 4")),
    ],
)
def test_numbers_that_make_no_cross_validation_are_refused(rule: dict[str, int], words: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as caught:
        SplitRule(**rule)  # type: ignore[arg-type]
    assert all(word in str(caught.value) for word in words)


def test_a_fold_without_a_class_is_named() -> None:
    folds = divide({name: name for name in "abc"}, 3, True, 0)
    pixels = {"a": (5, 1, 0), "b": (5, 0, 0), "c": (5, 2, 0)}
    lacking = next(number for number, fold in enumerate(folds) if fold.pairs == ("b",))
    (line,) = absences(folds, pixels, ("land", "water", "in no mask"))
    assert line.startswith(f"fold {lacking} has no pixel of water")


def test_check_data_shows_folds_and_refuses_an_image_that_is_in_two(folder: Folder) -> None:
    folder.table()
    for tile in "ABCD":
        folder.pair("1", folder=f"{tile}/")
    source = FolderSource(folder.root, folds=4, fold=0)
    report = check_folder(source)
    assert report.ok
    assert sorted(line.partition(": ")[2] for line in report.folds) == [f"1 pair: {tile}" for tile in "ABCD"]
    trained = [pair.group for pair in source.splits.train]
    image = folder.root / f"{trained[0]}/images/1.png"
    image.write_bytes((folder.root / f"{trained[1]}/images/1.png").read_bytes())
    # Both are in train while fold 0 is test, but not in every fold.
    errors = check_folder(FolderSource(folder.root, folds=4, fold=0)).errors
    assert any("fold" in line and "must not be in two splits" in line for line in errors)


def test_neither_the_seed_nor_a_setting_of_the_training_moves_a_pair_to_another_fold(folder: Folder) -> None:
    folder.table()
    for number in range(7):
        folder.pair(str(number))
    plain = FolderSource(folder.root, folds=3, fold=1).splits
    for changed in ({"seed": 5}, {"image_size": 8}, {"flips": False}, {"train": ["0"], "split": "lists"}):
        other = FolderSource(folder.root, folds=3, fold=1, **changed).splits  # type: ignore[arg-type]
        assert (other.train, other.val, other.test) == (plain.train, plain.val, plain.test)


def test_one_file_in_two_folds_is_refused_whichever_fold_is_test(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    pairs = [Pair(name, tmp_path / "a.png", tmp_path / "m.png") for name in ("a", "b")]
    pairs += pairs_of("c", "d", "e")
    for fold in range(5):
        assert "is the same file as" in refused(pairs, SplitRule(folds=5, fold=fold), tmp_path)
