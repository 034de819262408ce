"""Batch-norm running statistics, estimated anew from images."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(net: nn.Module) -> list[_BatchNorm]:
    """The batch norms of `net` that keep running statistics, each once, in the order of `net.modules()`."""
    return [module for module in net.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]


def estimate_norm_statistics(net: nn.Module, batches: Iterable[Tensor]) -> int:
    """Replaces the running statistics of every batch norm in `net` by their plain average over `batches`.

    Running statistics trail the weights while these still move. Afterwards each batch norm has the mean over the
    batches of the batch means and of the unbiased batch variances, all at the present weights. Every batch counts the
    same, so give batches of one size, the size that the net was trained with. Unlike `torch.optim.swa_utils.update_bn`,
    this leaves dropout off and gives every module its own mode back (a frozen part stays frozen), after an error too.

    Args:
        net: any net; its weights and its modes do not change.
        batches: images [B, C, H, W]; moved to the net's device.

    Returns:
        The number of batches read: 0 for a net without batch norms, which reads none.

    Raises:
        ValueError: `batches` is empty; the statistics are then as they were.
    """
    norms = batch_norms(net)
    if not norms:
        return 0
    iterator = iter(batches)
    first = next(iterator, None)
    if first is None:
        raise ValueError("no batches to estimate the running statistics of batch norm from")

    device = norms[0].running_mean.device if norms[0].running_mean is not None else first.device
    modes = [(module, module.training) for module in net.modules()]
    momenta = [(norm, norm.momentum) for norm in norms]
    count = 0
    try:
        net.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch's word for the plain average over all batches so far
            norm.train()
        with torch.no_grad():
            batch: Tensor | None = first
            while batch is not None:
                net(batch.to(device))
                count += 1
                batch = next(iterator, None)
    finally:
        for norm, momentum in momenta:
            norm.momentum = momentum
        for module, training in modes:
            module.training = training
    return count
