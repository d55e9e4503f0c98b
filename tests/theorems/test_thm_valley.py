"""thm-valley: a ridge separates every confident right answer from every wrong one."""

from fractions import Fraction

import pytest
import sympy as sp
import torch

from flatbook import curvature, softmax
from tests.cases import generator, head


def path(seed):
    """A curved path of features from confident in class 0 to confident in class 1."""
    g, k, d = generator(seed), 2 + seed % 6, 8
    weight, bias = (
        torch.randn(*shape, generator=g, dtype=torch.float64)
        for shape in ((k, d), (k,))
    )
    ends = torch.randn(2, k, generator=g, dtype=torch.float64).clamp(-1.5, 1.5)
    ends[0, 0] += 6.0 + 3.0 * (seed % 4)
    ends[1, 1] += 6.0 + 2.0 * (seed % 5)
    start, end = torch.linalg.lstsq(weight, (ends - bias).T).solution.T
    bend = torch.randn(2, d, generator=g, dtype=torch.float64)

    def features(t):
        return (1 - t) * start + t * end + t * (1 - t) * (bend[0] + t * bend[1])

    def logits(t):
        return weight @ features(t) + bias

    return features, logits


def crossing(logits):
    """A time at which class 0 stops to be the only first, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(45):
        middle = (low + high) / 2
        z = logits(middle)
        low, high = (middle, high) if z[0] > z[1:].max() else (low, middle)
    return high


@pytest.mark.random
def test_500_curved_paths_cross_a_ridge():
    """500 curved paths cross the ridge."""
    for seed in range(500):
        features, logits = path(seed)
        for t, top in ((0.0, 0), (1.0, 1)):
            phi, z = features(t)[None], logits(t)[None]
            eta = softmax.one_minus(z)[0, top]
            assert eta < 0.5
            foot = 2 * eta * phi.square().sum() * (1 + 1e-12)
            assert curvature.hessian_trace(phi, z) <= foot
        t = crossing(logits)
        phi, z = features(t)[None], logits(t)[None]
        ridge = phi.square().sum() / 2
        assert curvature.hessian_trace(phi, z) >= ridge * (1 - 1e-9)


@pytest.mark.random
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0, 100.0])
def test_600_predictions_between_the_two_bounds(scale):
    """600 predictions lie between the two bounds."""
    for seed in range(10):
        _, _, logits, _ = head(60, 2 + seed, 4, scale=scale, seed=seed)
        doubt, trace = softmax.one_minus(logits).amin(1), softmax.trace_p(logits)
        assert (doubt <= trace * (1 + 1e-12)).all()
        assert (trace <= 2 * doubt * (1 + 1e-12)).all()


@pytest.mark.random
def test_500_ties():
    """500 ties are sharp."""
    for seed in range(500):
        _, _, logits, _ = head(1, 2 + seed % 8, 3, scale=1.0 + seed % 9, seed=seed)
        first, second = logits[0].topk(2).indices
        logits[0, second] = logits[0, first]
        assert softmax.trace_p(logits).item() >= 0.5 - 1e-15


@pytest.mark.symbolic
@pytest.mark.parametrize("k", [2, 3, 5])
def test_symbolic_gaps_are_sums_of_products(k):
    """The gaps of the inequalities are sums of products."""
    q = sp.symbols(f"q:{k - 1}", nonnegative=True)
    top = 1 - sum(q)
    trace = 1 - top**2 - sum(v**2 for v in q)
    below = sum(v * (top - v) for v in q)
    assert sp.expand(trace - (1 - top) - below) == 0
    above = (1 - top) ** 2 + sum(v**2 for v in q)
    assert sp.expand(2 * (1 - top) - trace - above) == 0


@pytest.mark.symbolic
def test_symbolic_two_classes_peak_at_the_tie():
    """For two classes the peak is at the tie."""
    g = sp.Symbol("g", real=True)
    p = 1 / (1 + sp.exp(-g))
    trace = 2 * p * (1 - p)
    assert sp.simplify((trace - 1 / (2 * sp.cosh(g / 2) ** 2)).rewrite(sp.exp)) == 0
    assert trace.subs(g, 0) == sp.Rational(1, 2)
    slope = sp.simplify(sp.diff(trace, g) - trace * (1 - 2 * p))
    assert slope == 0  # rises where p < 1/2, falls where p > 1/2


@pytest.mark.boundary
def test_boundary_two_classes_attain_one_half_and_no_more():
    """Two classes attain one half and no more."""
    gaps = torch.linspace(-40, 40, 8001, dtype=torch.float64)
    trace = softmax.trace_p(torch.stack([gaps, 0 * gaps], 1))
    assert trace.max().item() == 0.5
    assert gaps[trace.argmax()].abs() < 1e-9


@pytest.mark.boundary
def test_boundary_with_three_classes_the_maximum_is_not_at_the_tie():
    """With three classes the maximum is not at the tie."""

    def trace(*p):
        assert sum(p) == 1
        return 1 - sum(q * q for q in p)

    tie = trace(Fraction(1, 2), Fraction(1, 2), Fraction(0))
    inside = trace(Fraction(2, 5), Fraction(3, 10), Fraction(3, 10))
    assert (tie, inside) == (Fraction(1, 2), Fraction(33, 50))
    t = torch.linspace(0, 1, 2001, dtype=torch.float64)
    z = torch.stack([6 - 12 * t, 12 * t - 6, 3.5 - 8 * (t - 0.3).abs()], 1)
    trace_along = softmax.trace_p(z)
    gap = z.topk(2, 1).values.diff(dim=1).abs()[:, 0]
    assert gap[trace_along.argmax()] > 0.05
    assert (trace_along[gap < 1e-9] >= 0.5).all()


@pytest.mark.needed
def test_continuity_is_needed():
    """A jump sees two feet of the ridge and nothing between them."""
    z = torch.tensor([[9.0, 0.0], [0.0, 9.0]], dtype=torch.float64)
    assert softmax.trace_p(z).max() < 1e-3


@pytest.mark.needed
def test_more_than_half_of_the_mass_is_needed():
    """With less than half of the mass a path that stands still meets no ridge."""
    z = torch.tensor([[0.4, 0.6]], dtype=torch.float64).log()
    assert z.softmax(1).min() >= 1 - 0.6
    assert softmax.trace_p(z).item() == pytest.approx(0.48)


@pytest.mark.needed
def test_the_features_at_the_point_itself_are_needed():
    """The ridge may be lower than a foot where the features shrink to nothing."""
    phi = torch.tensor([[10.0], [1e-3]], dtype=torch.float64)
    z = torch.tensor([[3.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    foot, ridge = curvature.hessian_trace(phi, z)
    assert ridge < foot
