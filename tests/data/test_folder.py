import inspect
import pickle
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_folders import LABELS, Folder
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader, default_collate

from segsweep.data.crops import Crop, TileRule, Tiling, file_order
from segsweep.data.folder import FolderSource
from segsweep.data.source import Batch
from segsweep.errors import UserError
from segsweep.instantiate import check_arguments
from segsweep.nets import UNet
from segsweep.nets.tiling import ReceptiveField, least_tile

CPU = torch.device("cpu")
NAMES = {"train": ["a", "b", "c", "d", "e"], "val": ["f", "g", "h"], "test": ["i"]}


@pytest.fixture
def folder(folder: Folder) -> Folder:
    """Nine pairs of two sizes in train, val and test folders; the images' channels hold row, column and file name."""
    for part, names in NAMES.items():
        for number, name in enumerate(names):
            height, width = ((20, 24), (18, 17))[number % 2]
            row, column = np.mgrid[:height, :width].astype(np.uint8)
            image = np.stack([row, column, np.full_like(row, ord(name))], axis=2)
            path = folder.root / part / "images" / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
            folder.mask(f"{part}/masks/{name}.png", (height, width), expected_class(image.transpose(2, 0, 1)))
    folder.table()
    return folder


def expected_class(image: np.ndarray) -> np.ndarray:
    """The class of each pixel of this folder, a function of row, column and file name."""
    row, column, name = image.astype(np.int64)
    return (row * row + 3 * column + row * column + name) % len(LABELS)


def source(folder: Folder, **options: Any) -> FolderSource:
    return FolderSource(str(folder.root), **{"image_size": 8, **options})


def items(src: FolderSource, indices: list[int], split: Any = "train") -> list[Crop]:
    dataset = src.dataset(split)
    return [dataset[index] for index in indices]


def batch_of(src: FolderSource, indices: list[int], split: Any = "train") -> Batch:
    return src.to_batch(default_collate(items(src, indices, split)), split, CPU)


def same(first: Batch, second: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_image_and_mask_stay_together_through_crop_flip_and_turn(folder: Folder) -> None:
    batch = batch_of(source(folder), list(range(200)))
    images = (batch.image * 255).round().numpy().astype(np.uint8)
    for image, mask in zip(images, batch.mask.numpy(), strict=True):
        assert np.array_equal(mask, expected_class(image))


def test_samples_come_in_the_shapes_and_types_of_the_interface(folder: Folder) -> None:
    for split, size in (("train", (8, 8)), ("bn_calibration", (8, 8)), ("val", (20, 24))):
        batch = batch_of(source(folder), [0], split)
        assert batch.image.shape == (1, 3, *size)
        assert batch.mask.shape == (1, *size)
        assert (batch.image.dtype, batch.mask.dtype, batch.indices.dtype) == (torch.float32, torch.int64, torch.int64)
        assert 0 <= batch.image.min() <= batch.image.max() <= 1


@pytest.mark.parametrize("split", ["train", "bn_calibration", "val"])
def test_a_sample_does_not_depend_on_workers_or_on_the_order_of_requests(folder: Folder, split: Any) -> None:
    src = source(folder, brightness=0.2, contrast=0.3, saturation=0.5, hue=0.1, blur=1.0, scale=1.5)
    order = [2, 0, 1] if split == "val" else [3, 19, 0, 11, 7, 4]
    alone = {index: batch_of(src, [index], split) for index in sorted(order)}
    for workers in (0, 2):
        loader: Any = DataLoader(src.dataset(split), batch_sampler=[[index] for index in order], num_workers=workers)
        for index, collated in zip(order, loader, strict=True):
            assert same(src.to_batch(collated, split, CPU), alone[index])
    if split != "val":
        together = batch_of(src, order, split)
        for row, index in enumerate(order):
            assert torch.equal(together.mask[row], alone[index].mask[0])
            assert torch.allclose(together.image[row], alone[index].image[0], atol=1e-6)  # means sum in another order


def test_files_are_decoded_before_workers_start_and_never_again(folder: Folder) -> None:
    src = source(folder)
    datasets = {split: src.dataset(split) for split in ("train", "bn_calibration", "val", "test")}
    before = {split: batch_of(src, [0], split) for split in datasets}
    shutil.rmtree(folder.root)
    for split, dataset in datasets.items():
        loader: Any = DataLoader(dataset, batch_sampler=[[0]], num_workers=1)
        assert same(src.to_batch(next(iter(loader)), split, CPU), before[split])  # type: ignore[arg-type]


@pytest.mark.parametrize("split", ["train", "bn_calibration"])
def test_every_round_has_every_file_once_and_in_another_order(folder: Folder, split: Any) -> None:
    names = [chr(int(sample.image[2, 0, 0])) for sample in items(source(folder), list(range(60)), split)]
    rounds = [tuple(names[start : start + 5]) for start in range(0, 60, 5)]
    assert all(sorted(names) == NAMES["train"] for names in rounds)
    assert len(set(rounds)) > 8


def test_orders_depend_on_seed_split_and_round() -> None:
    orders = [
        file_order(seed, split, round_, 50).tolist()
        for seed in (0, 1)
        for split in ("train", "bn_calibration")
        for round_ in (0, 1)
    ]
    assert len({tuple(order) for order in orders}) == 8
    assert all(sorted(order) == list(range(50)) for order in orders)


def test_crops_reach_every_place_of_an_image_and_every_symmetry(folder: Folder) -> None:
    samples = items(source(folder, image_size=16), list(range(3000)))
    small = [sample for sample in samples if chr(int(sample.image[2, 0, 0])) == "b"]
    places = Counter((int(sample.image[0, 0, 0]), int(sample.image[1, 0, 0])) for sample in small)
    assert set(places) == {(top, left) for top in range(3) for left in range(2)}
    assert {int(sample.symmetry) for sample in samples} == set(range(8))


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"flips": False}, {0, 3, 5, 6}), ({"turns": False}, {0, 2, 4, 6}), ({"flips": False, "turns": False}, {0})],
)
def test_flips_and_turns_can_be_switched_off(folder: Folder, options: dict[str, bool], expected: set[int]) -> None:
    assert {int(sample.symmetry) for sample in items(source(folder, **options), list(range(100)))} == expected


def test_bn_calibration_has_training_crops_without_augmentation_for_every_run_seed(folder: Folder) -> None:
    one, other = source(folder, seed=1, brightness=0.5), source(folder, seed=2, contrast=0.5)
    batch = batch_of(one, list(range(20)), "bn_calibration")
    assert same(batch, batch_of(other, list(range(20)), "bn_calibration"))
    pixels = (batch.image * 255).round().long()
    assert (pixels[:, 0, 1:] > pixels[:, 0, :-1]).all()  # rows still run downwards, columns to the right
    assert (pixels[:, 1, :, 1:] > pixels[:, 1, :, :-1]).all()
    assert not same(batch_of(one, [0]), batch_of(other, [0]))


@pytest.mark.parametrize("option", [{"brightness": 0.3}, {"hue": 0.2}, {"saturation": 0.5}, {"blur": 1.0}])
def test_a_change_of_values_moves_no_crop(folder: Folder, option: dict[str, float]) -> None:
    plain, changed = (items(source(folder, **options), list(range(40))) for options in ({}, option))
    for one, other in zip(plain, changed, strict=True):
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.symmetry, other.symmetry)
        assert not torch.equal(one.jitter, other.jitter)


def test_scaled_crops_show_windows_of_many_sizes_with_their_masks(folder: Folder) -> None:
    # Channels 0 and 1 are row and column, so their slope is the number of pixels of the image in a pixel of the crop.
    samples = items(source(folder, image_size=12, scale=2.0, flips=False, turns=False), list(range(400)))
    steps = []
    for sample in samples:
        image = sample.image.numpy().astype(float)
        down, right = ((image[0, -1, 0] - image[0, 0, 0]) / 11, (image[1, 0, -1] - image[1, 0, 0]) / 11)
        assert down == pytest.approx(right, abs=0.2)
        steps.append(down)
        expected = expected_class(sample.image.numpy())
        inner = np.s_[1:-1, 1:-1]
        agree = (expected == sample.mask.numpy())[inner]
        assert agree.mean() > 0.7  # a value half-way between two is rounded to either
        assert set(np.unique(sample.mask.numpy())) <= {0, 1, 2}
    assert min(steps) < 0.6
    assert max(steps) > 1.4
    assert 0.4 < np.mean([step < 1 for step in steps]) < 0.6


def test_small_images_are_reflected_and_their_masks_ignored_there(folder: Folder) -> None:
    batch = batch_of(source(folder, image_size=30, flips=False, turns=False), list(range(5)))
    for image, mask in zip((batch.image * 255).round().numpy().astype(np.uint8), batch.mask.numpy(), strict=True):
        height, width = (18, 17) if chr(image[2, 0, 0]) in "bd" else (20, 24)
        assert np.array_equal(mask[:height, :width], expected_class(image)[:height, :width])
        assert (mask[height:] == 255).all()
        assert (mask[:, width:] == 255).all()
        assert np.array_equal(image[:, height : height + 5], image[:, height - 6 : height - 1][:, ::-1])


def test_small_images_are_refused_where_that_is_asked(folder: Folder) -> None:
    with pytest.raises(UserError, match=r"train/images/a.png: is 20 x 24 .* data.image_size=30"):
        source(folder, image_size=30, small="refuse").dataset("train")


@settings(deadline=None)
@given(
    height=st.integers(1, 300), width=st.integers(1, 300), margin=st.integers(0, 19), extra=st.integers(0, 80),
    alignment=st.sampled_from([32, 96]),
)  # fmt: skip
def test_every_pixel_counts_in_one_tile_and_has_its_margin(
    height: int, width: int, margin: int, extra: int, alignment: int
) -> None:
    size = least_tile(margin, 0, alignment) + extra
    counted = np.zeros((height, width), dtype=int)
    tiles = Tiling(TileRule(tile_size=size, tile_margin=margin), ReceptiveField("Net", alignment, 0)).tiles(
        [(height, width)]
    )
    for tile in tiles:
        top, left, bottom, right = tile.inner
        counted[top:bottom, left:right] += 1
        assert 0 <= tile.top <= tile.top + tile.height <= height
        assert 0 <= tile.left <= tile.left + tile.width <= width
        assert tile.top % alignment == tile.left % alignment == 0
        assert top - tile.top >= margin or tile.top == 0
        assert left - tile.left >= margin or tile.left == 0
        assert tile.top + tile.height - bottom >= margin or tile.top + tile.height == height
        assert tile.left + tile.width - right >= margin or tile.left + tile.width == width
    assert (counted == 1).all()
    assert extra < alignment - 1 or len({(tile.height, tile.width) for tile in tiles}) == 1
    assert (len(tiles) == 1) == (height <= size and width <= size)


@pytest.fixture
def large(folder: Folder) -> Folder:
    """The folder with larger validation images, which tiles of forty pixels cut."""
    for name in NAMES["val"]:
        folder.pair(name, (50, 83), "val/")
    return folder


def test_tiles_of_a_split_hold_each_labelled_pixel_once(large: Folder) -> None:
    whole, tiled = source(large), source(large, tile_size=40, tile_margin=2)
    assert tiled.size("val") > whole.size("val") == 3
    counts = [
        sum(
            np.bincount(sample.mask.numpy().ravel(), minlength=256)[:255]
            for sample in items(src, list(range(src.size("val"))), "val")
        )
        for src in (whole, tiled)
    ]
    assert np.array_equal(counts[0], counts[1])
    assert whole.name("val", 0) == "val/f"
    assert tiled.name("val", 1) == "val/f [0:40, 32:72]"


def test_tiles_for_a_net_are_its_own_and_images_are_read_once(large: Folder) -> None:
    src = source(large, tile_size=40, tile_margin=4)
    net, other = UNet(widths=[2, 2, 2]), UNet(widths=[2, 2, 2])
    other.stride = 64
    own = src.for_net(net)
    assert own.arrays("val") is src.arrays("val")
    (line,) = own.cautions(["train", "val", "test"])
    assert all(word in line for word in ("UNet sees 7", "data.tile_margin=7 data.tile_size=46", "data.tile_size=83"))
    assert not src.cautions(["val"])  # of no net
    assert not own.cautions(["train", "test"])  # nothing is cut
    assert not source(large, tile_size=46, tile_margin=7).for_net(net).cautions(["val"])
    for use in (lambda: src.for_net(other).cautions(["val"]), lambda: src.for_net(other).dataset("val")):
        with pytest.raises(UserError, match=r"^data\.tile_size=40: must be at least 72 with data\.tile_margin=4"):
            use()
    assert src.for_net(other).size("test") == 1
    at_64 = source(large, tile_size=72, tile_margin=4).for_net(other)
    assert {tile.left for tile in at_64.tiles("val")} == {0, 64}
    assert len(own.tiles("val")) == len(src.tiles("val"))


def test_batches_hold_every_sample_once_and_one_size_each(folder: Folder) -> None:
    src = source(folder, image_size=20)
    shapes = [sample.mask.shape for sample in items(src, [0, 1, 2], "val")]
    for batch_size in (1, 2, 8):
        batches = src.batches("val", batch_size)
        assert sorted(index for batch in batches for index in batch) == [0, 1, 2]
        assert all(len({shapes[index] for index in batch}) == 1 for batch in batches)
        assert all(len(batch) <= batch_size for batch in batches)
    assert [list(batch) for batch in src.batches("val", 8)] == [[0, 2], [1]]
    assert [list(batch) for batch in source(folder).batches("val", 8)] == [[0], [2], [1]]  # 512 pixels at most


def test_validation_samples_are_the_files_whatever_the_seed(folder: Folder) -> None:
    batches = [batch_of(source(folder, seed=seed), [0], "val") for seed in (0, 1)]
    assert same(*batches)
    with Image.open(folder.root / "val/images/f.png") as image:
        assert torch.equal(batches[0].image[0], torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255)


def test_samples_and_counts_are_the_same_however_images_are_kept(folder: Folder, tmp_path: Path) -> None:
    cache_dir = str(tmp_path / "cache")
    memory, disk = source(folder), source(folder, cache="disk", cache_dir=cache_dir)
    others = [
        disk,
        source(folder, cache="none"),
        source(folder, cache_gib=3000 / 2**30),
        source(folder, cache="memory"),
    ]
    for split in ("train", "bn_calibration", "val"):
        for other in others:
            assert same(batch_of(memory, [1], split), batch_of(other, [1], split))
    for other in others:
        assert np.array_equal(other.class_counts("train"), memory.class_counts("train"))
        assert other.absent_classes("val") == memory.absent_classes("val")
    assert isinstance(disk.arrays("train")[0], np.memmap)
    assert not isinstance(memory.arrays("train")[0], np.memmap)


def test_a_dataset_can_be_sent_to_another_process(folder: Folder) -> None:
    for cache in ("memory", "none"):
        dataset = source(folder, cache=cache).dataset("train")
        dataset.expect([7])  # type: ignore[attr-defined]
        sent = pickle.loads(pickle.dumps(dataset))
        assert all(torch.equal(a, b) for a, b in zip(sent[7], dataset[7], strict=True))


def test_an_epoch_has_the_pixels_of_the_training_images_unless_told_otherwise(folder: Folder) -> None:
    pixels = 3 * 20 * 24 + 2 * 18 * 17
    assert source(folder).size("train") == round(pixels / 64)
    assert source(folder, image_size=100).size("train") == 5
    assert source(folder, samples_per_epoch=3).size("train") == 3


def test_class_counts_are_those_of_the_masks(folder: Folder) -> None:
    src = source(folder)
    masks = [sample.mask.numpy().ravel() for sample in items(src, [0, 1, 2], "val")]
    assert np.array_equal(src.class_counts("val"), np.bincount(np.concatenate(masks), minlength=3))


def test_describe_names_the_class_table_and_the_split(folder: Folder) -> None:
    src = source(folder)
    assert src.labels.names == LABELS.names
    lines = src.describe()
    assert "classes.csv" in lines[0]
    assert lines[1].endswith("train 5, val 3, test 1")


def test_a_folder_without_a_class_table_is_refused_with_the_ways_out(folder: Folder) -> None:
    (folder.root / "classes.csv").unlink()
    with pytest.raises(UserError, match=r"no class table.* data\.labels"):
        source(folder)
    assert source(folder, labels=LABELS.to_dict()).labels == LABELS


def test_the_rule_of_a_preset_is_the_default_of_the_mask_settings(folder: Folder) -> None:
    assert source(folder, labels="dubai").mask_rule.ignore_colors == ("#000000",)
    assert source(folder, labels="dubai").mask_rule.by == "color"
    changed = source(folder, labels="dubai", ignore_colors=["#FFFFFF"], snap=True).mask_rule
    assert (changed.ignore_colors, changed.by, changed.snap) == (("#FFFFFF",), "color", True)


def test_an_unreadable_file_is_refused_by_name_before_training(folder: Folder) -> None:
    (folder.root / "train/images/c.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"train/images/c.png: the file is empty"):
        source(folder).dataset("train")
    assert source(folder).size("val") == 3


def test_a_folder_is_only_read(folder: Folder, tmp_path: Path) -> None:
    def states() -> dict[Path, tuple[int, int, int]]:
        paths = [folder.root, *folder.root.rglob("*")]
        return {path: (path.stat().st_mtime_ns, path.stat().st_ctime_ns, path.stat().st_mode) for path in paths}

    for path in [*folder.root.rglob("*"), folder.root]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = states()
    src = source(folder, cache="disk", cache_dir=str(tmp_path / "cache"))
    for split in ("train", "bn_calibration", "val", "test"):
        items(src, [0], split)
    assert states() == before
    assert list((tmp_path / "cache").glob("*.pixels"))


@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda path: path.unlink(), "c.png: "),
        (lambda path: path.write_bytes(path.read_bytes()[:-30]), "c.png: "),
        (lambda path: Image.new("RGB", (24, 21)).save(path), "c.png: "),
        (lambda path: (path.unlink(), path.mkdir()), "c.png: is a folder or device"),
        (lambda path: (path.unlink(), path.symlink_to("/dev/zero")), "c.png: is a folder or device"),
    ],
)
def test_a_file_that_changes_between_listing_and_reading_is_refused_by_name(
    folder: Folder, tmp_path: Path, cache: str, change: Any, word: str
) -> None:
    src = source(folder, cache=cache, cache_dir=str(tmp_path / "cache"))
    assert src.size("train")  # listed, and the sizes read
    change(folder.root / "train/images/c.png")
    with pytest.raises(UserError) as caught:
        src.dataset("train")
    assert word in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "options",
    [
        {"image_size": 0},
        {"samples_per_epoch": 0},
        {"cache_gib": -1.0},
        {"cache": "ram"},
        {"brightness": 2.0},
        {"hue": 0.6},
        {"saturation": -0.1},
        {"blur": -1},
        {"scale": 0.5},
        {"channels": 1, "hue": 0.1},
        {"channels": 4, "saturation": 0.1},
        {"tile_size": 64, "tile_margin": 32},
        {"tile_size": 64, "tile_margin": -1},
        {"small": "crop"},
        {"fractions": [1.0]},
        {"map_colors": {"#000000": "lava"}},
    ],
)
def test_values_out_of_range_are_refused(folder: Folder, options: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        source(folder, **options)
    assert "\n" not in str(caught.value)


def test_a_configuration_s_plain_values_fit_the_signature(folder: Folder) -> None:
    defaults = {
        name: value.default for name, value in inspect.signature(FolderSource).parameters.items() if name != "root"
    }
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items()}
    labels = LABELS.to_dict()["classes"]
    check_arguments(
        FolderSource, {**plain, "root": str(folder.root), "labels": labels, "train": ["A"], "map_ids": {7: "sea"}}
    )
    with pytest.raises(UserError, match=r"data\.image_size"):
        check_arguments(FolderSource, {"root": "x", "image_size": "16"}, prefix="data.")


def test_naming_every_sample_lays_the_tiles_out_once(large: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Laid out again for every name, 2,000 images took longer to name than to score."""
    laid_out: list[int] = []
    lay_out = Tiling.tiles
    monkeypatch.setattr(Tiling, "tiles", lambda self, shapes: (laid_out.append(len(shapes)), lay_out(self, shapes))[1])
    src = source(large, tile_size=40, tile_margin=2)
    names = [src.name("val", index) for index in range(src.size("val"))]
    assert len(set(names)) == len(names) > len(NAMES["val"])
    assert laid_out == [len(NAMES["val"])]


def test_the_real_folder_gives_its_tiles(dubai: Path) -> None:
    parts = {"train": [f"Tile {n}" for n in range(1, 5)], "val": ["Tile 5"], "test": ["Tile 6"]}
    src = FolderSource(str(dubai), labels="dubai", **parts)  # type: ignore[arg-type]
    assert [len(src.splits[part]) for part in ("train", "val", "test")] == [36, 9, 9]
    assert src.size("val") == 9
    assert src.shapes("val") == [(1058, 1126)] * 9
    batch = batch_of(src, list(range(8)))
    assert batch.image.shape == (8, 3, 320, 320)
    assert src.class_counts().argmax() == src.labels.index("Land")
    assert int(src.class_counts("test").sum()) + 863 == 9 * 838 * 859  # 863 black pixels are ignored
