"""cor-largest-third: no entry above 1/(6 sqrt 3), no direction above R^3/(6 sqrt 3)."""

import math

import pytest
import sympy as sp
import torch
from torch.func import grad, jacrev, vmap
from torch.nn.functional import cross_entropy

from flatbook import softmax
from tests.cases import generator, head

LARGEST = 1 / (6 * math.sqrt(3))


def logits_of(seed, n):
    """Logits of all confidences; in every third row two classes share nearly all."""
    g, k = generator(seed), 2 + seed % 6
    size = 6 * torch.rand(n, 1, generator=g, dtype=torch.float64)
    z = size * torch.randn(n, k, generator=g, dtype=torch.float64)
    z[::3, 2:] -= 30.0
    return z, g


@pytest.mark.random
def test_entries():
    """1,200 predictions: every entry, by automatic differentiation, below the bound."""
    largest = 0.0
    for seed in range(12):
        logits, _ = logits_of(seed, 100)
        labels = torch.zeros(100, dtype=torch.int64)
        tensor = vmap(jacrev(jacrev(grad(cross_entropy))))(logits, labels)
        assert tensor.abs().max() <= LARGEST + 1e-15
        largest = max(largest, tensor.abs().max().item())
    assert largest > 0.99 * LARGEST


@pytest.mark.random
def test_directions():
    """6,000 directions: the third derivative along each, by differentiation."""
    largest = 0.0
    for seed in range(60):
        logits, g = logits_of(seed, 100)
        u = torch.randn(logits.shape, generator=g, dtype=torch.float64)
        if seed % 2:
            u = u.sign()
        t = torch.zeros(100, dtype=torch.float64, requires_grad=True)
        value = (logits + t[:, None] * u).logsumexp(1)
        for _ in range(3):
            (value,) = torch.autograd.grad(value.sum(), t, create_graph=True)
        width = u.amax(1) - u.amin(1)
        value = value.detach().abs()
        assert (value <= LARGEST * width**3 * (1 + 1e-9) + 1e-14).all()
        ratio = value / width.clamp_min(1e-3) ** 3
        largest = max(largest, ratio.max().item())
    assert largest > 0.99 * LARGEST


@pytest.mark.random
def test_entries_in_the_head():
    """600 heads: entries in the weights against the product of three features."""
    for seed in range(6):
        weight, features, logits, _ = head(100, 2 + seed, 4, seed=seed, scale=2.0)
        tensor = softmax.third_derivative(logits).abs().amax((1, 2, 3))
        assert (tensor <= LARGEST).all()
        phi, label = features[0], torch.tensor(0)
        third = jacrev(jacrev(grad(lambda w, x, y: cross_entropy(w @ x, y))))
        entries = third(weight, phi, label).abs().amax((0, 2, 4))
        allowed = LARGEST * torch.einsum("a,b,c->abc", *[phi.abs()] * 3)
        assert (entries <= allowed * (1 + 1e-9)).all()


@pytest.mark.symbolic
def test_symbolic_maximum():
    """V sqrt(R^2 - 4V) is largest at V = R^2/6; the other entries are below as well."""
    v, q = sp.symbols("v q", positive=True)
    square = v**2 * (1 - 4 * v)
    (best,) = [s for s in sp.solve(square.diff(v), v) if s != 0]
    assert best == sp.Rational(1, 6)
    assert sp.simplify(sp.sqrt(square.subs(v, best)) - 1 / (6 * sp.sqrt(3))) == 0
    moment = q * (1 - q) * (1 - 2 * q)
    ends = {
        sp.simplify(moment.subs(q, x) * 6 * sp.sqrt(3)) for x in _stationary(moment, q)
    }
    assert ends == {1, -1}
    assert sp.Rational(2, 27) < 1 / (6 * sp.sqrt(3))  # 2 p_j p_l p_o, at even thirds


def _stationary(expression, symbol):
    return sp.solve(sp.diff(expression, symbol), symbol)


@pytest.mark.boundary
@pytest.mark.parametrize("k", [2, 3, 10])
def test_attained(k):
    """Attained at p_0 = (1 -+ 1/sqrt 3)/2, for any number of classes."""
    for sign in (1, -1):
        q = (1 + sign / math.sqrt(3)) / 2
        p = torch.full((1, k), (1 - q) / (k - 1), dtype=torch.float64)
        p[0, 0] = q
        tensor = softmax.third_derivative(p.log())[0]
        assert tensor[0, 0, 0].item() == pytest.approx(-sign * LARGEST, rel=1e-13)
        assert tensor.abs().max().item() == pytest.approx(LARGEST, rel=1e-13)


@pytest.mark.needed
def test_the_printed_bound():
    """A nearly constant feature breaks the bound k m L^3 / 4 of the paper."""
    q = (1 - 1 / math.sqrt(3)) / 2
    lipschitz, phi = 1e-3, torch.ones(1, dtype=torch.float64)  # phi(x) = 1 + x/1000
    weight = torch.tensor([[math.log(q / (1 - q))], [0.0]], dtype=torch.float64)
    third = jacrev(jacrev(grad(lambda w: cross_entropy(w @ phi, torch.tensor(0)))))
    entry = third(weight).abs().max().item()
    printed = 2 * 1 * lipschitz**3 / 4
    assert entry > 1e8 * printed
    assert entry <= LARGEST * (1 + 1e-12)


@pytest.mark.needed
def test_range_not_norm():
    """With the Euclidean length of u in place of its range the bound fails."""
    u = torch.tensor([1.0, -1.0], dtype=torch.float64)
    q = (1 - 1 / math.sqrt(3)) / 2
    third = 8 * q * (1 - q) * (1 - 2 * q)
    assert third > u.norm() ** 3 * LARGEST
    assert third == pytest.approx(((u[0] - u[1]) ** 3 * LARGEST).item())
