"""What is computed on a device: samples, counts and features equal their definition in float64, whatever TF32 may round."""

import numpy as np
import pytest
import torch
from devices import DEVICES
from torch import Tensor
from torch.nn import functional as F

from segsweep.callbacks.image_scores import score_images
from segsweep.callbacks.tensorboard import STEPS, count_levels
from segsweep.classes import IGNORE, ClassTable, LabelClass
from segsweep.data import Textures
from segsweep.data.demo import write_demo_folder
from segsweep.data.folder import FolderSource
from segsweep.data.source import Split, sample_seed
from segsweep.datamodule import Collated, SegmentationDataModule
from segsweep.gaussian_filter import toeplitz_gaussian
from segsweep.nets import ResidualUNet
from segsweep.nets.residual_unet import CosineStem, extend
from segsweep.tasks import SGD, CrossEntropy, MulticlassTask
from segsweep.tasks.metrics import SegmentationMetrics, confusion_per_image

SIZE = 48


# Samples


def definition(source: Textures, split: Split, indices: list[int], mask: Tensor, device: str) -> tuple[Tensor, Tensor]:
    """In float64 on the CPU: the field whose sign is the mask, and the images with these masks, [B, H, H] each."""
    noise = torch.empty(len(indices), 3, SIZE, SIZE, device=device if split == "train" else "cpu")
    seed = source.seed if split == "train" else source.eval_seed
    for row, index in enumerate(indices):
        noise[row].normal_(generator=torch.Generator(noise.device).manual_seed(sample_seed(seed, split, index)))
    sigmas = [*(low for low, _ in source.sigmas), source.smoothing]
    border, texture1, texture2, smoothing = (toeplitz_gaussian(SIZE, sigma).double() for sigma in sigmas)
    field, first, second = (
        matrix @ noise[:, at].cpu().double() @ matrix.mT for at, matrix in enumerate((border, texture1, texture2))
    )
    image = smoothing @ torch.where(mask == 1, first, second) @ smoothing.mT
    image = image - image.amin((1, 2), keepdim=True)
    return field, image / image.amax((1, 2), keepdim=True)


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.usefixtures("tf32")
def test_samples_are_the_definition_of_their_noise_though_tf32_and_autocast_are_allowed(device: str, split: Split):
    source, indices = Textures(image_size=SIZE, seed=3, eval_seed=5), [0, 7, 40, 3]
    with torch.autocast(device, torch.bfloat16):
        image, mask = (part.cpu() for part in source.make(indices, split, device))
    field, expected = definition(source, split, indices, mask, device)
    decided = field.abs() > 1e-5 * field.abs().max()  # the others are 0 up to rounding
    assert torch.equal(mask[decided] == 1, field[decided] > 0)
    assert decided.double().mean() > 0.99
    torch.testing.assert_close(image[:, 0].double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("device", DEVICES)
def test_a_sample_on_a_device_depends_on_neither_order_nor_batch(device: str, split: Split):
    source, indices = Textures(image_size=SIZE), [5, 0, 9, 2, 30]
    images, masks = source.make(indices, split, device)
    again = Textures(image_size=SIZE)
    for row, index in reversed(list(enumerate(indices))):
        image, mask = again.make([index], split, device)
        # A product of another shape may add in another order, which can move the mask where the field is almost 0.
        torch.testing.assert_close(image[0], images[row], rtol=0, atol=1e-4)
        assert (mask[0] != masks[row]).sum() <= 1
    for one, other in zip(again.make(indices, split, device), (images, masks), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("split", ["val", "test", "bn_calibration"])
@pytest.mark.parametrize("device", DEVICES)
def test_samples_that_are_scored_are_the_same_on_every_device(device: str, split: Split):
    source = Textures(image_size=SIZE, sigma1=[0.3, 2.0])
    image, mask = (part.cpu() for part in source.make(range(6), split, device))
    expected_image, expected_mask = Textures(image_size=SIZE, sigma1=[0.3, 2.0], seed=8).make(range(6), split)
    differ = mask != expected_mask
    assert differ.sum() <= 1
    assert (image[:, 0] - expected_image[:, 0])[~differ.any((1, 2))].abs().max() < 1e-5


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["textures", "folder"])
def test_workers_and_pinned_memory_change_no_batch(device: str, kind: str, tmp_path):
    if kind == "folder":
        write_demo_folder(tmp_path / "scenes", scenes=(3, 2, 2), size=48)
        source = FolderSource(tmp_path / "scenes", image_size=32, samples_per_epoch=12, brightness=0.2, contrast=0.2)
    else:
        source = Textures(image_size=32, samples_per_epoch=12)
    batches = []
    for workers in (0, 2):
        data = SegmentationDataModule(source, batch_size=4, num_workers=workers)
        loader = data._loader("train", [range(start, start + 4) for start in (0, 4, 8)])
        collated: list[Collated] = list(loader)
        parts = [part for batch in collated for part in tensors(batch.items)]
        assert {part.is_pinned() for part in parts} == {torch.cuda.is_available()}
        batches.append([data.transfer_batch_to_device(batch, torch.device(device), 0) for batch in collated])
    assert len(batches[0]) == len(batches[1]) == 3
    for one, other in zip(*batches, strict=True):
        assert one.image.device.type == one.mask.device.type == device
        assert one.indices.device.type == "cpu"
        for first, second in zip(one, other, strict=True):
            assert torch.equal(first, second)


def tensors(items: object) -> list[Tensor]:
    """All tensors in nested tuples."""
    return [items] if isinstance(items, Tensor) else [part for entry in items for part in tensors(entry)]


# Counts


def numpy_confusion(prediction: np.ndarray, mask: np.ndarray, classes: int) -> np.ndarray:
    counts = np.zeros((classes, classes), dtype=np.int64)
    counted = mask != IGNORE
    np.add.at(counts, (mask[counted], prediction[counted]), 1)
    return counts


def logits_and_mask(classes: int, channels: int, device: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(5, channels, 20, 24, generator=generator)
    mask = torch.randint(classes, (5, 20, 24), generator=generator)
    mask[torch.rand(mask.shape, generator=generator) < 0.1] = IGNORE
    mask[4] = IGNORE
    return logits.to(device), mask.to(device)


@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("device", DEVICES)
def test_confusion_of_each_image_is_numpy_s(device: str, classes: int):
    logits, mask = logits_and_mask(classes, classes, device)
    prediction = logits.argmax(1)
    found = confusion_per_image(prediction, mask, classes)
    assert found.device.type == device
    for row, counts in enumerate(found.cpu().numpy()):
        expected = numpy_confusion(prediction[row].cpu().numpy(), mask[row].cpu().numpy(), classes)
        np.testing.assert_array_equal(counts, expected)


@pytest.mark.parametrize("device", DEVICES)
def test_levels_are_numpy_s_histogram(device: str):
    logits, mask = logits_and_mask(2, 1, device)
    probability = torch.sigmoid(logits[:, 0])
    probability[0, :3, :3] = torch.tensor([0.0, 0.5, 1.0], device=device)
    found = count_levels(probability, mask).cpu().numpy()
    levels = np.floor(probability.cpu().numpy() * STEPS).astype(int)
    for true in (0, 1):
        expected = np.bincount(levels[mask.cpu().numpy() == true], minlength=STEPS + 1)
        np.testing.assert_array_equal(found[true], expected)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("device", DEVICES)
def test_metrics_of_a_split_are_those_of_all_its_pixels_at_once_on_the_cpu(device: str, binary: bool):
    classes = 2 if binary else 4
    names = [f"class {place}" for place in range(classes)]
    logits, mask = logits_and_mask(classes, 1 if binary else classes, device)
    prediction = (logits[:, 0] > 0).long() if binary else logits.argmax(1)
    positive = torch.sigmoid(logits[:, 0]) if binary else None
    split, whole = (SegmentationMetrics(names, binary, 0, sync_on_compute=False) for _ in range(2))
    split.to(device)
    for part in (slice(0, 2), slice(2, 5)):
        split.update(prediction[part], mask[part], None if positive is None else positive[part])
    whole.update(prediction.cpu(), mask.cpu(), None if positive is None else positive.cpu())
    assert torch.equal(split.confusion.cpu(), whole.confusion)
    assert int(whole.confusion.sum()) == int((mask != IGNORE).sum())
    expected = whole.compute()
    for name, value in split.compute().items():
        torch.testing.assert_close(value.cpu(), expected[name], rtol=1e-12, atol=0, equal_nan=True)


@pytest.mark.parametrize("device", DEVICES)
def test_scores_of_images_are_those_of_their_confusion(device: str):
    labels = ClassTable([LabelClass(place, f"class {place}", (place, 0, 0)) for place in range(3)])
    task = MulticlassTask(torch.nn.Conv2d(3, 3, 1), CrossEntropy(), labels, SGD(lr=0.1))
    logits, mask = logits_and_mask(3, 3, device)
    iou, wrong = (part.cpu().numpy() for part in score_images(task, logits, mask))
    prediction = logits.argmax(1).cpu().numpy()
    for row in range(4):
        counts = numpy_confusion(prediction[row], mask[row].cpu().numpy(), 3)
        hits = counts.diagonal()
        each = hits / (counts.sum(0) + counts.sum(1) - hits)
        assert iou[row] == pytest.approx(each.mean(), rel=1e-12)
        assert wrong[row] == pytest.approx(1 - hits.sum() / counts.sum(), rel=1e-12)
    assert np.isnan(iou[4])
    assert np.isnan(wrong[4])


# Features


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.usefixtures("tf32")
def test_the_cosine_stem_s_coefficients_are_full_float32_though_tf32_is_allowed(device: str):
    torch.manual_seed(0)
    stem = CosineStem(1, 16, 7, 64).to(device)
    image, _ = Textures(image_size=SIZE).make(range(4))
    seen = []
    stem.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    with torch.autocast(device, torch.bfloat16):
        stem(image.to(device))
    expected = F.conv2d(extend(image.double(), 3, 3, 3, 3), stem.filters.cpu().double())
    (found,) = seen
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.cpu().double(), expected, rtol=0, atol=3e-5)  # TF32 would be off by 1e-3
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("device", DEVICES)
def test_a_net_gives_the_logits_of_float64_on_the_cpu_where_tf32_is_not_allowed(
    device: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    net = ResidualUNet(stem="convolution", norm="batch")
    image = torch.rand(2, 1, 33, 40)
    expected = net.double()(image.double())
    found = net.float().to(device)(image.to(device))
    torch.testing.assert_close(found.cpu().double(), expected, rtol=0, atol=1e-4)
