"""Compares settings by paired t-tests over the seeds, corrected for many tests. Arrays in, arrays out.

Each setting is trained with the same seeds, and the same seed means the same data and initial weights, so the tests are
paired by seed. The numbers that choose the best setting also test it against the others, so the tests are corrected as if
all pairs of settings had been tested: Holm's procedure with the counts of Shaffer. If all settings are equal, the chance
that any is called worse is at most 5 %, whatever their variances and correlations, provided that the differences are
normally distributed. A correction over the comparisons with the best alone does not achieve this (12 % with 9 settings and
10 seeds), nor does a pooled variance (50 % with 30 settings of very unequal spread). Signed permutations and Wilcoxon's
test have no p below 0.25 with 3 seeds. docs/statistics.md has the simulation, and the power: with 3 seeds and 9 settings,
a setting that is worse by 10 standard deviations is found in 44 % of sweeps.

Values of the folds of a cross-validation vary together, because folds share training data: `shared` enlarges the standard
error for them.

Source: Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6 (1979) 65-70; Shaffer,
Modified sequentially rejective multiple test procedures, J. Am. Statist. Assoc. 81 (1986) 826-831, procedure S1; Nadeau and
Bengio, Inference for the generalization error, Machine Learning 52 (2003) 239-281.
"""

import math
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special  # stdtr, stdtrit: the t distribution, without the second that importing scipy.stats takes

Verdict = Literal["best", "not distinguishable", "worse", "no statement"]

LEVEL = 0.05
"""The chance that any setting is called worse if all are equal."""

SHAFFER_UP_TO = 300
"""More settings than this get Holm's counts. The time to compute Shaffer's grows with the fourth power of the number."""

POWER = 0.8
"""Share of sweeps in which `seeds_to_decide` seeds find the difference."""

MOST_SEEDS = 100
"""`seeds_to_decide` tries no more."""

_BLOCK = 1_000_000
"""Pairs tested at a time, to limit the memory."""


def standard_error(values: NDArray[np.float64], shared: float = 0.0) -> Any:
    """Standard error of the mean over the last axis: sqrt((1/n + shared) s²), float64 [...] from [..., n].

    Args:
        values: one for each seed or fold.
        shared: 0 for seeds; for folds, the scored images for each training image (Nadeau and Bengio 2003).
    """
    return values.std(axis=-1, ddof=1) * math.sqrt(1 / values.shape[-1] + shared)


def judge(values: NDArray[np.float64], level: float = LEVEL, shared: float = 0.0) -> list[dict[str, Any]]:
    """Compares each setting with the first, the leader.

    Args:
        values: [k, n], a row per setting, a column per seed; more is better.
        level: the chance that any setting is called worse if all are equal.
        shared: see `standard_error`.

    Returns:
        For each setting its columns `difference`, `p`, `detectable` (the difference from which on the leader would have
        ruled it out) and `verdict`, without those that would be NaN.
    """
    k, n = values.shape
    differences = values[1:] - values[0]
    mean = differences.mean(axis=1)
    rows = [{"difference": 0.0, "verdict": "best" if n > 1 else "no statement"}]
    if n == 1:
        return rows + [{"difference": float(entry)} for entry in mean]
    rounding = _rounding(values)
    one, other = np.triu_indices(k, 1)  # the pairs with the first setting are the first k - 1
    p = np.empty(len(one))
    for start in range(0, len(p), _BLOCK):
        i, j = one[start : start + _BLOCK], other[start : start + _BLOCK]
        p[start : start + _BLOCK] = paired_p(values[j] - values[i], np.maximum(rounding[i], rounding[j]), shared)
    adjusted = step_down(np.where(np.isnan(p), 1.0, p), k)
    constant = np.isnan(p[: k - 1])
    same = constant & (np.abs(mean) <= np.maximum(rounding[1:], rounding[0]))
    error = np.where(constant, 0.0, standard_error(differences, shared))
    needed = -special.stdtrit(n - 1, level / max(k - 1, 1)) * error
    for pair in range(k - 1):
        row: dict[str, Any] = {"difference": float(mean[pair])}
        if same[pair] or not constant[pair]:
            worse = adjusted[pair] <= level and mean[pair] < 0
            verdict: Verdict = "worse" if worse else "not distinguishable"
            row |= {"p": float(adjusted[pair]), "detectable": float(needed[pair]), "verdict": verdict}
        rows.append(row)
    return rows


def p_best(
    values: NDArray[np.float64], means: NDArray[np.float64], level: float = LEVEL, shared: float = 0.0
) -> NDArray[np.float64]:
    """For each setting the p value of "no other setting is better", from one-sided paired t-tests.

    A setting with p up to a level is ruled out: another one beats it seed by seed. If a setting is truly the best, the
    chance that it is ruled out is at most the level, whatever the spreads and correlations: Bonferroni over its own k - 1
    comparisons. So the settings left are a set that holds the best, though not only the best.

    Args:
        values: [k, n], a row per setting, a column per seed, on the scale of the tests; more is better.
        means: [k], in the metric's unit; more is better. A setting with a lower mean rules nothing out, so the best mean
            stays, even if on the scale of the tests another is better.
        level: decides whether a setting without a known p is ruled out by another comparison.
        shared: see `standard_error`.

    Returns:
        [k]: min(1, (k - 1) P(T > largest t of a better setting against it)); NaN if nothing shows how values vary: one
        seed, or a difference to a better setting that is the same for every seed, unless another one rules it out.

    Source: Hsu, Constrained simultaneous confidence intervals for multiple comparisons with the best, Ann. Statist. 12
    (1984) 1136-1144; Gupta, On some multiple decision rules, Technometrics 7 (1965) 225-245.
    """
    k, n = values.shape
    if n < 2:
        return np.full(k, math.nan)
    rounding, found = _rounding(values), np.ones(k)
    for place in range(k):
        better = means > means[place]
        if not better.any():
            continue
        differences = values[better] - values[place]
        constant = np.ptp(differences, axis=1) <= np.maximum(rounding[better], rounding[place])
        error = np.where(constant, 1.0, standard_error(differences, shared))
        largest = np.max((differences.mean(axis=1) / error)[~constant], initial=-math.inf)
        p = min(1.0, (k - 1) * special.stdtr(n - 1, -largest))
        found[place] = math.nan if constant.any() and p > level else p
    return found


def seeds_to_decide(difference: float, spread: float, level: float) -> int | None:
    """With how many seeds a one-sided paired t-test finds a difference in `POWER` of sweeps; 3 to `MOST_SEEDS`, else None.

    Args:
        difference: mean over the seeds, on the scale of the test; positive in favour of the better setting.
        spread: standard deviation of the difference over the seeds; positive unless the difference is 0.
        level: of the test.

    The power is that of the noncentral t distribution, with n - 1 degrees of freedom and noncentrality
    difference / spread * sqrt(n). It takes the observed difference for the true one, so the number is a rough one.
    """
    if difference <= 0:
        return None
    n = np.arange(3, MOST_SEEDS + 1)
    power = 1 - special.nctdtr(n - 1, difference / spread * np.sqrt(n), special.stdtrit(n - 1, 1 - level))
    enough = n[power >= POWER]
    return int(enough[0]) if len(enough) else None


def unstable(values: NDArray[np.float64], mode: Literal["min", "max"]) -> NDArray[np.bool_]:
    """Whether a replicate of each setting collapsed: [k] from values [k, n] in the metric's unit.

    The worst replicate is below three quarters of the best one; of a metric to minimise, above four times the best.
    """
    if mode == "max":
        return values.min(axis=1) < 0.75 * values.max(axis=1)
    return values.max(axis=1) > 4 * values.min(axis=1)


def equivalent(values: NDArray[np.float64], margin: float, level: float, pairs: int) -> bool:
    """Whether all settings are within `margin` of each other.

    So it is if the upper confidence bound of every difference of two is at most the margin, by one-sided paired t at
    level / pairs. At most one of the two differences of a pair can be above the margin, so a false statement has at most
    the chance `level`, even if the values chose the settings from `pairs` pairs.

    Args:
        values: [k, n], a row per setting, a column per seed, in the unit of the margin.
        margin: 0 or more.
        level: the chance of a false statement.
        pairs: of the settings that these were chosen from.

    Returns:
        False also if a difference, other than 0, is the same for every seed: nothing shows how values vary.
    """
    n = values.shape[1]
    differences, rounding = values[:, None] - values, _rounding(values)
    mean, rounding = differences.mean(axis=2), np.maximum(rounding[:, None], rounding)
    constant = np.ptp(differences, axis=2) <= rounding
    bound = mean - special.stdtrit(n - 1, level / pairs) * standard_error(differences)
    bound = np.where(constant, np.where(np.abs(mean) <= rounding, 0.0, math.inf), bound)
    return bool((bound <= margin).all())


def _rounding(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Differences that vary by no more than this count as constant: [k], from the rounding of values [k, n]."""
    return 8 * np.finfo(np.float64).eps * np.abs(values).max(axis=1)


def t_quantile(n: int) -> float:
    """Half width of the confidence interval of a mean of n values at `LEVEL`, in standard errors."""
    return float(special.stdtrit(n - 1, 1 - LEVEL / 2))


def paired_p(
    differences: NDArray[np.float64], rounding: NDArray[np.float64] | float, shared: float = 0.0
) -> NDArray[np.float64]:
    """Two-sided p value of the paired t-test of a mean difference of 0.

    Args:
        differences: [..., n], between two settings, one for each seed.
        rounding: [...]; differences that vary by no more than this count as equal.
        shared: see `standard_error`.

    Returns:
        [...]; NaN with fewer than two seeds, or if the differences are equal: neither shows how far values vary by chance.
    """
    n = differences.shape[-1]
    if n < 2:
        return np.full(differences.shape[:-1], math.nan)
    constant = np.ptp(differences, axis=-1) <= rounding
    error = np.where(constant, 1.0, standard_error(differences, shared))
    return np.where(constant, math.nan, 2 * special.stdtr(n - 1, -np.abs(differences.mean(axis=-1)) / error))


def step_down(p: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Adjusts the p values of all pairs of k settings.

    The smallest p is multiplied by the number of pairs. Each next p is multiplied by the largest number of pairs that can
    be equal if all pairs before it differ: if two of three settings differ, at most one pair is equal. With more than
    `SHAFFER_UP_TO` settings it is multiplied by the number of pairs left, which is never smaller.

    Args:
        p: [k (k - 1) / 2], in any order.
        k: number of settings.

    Source: Shaffer 1986, procedure S1; with k (k - 1) / 2, ..., 2, 1 as counts it is Holm 1979.
    """
    return _adjusted(p, np.array(equal_pairs(k) if k <= SHAFFER_UP_TO else range(len(p), 0, -1), dtype=np.float64))


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Adjusts the p values of comparisons that were chosen before the results were seen.

    If those with an adjusted p up to 0.05 are called different, the chance that any of these is truly equal is at most 5 %.

    Args:
        p: [n], in any order.

    Source: Holm 1979.
    """
    return _adjusted(p, np.arange(len(p), 0, -1, dtype=np.float64))


def _adjusted(p: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Multiplies the p in ascending order by the counts, up to 1; no adjusted p is below the one before."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * counts))
    return adjusted


@lru_cache(maxsize=128)
def equal_pairs(k: int) -> tuple[int, ...]:
    """The largest number of equal pairs among k settings if at least 0, 1, 2, ... pairs differ; at least 1.

    Equal settings form classes. Classes of sizes a, b, ... have a (a - 1) / 2 + b (b - 1) / 2 + ... equal pairs.
    """
    possible = [1]  # bit i of possible[k]: whether exactly i pairs of k settings can be equal
    for size in range(1, k + 1):
        possible.append(0)
        for part in range(1, size + 1):
            possible[size] |= possible[size - part] << part * (part - 1) // 2
    pairs = k * (k - 1) // 2
    return tuple(max(1, (possible[k] & ((1 << pairs - unequal + 1) - 1)).bit_length() - 1) for unequal in range(pairs))
