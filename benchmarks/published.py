"""The texture notebook's own computations, the baseline of the speed-ups.

Source: texture notebook (docs/sources.md), sections 3.1 and 3.3.
"""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segsweep.nets import TextureCNN

# The notebook's filters have an even width: torch warns that it pads a copy.
warnings.filterwarnings("ignore", ".*padding='same' with even kernel lengths.*")


def gaussian(size: int, sigma: float, device: torch.device) -> Tensor:
    """The two-dimensional filter, as large as the image: float32 [1, 1, size, size] with sum 1."""
    grid = torch.linspace(-size / 2, size / 2, size, device=device)
    kernel = torch.exp(-(grid[:, None] ** 2 + grid[None, :] ** 2) / (2 * sigma**2))
    return (kernel / kernel.sum())[None, None]


def direct_textures(
    batch_size: int,
    image_size: int,
    device: torch.device,
    sigma1: float = 0.2,
    sigma2: float = 1.2,
    sigma: float = 25.6,
) -> tuple[Tensor, Tensor]:
    """Image and mask, float32 [B, 1, H, H], by four two-dimensional convolutions over the whole image."""

    def smooth(field: Tensor, width: float) -> Tensor:
        return F.conv2d(field, gaussian(image_size, width, device), padding="same")

    border, texture1, texture2 = torch.randn(3, batch_size, 1, image_size, image_size, device=device)
    mask = smooth(border, sigma) > 0
    image = smooth(texture1, sigma1) * mask + smooth(texture2, sigma2) * ~mask
    image = smooth(image, 1.0)
    image = image - image.amin((-2, -1), keepdim=True)
    return image / image.amax((-2, -1), keepdim=True), mask.float()


class PublishedLoop:
    """The notebook's training loop: SGD on the squared error in float32, reading the loss in every step.

    It has no progress bar, which can only make the baseline faster. It trains our network: in training mode that does the
    same arithmetic as the published one.
    """

    def __init__(self, device: torch.device, batch_size: int = 8, image_size: int = 128) -> None:
        self.device = device
        self.batch_size, self.image_size = batch_size, image_size
        self.net: nn.Module = TextureCNN().to(device)
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.001)
        self.total_loss = 0.0

    def step(self) -> None:
        image, mask = direct_textures(self.batch_size, self.image_size, self.device)
        self.optimizer.zero_grad()
        loss = torch.mean((torch.sigmoid(self.net(image)) - mask) ** 2)
        loss.backward()
        self.optimizer.step()
        self.total_loss += loss.item()
