"""Tests of comparisons that were chosen before the runs, so that only these are corrected for."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import special  # stdtr: the t distribution, without the second that importing scipy.stats takes

ROUNDING = 1e-6
"""Collected metrics have six digits, so differences that vary by less are one difference."""


def can_be_tested(differences: NDArray[np.float64]) -> bool:
    """Whether there are two, and not the same one for every seed, which would say nothing about chance.

    Args:
        differences: [n], of two settings, by seed, of numbers of about 1.
    """
    return len(differences) > 1 and float(np.ptp(differences)) > ROUNDING


def paired_p(differences: NDArray[np.float64]) -> float:
    """Two-sided, of the t-test whether differences are 0 in the mean.

    Args:
        differences: [n], of two settings, by seed; `can_be_tested`.
    """
    error = differences.std(ddof=1) / math.sqrt(len(differences))
    return float(2 * special.stdtr(len(differences) - 1, -abs(differences.mean()) / error))


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Adjusted for their number: when those up to 0.05 are called different, the chance that any is not is at most 5 %.

    Args:
        p: [n], in any order.

    Source: Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6 (1979) 65-70.
    """
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted
