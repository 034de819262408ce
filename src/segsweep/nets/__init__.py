"""Networks: plain torch modules from an image [B, C, H, W] to logits [B, K, H, W] (K = 1 for a binary mask)."""

from segsweep.nets.batch_norm import batch_norms, estimate_norm_statistics
from segsweep.nets.inverse_filter import InverseFilterUNet
from segsweep.nets.monai_nets import MonaiNet
from segsweep.nets.registry import NETS, build_net, register_net
from segsweep.nets.residual_unet import ResidualUNet
from segsweep.nets.texture_cnn import TextureCNN, load_published
from segsweep.nets.unet import UNet

__all__ = [
    "NETS",
    "InverseFilterUNet",
    "MonaiNet",
    "ResidualUNet",
    "TextureCNN",
    "UNet",
    "batch_norms",
    "build_net",
    "estimate_norm_statistics",
    "load_published",
    "register_net",
]
