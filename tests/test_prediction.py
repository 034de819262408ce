"""From images to masks on disk: what is written, what is refused, and how bad files are reported."""

import errno
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from using_runs import train_on_scenes

from segsweep import load_run
from segsweep.classes import ClassTable, MaskRule, read_mask, read_table, written_rule
from segsweep.data.textures import Textures
from segsweep.errors import UserError
from segsweep.evaluation import Evaluator
from segsweep.prediction import predict
from segsweep.prediction_net import BATCH, PredictionNet, autocast_type
from segsweep.runs.load import Run


@pytest.fixture
def run(command, tmp_path: Path) -> Run:
    # Not auto: predictions in bfloat16 equal those of the run only to three digits.
    return load_run(train_on_scenes(command, tmp_path, "trainer.precision=32-true"))


def picture(path: Path, height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Writes an image; gives it as [C, H, W]."""
    pixels = np.random.default_rng(seed).integers(256, size=(height, width, channels), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels).save(path)
    return pixels.transpose(2, 0, 1)


def assert_predicted(run: Run, image: np.ndarray, mask: np.ndarray) -> None:
    """Asserts that the mask is the run's prediction, except at pixels with two classes equally likely up to rounding."""
    probabilities = np.sort(run.probabilities(image), axis=0)
    certain = probabilities[-1] - probabilities[-2] > 1e-4
    np.testing.assert_array_equal(mask[certain], run.predict(image)[certain])
    assert certain.mean() > 0.9 or certain.size < 100


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def three_cores() -> Iterator[None]:
    """Lets predict compute in three threads, on any machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def watched(monkeypatch: pytest.MonkeyPatch, run: Run) -> tuple[list[tuple[int, ...]], list[int]]:
    """The shapes [B, H, W] of all inputs of the run's net, and the pixels in the net whenever it is called."""
    forward, lock = type(run.net).forward, threading.Lock()
    seen: list[tuple[int, ...]] = []
    inside: list[int] = [0]

    def counting(net: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        pixels = x[:, 0].numel()
        with lock:
            seen.append((len(x), *x.shape[2:]))
            inside.append(inside[0] + pixels)
            inside[0] += pixels
        try:
            return forward(net, x)
        finally:
            with lock:
                inside[0] -= pixels

    monkeypatch.setattr(type(run.net), "forward", counting)
    return seen, inside


SIZES = {"a": (48, 48), "sub/b": (31, 57), "sub/deeper/c d": (1, 1), "wide": (3, 200)}


@pytest.mark.quick
def test_every_image_of_any_size_gets_the_run_s_own_mask_in_the_same_subfolder(run: Run, tmp_path: Path):
    photos = tmp_path / "photos"
    images = {name: picture(photos / f"{name}.png", *size, seed=at) for at, (name, size) in enumerate(SIZES.items())}
    result = predict(run, photos, tmp_path / "out")
    assert sorted(result.written) == sorted(SIZES)
    assert files(tmp_path / "out") == sorted(["classes.json", *(f"masks/{name}.png" for name in SIZES)])
    for name, image in images.items():
        assert_predicted(run, image, read_mask(tmp_path / f"out/masks/{name}.png", run.labels).mask)


@pytest.mark.quick
def test_an_image_has_the_same_result_in_a_batch_as_alone(run: Run, tmp_path: Path, monkeypatch, three_cores):
    sizes = [(20, 20), (20, 20), (20, 20), (9, 31), (20, 20), (150, 40), (150, 40)]
    for at, size in enumerate(sizes):
        picture(tmp_path / f"photos/{at}.png", *size, seed=at)
    seen, _ = watched(monkeypatch, run)
    together = predict(run, tmp_path / "photos", tmp_path / "together", probabilities="float32")
    assert sorted(seen) == [(1, 9, 31), (1, 20, 20), (2, 150, 40), (3, 20, 20)]
    seen.clear()
    monkeypatch.setitem(BATCH, "cpu", 1)
    alone = predict(run, tmp_path / "photos", tmp_path / "alone", probabilities="float32")
    assert sorted(seen) == sorted((1, *size) for size in sizes)
    assert together.written == alone.written == [str(at) for at in range(len(sizes))]
    assert together.pixels == alone.pixels == sum(height * width for height, width in sizes)
    for at in range(len(sizes)):
        one, other = (np.load(tmp_path / f"{folder}/probabilities/{at}.npy") for folder in ("together", "alone"))
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
        masks = [read_mask(tmp_path / f"{way}/masks/{at}.png", run.labels).mask for way in ("together", "alone")]
        ordered = np.sort(other, axis=0)
        certain = ordered[-1] - ordered[-2] > 2e-6
        np.testing.assert_array_equal(masks[0][certain], masks[1][certain])


def test_images_and_tiles_in_the_net_are_never_more_than_one_tile(run: Run, tmp_path: Path, monkeypatch, three_cores):
    for at, size in enumerate([(8, 8)] * 40 + [(60, 60)] * 5 + [(96, 96)] * 3 + [(200, 230), (8, 8), (128, 128)]):
        picture(tmp_path / f"photos/{at:02}.png", *size, seed=at)
    monkeypatch.setattr("segsweep.nets.tiling._FAST", 64)
    seen, inside = watched(monkeypatch, run)
    assert len(predict(run, tmp_path / "photos", tmp_path / "out", tile=128, overlap=32).written) == 51
    assert max(inside) <= 128 * 128
    assert max(batch for batch, _, _ in seen) > 1
    assert max(max(size) for _, *size in seen) < 128  # smaller tiles give the same logits


def test_small_tiles_on_several_cores_give_the_mask_of_the_whole_image(run, tmp_path, monkeypatch, three_cores):
    picture(tmp_path / "a.png", 300, 411)
    predict(run, tmp_path / "a.png", tmp_path / "whole", probabilities="float32")
    monkeypatch.setattr("segsweep.nets.tiling._FAST", 64)
    seen, _ = watched(monkeypatch, run)
    predict(run, tmp_path / "a.png", tmp_path / "tiled", tile=256, probabilities="float32")
    assert len(seen) > 20
    tiled, whole = (np.load(tmp_path / f"{folder}/probabilities/a.npy") for folder in ("tiled", "whole"))
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-5)


def test_a_net_that_sees_farther_than_the_overlap_gets_the_tiles_that_were_asked_for(run, tmp_path, monkeypatch):
    picture(tmp_path / "a.png", 30, 700)
    run.net.reach = 25
    seen, _ = watched(monkeypatch, run)
    assert predict(run, tmp_path / "a.png", tmp_path / "out", tile=640, overlap=64).caution is not None
    assert {width for _, _, width in seen} == {636}


def test_a_prediction_leaves_torch_as_many_threads_as_it_found(run: Run, tmp_path: Path, three_cores):
    picture(tmp_path / "a.png", 20, 20)
    predict(run, tmp_path / "a.png", tmp_path / "out")
    found = [torch.get_num_threads()]
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert found == [3, 3]


def rounding_spread(net: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
    """Standard deviation of the error of a TextureCNN's logits in bfloat16, if every rounding is independent.

    bfloat16 has 8 significant bits, so a rounded number is off by at most 2**-9 of itself. Each convolution rounds its
    input, its weights and its output; variances add up (Higham and Mary, 2019, on why such errors do not add up in size).
    """
    unit = 2.0**-18

    def convolved(convolution, x, variance):
        how = {"padding": convolution.padding, "dilation": convolution.dilation}
        spread = torch.conv2d(variance + 2 * unit * (x**2 + variance), convolution.weight**2, **how)
        spread = spread + unit * convolution.bias[None, :, None, None] ** 2
        y = convolution(x)
        return y, spread + unit * (y**2 + spread)

    x, variance = image, torch.zeros_like(image)
    for name in net.block_names():
        convolution, relu, norm = getattr(net, name)
        x, variance = convolved(convolution, x, variance)
        x = norm(relu(x))
        variance = variance * (norm.weight**2 / (norm.running_var + norm.eps))[None, :, None, None] + unit * x**2
    return convolved(net.out, x, variance)[1].sqrt()


@pytest.mark.quick
def test_bfloat16_changes_a_mask_only_where_the_logits_are_near_their_rounding(train, tmp_path: Path):
    run = load_run(train("trainer.max_steps=30", "data.limit_samples=null", "data.overfit_samples=2"))
    image, _ = Textures(96).make([0])
    pixels = (image[0, 0] * 255).round().to(torch.uint8)
    Image.fromarray(pixels.numpy()).save(tmp_path / "a.png")
    found = {}
    for precision in ("32-true", "bf16-mixed"):
        predict(run, tmp_path / "a.png", tmp_path / precision, probabilities="float32", precision=precision)
        positive = torch.from_numpy(np.load(tmp_path / f"{precision}/probabilities/a.npy")[1])
        found[precision] = positive, read_mask(tmp_path / f"{precision}/masks/a.png", run.labels).mask
    with torch.inference_mode():
        logits = run.net(pixels[None, None] / 255)[0, 0]
        bound = 2 * rounding_spread(run.net, pixels[None, None] / 255)[0, 0]
    assert not torch.equal(found["32-true"][0], found["bf16-mixed"][0])
    apart = (torch.logit(found["32-true"][0].double()) - torch.logit(found["bf16-mixed"][0].double())).abs()
    assert (apart <= bound).all()
    certain = logits.abs() > bound
    assert certain.float().mean() > 0.5
    np.testing.assert_array_equal(found["32-true"][1][certain], found["bf16-mixed"][1][certain])


def test_auto_is_the_precision_in_which_the_run_is_scored(run: Run, monkeypatch: pytest.MonkeyPatch):
    def found(**stored: str) -> torch.dtype:
        trainer = {key: value for key, value in run.settings("trainer").items() if key != "precision"} | stored
        other = replace(run, config=run.config | {"trainer": trainer})
        net = PredictionNet(other, torch.device("cpu"), 1024, 128, "auto")
        scored = Evaluator(other, accelerator="cpu")._settings.precision
        assert net.number_type == autocast_type(scored, "cpu")
        return net.number_type

    for amx, number_type in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda amx=amx: amx, raising=False)
        assert found(precision="bf16-mixed") == torch.bfloat16
        assert found(precision="32-true") == found(precision="16-mixed") == found() == torch.float32
        assert found(precision="auto") == number_type


@pytest.mark.parametrize(
    ("size", "advice"), [(300, "set tile=150"), (150, "set tile=96"), (90, "set a smaller overlap and tile")]
)
def test_tile_beyond_the_memory_is_an_error_that_names_a_smaller_one_if_allowed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, advice: str
):
    def full(*_: object) -> None:
        raise MemoryError

    picture(tmp_path / "large.png", size, size)
    monkeypatch.setattr("segsweep.prediction_net.tiled_logits", full)
    with pytest.raises(UserError, match=f"^tile=512: .*memory; {advice}$"):
        predict(run, tmp_path / "large.png", tmp_path / "out", tile=512, overlap=64)


@pytest.mark.parametrize("rule", [MaskRule(), MaskRule(by="color"), MaskRule(by="index"), "written"])
def test_masks_are_read_again_without_change_by_colour_and_by_index(run: Run, tmp_path: Path, rule):
    image = picture(tmp_path / "a.png", 40, 50)
    predict(run, tmp_path / "a.png", tmp_path / "out")
    table = read_table(tmp_path / "out/classes.json")
    assert table == run.labels
    chosen = written_rule(table) if rule == "written" else rule
    assert_predicted(run, image, read_mask(tmp_path / "out/masks/a.png", table, chosen).mask)
    assert Image.open(tmp_path / "out/masks/a.png").mode == "P"


def test_masks_with_ids_above_255_are_read_again(run: Run, tmp_path: Path):
    classes = [{"id": 1000 + entry.id, "name": entry.name, "color": entry.color} for entry in run.labels.classes]
    run = Run(
        run.checkpoint, run.config, ClassTable.from_dict({"classes": classes}), run.kind, run.channels, 0, run.net
    )
    image = picture(tmp_path / "a.png", 20, 30)
    predict(run, tmp_path / "a.png", tmp_path / "out")
    assert_predicted(run, image, read_mask(tmp_path / "out/masks/a.png", run.labels).mask)


def test_tiles_give_the_mask_of_the_whole_image_and_no_tile_is_larger_than_asked(run, tmp_path, monkeypatch):
    image = picture(tmp_path / "large.png", 300, 411)
    seen: list[tuple[int, ...]] = []
    forward = type(run.net).forward
    monkeypatch.setattr(type(run.net), "forward", lambda net, x: (seen.append(tuple(x.shape[2:])), forward(net, x))[1])
    result = predict(run, tmp_path / "large.png", tmp_path / "tiled", tile=128, overlap=64, probabilities="float32")
    assert result.caution is None
    assert max(max(shape) for shape in seen) <= 128
    assert len(seen) > 6
    predict(run, tmp_path / "large.png", tmp_path / "whole", probabilities="float32")
    assert seen[-1] == (300, 411)
    tiled, whole = (np.load(tmp_path / f"{folder}/probabilities/large.npy") for folder in ("tiled", "whole"))
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-5)
    assert_predicted(run, image, read_mask(tmp_path / "tiled/masks/large.png", run.labels).mask)


def test_tiles_too_small_for_the_net_are_refused_before_any_work_if_an_image_needs_them(run: Run, tmp_path: Path):
    for name, size in {"a": (20, 128), "b": (129, 20)}.items():
        picture(tmp_path / f"photos/{name}.png", *size)
    (tmp_path / "photos/c.png").write_bytes(b"broken")
    run.net.stride = 96  # tiles are then multiples of 96 pixels
    with pytest.raises(UserError, match=r"^tile=128: .*\b130\b.*b\.png\b"):
        predict(run, tmp_path / "photos", tmp_path / "out", tile=128, overlap=34)
    assert not (tmp_path / "out").exists()
    (tmp_path / "photos/b.png").unlink()
    assert predict(run, tmp_path / "photos", tmp_path / "out", tile=128, overlap=34).written == ["a"]


def test_one_line_says_that_tiles_change_what_a_net_sees_and_what_to_type(command, tmp_path: Path):
    train_on_scenes(command, tmp_path)
    picture(tmp_path / "small/a.png", 64, 64)
    picture(tmp_path / "large/a.png", 65, 99)
    (tmp_path / "large/broken.png").write_bytes(b"")
    predicting = ("predict.py", "run=run", "accelerator=cpu", "tile=64")
    outcome = command(*predicting, "input=small", "output=one", "overlap=8")
    assert (outcome.code, outcome.err) == (0, "")
    outcome = command(*predicting, "input=large", "output=two", "overlap=8")
    assert len(outcome.error_lines) == 3  # with those of the broken file
    assert all(word in outcome.error_lines[0] for word in ("UNet", "overlap=19", "tile=99"))
    outcome = command(*predicting, "input=large/a.png", "output=three", "overlap=19")
    assert (outcome.code, outcome.err) == (0, "")


@pytest.mark.parametrize(("asked", "found"), [(True, "float16"), ("float16", "float16"), ("float32", "float32")])
@pytest.mark.parametrize("tile", [64, 1024])
def test_probabilities_are_the_run_s(run: Run, tmp_path: Path, asked, found: str, tile: int):
    image = picture(tmp_path / "a.png", 90, 77)
    predict(run, tmp_path / "a.png", tmp_path / "out", probabilities=asked, tile=tile, overlap=32)
    probabilities = np.load(tmp_path / "out/probabilities/a.npy")
    assert (probabilities.shape, probabilities.dtype) == ((6, 90, 77), np.dtype(found))
    tolerance = 1e-5 if found == "float32" else 1e-3
    np.testing.assert_allclose(probabilities, run.probabilities(image), rtol=0, atol=tolerance)


def test_an_overlay_leaves_the_background_exactly_as_it_is_and_paints_the_rest_half(run: Run, tmp_path: Path):
    labels = ClassTable(run.labels.classes, background="Ground")
    run = Run(run.checkpoint, run.config, labels, run.kind, run.channels, 0, run.net)
    image = picture(tmp_path / "a.png", 600, 33)  # several bands of rows
    predict(run, tmp_path / "a.png", tmp_path / "out", overlays=True)
    mask = read_mask(tmp_path / "out/masks/a.png", run.labels).mask
    overlay = np.asarray(Image.open(tmp_path / "out/overlays/a.png")).astype(int)
    pixels = image.transpose(1, 2, 0).astype(int)
    clear = mask == run.labels.index("Ground")
    np.testing.assert_array_equal(overlay[clear], pixels[clear])
    painted = (pixels + run.labels.colors[mask]) / 2
    assert np.abs(overlay - painted)[~clear].max() <= 0.5


@pytest.mark.quick
def test_a_bad_file_is_named_in_one_line_and_the_others_go_on(command, tmp_path: Path):
    train_on_scenes(command, tmp_path)
    for name in ("a", "b", "c"):
        picture(tmp_path / f"photos/{name}.png", 20, 20)
    (tmp_path / "photos/b.png").write_bytes((tmp_path / "photos/a.png").read_bytes()[:300])
    (tmp_path / "photos/empty.jpg").write_bytes(b"")
    outcome = command("predict.py", "run=run", "input=photos", "output=out", "accelerator=cpu")
    assert outcome.code == 1
    assert files(tmp_path / "out/masks") == ["a.png", "c.png"]
    skipped = [line for line in outcome.error_lines if line.startswith("skipped: ")]
    assert [re.search(r"photos/[\w.]+", line).group() for line in skipped] == ["photos/b.png", "photos/empty.jpg"]
    assert outcome.error_lines[-1].startswith("error: 2 of 4 images")
    assert "2 images in" in outcome.out
    assert "images/s" in outcome.out


def test_images_with_the_longest_names_are_predicted_like_the_others(run: Run, tmp_path: Path):
    names = ["a" * 251, "é" * 125, "b" * 234, "c"]
    for name in names:
        picture(tmp_path / f"photos/{name}.png", 20, 20)
    result = predict(run, tmp_path / "photos", tmp_path / "out", overlays=True, probabilities=True)
    assert (sorted(result.written), result.failed) == (sorted(names), {})
    assert files(tmp_path / "out/masks") == sorted(f"{name}.png" for name in names)
    assert len(files(tmp_path / "out")) == 3 * len(names) + 1


def test_without_a_terminal_there_is_no_bar(command, tmp_path: Path):
    train_on_scenes(command, tmp_path)
    outcome = command("predict.py", "run=run", "input=scenes", "output=2026")
    assert (outcome.code, outcome.err) == (0, "")
    assert len(outcome.out.splitlines()) == 3  # what it does, what it did, what it passed over
    # The masks beside the images are not inputs.
    assert len(files(tmp_path / "2026/masks")) == 8


def test_existing_files_are_refused_before_any_work_unless_overwrite(run: Run, tmp_path: Path):
    for name in ("a", "b"):
        picture(tmp_path / f"photos/{name}.png", 20, 20)
    (tmp_path / "out/masks").mkdir(parents=True)
    (tmp_path / "out/masks/b.png").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"masks/b\.png: exists already"):
        predict(run, tmp_path / "photos", tmp_path / "out")
    assert files(tmp_path / "out") == ["masks/b.png"]
    assert (tmp_path / "out/masks/b.png").read_bytes() == b"mine"
    predict(run, tmp_path / "photos", tmp_path / "out", overwrite=True)
    assert files(tmp_path / "out") == ["classes.json", "masks/a.png", "masks/b.png"]
    picture(tmp_path / "more/c.png", 20, 20)
    predict(run, tmp_path / "more", tmp_path / "out")
    other = ClassTable.from_dict({"classes": [{"id": 0, "name": "all", "color": [1, 2, 3]}]})
    run = Run(run.checkpoint, run.config, other, run.kind, run.channels, 0, run.net)
    picture(tmp_path / "yet more/d.png", 20, 20)
    with pytest.raises(UserError, match="lists other classes"):
        predict(run, tmp_path / "yet more", tmp_path / "out")


def test_the_output_of_a_prediction_is_not_an_input_of_the_next(run: Run, tmp_path: Path):
    picture(tmp_path / "photos/a.png", 20, 20)
    for _ in range(2):
        result = predict(run, tmp_path / "photos", tmp_path / "photos/out", overlays=True, overwrite=True)
        assert result.written == ["a"]


def test_an_input_or_a_mask_beside_it_is_never_replaced(run: Run, tmp_path: Path):
    picture(tmp_path / "one/masks/a.png", 20, 20)
    picture(tmp_path / "two/images/a.png", 20, 20)
    picture(tmp_path / "two/masks/images/a.png", 20, 20)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    for source, output in (("one/masks", "one"), ("two", "two")):
        with pytest.raises(UserError, match="would be written over an input"):
            predict(run, tmp_path / source, tmp_path / output, overwrite=True)
    assert {path: path.read_bytes() for path in before} == before


def test_a_failed_write_ends_in_one_line_that_names_the_file_and_leaves_no_part_of_it(run, tmp_path, monkeypatch):
    picture(tmp_path / "a.png", 20, 20)

    def full(path: Path, *_: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("segsweep.runs.prediction_folder.write_mask", full)
    with pytest.raises(OSError, match=r"masks/a\.png"):
        predict(run, tmp_path / "a.png", tmp_path / "out")
    assert files(tmp_path / "out") == []


def test_a_texture_run_takes_gray_files_and_skips_colour_with_the_reason(command, train, tmp_path: Path):
    run = load_run(train())
    gray = picture(tmp_path / "photos/gray.png", 40, 56, channels=1)
    picture(tmp_path / "photos/colour.png", 40, 56)
    outcome = command("predict.py", "run=run", "input=photos", "output=out", "overlays=true", "probabilities=true")
    assert outcome.code == 1
    assert "colour.png: is a colour image, and this net was trained on gray ones" in outcome.error_lines[0]
    assert_predicted(run, gray, read_mask(tmp_path / "out/masks/gray.png", run.labels).mask)
    assert np.load(tmp_path / "out/probabilities/gray.npy").shape == (2, 40, 56)
    assert files(tmp_path / "out/overlays") == ["gray.png"]


def test_images_are_read_as_the_run_was_trained_unless_told_otherwise(command, tmp_path: Path):
    run = load_run(train_on_scenes(command, tmp_path, "data.exif=ignore"))
    image = picture(tmp_path / "photos/a.png", 20, 30)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / "photos/a.png", exif=exif)
    predict(run, tmp_path / "photos", tmp_path / "as_trained")
    assert read_mask(tmp_path / "as_trained/masks/a.png", run.labels).mask.shape == (20, 30)
    predict(run, tmp_path / "photos", tmp_path / "turned", reading={"exif": "apply"})
    assert read_mask(tmp_path / "turned/masks/a.png", run.labels).mask.shape == (30, 20)


def test_a_prediction_leaves_the_run_as_it_was(run: Run, tmp_path: Path):
    before = {name: value.clone() for name, value in run.net.state_dict().items()}
    layout = run.net.conv1.weight.stride()
    picture(tmp_path / "a.png", 20, 20)
    predict(run, tmp_path / "a.png", tmp_path / "out")
    assert run.net.conv1.weight.stride() == layout
    assert all(torch.equal(value, before[name]) for name, value in run.net.state_dict().items())


MISTAKES = {
    "": "run: needs a value",
    "run=run": "input: needs a value",
    "run=run input=photos": "output: needs a value",
    "run=run input=nowhere output=out": "input=nowhere: no such file or folder",
    "run=nowhere input=photos output=out": "nowhere: no checkpoint there",
    "run=run input=photos output=out tile=10": "tile=10: must be at least 192 pixels with overlap=128",
    "run=run input=photos output=out tile=100 overlap=80": "tile=100: must be at least 120 pixels with overlap=80",
    "run=run input=photos output=out tile=big": "tile=big",
    "run=run input=photos output=out probabilities=float64": "probabilities=float64",
    "run=run input=photos output=out overlays=perhaps": "overlays=perhaps",
    "run=run input=photos output=out accelerator=foo": "accelerator=foo",
    "run=run input=photos output=out precision=bf16": "precision=bf16",
    "run=run input=photos output=out precision=16-mixed accelerator=cpu": "precision=16-mixed: needs a GPU",
    "run=run input=photos output=out data.exif=turn": "data.exif=turn",
    "run=run input=photos output=out data.white=bright": "data.white=bright",
    "run=run input=photos output=out data.channels=3": "data.channels: follows from other settings",
    "run=run input=photos output=out data.tile_size=3": "data.tile_size: no such setting; there are alpha, exif, white",
    "run=run input=photos output=out overlay=true": "overlay",
    "run=run input=photos output=photos/a.png": "photos/a.png",
}


@pytest.mark.parametrize("typed", MISTAKES)
def test_a_mistake_ends_in_one_line_and_leaves_nothing(command, train, tmp_path: Path, typed: str):
    train()
    picture(tmp_path / "photos/a.png", 20, 20, channels=1)
    before = sorted(tmp_path.rglob("*"))
    outcome = command("predict.py", *typed.split())
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1, outcome.err
    assert outcome.error_lines[0].startswith("error: ")
    assert MISTAKES[typed] in outcome.error_lines[0]
    assert sorted(tmp_path.rglob("*")) == before


def test_twelve_bit_files_are_pointed_to_data_white_once_unless_it_is_given(run: Run, tmp_path: Path):
    (tmp_path / "deep").mkdir()
    for number in range(3):
        values = np.random.default_rng(number).integers(0, 4096, (20, 24), dtype=np.uint16)
        Image.fromarray(values).save(tmp_path / f"deep/{number}.png")
    assert "data.white=4095" in str(predict(run, tmp_path / "deep", tmp_path / "out").doubt)
    assert predict(run, tmp_path / "deep", tmp_path / "other", reading={"white": 4095}).doubt is None
