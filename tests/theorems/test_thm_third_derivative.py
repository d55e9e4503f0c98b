"""thm-third-derivative: the third derivative of cross-entropy is a third cumulant."""

from itertools import combinations_with_replacement

import pytest
import sympy as sp
import torch
from torch.func import grad, jacrev, vmap
from torch.nn.functional import cross_entropy

from flatbook import softmax, symbolic
from tests.cases import generator, head

SIZES = [(2, 1), (2, 3), (3, 2), (4, 2), (5, 2), (6, 1)]


def expanded(p):
    """The five terms of the statement, for probabilities (N, k)."""
    k = p.shape[1]
    total = 2 * torch.einsum("nj,nl,no->njlo", p, p, p)
    for j in range(k):
        total[:, j, j, j] += p[:, j]
        total[:, j, j, :] -= p[:, j, None] * p
        total[:, j, :, j] -= p[:, j, None] * p
        total[:, :, j, j] -= p[:, j, None] * p
    return total


def third(loss):
    return jacrev(jacrev(grad(loss)))


@pytest.mark.random
@pytest.mark.parametrize(("k", "d"), SIZES)
def test_100_heads(k, d):
    """Every entry of 600 random heads against automatic differentiation."""
    weight, features, _, labels = head(100, k, d, seed=10 * k + d)
    bias = torch.randn(k, generator=generator(k), dtype=torch.float64)
    logits = features @ weight.T + bias
    tensor = expanded(logits.softmax(1))
    found = vmap(third(cross_entropy))(logits, labels)
    torch.testing.assert_close(found, tensor, rtol=1e-11, atol=1e-14)
    torch.testing.assert_close(softmax.third_derivative(logits), tensor)

    def loss(w, phi, label):
        return cross_entropy(w @ phi + bias, label)

    found = vmap(third(loss), (None, 0, 0))(weight, features, labels)
    wanted = torch.einsum("njlo,na,nb,nc->njalboc", tensor, *[features] * 3)
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-12)


@pytest.mark.random
def test_moments_of_a_drawn_class():
    """600 times: symmetric, zero on constant vectors, and the slope of a variance."""
    for seed in range(600):
        g, k = generator(seed), 2 + seed % 6
        logits, v, u = torch.randn(3, k, generator=g, dtype=torch.float64)
        tensor = softmax.third_derivative(logits[None])[0]
        for order in ((1, 0, 2), (0, 2, 1), (2, 1, 0)):
            torch.testing.assert_close(tensor.permute(order), tensor)
        assert tensor.sum(0).abs().max() < 1e-15
        step = torch.zeros((), dtype=torch.float64, requires_grad=True)
        p = (logits + step * u).softmax(0)
        variance = (p * (v - p @ v).square()).sum()
        (slope,) = torch.autograd.grad(variance, step)
        p = logits.softmax(0)
        mixed = (p * (v - p @ v).square() * (u - p @ u)).sum()
        form = torch.einsum("jlo,j,l,o->", tensor, v, v, u)
        assert form.item() == pytest.approx(slope.item(), rel=1e-9, abs=1e-14)
        assert mixed.item() == pytest.approx(slope.item(), rel=1e-9, abs=1e-14)


@pytest.mark.symbolic
@pytest.mark.parametrize("k", [2, 3, 4])
def test_symbolic_entries(k):
    """Every entry for two, three and four symbolic logits, by differentiation."""
    z, p = symbolic.logits(k), symbolic.probabilities(k)
    hessian = symbolic.hessian(k)
    for j, i, o in combinations_with_replacement(range(k), 3):
        entry = sp.diff(hessian[j, i], z[o]) - symbolic.cumulant(p, j, i, o)
        assert sp.simplify(entry) == 0


@pytest.mark.symbolic
def test_symbolic_product_rule():
    """The five terms are those of the product rule, and of the expectation."""
    k, d = 3, sp.KroneckerDelta
    free = sp.symbols(f"p:{k - 1}")
    p = (*free, 1 - sum(free))

    def covariance(j, i):
        return p[j] * (d(j, i) - p[i])

    for j, i, o in combinations_with_replacement(range(k), 3):
        rule = covariance(j, o) * (d(j, i) - p[i]) - p[j] * covariance(i, o)
        mean = sum(
            p[c] * (d(c, j) - p[j]) * (d(c, i) - p[i]) * (d(c, o) - p[o])
            for c in range(k)
        )
        entry = symbolic.cumulant(p, j, i, o)
        assert sp.expand(rule - entry) == 0
        assert sp.expand(mean - entry) == 0


@pytest.mark.boundary
def test_boundary():
    """Even odds of two classes: all eight entries zero; a sure class: no overflow."""
    even = torch.zeros(1, 2, dtype=torch.float64)
    assert softmax.third_derivative(even).abs().max() == 0
    sure = torch.tensor([[700.0, 0.0, 0.0]], dtype=torch.float64)
    tensor = softmax.third_derivative(sure)[0]
    assert torch.isfinite(tensor).all()
    small = torch.tensor(
        -700.0, dtype=torch.float64
    ).exp()  # T_111 is p_1 to first order
    assert tensor[1, 1, 1].item() == pytest.approx(small.item(), rel=1e-12)


@pytest.mark.needed
def test_another_loss():
    """With the Brier loss in place of cross-entropy the label comes back."""

    def brier(z, y):
        return (z.softmax(0) - torch.eye(3, dtype=z.dtype)[y]).square().sum()

    z = torch.tensor([1.0, 0.5, -0.3], dtype=torch.float64)
    one, other = (third(brier)(z, y) for y in (0, 1))
    assert (one - other).abs().max() > 0.05


@pytest.mark.needed
def test_logits_that_are_not_affine():
    """With a normalised head, not affine in W, part 3 fails."""
    weight, features, _, _ = head(1, 3, 2, seed=5)
    phi = features[0]

    def loss(w):
        return cross_entropy(w @ phi / w.norm(), torch.tensor(0))

    tensor = expanded((weight @ phi / weight.norm()).softmax(0)[None])[0]
    wanted = torch.einsum("jlo,a,b,c->jalboc", tensor, *[phi / weight.norm()] * 3)
    found = third(loss)(weight)
    assert (found - wanted).norm() > 0.1 * found.norm()
