import json
import pickle

import numpy as np
import pytest

from segsweep.classes import PRESETS, ClassTable, LabelClass, MaskRule, read_mask
from segsweep.errors import UserError

LABELS = ClassTable([LabelClass(0, "a", (1, 1, 1)), LabelClass(1, "b", (2, 2, 2))])


@pytest.mark.parametrize(
    "rule",
    [
        MaskRule(),
        MaskRule("index", ignore_ids=[255, -1], map_ids={"17": "a"}, snap=True),
        MaskRule(ignore_colors=["#0000ff", (1, 2, 3)], map_colors={"abcdef": "b"}),
        *(pair[1] for pair in PRESETS.values()),
    ],
)
def test_a_rule_survives_the_way_through_plain_data(rule):
    assert MaskRule.from_dict(json.loads(json.dumps(rule.to_dict()))) == rule
    assert MaskRule.from_dict(rule.to_dict()) == rule
    assert pickle.loads(pickle.dumps(rule)) == rule


def test_colors_and_ids_are_kept_in_one_notation():
    rule = MaskRule(
        ignore_colors=["0000ff", [1, 2, 3]], ignore_ids=["7"], map_colors={"#abcdef": "a"}, map_ids={"8": "a"}
    )
    assert rule.ignore_colors == ("#0000FF", "#010203")
    assert rule.ignore_ids == (7,)
    assert (rule.map_colors, rule.map_ids) == ({"#ABCDEF": "a"}, {8: "a"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"by": "colour"}, "by='colour' is no way to read masks; choose one of auto, color, index."),
        ({"snap": "yes"}, "snap='yes' is neither true nor false."),
        ({"ignore_color": []}, "'ignore_color' is no setting for masks; there are by, ignore_colors,"),
        ({"ignore_colors": "#000000"}, "ignore_colors='#000000' is not a list; put brackets around it."),
        ({"ignore_colors": ["black"]}, "'black' is no colour; write it as '#RRGGBB' or [r, g, b]."),
        ({"ignore_ids": [1.5]}, "1.5 is no id; ids are whole numbers in -32768..65535."),
        ({"map_ids": [1]}, "map_ids=[1] is not a mapping to class names."),
        (
            {"ignore_colors": ["#000000"], "map_colors": {"#000000": "a"}},
            "#000000 is both in ignore_colors and in map_colors; take it out of one.",
        ),
    ],
)
def test_a_rule_that_is_not_valid_is_refused_on_one_line(settings, message):
    with pytest.raises(UserError) as caught:
        MaskRule.from_dict(settings)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_mapping_to_no_class_is_refused(tmp_path):
    path = tmp_path / "mask.npy"
    np.save(path, np.zeros((1, 1), dtype=np.uint8))
    with pytest.raises(UserError, match="map_ids maps 5 to 'c', which is no class; choose one of a, b"):
        read_mask(path, LABELS, MaskRule(map_ids={5: "c"}))


def test_the_rule_has_the_last_word_over_the_class_table(tmp_path):
    path = tmp_path / "mask.npy"
    np.save(path, np.array([[0, 1]]))
    assert read_mask(path, LABELS, MaskRule(ignore_ids=[1])).mask.tolist() == [[0, 255]]
    assert read_mask(path, LABELS, MaskRule(map_ids={1: "a"})).mask.tolist() == [[0, 0]]
    assert read_mask(path, LABELS, MaskRule(map_ids={0: "b"})).mask.tolist() == [[1, 1]]
    assert read_mask(path, LABELS).mask.tolist() == [[0, 1]]
