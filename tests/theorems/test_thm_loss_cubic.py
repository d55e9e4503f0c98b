"""thm-loss-cubic: slope, curvature and diameter of the head bound the loss nearby."""

import math

import pytest
import sympy as sp
import torch

from flatbook import curvature, radius, softmax, symbolic
from tests.cases import generator, head

THIRD = 1 / (36 * math.sqrt(3))


def soft_loss(logits, target):
    return logits.logsumexp(1) - (target * logits).sum(1)


def directions(weight, logits, target, g):
    """Unit vectors that raise the loss: its gradient, the rows' differences, chance."""
    n, d = len(logits), weight.shape[1]
    pairs = (weight[:, None] - weight[None]).reshape(-1, d)
    slope = (logits.softmax(1) - target) @ weight
    chance = torch.randn(n, d, generator=g, dtype=torch.float64)
    for way in (slope, chance, *pairs[torch.randperm(len(pairs), generator=g)[:8]]):
        length = way.norm(dim=-1, keepdim=True)
        yield torch.where(length > 0, way / length.clamp_min(1e-300), 0.0).expand(n, d)


def bound(weight, logits, target, rho):
    """The theorem's cubic, from its words: no code of the package."""
    p = logits.softmax(1)
    slope = ((p - target) @ weight).norm(dim=1)
    covariance = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    largest = torch.linalg.eigvalsh(weight.T @ covariance @ weight)[:, -1]
    diameter = torch.cdist(weight, weight).max()
    return slope * rho, largest / 2 * rho**2, diameter**3 * THIRD * rho**3


def one_hot(labels, k):
    return torch.eye(k, dtype=torch.float64)[labels]


@pytest.mark.random
@pytest.mark.parametrize("soft", [False, True])
def test_600_random_samples_in_ten_directions(soft):
    """600 random samples in ten directions stay below the bound."""
    for seed in range(12):
        k, d = 2 + seed % 6, 1 + seed % 5
        weight, _, logits, labels = head(50, k, d, seed=seed, scale=0.3 + seed % 4)
        g = generator(100 + seed)
        target = one_hot(labels, k)
        if soft:
            target = torch.rand(50, k, generator=g, dtype=torch.float64).softmax(1)
        base = soft_loss(logits, target)
        rho = 10 ** (4 * torch.rand(50, generator=g, dtype=torch.float64) - 3)
        slope, second, third = bound(weight, logits, target, rho)
        for way in directions(weight, logits, target, g):
            for sign in (1, -1):
                moved = logits + sign * rho[:, None] * way @ weight.T
                rise = soft_loss(moved, target) - base
                assert (rise <= (slope + second + third) * (1 + 1e-9) + 1e-12).all()
                assert (rise >= -slope * (1 + 1e-9) - 1e-12).all()


@pytest.mark.random
def test_the_package_has_these_coefficients_and_the_weaker_ones_are_weaker():
    """The weaker coefficients in the paper's quantities are weaker."""
    for seed in range(10):
        k, d = 2 + seed, 3
        weight, features, logits, labels = head(50, k, d, seed=seed)
        target, one = one_hot(labels, k), torch.ones(50, dtype=torch.float64)
        c, b, a = radius.bound_coefficients(weight, logits, labels)
        for got, wanted in zip(
            (c, b, a), bound(weight, logits, target, one), strict=True
        ):
            torch.testing.assert_close(got, wanted.expand(50), rtol=1e-9, atol=1e-12)
        spectral = torch.linalg.matrix_norm(weight, 2)
        kappa = curvature.relative_sharpness(weight, features, logits)
        assert (2 * b * features.square().sum(1) <= kappa * (1 + 1e-12)).all()
        assert (a <= math.sqrt(6) / 54 * spectral**3 * (1 + 1e-12)).all()
        wrong = softmax.one_minus(logits).gather(1, labels[:, None])[:, 0]
        assert (c <= math.sqrt(2) * spectral * wrong * (1 + 1e-12)).all()


@pytest.mark.random
def test_derivatives_along_a_line_are_mean_variance_and_third_cumulant():
    """The derivatives along a line are mean, variance and third cumulant."""
    k, s = 3, sp.Symbol("s")
    z, u = symbolic.logits(k), sp.symbols("u:3", real=True)
    moved = {v: v + s * w for v, w in zip(z, u, strict=True)}
    along = symbolic.cross_entropy(k, 0).subs(moved, simultaneous=True)
    p = symbolic.probabilities(k)
    mean = sum(q * w for q, w in zip(p, u, strict=True))
    wanted = [mean - u[0]] + [
        sum(q * (w - mean) ** n for q, w in zip(p, u, strict=True)) for n in (2, 3)
    ]
    for order, expression in enumerate(wanted, start=1):
        assert sp.simplify(sp.diff(along, s, order).subs(s, 0) - expression) == 0


@pytest.mark.boundary
def test_largest_third_cumulant_of_a_unit_interval():
    """The largest third cumulant on an interval of length one."""
    q = sp.Symbol("q", positive=True)
    two_points = q * (1 - q) * (1 - 2 * q)
    extreme = [two_points.subs(q, v) for v in sp.solve(sp.diff(two_points, q), q)]
    assert {sp.simplify(v * 6 * sp.sqrt(3)) for v in extreme} == {1, -1}
    g = generator(0)
    for n in (2, 3, 5, 9):
        x = torch.rand(2000, n, generator=g, dtype=torch.float64)
        x = (x - x.amin(1, True)) / (x.amax(1, True) - x.amin(1, True))
        p = torch.rand(2000, n, generator=g, dtype=torch.float64).pow(3)
        p = p / p.sum(1, keepdim=True)
        centred = x - (p * x).sum(1, keepdim=True)
        third = (p * centred**3).sum(1).abs()
        assert third.max() <= 1 / (6 * math.sqrt(3))
    assert third.max() > 0.01


def two_classes(gap):
    weight = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    return weight, torch.tensor([[gap, 0.0]], dtype=torch.float64), torch.tensor([0])


@pytest.mark.boundary
def test_boundary_the_constant_is_attained():
    """The constant is attained by two classes with 1 - p_y = (1 - 1/sqrt 3)/2."""
    wrong = (1 - 1 / math.sqrt(3)) / 2
    weight, logits, label = two_classes(math.log((1 - wrong) / wrong))
    c, b, a = (v.item() for v in radius.bound_coefficients(weight, logits, label))
    for rho, gap in ((0.1, 1e-2), (0.03, 1e-3)):
        rise = math.log1p(wrong * math.expm1(rho))
        assert rise - c * rho - b * rho**2 == pytest.approx(a * rho**3, rel=gap)
        assert rise > c * rho + b * rho**2 + 0.98 * a * rho**3


@pytest.mark.boundary
def test_boundary_equal_rows_and_no_distance():
    """Equal rows, and no distance."""
    weight = torch.ones(3, 2, dtype=torch.float64)
    logits = torch.tensor([[2.0, 1.0, 0.0]], dtype=torch.float64)
    assert radius.bound_coefficients(weight, logits, torch.tensor([1])) == (0, 0, 0)


@pytest.mark.needed
def test_without_the_slope_the_bound_fails():
    """Without the slope the bound fails."""
    weight, logits, label = two_classes(2.0)
    c, b, a = (v.item() for v in radius.bound_coefficients(weight, logits, label))
    rho = 0.01
    rise = math.log1p(math.expm1(rho) / (1 + math.exp(2)))
    assert b * rho**2 + a * rho**3 < rise <= c * rho + b * rho**2 + a * rho**3


@pytest.mark.needed
def test_without_the_size_of_the_weights_the_bound_fails():
    """Without the size of the weights it fails: the paper's remainder on a line."""
    s, rho = 10.0, 2.0
    weight, logits, _ = two_classes(s)
    weight = s * weight
    target = logits.softmax(1)
    rise = (soft_loss(-logits, target) - soft_loss(logits, target)).item()
    features = torch.ones(1, 1, dtype=torch.float64)
    kappa = curvature.relative_sharpness(weight, features, logits).item()
    assert rise > 9.9
    assert kappa / 2 * rho**2 + 2 * 1 / 24 * rho**3 < 0.7
    slope, second, third = bound(weight, logits, target, rho)
    assert slope.item() < 1e-12
    assert rise <= (second + third).item()
