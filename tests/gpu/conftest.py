"""Fixtures of the tests that run on the CPU and on a GPU."""

import os

# cuBLAS reads it once, before its first product. Without it, deterministic algorithms are refused.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import warnings
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Algorithms that give the same bits in every run: cuDNN's fastest ones do not.

    An operation without such an algorithm only warns. None of the compared numbers depends on one.
    """
    warnings.filterwarnings("ignore", ".*deterministic")  # pytest restores the filters
    before = torch.backends.cudnn.deterministic
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.deterministic = True
    yield
    torch.backends.cudnn.deterministic = before
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def tf32() -> Iterator[None]:
    """Allows every product and convolution to round its inputs to TF32 or bfloat16, as a user may."""
    before, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.allow_tf32 = True
    yield
    torch.set_float32_matmul_precision(before)
    torch.backends.cudnn.allow_tf32 = convolutions
