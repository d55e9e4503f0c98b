"""prop-mean-sharpness: the mean over samples does not flatten with the samples."""

import math

import pytest
import sympy as sp
import torch

from flatbook import scaling, softmax
from tests.cases import generator


def mean_trace(gaps, density, s):
    """s E tr P for two classes, by the trapezoid rule on a fine grid of gaps."""
    logits = torch.stack([gaps, 0 * gaps], 1)
    return s * torch.trapezoid(softmax.trace_p(s * logits) * density, gaps).item()


def mixture(seed):
    """Density of |m| for a random mixture of three normal differences m."""
    g = generator(seed)
    means = 4 * torch.randn(3, generator=g, dtype=torch.float64)
    widths = 0.5 + 2 * torch.rand(3, generator=g, dtype=torch.float64)
    weights = torch.rand(3, generator=g, dtype=torch.float64)
    parts = torch.distributions.Normal(means, widths)
    weights = weights / weights.sum()

    def density(x):
        both = parts.log_prob(x[:, None]).exp() + parts.log_prob(-x[:, None]).exp()
        return both @ weights

    return density


@pytest.mark.random
@pytest.mark.parametrize("seed", range(10))
def test_the_mean_tends_to_the_density_at_the_boundary(seed):
    """500 mixtures of normal margins: s times the mean trace is the density at zero."""
    s = 2000.0
    gaps = torch.linspace(0, 60 / s, 3001, dtype=torch.float64)
    for case in range(50):
        density = mixture(1000 * seed + case)
        wanted = density(torch.zeros(1, dtype=torch.float64)).item()
        found = mean_trace(gaps, density(gaps), s)
        assert found == pytest.approx(wanted, rel=1e-3, abs=1e-12)


@pytest.mark.random
def test_the_error_of_two_classes_only():
    """2000 predictions of 3 to 10 classes: two of them make the trace, nearly."""
    for k in (3, 4, 6, 10):
        z = torch.randn(500, k, generator=generator(k), dtype=torch.float64)
        for s in (0.3, 1.0, 5.0, 30.0):
            first, second, third = z.topk(3).values.T
            gap = s * (first - second)
            pair = 2 * gap.sigmoid() * (-gap).sigmoid()
            error = (softmax.trace_p(s * z) - pair).abs()
            rest = 2 * (k - 2) * (-s * (first - third)).exp()
            assert (error <= rest * (1 + 1e-12) + 1e-13).all()


@pytest.mark.random
def test_three_classes_with_features():
    """500,000 heads of three classes: the law, features included, to two percent."""
    g = generator(0)
    n, s = 500_000, 60.0
    features = torch.randn(n, 2, generator=g, dtype=torch.float64) + 1.0
    weight = torch.randn(3, 2, generator=g, dtype=torch.float64)
    logits = features @ weight.T + torch.randn(n, 3, generator=g, dtype=torch.float64)
    size = features.square().sum(1)
    first, second = logits.topk(2).values.T
    t = 0.05
    c = (size * (first - second <= t)).mean() / t
    found = s * (size * softmax.trace_p(s * logits)).mean()
    assert found.item() == pytest.approx(c.item(), rel=0.02)


@pytest.mark.symbolic
def test_the_uniform_margin():
    """Uniform margins on [-a, a]: the mean trace is tanh(a s / 2) / (a s)."""
    a, s, m = sp.symbols("a s m", positive=True)
    primitive = sp.exp(s * m) / (1 + sp.exp(s * m)) / s  # of sigma(sm) sigma(-sm)
    density = sp.exp(s * m) / (1 + sp.exp(s * m)) ** 2
    assert sp.simplify(sp.diff(primitive, m) - density) == 0
    mean = 2 * (primitive.subs(m, a) - primitive.subs(m, -a)) / (2 * a)
    wanted = sp.tanh(a * s / 2).rewrite(sp.exp) / (a * s)
    assert sp.simplify(mean - wanted) == 0
    assert sp.limit(s * mean.subs(a, 3), s, sp.oo) == sp.Rational(1, 3)


@pytest.mark.boundary
def test_uniform_margins_at_every_scale():
    """Uniform margins: quadrature and closed form agree at every scale."""
    gaps = torch.linspace(0, 3, 300_001, dtype=torch.float64)
    for s in (0.1, 1.0, 10.0, 300.0):
        found = mean_trace(gaps, torch.full_like(gaps, 1 / 3), s)
        assert found == pytest.approx(math.tanh(1.5 * s) / 3, rel=1e-6)


@pytest.mark.boundary
def test_almost_every_sample_flattens():
    """10,000 samples: at a large scale all but a few per mille are flat."""
    g = generator(1)
    z = torch.randn(10_000, 4, generator=g, dtype=torch.float64)
    weight = torch.eye(4, dtype=torch.float64)
    low = scaling.log_sharpness(weight, z, z, [1e5])[0]
    assert (low < -100).double().mean() > 0.995


@pytest.mark.needed
def test_samples_near_the_boundary_are_needed():
    """No samples near the boundary: then the mean flattens with the samples."""
    s = 300.0
    gaps = torch.linspace(0, 2, 200_001, dtype=torch.float64)
    linear = gaps / 2  # density 0 at the boundary
    assert mean_trace(gaps, linear, s) < 0.01
    away = (gaps > 0.5).double() / 1.5
    assert mean_trace(gaps, away, s) < 1e-50


@pytest.mark.needed
def test_an_atom_of_ties_is_too_much():
    """One sample in a hundred exactly tied: s times the mean has no limit."""
    for s in (10.0, 100.0, 1000.0):
        tied = softmax.trace_p(torch.zeros(1, 2, dtype=torch.float64)).item()
        assert s * 0.01 * tied >= 0.005 * s


@pytest.mark.needed
def test_a_third_class_at_the_boundary_changes_the_constant():
    """Ties of three classes at once: the constant is another one."""
    s = 500.0
    gaps = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    logits = torch.stack([gaps, 0 * gaps, 0 * gaps], 1)  # g = h, density one
    found = s * torch.trapezoid(softmax.trace_p(s * logits), gaps).item()
    u = torch.linspace(0, 60, 600_001, dtype=torch.float64)
    r = 2 * (-u).exp()
    exact = 1 - (1 + r.square() / 2) / (1 + r).square()
    assert found == pytest.approx(torch.trapezoid(exact, u).item(), rel=1e-3)
    assert found > 1.5
