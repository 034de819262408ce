"""Tables of two classes: which is the object, and that no pixel has an ignored class."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segsweep.classes import IGNORE, ClassTable, LabelClass, MaskRule, read_mask
from segsweep.classes.binary import BACKGROUND_NAMES, binary_table, for_task
from segsweep.classes.table import hex_color
from segsweep.errors import UserError

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)
colors = st.permutations([(0, 0, 0), RED, BLUE, WHITE])


def table(*rows: tuple[int, str], background: str | None = None) -> ClassTable:
    return ClassTable(
        [LabelClass(*row, color) for row, color in zip(rows, [BLUE, RED, WHITE], strict=False)], background
    )


@pytest.mark.parametrize(
    ("labels", "expected", "background"),
    [
        (table((1, "sea"), (0, "sand"), background="sea"), ["sea", "sand"], "sea"),
        (table((0, "crack"), (1, "background")), ["background", "crack"], "background"),
        (table((0, "crack"), (1, "_BackGround_")), ["_BackGround_", "crack"], "_BackGround_"),
        (table((0, "other"), (1, "unlabeled")), ["other", "unlabeled"], None),
        (table((1, "sea"), (0, "sand")), ["sand", "sea"], None),
        (table((7, "sea"), (9, "sand")), ["sea", "sand"], None),
    ],
)
def test_the_object_is_the_class_that_is_not_the_background(labels, expected, background):
    found, rule = binary_table(labels, MaskRule())
    assert found.names == expected
    assert found.background == background
    assert rule == MaskRule()
    # Ids and colours stay with their names.
    assert {entry.name: entry for entry in found.classes} == {entry.name: entry for entry in labels.classes}


@given(st.sampled_from(sorted(BACKGROUND_NAMES)), st.sampled_from([(0, 1), (1, 0), (3, 8)]), st.booleans())
def test_the_order_of_rows_does_not_matter_where_the_background_is_known(name, ids, third):
    rows = [LabelClass(ids[0], name, BLUE), LabelClass(ids[1], "crack", RED)]
    rule = MaskRule()
    if third:
        rows.append(LabelClass(20, "unsure", WHITE))
        rule = MaskRule(ignore_ids=(20,))
    one, other = (binary_table(ClassTable(order), rule) for order in (rows, rows[::-1]))
    assert one == other
    assert one[0].names == [name, "crack", *(["unsure"] if third else [])]
    assert binary_table(*one) == one  # the table in a checkpoint is read the same way


@given(st.integers(1, 5), st.integers(0, 5))
def test_only_two_classes_that_count_make_a_binary_task(count: int, ignored: int):
    rows = [LabelClass(at, f"c{at}", (at, at, at)) for at in range(count + ignored)]
    rule = MaskRule(ignore_ids=tuple(range(count, count + ignored)))
    kind, labels, _ = for_task("auto", ClassTable(rows), rule)
    assert kind == ("binary" if count == 2 else "multiclass")
    assert set(labels.names) == {row.name for row in rows}
    assert for_task("multiclass", ClassTable(rows), rule) == ("multiclass", ClassTable(rows), rule)
    if count == 2:
        assert for_task("binary", ClassTable(rows), rule) == for_task("auto", ClassTable(rows), rule)
    else:
        with pytest.raises(UserError, match=rf"^data\.task=binary: .* has {count} \(c0"):
            for_task("binary", ClassTable(rows), rule)


@given(colors, st.booleans(), st.booleans())
def test_no_pixel_has_an_ignored_class_however_the_mask_is_read(tmp_path_factory, palette, by_color: bool, typed: bool):
    labels = ClassTable([LabelClass(at, name, palette[at]) for at, name in enumerate(["void", "crack", "unsure"])])
    ignored = {"ignore_colors": (hex_color(palette[2]),)} if typed else {"ignore_ids": (2,)}
    found, rule = binary_table(labels, MaskRule(**ignored))
    assert found.names == ["void", "crack", "unsure"]
    pixels = np.array([[0, 1, 2], [2, 1, 0]], dtype=np.uint8)
    path: Path = tmp_path_factory.mktemp("masks") / "mask.png"
    Image.fromarray(labels.colors[pixels] if by_color else pixels).save(path)
    reading = MaskRule(**{**vars(rule), "by": "color" if by_color else "index"})
    assert read_mask(path, found, reading).mask.tolist() == [[0, 1, IGNORE], [IGNORE, 1, 0]]


def test_a_class_that_something_is_mapped_to_is_not_ignored():
    labels = table((0, "void"), (1, "crack"), (2, "unsure"))
    assert binary_table(labels, MaskRule(ignore_ids=(2,))) is not None
    assert binary_table(labels, MaskRule(ignore_ids=(2,), map_ids={7: "unsure"})) is None
    assert binary_table(labels, MaskRule(ignore_ids=(2,), map_colors={"#FFFFFF": "crack"})) is None
