"""thm-peak-sharpness: the peak of sharpness over temperature is the flip radius."""

import math

import mpmath as mp
import pytest
import sympy as sp
import torch

from flatbook import curvature, radius, scaling
from tests.cases import generator, head

FLOOR = 4 / math.e**2


def ceiling(k):
    """The upper constant w (w + 2), by mpmath."""
    w = mp.lambertw(2 * (k - 1) / mp.e**2).real
    return float(w * (w + 2))


def products(weight, phi, logits):
    """Squared relative flip radius times the peak of Petzka's measure."""
    labels = logits.argmax(1)
    relative = radius.flip_radius(weight, logits, labels) / phi.norm(dim=1)
    return relative.square() * scaling.peak_sharpness(weight, phi, logits)


def lambda_products(weight, logits):
    """Squared flip radius times the peak of s^2 lambda, on a grid of scales."""
    labels = logits.argmax(1)
    flip = radius.flip_radius(weight, logits, labels)
    gaps = torch.nan_to_num(logits.amax(1, keepdim=True) - logits)
    low, high = gaps.amax(1), gaps.masked_fill(gaps == 0, torch.inf).amin(1)
    best = torch.zeros_like(flip)
    for t in torch.linspace(0, 1, 120, dtype=torch.float64):
        s = (1 / low) ** (1 - t) * (10 / high) ** t
        lam = curvature.lambda_max(weight, s[:, None] * logits)
        best = torch.maximum(best, s.square() * lam)
    return flip.square() * best


def wild(seed, n=5):
    """Heads with rows of very different length, biases, margins over decades."""
    g = generator(seed)
    k, d = 2 + seed % 19, 1 + seed % 6
    weight, phi, _, _ = head(n, k, d, seed=seed)
    sizes = (2 * torch.randn(k, 1, generator=g, dtype=torch.float64)).exp()
    bias = 3 * torch.randn(k, generator=g, dtype=torch.float64)
    return sizes * weight, phi, phi @ (sizes * weight).T + bias


@pytest.mark.random
def test_3000_predictions_between_the_constants():
    """3,000 predictions of 60 heads with rows of very different lengths."""
    for seed in range(60):
        weight, phi, logits = wild(seed, n=50)
        found, k = products(weight, phi, logits), logits.shape[1]
        assert (found >= FLOOR / k * (1 - 1e-9)).all()
        assert (found <= ceiling(k) * (1 + 1e-9)).all()


@pytest.mark.random
def test_500_predictions_with_the_largest_eigenvalue():
    """500 predictions: the same with the largest eigenvalue in place of the trace."""
    for seed in range(25):
        weight, phi, logits = wild(seed, n=20)
        found = lambda_products(weight, logits)
        assert (found >= FLOOR / logits.shape[1] * (1 - 1e-9)).all()
        assert (found <= products(weight, phi, logits) * (1 + 1e-9)).all()


@pytest.mark.random
def test_500_steps_flip_within_the_upper_bound():
    """500 heads: some step of the length that sharpness at scale one allows flips."""
    for seed in range(500):
        weight, phi, logits = wild(seed, n=1)
        y, k = logits.argmax(1), logits.shape[1]
        flat = curvature.relative_flatness(weight, phi, logits)
        reach = phi.norm() * (ceiling(k) / flat).sqrt()
        if not reach.isfinite() or reach > 1e6:
            continue
        ways = torch.nn.functional.normalize(weight - weight[y], dim=1)
        moved = logits + (1 + 1e-9) * reach * ways @ weight.T
        assert (moved.argmax(1) != y).any()


@pytest.mark.symbolic
def test_symbolic_constants():
    """Both constants, in sympy: 4/e^2, and the largest mean square w (w + 2)."""
    a, u, n = sp.symbols("a u n", positive=True)
    (peak,) = sp.solve(sp.diff(a**2 * sp.exp(-a), a), a)
    assert (a**2 * sp.exp(-a)).subs(a, peak) == 4 * sp.exp(-2)
    square = n * u**2 / (sp.exp(u) + n)
    slope = sp.diff(square, u) * (sp.exp(u) + n) ** 2 / (n * u)
    assert sp.simplify(slope - (2 * n - (u - 2) * sp.exp(u))) == 0
    w = sp.LambertW(2 * n * sp.exp(-2))
    value = square.subs(u, 2 + w) - w * (w + 2)
    for count in (1, 2, 9, 999):
        assert abs(sp.N(value.subs(n, count), 30)) < 1e-25


@pytest.mark.boundary
def test_two_classes_have_one_constant():
    """Two classes: the product is one number, the peak of (x / (2 cosh(x/2)))^2."""
    x = mp.findroot(lambda v: v * mp.tanh(v / 2) - 2, 2.4)
    wanted = float((x / (2 * mp.cosh(x / 2))) ** 2)
    weight, phi, logits, _ = head(100, 2, 3, scale=4.0, seed=3)
    found = products(weight, phi, logits)
    torch.testing.assert_close(found, torch.full_like(found, wanted), rtol=1e-9, atol=0)


@pytest.mark.boundary
@pytest.mark.parametrize("k", [3, 4, 10, 100])
def test_rows_around_the_winner_attain_the_ceiling(k):
    """Rows spread evenly around the winner's attain the upper constant."""
    others = torch.eye(k - 1, dtype=torch.float64) - 1 / (k - 1)
    others = torch.nn.functional.normalize(others, dim=1)
    weight = torch.cat([torch.zeros(1, k - 1, dtype=torch.float64), others])
    logits = torch.full((1, k), -3.0, dtype=torch.float64)
    logits[0, 0] = 0.0
    phi = torch.ones(1, k - 1, dtype=torch.float64)
    assert products(weight, phi, logits).item() == pytest.approx(ceiling(k), rel=1e-9)


@pytest.mark.boundary
@pytest.mark.parametrize("k", [10, 100, 1000])
def test_a_crowd_at_the_winner_shows_that_one_over_k_is_right(k):
    """A crowd of near ties with the winner comes within 2/k of the lower constant."""
    weight = torch.zeros(k, 1, dtype=torch.float64)
    weight[-1] = 1.0
    logits = torch.full((1, k), -1e-9, dtype=torch.float64)
    logits[0, 0], logits[0, -1] = 0.0, -1.0
    phi = torch.ones(1, 1, dtype=torch.float64)
    found = k * products(weight, phi, logits).item()
    assert FLOOR <= found <= FLOOR * (1 + 2 / k)


@pytest.mark.needed
def test_the_peak_is_needed():
    """With the sharpness of one temperature the lower bound is false."""
    weight, phi, logits, _ = head(20, 3, 4, scale=20.0, seed=1)
    relative = radius.flip_radius(weight, logits, logits.argmax(1)) / phi.norm(dim=1)
    flat = curvature.relative_flatness(weight, phi, logits)
    assert (relative.square() * flat < 1e-6 * FLOOR / 3).any()


@pytest.mark.needed
def test_the_upper_bound_is_not_for_the_frobenius_norm():
    """A row added to all rows changes kappa and no prediction: no upper bound."""
    weight, phi, logits, _ = head(1, 3, 2, seed=2)
    shifted = weight + 1000.0
    flip = radius.flip_radius(weight, logits, logits.argmax(1)) / phi.norm(dim=1)
    kappa = curvature.relative_sharpness(shifted, phi, logits)
    assert (flip.square() * kappa > 100 * ceiling(3)).all()
