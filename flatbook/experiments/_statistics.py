r"""Rank correlations and intervals, with scipy.

The interval of a rank correlation :math:`\rho` over N samples is Fisher's, with the
variance :math:`(1 + \rho^2/2)/(N - 3)` of Bonett and Wright (Sample size requirements
for estimating Pearson, Kendall and Spearman correlations, 2000):
:math:`\tanh(\operatorname{artanh} \rho \pm 1.96 \sqrt{\cdot})`. A partial rank
correlation is the correlation of what is left of both ranks after a straight line in
the ranks of a third quantity.

>>> rank_correlation([1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 1.0, 3.0, 5.0, 4.0]).value
0.8
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["Estimate", "mean_interval", "partial_rank_correlation", "rank_correlation"]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % confidence interval.

    Attributes:
        value: the estimate.
        low: lower end.
        high: upper end.
        count: samples it rests on.
    """

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def rank_correlation(a: ArrayLike, b: ArrayLike) -> Estimate:
    """Spearman's rank correlation of two quantities of N samples.

    Ties share their mean rank.

    Args:
        a: (N,), N >= 4; infinities are ranked, NaN is refused.
        b: (N,).

    Raises:
        ValueError: lengths differ, too few samples, NaN, or a constant.
    """
    first, second = (_ranks(name, v) for name, v in (("a", a), ("b", b)))
    return _fisher(_pearson(first, second), len(first), 0)


def partial_rank_correlation(a: ArrayLike, b: ArrayLike, given: ArrayLike) -> Estimate:
    """Rank correlation of two quantities after the ranks of a third are taken out.

    Args:
        a: (N,), N >= 5.
        b: (N,).
        given: (N,), what is held fixed.

    Raises:
        ValueError: lengths differ, too few samples, NaN, a constant, or a quantity
            that is a function of the ranks of ``given`` alone.
    """
    named = (("a", a), ("b", b), ("given", given))
    first, second, third = (_ranks(name, v) for name, v in named)
    r_ab, r_ag, r_bg = (
        _pearson(first, second),
        _pearson(first, third),
        _pearson(second, third),
    )
    left = (1 - r_ag**2) * (1 - r_bg**2)
    if left < 1e-12:
        raise ValueError("nothing is left of a or b once the ranks of given are fixed")
    value = (r_ab - r_ag * r_bg) / math.sqrt(left)
    return _fisher(value, len(first), 1)


def mean_interval(values: Sequence[float]) -> Estimate:
    """Mean of one number per seed, with Student's 95 % interval.

    Raises:
        ValueError: fewer than two numbers, or one that is not finite.

    >>> str(mean_interval([1.0, 2.0, 3.0]))
    '2.00 [-0.48, 4.48]'
    """
    from scipy import stats

    numbers = np.asarray([float(value) for value in values])
    if len(numbers) < 2 or not np.isfinite(numbers).all():
        raise ValueError(f"expected two or more finite numbers, got {list(values)}")
    half = stats.t.ppf(0.975, len(numbers) - 1) * stats.sem(numbers)
    mean = float(numbers.mean())
    return Estimate(mean, mean - half, mean + half, len(numbers))


def _ranks(name: str, values: ArrayLike) -> np.ndarray:
    from scipy import stats

    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or len(array) < 4:
        raise ValueError(f"{name} must hold 4 or more numbers, got {array.shape}")
    if np.isnan(array).any():
        raise ValueError(f"{name} must not contain NaN")
    if (array == array[0]).all():
        raise ValueError(f"{name} is constant ({array[0]:g}): it has no ranks")
    return stats.rankdata(array)


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) != len(b):
        raise ValueError(f"expected equal lengths, got {len(a)} and {len(b)}")
    return float(np.corrcoef(a, b)[0, 1])


def _fisher(value: float, count: int, fixed: int) -> Estimate:
    if count < 4 + fixed:
        raise ValueError(f"expected {4 + fixed} or more samples, got {count}")
    value = round(min(max(value, -1.0), 1.0), 12)
    if abs(value) == 1:
        return Estimate(value, value, value, count)
    half = 1.96 * math.sqrt((1 + value**2 / 2) / (count - 3 - fixed))
    middle = math.atanh(value)
    return Estimate(value, math.tanh(middle - half), math.tanh(middle + half), count)
