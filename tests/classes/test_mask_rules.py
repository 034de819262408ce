import json
import pickle

import numpy as np
import pytest
from mask_support import assert_says

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
def test_a_rule_survives_json_and_pickle(rule):
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
    ("settings", "parts"),
    [
        ({"by": "colour"}, ("by='colour'", "auto, color, index")),
        ({"snap": "yes"}, ("snap='yes'", "true", "false")),
        ({"ignore_color": []}, ("'ignore_color'", "by, ignore_colors,")),
        ({"ignore_colors": "#000000"}, ("ignore_colors='#000000'", "brackets")),
        ({"ignore_colors": ["black"]}, ("'black'", "'#RRGGBB' or [r, g, b]")),
        ({"ignore_ids": [1.5]}, ("1.5", "-32768..65535")),
        ({"map_ids": [1]}, ("map_ids=[1]", "mapping")),
        ({"ignore_colors": ["#000000"], "map_colors": {"#000000": "a"}}, ("ignore_colors", "#000000", "map_colors")),
    ],
)
def test_an_invalid_rule_is_refused_on_one_line(settings, parts):
    with pytest.raises(UserError) as caught:
        MaskRule.from_dict(settings)
    assert_says(str(caught.value), *parts)
    assert "\n" not in str(caught.value)


def test_a_mapping_to_an_unknown_class_is_refused(tmp_path):
    path = tmp_path / "mask.npy"
    np.save(path, np.zeros((1, 1), dtype=np.uint8))
    with pytest.raises(UserError, match=r"^map_ids: 5 .*'c'.* a, b"):
        read_mask(path, LABELS, MaskRule(map_ids={5: "c"}))


def test_the_rule_wins_over_the_class_table(tmp_path):
    path = tmp_path / "mask.npy"
    np.save(path, np.array([[0, 1]]))
    assert read_mask(path, LABELS, MaskRule(ignore_ids=[1])).mask.tolist() == [[0, 255]]
    assert read_mask(path, LABELS, MaskRule(map_ids={1: "a"})).mask.tolist() == [[0, 0]]
    assert read_mask(path, LABELS, MaskRule(map_ids={0: "b"})).mask.tolist() == [[1, 1]]
    assert read_mask(path, LABELS).mask.tolist() == [[0, 1]]
