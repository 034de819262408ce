"""Folders as labelling tools and data sets leave them, made up of small scenes.

Each function writes one below a folder that does not exist yet.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segsweep.classes.table import voc_color

Array = NDArray[np.uint8]
SIZE = (24, 28)


def scene(seed: int, classes: int = 3) -> tuple[Array, Array]:
    """An image [H, W, 3] and the class numbers of its pixels [H, W]; every class has some."""
    generator = np.random.default_rng(seed)
    mask = np.zeros(SIZE, dtype=np.uint8)
    for number in range(1, classes):
        top, left = generator.integers(0, 8, 2)
        mask[top + 2 * number : top + 2 * number + 3, left + number : left + 8] = number
        mask[-1, number] = number  # never covered
    return generator.integers(0, 256, (*SIZE, 3), dtype=np.uint8), mask


def save(path: Path, pixels: Array, palette: Sequence[Sequence[int]] | None = None) -> None:
    """Writes an image, or numbers with a palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels)
    if palette is not None:
        picture.putpalette(bytes(value for color in palette for value in color))
    picture.save(path)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


VOC = [voc_color(number) for number in range(256)]


def cvat(root: Path) -> None:
    """CVAT, "Segmentation mask 1.1": the background is not the first class, and the palette has another order."""
    write(
        root / "labelmap.txt",
        "# label:color_rgb:parts:actions\nCat:48,112,32::\nDog:176,112,32::\nbackground:0,0,0::\n",
    )
    for number in range(8):
        image, mask = scene(number)
        name = f"frame_{number:06d}"
        save(root / f"JPEGImages/{name}.jpg", image)
        save(root / f"SegmentationClass/{name}.png", mask, [(0, 0, 0), (48, 112, 32), (176, 112, 32)])
        save(root / f"SegmentationObject/{name}.png", mask, VOC)
    write(root / "ImageSets/Segmentation/default.txt", "".join(f"frame_{number:06d}\n" for number in range(8)))


def roboflow(root: Path) -> None:
    """Roboflow, "Semantic Segmentation Masks": images and masks in one folder, a table in each split."""
    for start, (part, count) in enumerate((("train", 6), ("valid", 2), ("test", 2))):
        write(root / part / "_classes.csv", "Pixel Value, Class\n0, background\n1, crack\n2, spall\n")
        for number in range(count):
            image, mask = scene(50 * start + number)
            save(root / part / f"IMG_{number:04d}_jpg.rf.0a1b2c3d4e5f{number}{part}.jpg", image)
            save(root / part / f"IMG_{number:04d}_jpg.rf.0a1b2c3d4e5f{number}{part}_mask.png", mask)
    write(root / "README.roboflow.txt", "demo\n")


def label_studio(root: Path) -> None:
    """Label Studio, "Brush labels to PNG" with the export as JSON-MIN: a file a label, which does not name its image."""
    tasks = []
    for number in range(6):
        image, mask = scene(number)
        save(root / f"images/1a2b3c4d-photo_{number}.jpg", image)
        tasks.append({"id": 11 + number, "annotation_id": 3, "image": f"/data/upload/1/1a2b3c4d-photo_{number}.jpg"})
        for value, label in ((1, "Cat"), (2, "Dog")):
            name = f"task-{11 + number}-annotation-{3 + number}-by-1-tag-{label}-0.png"
            save(root / "png" / name, np.where(mask == value, 255, 0).astype(np.uint8))
    write(root / "project.json", json.dumps(tasks))


def labelme(root: Path) -> None:
    """labelme2voc.py: masks as palette files, as arrays and as pictures."""
    write(root / "class_names.txt", "_background_\ncat\ndog")
    for number in range(6):
        image, mask = scene(number)
        save(root / f"JPEGImages/2011_{number:06d}.jpg", image)
        for kind in ("Class", "Object"):
            save(root / f"Segmentation{kind}/2011_{number:06d}.png", mask, VOC)
            save(root / f"Segmentation{kind}Visualization/2011_{number:06d}.jpg", image)
            (root / f"Segmentation{kind}Npy").mkdir(exist_ok=True)
            np.save(root / f"Segmentation{kind}Npy/2011_{number:06d}.npy", mask.astype(np.int32))


def supervisely(root: Path) -> None:
    """Supervisely, "Export as masks": black where nothing is labelled, and the same masks in colours and in numbers."""
    colors = [(0, 0, 0), (255, 0, 0), (81, 198, 170)]
    classes = [
        {"title": title, "shape": "bitmap", "color": f"#{bytes(color).hex().upper()}", "id": 8231424 + at}
        for at, (title, color) in enumerate(zip(("kiwi", "lemon"), colors[1:], strict=True))
    ]
    write(root / "meta.json", json.dumps({"classes": classes, "tags": [], "projectType": "images"}))
    write(root / "obj_class_to_machine_color.json", json.dumps({"kiwi": [1, 1, 1], "lemon": [2, 2, 2]}))
    for number in range(6):
        image, mask = scene(number)
        save(root / f"ds0/img/fruit {number}.jpeg", image)
        write(root / f"ds0/ann/fruit {number}.jpeg.json", "{}")
        save(root / f"ds0/masks_human/fruit {number}.jpeg.png", np.array(colors, dtype=np.uint8)[mask])
        save(root / f"ds0/masks_machine/fruit {number}.jpeg.png", np.repeat(mask[..., None], 3, axis=2))


def voc(root: Path) -> None:
    """PASCAL VOC 2012: few of the images have masks, and lists say which."""
    for number in range(12):
        image, mask = scene(number)
        save(root / f"JPEGImages/2007_{number:06d}.jpg", image)
        if number < 8:
            mask[0] = 255
            save(root / f"SegmentationClass/2007_{number:06d}.png", mask, VOC)
            save(root / f"SegmentationObject/2007_{number:06d}.png", mask, VOC)
    for part, numbers in (("train", range(5)), ("val", range(5, 8)), ("trainval", range(8))):
        write(root / f"ImageSets/Segmentation/{part}.txt", "".join(f"2007_{number:06d}\n" for number in numbers))


def cityscapes(root: Path) -> None:
    """Cityscapes: three masks an image, and those of test are empty."""
    for at, (part, city) in enumerate((("train", "aachen"), ("train", "ulm"), ("val", "lindau"), ("test", "bonn"))):
        for number in range(2):
            image, mask = scene(10 * at + number)
            name = f"{part}/{city}/{city}_{number:06d}_000019"
            save(root / f"leftImg8bit/{name}_leftImg8bit.png", image)
            ids = np.array([7, 26, 0], dtype=np.uint8)[mask] if part != "test" else np.zeros_like(mask)
            save(root / f"gtFine/{name}_gtFine_labelIds.png", ids)
            save(root / f"gtFine/{name}_gtFine_instanceIds.png", ids)
            save(root / f"gtFine/{name}_gtFine_color.png", image)
            write(root / f"gtFine/{name}_gtFine_polygons.json", "{}")


def camvid(root: Path) -> None:
    """CamVid as SegNet's tutorial has it: the folders change with the split."""
    write(root / "classes.csv", "id,name\n0,sky\n1,road\n2,car\n")
    for start, (part, count) in enumerate((("train", 4), ("val", 2), ("test", 2))):
        for number in range(count):
            image, mask = scene(10 * start + number)
            save(root / part / f"0001TP_{number:06d}.png", image)
            save(root / f"{part}annot/0001TP_{number:06d}.png", mask)


def drive(root: Path) -> None:
    """DRIVE: TIFF images, GIF masks, suffixes that change with the split, and the camera's field of view as a mask."""
    for part, short, first in (("training", "training", 21), ("test", "test", 1)):
        for number in range(first, first + 3):
            image, mask = scene(number, classes=2)
            save(root / f"{part}/images/{number:02d}_{short}.tif", image)
            save(root / f"{part}/1st_manual/{number:02d}_manual1.gif", 255 * mask)
            save(root / f"{part}/mask/{number:02d}_{short}_mask.gif", np.full(SIZE, 255, dtype=np.uint8))
    write(root / "classes.csv", "name,r,g,b\nbackground,0,0,0\nvessel,255,255,255\n")


def carvana(root: Path) -> None:
    """Carvana: masks as GIF, and test images without masks."""
    for number in range(1, 7):
        image, mask = scene(number, classes=2)
        save(root / f"train/0cdf5b5d0ce1_{number:02d}.jpg", image)
        (root / "train_masks").mkdir(exist_ok=True)
        Image.fromarray(255 * mask).convert("1").save(root / f"train_masks/0cdf5b5d0ce1_{number:02d}_mask.gif")
        save(root / f"test/0004d4463b50_{number:02d}.jpg", scene(90 + number)[0])
    write(root / "classes.csv", "name,r,g,b\nbackground,0,0,0\ncar,255,255,255\n")


def isprs(root: Path) -> None:
    """ISPRS Potsdam: numbered folders, and a height model beside them."""
    colors = np.array([(255, 255, 255), (0, 0, 255), (0, 255, 0)], dtype=np.uint8)
    for number in range(10, 16):
        image, mask = scene(number)
        save(root / f"2_Ortho_RGB/top_potsdam_2_{number}_RGB.tif", image)
        save(root / f"5_Labels_all/top_potsdam_2_{number}_label.tif", colors[mask])


def loveda(root: Path) -> None:
    """LoveDA: ids, of which 0 is no data."""
    names = ["background", "building", "road", "water", "barren", "forest", "agriculture"]
    write(root / "classes.csv", "id,name\n" + "".join(f"{at},{name}\n" for at, name in enumerate(names, start=1)))
    for at, part in enumerate(("Train", "Val")):
        for scenery in ("Rural", "Urban"):
            for number in range(3):
                image, mask = scene(20 * at + number + 7 * (scenery == "Urban"), classes=8)
                save(root / f"{part}/{scenery}/images_png/{number + 3 * at}.png", image)
                save(root / f"{part}/{scenery}/masks_png/{number + 3 * at}.png", mask)


TOOLS: dict[str, Callable[[Path], Any]] = {
    "CVAT": cvat,
    "Roboflow": roboflow,
    "labelme": labelme,
    "Supervisely": supervisely,
    "PASCAL VOC": voc,
    "Cityscapes": cityscapes,
    "CamVid": camvid,
    "DRIVE": drive,
    "Carvana": carvana,
    "ISPRS Potsdam": isprs,
    "LoveDA": loveda,
}
