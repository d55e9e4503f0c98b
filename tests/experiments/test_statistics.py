import math

import numpy as np
import pytest
import torch

from flatbook.experiments import (
    Estimate,
    mean_interval,
    partial_rank_correlation,
    rank_correlation,
)

N = 400


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def test_by_hand():
    """Five ranks, two neighbours swapped twice: 1 - 6 * 4 / (5 * 24) = 0.8."""
    assert rank_correlation([1, 2, 3, 4, 5], [2, 1, 3, 5, 4]).value == 0.8


def test_only_ranks_matter():
    a, b = normal(2, N)
    first = rank_correlation(a, b)
    assert rank_correlation(np.exp(a), b**3) == first
    assert rank_correlation(-a, b).value == pytest.approx(-first.value)
    assert rank_correlation(torch.tensor(a), torch.tensor(b)) == first


def test_perfect_order_has_no_interval():
    a = normal(N)
    assert rank_correlation(a, 3 * a) == Estimate(1.0, 1.0, 1.0, N)
    assert rank_correlation(a, -a).value == -1


def test_infinities_are_ranked_last():
    a = [1.0, 2.0, math.inf, 3.0, -math.inf]
    assert rank_correlation(a, [1, 2, 4, 3, 0]).value == 1


def test_the_interval_covers():
    """Of 300 samples of 60 normal pairs, about 95 in 100 intervals hold the truth."""
    r = 0.6
    truth = 6 / math.pi * math.asin(r / 2)  # Spearman's rho of a normal pair
    hits = 0
    for seed in range(300):
        a, b = normal(2, 60, seed=seed)
        estimate = rank_correlation(a, r * a + math.sqrt(1 - r * r) * b)
        hits += estimate.low <= truth <= estimate.high
    assert 0.91 <= hits / 300 <= 0.99


def test_a_common_cause_is_taken_out():
    cause, one, two = normal(3, 4000)
    a, b = cause + one, cause + two
    assert rank_correlation(a, b).value > 0.4
    left = partial_rank_correlation(a, b, cause)
    assert left.low < 0.05
    assert abs(left.value) < 0.06


def test_what_is_left_is_that_of_residuals():
    from scipy import stats

    a, b, c = (stats.rankdata(v) for v in normal(3, N, seed=2))
    residuals = [v - np.polyval(np.polyfit(c, v, 1), c) for v in (a, b)]
    expected = np.corrcoef(*residuals)[0, 1]
    assert partial_rank_correlation(a, b, c).value == pytest.approx(expected)


def test_student():
    """Three numbers, mean 2, standard error 1/sqrt 3, t = 4.303."""
    estimate = mean_interval([1.0, 2.0, 3.0])
    assert estimate.high - 2 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert estimate.count == 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rank_correlation([1, 2, 3], [1, 2, 3]), "a must hold 4 or more"),
        (lambda: rank_correlation([1, 2, 3, 4], [1, 2, 3, 4, 5]), "4 and 5"),
        (lambda: rank_correlation([1, 2, 3, math.nan], [1, 2, 3, 4]), "a must not"),
        (lambda: rank_correlation([1, 2, 3, 4], [2, 2, 2, 2]), "b is constant"),
        (
            lambda: partial_rank_correlation([1, 2, 3, 4], [1, 3, 2, 4], [4, 2, 1, 3]),
            "5 or more samples, got 4",
        ),
        (
            lambda: partial_rank_correlation(
                [1, 2, 3, 4, 5], [3, 1, 2, 5, 4], range(5)
            ),
            "nothing is left",
        ),
        (lambda: mean_interval([1.0]), "two or more"),
        (lambda: mean_interval([1.0, math.inf]), "two or more finite"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
