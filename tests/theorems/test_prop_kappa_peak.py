"""prop-kappa-peak: where sharpness is largest when the head is scaled."""

import itertools
import math

import mpmath as mp
import pytest
import sympy as sp
import torch

from flatbook import curvature, softmax, symbolic
from tests.cases import generator


def peak(q):
    """The positive solution of x tanh(x / 2) = q, by bisection."""
    low, high = mp.mpf(0), mp.mpf(q) + 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if middle * mp.tanh(middle / 2) < q else (low, middle)
        )
    return float(low)


def sharpness(s, weight, features, logits, q):
    kappa = curvature.relative_sharpness(s * weight, features, s * logits, power=1)
    return kappa.item() * float(torch.linalg.matrix_norm(s * weight)) ** (q - 1)


def two_classes(seed):
    g = generator(seed)
    weight = torch.randn(2, 3, generator=g, dtype=torch.float64)
    features = torch.randn(1, 3, generator=g, dtype=torch.float64)
    bias = torch.randn(2, generator=g, dtype=torch.float64)
    logits = features @ weight.T + bias
    q = 0.2 + 3.8 * torch.rand(1, generator=g, dtype=torch.float64).item()
    return weight, features, logits, q


@pytest.mark.random
@pytest.mark.parametrize("seed", range(10))
def test_up_to_the_peak_then_down(seed):
    """500 two-class heads, powers from 0.2 to 4: up to the peak, then down."""
    for case in range(50):
        weight, features, logits, q = two_classes(1000 * seed + case)
        s_star = peak(q) / (logits[0, 0] - logits[0, 1]).abs().item()
        grid = [s_star * 1.1**i for i in range(-10, 11)]
        kappa = [sharpness(s, weight, features, logits, q) for s in grid]
        assert all(a < b for a, b in itertools.pairwise(kappa[:11]))
        assert all(a > b for a, b in itertools.pairwise(kappa[10:]))


@pytest.mark.random
def test_ties_never_flatten():
    """500 heads with two to five classes in a tie: sharpness keeps its floor."""
    for case in range(500):
        g, t = generator(case), 2 + case % 4
        logits = -torch.rand(1, t + case % 3, generator=g, dtype=torch.float64)
        logits[0, :t] = 0.0
        for s in (0.1, 1.0, 10.0, 1000.0):
            assert softmax.trace_p(s * logits).item() >= (1 - 1 / t) * (1 - 1e-12)


@pytest.mark.symbolic
def test_slope_of_the_logarithm():
    """The derivative of the logarithm, by sympy, gives the equation of the peak."""
    s, m, q = sp.symbols("s m q", positive=True)
    z = symbolic.logits(2)
    at = {z[0]: s * m, z[1]: 0}
    p = [v.subs(at) for v in symbolic.probabilities(2)]
    slope = sp.diff(q * sp.log(s) + sp.log(2 * p[0] * p[1]), s)
    wanted = (q - s * m * sp.tanh(s * m / 2).rewrite(sp.exp)) / s
    assert sp.simplify(slope - wanted) == 0


@pytest.mark.boundary
def test_the_numbers_on_the_page():
    """The peaks in forty digits, and the fractions of the example by hand."""
    with mp.workdps(40):
        for q, digits in ((1, "1.543404638"), (2, "2.399357280")):
            x = mp.findroot(lambda x, q=q: x * mp.tanh(x / 2) - q, 2)
            assert str(x).startswith(digits)
            assert peak(q) == pytest.approx(float(x), rel=1e-14)
    z = torch.tensor([[3.0, 1.0]], dtype=torch.float64).log()
    traces = [softmax.trace_p(s * z).item() for s in (1, 2, 3)]
    assert traces == pytest.approx([3 / 8, 9 / 50, 27 / 392], rel=1e-14)


@pytest.mark.boundary
@pytest.mark.parametrize("margin", [1e-12, 1e-3, 1.0, 1e3, 1e12])
def test_the_margin_only_moves_the_peak(margin):
    """Margins over 24 decades: the peak stays at the same multiple of 1 / margin."""
    z = torch.tensor([[margin, 0.0]], dtype=torch.float64)
    for q in (1.0, 2.0):
        near = [peak(q) / margin * f for f in (0.999, 1.0, 1.001)]
        kappa = [s**q * softmax.trace_p(s * z).item() for s in near]
        assert kappa[1] > kappa[0]
        assert kappa[1] > kappa[2]


@pytest.mark.needed
def test_three_classes_can_have_two_peaks():
    """With a near tie and a far crowd there are two peaks."""
    z = torch.tensor([[0.0, -0.01] + 1000 * [-8.0]], dtype=torch.float64)
    scales = torch.logspace(-1, 3, 801, dtype=torch.float64)
    kappa = torch.cat([s * softmax.trace_p(s * z) for s in scales])
    inside = (kappa[1:-1] > kappa[:-2]) & (kappa[1:-1] > kappa[2:])
    found = scales[1:-1][inside].tolist()
    assert len(found) == 2
    assert found[0] == pytest.approx(0.80, rel=0.02)
    assert found[1] == pytest.approx(154.3, rel=0.02)


@pytest.mark.needed
def test_without_a_tie_it_flattens():
    """A lead of one millionth is enough for sharpness to vanish at large scales."""
    z = torch.tensor([[1e-6, 0.0, 0.0]], dtype=torch.float64)
    log_kappa = 2 * math.log(1e9) + softmax.log_trace_p(1e9 * z).item()
    assert log_kappa < -900
