"""prop-curvature-along: (D x)^T P (D x) in direction D, its mean and its maximum."""

import pytest
import sympy as sp
import torch
from torch.func import hessian

from flatbook import curvature, softmax, symbolic
from tests.cases import generator, head


def along(logits, moved):
    """(N,) from logits (N, k) and D x (N, k)."""
    return torch.einsum("ni,nij,nj->n", moved, softmax.covariance(logits), moved)


def unit(*shape, g):
    draw = torch.randn(*shape, generator=g, dtype=torch.float64)
    return draw / draw.flatten(1).norm(dim=1).view(-1, *[1] * (draw.ndim - 1))


@pytest.mark.random
@pytest.mark.parametrize(("k", "d"), [(2, 1), (2, 3), (3, 4), (5, 2), (7, 3)])
def test_100_random_directions_against_autograd(k, d):
    """500 random directions against automatic differentiation."""
    weight, x, logits, labels = head(100, k, d, seed=k)
    directions = unit(100, k, d, g=generator(k))

    def second(n):
        def loss(t):
            z = (weight + t * directions[n]) @ x[n]
            return torch.logsumexp(z, 0) - z[labels[n]]

        return hessian(loss)(torch.zeros((), dtype=torch.float64))

    found = along(logits, torch.einsum("nkd,nd->nk", directions, x))
    expected = torch.stack([second(n) for n in range(100)])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.symbolic
@pytest.mark.parametrize("k", [2, 3, 4])
def test_second_derivative_in_symbols(k):
    """The second derivative in sympy."""
    t, step = sp.Symbol("t"), sp.symbols(f"u:{k}", real=True)
    z = symbolic.logits(k)
    moved = [a + t * b for a, b in zip(z, step, strict=True)]
    loss = sp.log(sum(sp.exp(m) for m in moved)) - moved[0]
    found = sp.diff(loss, t, 2).subs(t, 0)
    u = sp.Matrix(step)
    expected = (u.T * symbolic.hessian(k) * u)[0]
    point = {s: (-1) ** i * (i + 1) / sp.Integer(3) for i, s in enumerate([*z, *step])}
    assert sp.simplify(sp.expand(found - expected).subs(point)) == 0
    if k == 2:
        assert sp.simplify(found - expected) == 0


@pytest.mark.random
def test_mean_over_the_coordinate_directions():
    """Over the coordinate directions the mean is the trace over the dimension."""
    weight, x, logits, _ = head(60, 4, 3, seed=2)
    mean = sum(
        along(logits, x[:, b, None] * torch.eye(4, dtype=torch.float64)[a])
        for a in range(4)
        for b in range(3)
    )
    torch.testing.assert_close(mean, curvature.hessian_trace(x, logits))
    by_row = sum(
        along(logits, x.norm(dim=1)[:, None] * torch.eye(4, dtype=torch.float64)[a])
        for a in range(4)
    )
    torch.testing.assert_close(by_row / 4, 3 * mean / 12)
    assert weight.shape == (4, 3)


@pytest.mark.random
def test_mean_over_random_directions():
    """Over random directions too, within the error of the mean."""
    _, x, logits, _ = head(3, 4, 5, seed=3)
    draws = unit(40_000, 4, 5, g=generator(5))
    for n in range(3):
        values = along(logits[n].expand(40_000, 4), draws @ x[n])
        expected = curvature.hessian_trace(x[n : n + 1], logits[n : n + 1]) / 20
        error = values.std() / 200
        assert abs(values.mean() - expected.item()) < 4 * error


@pytest.mark.random
def test_maximum_is_attained_at_rank_one_and_at_most_half():
    """The maximum is attained at rank one and is at most one half."""
    for seed in range(10):
        _, x, logits, _ = head(50, 2 + seed % 6, 4, scale=1 + seed, seed=seed)
        values, vectors = torch.linalg.eigh(softmax.covariance(logits))
        squared = x.square().sum(1)
        largest = squared * values[:, -1]
        best = along(logits, x.norm(dim=1)[:, None] * vectors[:, :, -1])
        torch.testing.assert_close(best, largest, rtol=1e-9, atol=1e-14)
        assert (largest <= squared / 2 * (1 + 1e-12)).all()
        directions = unit(50, logits.shape[1], 4, g=generator(seed))
        other = along(logits, torch.einsum("nkd,nd->nk", directions, x))
        assert (other <= largest * (1 + 1e-9)).all()


@pytest.mark.random
def test_largest_over_mean_lies_between_its_bounds():
    """The largest over the mean lies between its bounds, and both ends occur."""
    d = 4
    for seed in range(10):
        k = 2 + seed % 6
        _, _, logits, _ = head(50, k, d, seed=seed)
        top = torch.linalg.eigvalsh(softmax.covariance(logits))[:, -1]
        ratio = k * d * top / softmax.trace_p(logits)
        assert (ratio >= k * d / (k - 1) * (1 - 1e-12)).all()
        assert (ratio <= k * d * (1 + 1e-12)).all()
    flat = torch.zeros(1, 5, dtype=torch.float64)
    top = torch.linalg.eigvalsh(softmax.covariance(flat))[:, -1]
    assert (5 * d * top / softmax.trace_p(flat)).item() == pytest.approx(5 * d / 4)
    pair = torch.tensor([[0.0, 0.0, -80.0]], dtype=torch.float64)
    top = torch.linalg.eigvalsh(softmax.covariance(pair))[:, -1]
    assert (3 * d * top / softmax.trace_p(pair)).item() == pytest.approx(3 * d)


@pytest.mark.boundary
def test_boundary_directions_without_curvature():
    """Directions without any curvature."""
    _, x, logits, _ = head(20, 3, 4, seed=8)
    ones = torch.ones(20, 3, dtype=torch.float64) * x.norm(dim=1)[:, None]
    assert along(logits, ones).abs().max() < 1e-14
    assert (along(logits, torch.zeros(20, 3, dtype=torch.float64)) == 0).all()


@pytest.mark.needed
def test_the_factor_d_needs_a_direction_along_x():
    """The factor d needs a direction along x: another of rank one sees nothing."""
    _, x, logits, _ = head(20, 3, 2, seed=9)
    right = torch.stack([-x[:, 1], x[:, 0]], 1)
    directions = torch.einsum(
        "k,nd->nkd", torch.tensor([1.0, -1.0, 0.0]).double(), right
    )
    assert along(logits, torch.einsum("nkd,nd->nk", directions, x)).abs().max() < 1e-14
