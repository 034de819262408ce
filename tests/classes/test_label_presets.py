import numpy as np
import pytest
from PIL import Image

from segsweep.classes import IGNORE, load_class_table, read_mask
from segsweep.errors import UserError


@pytest.mark.parametrize(
    ("name", "number", "background"),
    [
        ("dubai", 6, "Unlabeled"),
        ("isprs", 6, "Clutter"),
        ("potsdam", 6, "Clutter"),
        ("vaihingen", 6, "Clutter"),
        ("cityscapes", 19, None),
        ("cityscapes_train_ids", 19, None),
        ("voc", 21, "background"),
    ],
)
def test_a_preset_has_the_classes_of_its_data_set(name, number, background):
    labels, rule = load_class_table(name)
    assert (len(labels), labels.background) == (number, background)
    rule.check(labels)


def test_cityscapes_label_ids_become_the_nineteen_train_ids(tmp_path):
    path = tmp_path / "mask.png"
    Image.fromarray(np.arange(34, dtype=np.uint8)[None]).save(path)
    mask = read_mask(path, *load_class_table("cityscapes")).mask[0].tolist()
    evaluated = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    assert mask == [evaluated.index(number) if number in evaluated else IGNORE for number in range(34)]


def test_cityscapes_train_ids_are_not_mistaken_for_label_ids(tmp_path):
    path = tmp_path / "mask.png"
    Image.fromarray(np.array([[*range(19), 255]], dtype=np.uint8)).save(path)
    assert read_mask(path, *load_class_table("cityscapes_train_ids")).mask.tolist() == [[*range(19), IGNORE]]
    with pytest.raises(UserError, match="1 pixel of id 255"):
        read_mask(path, *load_class_table("cityscapes"))


def voc_palette() -> list[int]:
    """The palette as computed by the Matlab code of the devkit: bit by bit, from the highest."""
    palette = []
    for number in range(256):
        red = green = blue = 0
        rest = number
        for place in range(7, -1, -1):
            red += (rest % 2) * 2**place
            green += (rest // 2 % 2) * 2**place
            blue += (rest // 4 % 2) * 2**place
            rest //= 8
        palette += [red, green, blue]
    return palette


@pytest.mark.parametrize("mode", ["P", "RGB", "L"])
def test_voc_masks_read_alike_as_palette_color_and_gray_files(tmp_path, mode):
    numbers = np.array([[*range(21), 255]], dtype=np.uint8)
    image = Image.fromarray(numbers)
    if mode != "L":
        image.putpalette(voc_palette())
        image = image.convert(mode)
    path = tmp_path / "mask.png"
    image.save(path)
    assert read_mask(path, *load_class_table("voc")).mask.tolist() == [[*range(21), IGNORE]]


def test_isprs_masks_are_read_by_color_with_black_boundaries_ignored(tmp_path):
    path = tmp_path / "mask.tif"
    colors = [(255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0), (0, 0, 0)]
    Image.fromarray(np.array([colors], dtype=np.uint8)).save(path)
    assert read_mask(path, *load_class_table("isprs")).mask.tolist() == [[0, 1, 2, 3, 4, 5, IGNORE]]
