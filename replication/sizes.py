"""Printed sizes and settings of the documents' nets and optimizer, next to ours."""

from typing import Any

import torch
from hydra.utils import instantiate

from replication.published import (
    LAYER_PARAMETERS,
    PRINTED_NORM,
    PRINTED_OPTIMIZER,
    PRINTED_TENSORS,
    STOOD_STILL,
    TEXTURE_PARAMETERS,
    TEXTURE_SHAPE,
    UNET_INPUT,
    UNET_LAYERS,
    UNET_PARAMETERS,
    UNET_SHAPES,
)
from replication.runs import composed
from segsweep.data import Textures
from segsweep.nets import TextureCNN, UNet

LAYER_NAMES = {
    name: f"{name}, parameters" + (", the batch norm's too" if name == "conv1" else "") for name in LAYER_PARAMETERS
}


def sizes() -> list[tuple[str, Any, Any]]:
    """Rows of name, printed value and our value."""
    net, unet = TextureCNN(), UNet()
    parts = {name: sum(parameter.numel() for parameter in getattr(net, name).parameters()) for name in LAYER_PARAMETERS}
    for name in ("conv2", "conv3"):  # the document counts the only norm with the first layer
        parts[name] -= sum(parameter.numel() for parameter in getattr(net, name)[2].parameters())
    shapes, kinds = unet_shapes(), [type(module) for module in unet.modules()]
    layers = kinds.count(torch.nn.Conv2d), kinds.count(torch.nn.ConvTranspose2d)
    image, mask = Textures(image_size=TEXTURE_SHAPE[-1]).make(range(1), "train")
    adam: torch.optim.Optimizer = instantiate(composed(STOOD_STILL.overrides)["optim"])(net.parameters())
    optimizer = adam.param_groups[0]
    return [
        *((LAYER_NAMES[name], count, parts[name]) for name, count in LAYER_PARAMETERS.items()),
        ("texture net, parameters", TEXTURE_PARAMETERS, _count(net)),
        ("texture net, input", TEXTURE_SHAPE, tuple(image.shape)),
        ("mask", TEXTURE_SHAPE, tuple(mask[:, None].shape)),  # the notebook's masks have a channel axis
        ("texture net, output", TEXTURE_SHAPE, tuple(net(torch.zeros(TEXTURE_SHAPE)).shape)),
        ("its batch norm, eps and momentum", PRINTED_NORM, (net.bn.eps, net.bn.momentum)),
        *((f"Adam (4.1), {name}", printed, optimizer[name]) for name, printed in PRINTED_OPTIMIZER.items()),
        ("Adam (4.1), parameter tensors", PRINTED_TENSORS, len(optimizer["params"])),
        ("U-Net, parameters (counted from its layers)", UNET_PARAMETERS, _count(unet)),
        ("U-Net, convolutions and transposed ones", UNET_LAYERS, layers),
        ("U-Net, input", UNET_INPUT, shapes["input"]),
        *((f"U-Net, {name}", shape, shapes[name]) for name, shape in UNET_SHAPES),
    ]


def _count(net: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def exact(value: Any) -> str:
    """A value as text: 13,681, [8, 3, 320, 320], 1e-05, False."""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, tuple):
        return str(list(value))
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def unet_shapes() -> dict[str, tuple[int, ...]]:
    """The shapes that the report prints, by its names, measured on the published form of our net."""
    with torch.device("meta"):
        net, image = UNet(head="plain"), torch.empty(UNET_INPUT)
    found: dict[str, tuple[int, ...]] = {"input": tuple(image.shape)}

    def note(module: torch.nn.Module, before: str | None, after: str, relu: str | None = None) -> None:
        def hook(_: torch.nn.Module, given: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            if before is not None:
                found[before] = tuple(given[0].shape)
            found[after] = tuple(output.shape)
            if relu is not None:
                found[relu] = tuple(output.relu().shape)

        module.register_forward_hook(hook)

    note(net.conv1, None, "out1", "out1 after ReLU")
    note(net.conv2, None, "out2", "out2 after ReLU")
    note(net.conv3, None, "out3", "out3 after ReLU")
    note(net.upconv1, None, "out4")
    note(net.conv4, "out4 after concatenation", "out4 after conv4", "out4 after ReLU")
    note(net.upconv2, None, "out5")
    note(net.conv5, "out5 after concatenation", "out5 after conv5", "out after ReLU")
    note(net.upconv3, None, "out6")
    note(net.outconv, None, "final output")
    net(image)
    return found
