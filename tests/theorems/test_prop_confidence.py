"""prop-confidence: the confidence factor is 1 - p_max up to a factor of two."""

import mpmath
import pytest
import sympy as sp
import torch

from flatbook import softmax
from tests.cases import generator, head


def trace(p):
    return 1 - p.square().sum(-1)


def upper(p, k):
    return 1 - p**2 - (1 - p) ** 2 / (k - 1)


def probabilities(seed, n=60):
    """From nearly uniform to nearly one-hot, with entries down to 1e-12."""
    k = 2 + seed % 8
    sharp = 10.0 ** (seed % 3 - 1)
    logits = torch.randn(n, k, generator=generator(seed), dtype=torch.float64)
    return (3 * sharp * logits).softmax(1)


@pytest.mark.random
def test_600_random_predictions():
    """600 random predictions obey every inequality."""
    for seed in range(10):
        p = probabilities(seed)
        k, top, t = p.shape[1], p.amax(1), trace(p)
        slack = 1e-14
        assert (2 * top * (1 - top) <= t + slack).all()
        assert (t <= upper(top, k) + slack).all()
        assert (upper(top, k) <= 2 * (1 - top) + slack).all()
        assert (1 - top <= t + slack).all()


@pytest.mark.random
def test_to_full_relative_precision_on_confident_predictions():
    """The same to full relative precision on confident predictions."""
    for seed in range(10):
        _, _, logits, _ = head(60, 2 + seed, 3, scale=10.0, seed=seed)
        rest = softmax.one_minus(logits).amin(1)
        t, slack = softmax.trace_p(logits), 1 + 1e-12
        assert (t > 0).all()
        assert (rest <= t * slack).all()
        assert (2 * (1 - rest) * rest <= t * slack).all()
        assert (t <= 2 * rest * slack).all()


@pytest.mark.random
def test_every_tie_of_the_first_two_is_sharp():
    """Wherever the two largest probabilities tie, the trace is at least one half."""
    for seed in range(500):
        k = 2 + seed % 6
        _, _, logits, _ = head(1, k, 3, scale=1.0 + seed % 5, seed=seed)
        first, second = logits[0].topk(2).indices
        logits[0, second] = logits[0, first]
        assert softmax.trace_p(logits).item() >= 0.5 - 1e-15


@pytest.mark.random
def test_halving_the_doubt_lowers_the_trace():
    """Halving the doubt lowers the trace."""
    for seed in range(500):
        g = generator(seed)
        k = 2 + seed % 6
        one, two = torch.rand(2, k, generator=g, dtype=torch.float64).log().mul(3)
        p, q = one.softmax(0), two.softmax(0)
        top = 1 - (1 - p.max()) / 2 * torch.rand(1, generator=g, dtype=torch.float64)
        rest = q.scatter(0, q.argmax(), 0.0)
        surer = rest * (1 - top) / rest.sum() + torch.where(rest == 0, top, 0.0)
        assert trace(surer) < trace(p)


@pytest.mark.symbolic
def test_symbolic_gaps():
    """What separates the four terms, as sums of squares and products."""
    p, *q = sp.symbols("p q:3", nonnegative=True)
    rest = 1 - p
    t = 1 - p**2 - sum(v**2 for v in q)
    mixed = 2 * (q[0] * q[1] + q[0] * q[2] + q[1] * q[2])
    on_simplex = {p: 1 - sum(q)}
    assert sp.expand((t - 2 * p * rest - mixed).subs(on_simplex)) == 0
    spread = sum((v - rest / 3) ** 2 for v in q)
    assert sp.expand((upper(p, 4) - t - spread).subs(on_simplex)) == 0
    assert sp.factor(2 * rest - upper(p, 4) - rest**2 * sp.Rational(4, 3)) == 0


@pytest.mark.boundary
@pytest.mark.parametrize("k", [2, 3, 10])
@pytest.mark.parametrize("top", [0.5, 0.75, 0.999])
def test_boundary_equality(k, top):
    """Each inequality is attained where the statement says."""
    one = torch.zeros(k, dtype=torch.float64)
    one[0], one[1] = top, 1 - top
    even = torch.full((k,), (1 - top) / (k - 1), dtype=torch.float64)
    even[0] = top
    assert trace(one).item() == pytest.approx(2 * top * (1 - top), rel=1e-12)
    assert trace(even).item() == pytest.approx(upper(top, k), rel=1e-12)


@pytest.mark.boundary
def test_boundary_the_factor_two_is_approached():
    """The factor two is approached."""
    with mpmath.workdps(60):
        for k in (2, 10):
            doubt = mpmath.mpf(10) ** -30
            t = 1 - (1 - doubt) ** 2 - doubt**2 / (k - 1)
            assert 0 < 2 - t / doubt < 3 * doubt
    uniform = torch.full((4,), 0.25, dtype=torch.float64)
    assert trace(uniform).item() == 1 - 0.25


@pytest.mark.needed
def test_not_monotone_in_the_largest_probability():
    """In the largest probability itself the trace is not monotone."""
    tie = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)
    surer = torch.tensor([0.55, 0.225, 0.225], dtype=torch.float64)
    assert surer.max() > tie.max()
    assert trace(surer) > trace(tie) + 0.09


@pytest.mark.needed
def test_the_largest_probability_is_needed_for_the_lower_bound():
    """For another probability than the largest the lower bound fails."""
    p = torch.tensor([0.9, 0.1], dtype=torch.float64)
    assert 1 - p[1] > trace(p)


@pytest.mark.needed
def test_below_one_half_the_first_bound_holds_but_is_not_attained():
    """Below one half the first bound holds and is not attained: 16/25, not 12/25."""
    g = generator(0)
    q = torch.rand(1000, generator=g, dtype=torch.float64) * 0.2 + 0.2
    p = torch.stack([torch.full_like(q, 0.4), q, 0.6 - q], 1)
    assert trace(p).min() > 0.64 - 1e-12 > 2 * 0.4 * 0.6
