"""The documents' mistakes (docs/sources.md), each shown by an experiment that returns numbers.

Source: texture notebook, sections 3.3, 4.1 and 4.2; U-Net report, Network Architecture, Experiments and Results, Hyper
parameter tuning.
"""

import copy
import warnings
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from segsweep.data import Textures
from segsweep.nets import TextureCNN, UNet, estimate_norm_statistics
from segsweep.nets.texture_cnn import load_published

Numbers = dict[str, float]
IMAGES = 64
"""Number of test images to score a net on."""


def one_norm_for_three_layers(seed: int = 0, steps: int = 1000, size: int = 128) -> Numbers:
    """Trains the published module, which uses one BatchNorm2d for three layers, and scores it in three ways.

    Returns:
        iou of the positive class on test images: with the statistics of the scored batch, as in the notebook; with the
        module's running statistics, in eval mode; with separate statistics for each of the three places; and, without a
        net, the iou of predicting class 1 everywhere.
    """
    torch.manual_seed(seed)
    net = TextureCNN()
    source = Textures(image_size=size, seed=seed)
    published = _with_one_norm(net)
    _train(published, source, torch.optim.Adam(published.parameters(), lr=0.001), steps)
    images, masks = source.make(range(IMAGES), "test")
    estimated = TextureCNN()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "estimate the statistics": done below
        load_published(estimated, published.state_dict())
    batches = [source.make(range(start, start + 8), "bn_calibration")[0] for start in range(0, 128, 8)]
    estimate_norm_statistics(estimated, batches)
    return {
        "by the batch": _iou(published.train(), images, masks),
        "in eval mode": _iou(published.eval(), images, masks),
        "statistics for each place": _iou(estimated.eval(), images, masks),
        "class 1 everywhere": float((masks == 1).float().mean()),
    }


def _with_one_norm(net: TextureCNN) -> TextureCNN:
    """A copy of the net as published, with one norm module in three places."""
    published = copy.deepcopy(net)
    for block in (published.conv1, published.conv2, published.conv3):
        assert isinstance(block, nn.Sequential)
        block[2] = published.bn
    return published


def _train(net: nn.Module, source: Textures, optimizer: torch.optim.Optimizer, steps: int, begin: int = 0) -> None:
    """Trains with the mean squared error of the sigmoid, on 8 new images a step."""
    for step in range(begin, begin + steps):
        image, mask = source.make(range(8 * step, 8 * step + 8), "train")
        optimizer.zero_grad()
        torch.mean((torch.sigmoid(net(image)[:, 0]) - mask) ** 2).backward()
        optimizer.step()


@torch.no_grad()
def _iou(net: nn.Module, images: Tensor, masks: Tensor) -> float:
    found = torch.cat([net(batch)[:, 0] > 0 for batch in images.split(8)])
    true = masks == 1
    return float((found & true).sum() / (found | true).sum())


def cross_entropy_of_one_channel(seed: int = 0) -> Numbers:
    """The training loss of the notebook's section 4.1, for its net and images."""
    torch.manual_seed(seed)
    net, (image, mask) = TextureCNN(), Textures(seed=seed).make(range(8), "train")
    output = torch.sigmoid(net(image))
    loss = nn.CrossEntropyLoss()(output, mask[:, None].float())
    loss.backward()
    gradients = [parameter.grad for parameter in net.parameters() if parameter.grad is not None]
    return {"loss": float(loss.detach()), "largest gradient": max(float(g.abs().max()) for g in gradients)}


PROTOCOLS: Mapping[str, tuple[tuple[float, ...], bool]] = {
    "a new one for each rate": ((0.001, 0.01, 0.1), True),
    "the same, upwards as in the report": ((0.001, 0.01, 0.1), False),
    "the same, downwards": ((0.1, 0.01, 0.001), False),
    "the same, one rate": ((0.01, 0.01, 0.01), False),
}
"""Learning rates in the order they are tried, and whether each one starts with a new net."""


def not_reset_between_rates(seed: int = 0, steps: int = 100, size: int = 32) -> Numbers:
    """Tunes a learning rate with one net for all rates, as the U-Net report does, and with a new net for each rate.

    Returns:
        Validation losses of SGD with momentum 0.9 on small textures, by "protocol: rate, place in the order".
    """
    source = Textures(image_size=size, seed=seed)
    images, masks = source.make(range(IMAGES), "val")

    def new() -> TextureCNN:
        torch.manual_seed(seed)
        return TextureCNN()

    found: Numbers = {}
    for name, (rates, reset) in PROTOCOLS.items():
        net = new()
        for place, rate in enumerate(rates):
            net = new() if reset else net
            # One net for all rates gets new images for each: images it has seen would favour the later rates even more.
            # New nets all get the same images, so that only the rate differs.
            optimizer = torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9)
            _train(net, source, optimizer, steps, begin=0 if reset else place * steps)
            with torch.no_grad():
                net.train()  # uses the statistics of the batch, so that only the weights differ
                loss = float(torch.mean((torch.sigmoid(net(images)[:, 0]) - masks) ** 2))
            found[f"{name}: {rate:g}, {place + 1}"] = loss
    return found


def precision_that_is_none(seed: int = 0, size: int = 128) -> Numbers:
    """The notebook's "Precision" (a share of confident pixels) for predictions with known precision."""
    rng = np.random.default_rng(seed)
    true = rng.random((8, size, size)) < 0.5
    sure = np.where(true, 0.99, 0.01)
    unsure = np.where(true, 0.85, 0.15)
    all_one = np.full(true.shape, 0.99)

    def published(probability: np.ndarray) -> float:
        rounded = np.where(probability < 0.1, 0, np.where(probability > 0.9, 1, probability))
        return float(np.mean(rounded == true))

    def precision(probability: np.ndarray) -> float:
        positive = probability > 0.5
        return float((positive & true).sum() / positive.sum())

    outputs = {"right and sure": sure, "right, 0.85 sure": unsure, "one everywhere": all_one}
    return {
        f"{name}: {kind}": function(output)
        for name, output in outputs.items()
        for kind, function in (("published", published), ("precision", precision))
    }


def iou_that_ignores_classes(seed: int = 0, size: int = 320, classes: int = 6) -> Numbers:
    """The U-Net report's "IoU" and the mean over classes, for masks that are plainly wrong."""
    rng = np.random.default_rng(seed)
    true, other = rng.integers(classes, size=(2, size, size))
    no_background = rng.integers(1, classes, size=(size, size))
    wrong = no_background % (classes - 1) + 1  # never the true class, and never the background

    def published(prediction: np.ndarray, mask: np.ndarray) -> float:
        return float(np.logical_and(prediction, mask).sum() / np.logical_or(prediction, mask).sum())

    def mean_iou(prediction: np.ndarray, mask: np.ndarray) -> float:
        each = [
            ((prediction == k) & (mask == k)).sum() / ((prediction == k) | (mask == k)).sum()
            for k in range(classes)
            if ((prediction == k) | (mask == k)).any()
        ]
        return float(np.mean(each))

    cases = {"random against random": (other, true), "every pixel wrong": (wrong, no_background)}
    return {
        f"{name}: {kind}": function(*masks)
        for name, masks in cases.items()
        for kind, function in (("published", published), ("mean over classes", mean_iou))
    }


def map_that_is_thrown_away(seed: int = 0, size: int = 64) -> Numbers:
    """Compares the U-Net report's head, which doubles the size and reads every second pixel, with a head that does not."""
    torch.manual_seed(seed)
    plain = UNet(head="plain")
    exact = UNet(head="exact")
    exact.load_state_dict(plain.state_dict())
    image = torch.rand(2, 3, size, size)
    difference = (plain(image) - exact(image)).abs().max()
    plain(image).square().mean().backward()
    gradient = plain.upconv3.weight.grad
    assert gradient is not None
    return {
        "largest difference of the logits": float(difference.detach()),
        "weights of upconv3": float(gradient.numel()),
        "of them without a gradient": float((gradient == 0).sum()),
        "multiplications of the head, published": float(_head_multiplications(size=320, published=True)),
        "multiplications of the head, exact": float(_head_multiplications(size=320, published=False)),
    }


def _head_multiplications(size: int, published: bool, width: int = 32, head: int = 16, classes: int = 6) -> int:
    """Multiplications for one image; a transposed convolution multiplies each input pixel with every tap."""
    taps = 9 if published else 1
    return size * size * (width * head * taps + head * classes)


EXPERIMENTS: Mapping[str, Callable[[int], Numbers]] = {
    "one norm for three layers": one_norm_for_three_layers,
    "cross-entropy of one channel": cross_entropy_of_one_channel,
    "not reset between rates": not_reset_between_rates,
    "precision that is none": precision_that_is_none,
    "IoU that ignores classes": iou_that_ignores_classes,
    "map that is thrown away": map_that_is_thrown_away,
}

REPEATED = ("one norm for three layers", "not reset between rates")
"""Experiments that depend on the seed; they are run with several seeds."""
REPEATS = 5
