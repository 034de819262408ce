"""Estimates the running statistics of batch norm from images."""

import itertools
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(net: nn.Module) -> list[_BatchNorm]:
    """Lists the batch norms of `net` that keep running statistics, each once, in the order of `net.modules()`."""
    return [module for module in net.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]


def estimate_norm_statistics(net: nn.Module, batches: Iterable[Tensor]) -> int:
    """Replaces the running statistics of every batch norm in `net` by plain averages over `batches`.

    While the weights still move, running statistics lag behind them. The new ones are the means of the batch means and
    of the unbiased batch variances, all with the present weights. All batches have the same weight, so give batches of
    one size, the size used in training. Unlike `torch.optim.swa_utils.update_bn`, this keeps dropout off and restores
    the mode of every module (a frozen part stays frozen), even after an error.

    Args:
        net: any net; its weights and modes do not change.
        batches: images [B, C, H, W]; moved to the net's device.

    Returns:
        The number of batches read. A net without batch norms reads none.

    Raises:
        ValueError: `batches` is empty; the statistics do not change.
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
            norm.momentum = None  # torch then takes the plain average over all batches
            norm.train()
        with torch.no_grad():
            for batch in itertools.chain([first], iterator):
                net(batch.to(device))
                count += 1
    finally:
        for norm, momentum in momenta:
            norm.momentum = momentum
        for module, training in modes:
            module.training = training
    return count
