"""Compares the declared reach of nets with the real one."""

import pytest
import torch
from test_every_net import build, every_net
from torch import nn


def opened(net: nn.Module) -> nn.Module:
    """Opens every path through the net: no weight is negative, and every ReLU passes its input."""
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.abs_().add_(100.0 if name.endswith("bias") else 0.01)
    return net.eval()


@every_net
@pytest.mark.parametrize("turned", [False, True], ids=["columns", "rows"])
def test_a_pixel_depends_on_others_up_to_the_reach_and_no_farther(target: str, variant: dict, turned: bool):
    """Tested with gradients at every position relative to the net's stride, and at borders."""
    net = opened(build(target, variant))
    whole, stride = net.reach is None, getattr(net, "stride", 1)
    reach = 100 if whole else net.reach
    length = (2 * reach + 3 * stride) | 1  # odd, so that the image is padded
    places = range(reach, reach + stride + 1)
    if not whole:
        places = sorted({0, *places, *range(length - stride, length)})
    rising = (torch.linspace(0.2, 0.8, length) + 1e-4 * torch.rand(1, 1, stride + 1, length)).sort().values
    seen = []
    for image in (rising, rising.flip(3)):  # max pooling has a gradient on one side only
        image = image.mT.requires_grad_() if turned else image.requires_grad_()
        columns = net(image).mT[0, 0] if turned else net(image)[0, 0]
        for place in places:
            (gradient,) = torch.autograd.grad(columns[stride // 2, place], image, retain_graph=True)
            on_line = (gradient.mT if turned else gradient).abs().sum((0, 1, 2)).nonzero()[:, 0]
            seen.append(int((on_line - place).abs().max()))
    if whole:
        assert min(seen) >= reach
    else:
        assert max(seen) == net.reach
