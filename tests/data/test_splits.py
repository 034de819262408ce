import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segsweep.data.pairs import Pair
from segsweep.data.splits import PARTS, SplitRule, split_pairs
from segsweep.errors import UserError

ROOT = Path("/nowhere")


def pairs_of(*names: str) -> list[Pair]:
    return [Pair(name, ROOT / f"images/{name}.jpg", ROOT / f"masks/{name}.png") for name in names]


def refused(pairs: list[Pair], rule: SplitRule, root: Path = ROOT) -> str:
    with pytest.raises(UserError) as caught:
        split_pairs(pairs, root, rule)
    assert "\n" not in str(caught.value)
    return str(caught.value)


PAIRS = st.dictionaries(st.sampled_from("ABCDEFGH"), st.integers(1, 5), min_size=3).map(
    lambda groups: pairs_of(*(f"{group}/{number}" for group, count in groups.items() for number in range(count)))
)
FRACTIONS = st.sampled_from([(0.7, 0.15, 0.15), (0.8, 0.2, 0.0), (0.5, 0.25, 0.25), (0.1, 0.1, 0.8)])


@settings(max_examples=80, deadline=None)
@given(
    pairs=PAIRS, fractions=FRACTIONS, seed=st.integers(0, 5), whole=st.sampled_from([True, False, None]), data=st.data()
)
def test_fractions_are_disjoint_exhaustive_and_independent_of_order(
    pairs: list[Pair], fractions: tuple[float, float, float], seed: int, whole: bool | None, data: st.DataObject
) -> None:
    rule = SplitRule(split="fraction", fractions=fractions, split_seed=seed, whole_groups=whole)
    splits = split_pairs(pairs, ROOT, rule)
    parts = [set(splits[part]) for part in PARTS]
    assert set.union(*parts) == set(pairs)
    assert sum(map(len, parts)) == len(pairs)
    assert not splits.unused
    assert all(bool(part) == (fraction > 0) for part, fraction in zip(parts, fractions, strict=True))
    assert split_pairs(data.draw(st.permutations(pairs)), ROOT, rule) == splits
    if whole is not False:
        groups = [{pair.group for pair in part} for part in parts]
        assert len(set.union(*groups)) == sum(map(len, groups))


@given(count=st.integers(20, 200), fractions=FRACTIONS, seed=st.integers(0, 3))
def test_fractions_of_files_are_met_to_within_one_file(
    count: int, fractions: tuple[float, float, float], seed: int
) -> None:
    splits = split_pairs(
        pairs_of(*map(str, range(count))), ROOT, SplitRule(split="fraction", fractions=fractions, split_seed=seed)
    )
    for part, fraction in zip(PARTS, fractions, strict=True):
        assert abs(len(splits[part]) - fraction * count) <= 1


def test_another_seed_is_another_split() -> None:
    pairs = pairs_of(*map(str, range(40)))
    assert (
        split_pairs(pairs, ROOT, SplitRule(split_seed=0)).val != split_pairs(pairs, ROOT, SplitRule(split_seed=1)).val
    )


def test_groups_go_where_they_are_sent_and_the_others_are_unused() -> None:
    pairs = pairs_of("A/1", "A/2", "B/1", "C/1", "D/1")
    splits = split_pairs(pairs, ROOT, SplitRule(train=("A",), val=("B",), test=("C",)))
    assert [[pair.name for pair in splits[part]] for part in PARTS] == [["A/1", "A/2"], ["B/1"], ["C/1"]]
    assert [pair.name for pair in splits.unused] == ["D/1"]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"train": ("A",), "val": ("A",)}, "'A' is in data.train"),
        ({"train": ("A", "A"), "val": ("B",)}, "'A' is in data.train"),
        ({"train": ("A",), "val": ("X",)}, "the groups are: A, B, C"),
        ({"train": ("A", "B")}, "leaves val empty"),
        ({"val": ("A", "B")}, "leaves train empty"),
        ({"split": "fraction", "fractions": (1.0, 0.0, 0.0)}, "leaves val empty"),
        ({"split": "fraction", "fractions": (0.4, 0.3, 0.3), "whole_groups": True}, ""),
        ({"split": "folders"}, "leaves train empty"),
        ({"split": "lists", "train": ("none.txt",)}, "no list file 'none.txt'"),
        ({"split": "lists"}, "leaves train empty"),
    ],
)
def test_splits_that_cannot_be_are_refused(rule: dict[str, object], words: str) -> None:
    pairs = pairs_of("A/1", "B/1", "C/1")
    if not words:
        pairs = pairs[:2]
        words = "2 groups"
    assert words in refused(pairs, SplitRule(**rule))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "rule",
    [
        {"fractions": (0.5, 0.5, 0.5)},
        {"fractions": (1.5, -0.5, 0.0)},
        {"split": "fraction", "train": ("A",)},
        {"split": "groups"},
        {"split": "thirds"},
    ],
)
def test_rules_that_contradict_themselves_are_refused(rule: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"^(data\.)?(fractions|train|split)\b"):
        SplitRule(**rule)  # type: ignore[arg-type]


def test_folders_named_train_val_and_test_are_the_split() -> None:
    pairs = pairs_of("train/a/1", "train/2", "valid/1", "test/1", "extra/1")
    splits = split_pairs(pairs, ROOT)
    assert [[pair.name for pair in splits[part]] for part in PARTS] == [
        ["train/2", "train/a/1"],
        ["valid/1"],
        ["test/1"],
    ]
    assert [pair.name for pair in splits.unused] == ["extra/1"]
    assert "folders" in splits.reason


@pytest.mark.parametrize("lists", [False, True])
def test_a_test_set_stays_one_where_there_is_no_val(tmp_path: Path, lists: bool) -> None:
    """Pairs named test must never be trained on."""
    names = {part: [f"{part}/{number}" for number in range(20)] for part in ("train", "test")}
    if lists:
        names = {part: [name.replace("/", "") for name in named] for part, named in names.items()}
        for part, named in names.items():
            (tmp_path / f"{part}.txt").write_text("\n".join(named))
    pairs = pairs_of(*names["train"], *names["test"], *(["other"] if lists else ["extra/1"]))
    splits = split_pairs(pairs, tmp_path)
    assert {pair.name for pair in splits.test} == set(names["test"])
    assert {pair.name for pair in (*splits.train, *splits.val)} == set(names["train"])
    assert (len(splits.train), len(splits.val), len(splits.unused)) == (17, 3, 1)
    assert all(word in splits.reason for word in ("val from train", "0.85/0.15/0", "seed 0"))
    assert split_pairs(pairs, tmp_path, SplitRule(split_seed=1)).val != splits.val
    assert "leaves val empty" in refused(pairs, SplitRule(split="lists" if lists else "folders"), tmp_path)
    assert "leaves val empty" in refused(pairs, SplitRule(fractions=(0.9, 0.0, 0.1)), tmp_path)


def test_val_is_drawn_from_train_by_whole_folders_where_there_are_some() -> None:
    pairs = pairs_of(*(f"train/{scene}/{number}" for scene in "abcd" for number in range(5)), "test/a/1")
    splits = split_pairs(pairs, ROOT)
    scenes = {part: {pair.name.split("/")[1] for pair in splits[part]} for part in ("train", "val")}
    assert {part: len(found) for part, found in scenes.items()} == {"train": 3, "val": 1}
    assert not scenes["train"] & scenes["val"]
    assert "of whole groups" in splits.reason
    loose = split_pairs(pairs, ROOT, SplitRule(whole_groups=False))
    assert (len(loose.train), len(loose.val)) == (17, 3)


@pytest.mark.parametrize("lists", [False, True])
@pytest.mark.parametrize("parts", [["test"], ["val"], ["val", "test"]])
def test_a_val_or_test_set_without_train_is_not_trained_on_unasked(
    tmp_path: Path, lists: bool, parts: list[str]
) -> None:
    pairs = pairs_of(*(f"{part}/{number}" for part in (*parts, "A", "B") for number in range(9)))
    if lists:
        pairs = pairs_of(*map(str, range(30)))
        for number, part in enumerate(parts):
            (tmp_path / f"{part}.txt").write_text(f"{number}\n")
    named = ", ".join(f"{part}.txt" if lists else part for part in parts)
    message = refused(pairs, SplitRule(), tmp_path)
    assert all(word in message for word in (f"has {named},", "no train", "data.split=fraction"))
    assert split_pairs(pairs, tmp_path, SplitRule(split="fraction")).test


def test_a_list_to_train_on_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("1\n2\n")
    message = refused(pairs_of(*map(str, range(30))), SplitRule(), tmp_path)
    assert all(word in message for word in ("has train.txt", "val.txt or test.txt", "data.split=fraction"))


def test_lists_name_pairs_in_any_way_that_has_one_meaning(tmp_path: Path) -> None:
    pairs = [
        Pair(f"{tile}/{number}", tmp_path / tile / f"images/{number}.jpg", tmp_path / tile / f"masks/{number}.png")
        for tile, number in (("A", 1), ("A", 2), ("A", 3), ("B", 1), ("B", 4))
    ]
    (tmp_path / "train.txt").write_text("# the first\n\nA/1\nA/images/2.jpg\r\n./A/masks/3\n")
    (tmp_path / "val.txt").write_text("B\\images\\1\n")
    (tmp_path / "test.txt").write_text("4")
    splits = split_pairs(pairs, tmp_path)
    assert [[pair.name for pair in splits[part]] for part in PARTS] == [["A/1", "A/2", "A/3"], ["B/1"], ["B/4"]]
    given = SplitRule(split="auto", train=("train.txt",), val=(str(tmp_path / "val.txt"),), test=("test.txt",))
    assert split_pairs(pairs, tmp_path, given).val == splits.val


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A/1\nC/9\n", "line 2: no pair named 'C/9'"),
        ("1\n", "2 pairs named '1'"),
        ("A/1\nA/1\n", "is in train already"),
    ],
)
def test_lists_with_unknown_ambiguous_or_repeated_names_are_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "train.txt").write_text(text)
    (tmp_path / "val.txt").write_text("B/1\n")
    assert words in refused(pairs_of("A/1", "B/1"), SplitRule(), tmp_path)


def test_a_name_in_two_lists_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("A/1\n")
    (tmp_path / "val.txt").write_text("A/1\n")
    assert "val.txt, line 1" in refused(pairs_of("A/1", "B/1"), SplitRule(), tmp_path)


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_one_file_under_two_names_in_two_splits_is_refused(tmp_path: Path, link: object) -> None:
    for name in ("train", "val"):
        (tmp_path / name).mkdir()
    (tmp_path / "train/a.png").write_bytes(b"x")
    link(tmp_path / "train/a.png", tmp_path / "val/b.png")  # type: ignore[operator]
    pairs = [Pair(name, tmp_path / f"{name}.png", tmp_path / "m.png") for name in ("train/a", "val/b")]
    assert "is the same file as" in refused(pairs, SplitRule(), tmp_path)


def test_a_list_that_is_no_text_or_too_large_is_refused(tmp_path: Path) -> None:
    pairs = pairs_of("a", "b", "c")
    rule = SplitRule(split="lists", train=("train.txt",), val=("val.txt",))
    (tmp_path / "val.txt").write_text("b\n")
    (tmp_path / "train.txt").write_bytes(b"\xff\xfe\x00binary")
    assert "cannot be read as text" in refused(pairs, rule, tmp_path)
    with (tmp_path / "train.txt").open("wb") as file:
        file.truncate(1 << 40)  # a file with holes takes no room on disk
    assert "too large for a list" in refused(pairs, rule, tmp_path)
