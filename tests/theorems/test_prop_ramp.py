"""prop-ramp: where a wrong class is certain the loss is steep, and hardly curved."""

import math

import pytest
import sympy as sp
import torch

from flatbook import softmax, symbolic
from tests.cases import generator, head

ROOT2 = math.sqrt(2)


def confidently_wrong(seed, n=60):
    """Heads (d = 4) whose logits favour a wrong class j, weakly to extremely."""
    k, g = 2 + seed % 8, generator(seed)
    weight, features, _, labels = head(n, k, 4, seed=seed)
    j = (labels + torch.randint(1, k, (n,), generator=g)) % k
    bias = torch.randn(n, k, generator=g, dtype=torch.float64)
    boost = torch.rand(n, generator=g, dtype=torch.float64) * 10.0 ** (seed % 3)
    bias[torch.arange(n), j] += 3 * boost
    return weight, features, features @ weight.T + bias, labels, j


def at(values, index):
    return values.gather(1, index[:, None])[:, 0]


def logit_gradient(logits, labels):
    """p - e_y without cancellation."""
    index = labels[:, None]
    return logits.softmax(1).scatter(
        1, index, -softmax.one_minus(logits).gather(1, index)
    )


@pytest.mark.random
@pytest.mark.parametrize("seed", range(10))
def test_600_confidently_wrong_predictions(seed):
    """600 confidently wrong predictions."""
    _, _, logits, labels, j = confidently_wrong(seed)
    eta = at(softmax.one_minus(logits), j)
    loss = softmax.cross_entropy(logits, labels)
    slope = torch.linalg.vector_norm(logit_gradient(logits, labels), dim=1)
    gap, slack = at(logits, j) - at(logits, labels), 1e-12
    assert (loss >= -eta.log() - slack * loss).all()
    assert (loss - gap >= -slack * loss).all()
    assert (loss - gap <= -torch.log1p(-eta) + slack * loss).all()
    assert (slope >= ROOT2 * (1 - eta) - slack).all()
    assert (slope <= ROOT2 + slack).all()
    assert (softmax.trace_p(logits) <= 2 * eta * (1 + slack)).all()


@pytest.mark.random
@pytest.mark.parametrize("seed", range(10))
def test_the_gradient_is_nearly_that_of_the_gap(seed):
    """Their gradient is nearly that of the gap."""
    _, _, logits, labels, j = confidently_wrong(seed)
    eta = at(softmax.one_minus(logits), j)
    k = logits.shape[1]
    gap = (
        torch.eye(k, dtype=torch.float64)[j] - torch.eye(k, dtype=torch.float64)[labels]
    )
    rest = torch.linalg.vector_norm(logit_gradient(logits, labels) - gap, dim=1)
    assert (rest <= ROOT2 * eta + 1e-14).all()


@pytest.mark.random
def test_gradient_in_the_weights_by_autograd():
    """The gradient in the weights against automatic differentiation."""
    for seed in range(10):
        weight, features, logits, labels, _ = confidently_wrong(seed)
        extra = logits - features @ weight.T
        for phi, b, y in zip(features[:50], extra, labels, strict=False):
            w = weight.clone().requires_grad_()
            z = (w @ phi + b)[None]
            (found,) = torch.autograd.grad(softmax.cross_entropy(z, y[None]).sum(), w)
            slope = logit_gradient(z.detach(), y[None]).norm() * phi.norm()
            torch.testing.assert_close(found.norm(), slope, rtol=1e-10, atol=0)


@pytest.mark.symbolic
@pytest.mark.parametrize("k", [2, 3, 4])
def test_symbolic(k):
    """The squared slope exceeds its bound by a sum of products; the loss is the gap."""
    p = symbolic.probabilities(k)
    gradient = symbolic.gradient(k, 0)
    square = sum(v**2 for v in gradient)
    rest = sum(p[2:], sp.Integer(0))
    excess = 2 * p[1] * rest + rest**2 + sum(v**2 for v in p[2:])
    assert sp.simplify(square - 2 * p[1] ** 2 - excess) == 0
    z = symbolic.logits(k)
    loss = symbolic.cross_entropy(k, 0)
    assert sp.simplify(sp.exp(loss - (z[1] - z[0])) * p[1]) == 1


@pytest.mark.boundary
@pytest.mark.parametrize("gap", [1e-3, 1.0, 6.0, 40.0, 700.0])
def test_boundary_two_classes_attain_every_bound(gap):
    """Two classes attain every bound."""
    z, y = torch.tensor([[0.0, gap]], dtype=torch.float64), torch.tensor([0])
    eta = softmax.one_minus(z)[0, 1].item()
    loss = softmax.cross_entropy(z, y).item()
    assert loss == pytest.approx(-math.log(eta), rel=1e-12)
    assert loss - gap == pytest.approx(-math.log1p(-eta), abs=1e-12 * gap)
    slope = logit_gradient(z, y).norm().item()
    assert slope == pytest.approx(ROOT2 * (1 - eta), rel=1e-12)


@pytest.mark.boundary
def test_boundary_the_example_of_the_page():
    """The example of the page."""
    z = torch.tensor([[0.0, 6.0]], dtype=torch.float64)
    assert round(softmax.cross_entropy(z, torch.tensor([0])).item(), 4) == 6.0025
    assert 1 / 203 < softmax.trace_p(z).item() < 1 / 202


@pytest.mark.needed
def test_a_wrong_class_is_needed():
    """Confidently right is as flat, and level: a wrong class is needed."""
    for seed in range(10):
        _, _, logits, _, j = confidently_wrong(seed)
        eta = at(softmax.one_minus(logits), j)
        slope = torch.linalg.vector_norm(logit_gradient(logits, j), dim=1)
        assert (slope <= ROOT2 * eta * (1 + 1e-12)).all()


@pytest.mark.needed
def test_cross_entropy_is_needed():
    """The squared error of the probabilities ends level at the wrong vertex."""
    for gap in (5.0, 10.0, 20.0):
        z = torch.tensor([0.0, gap, 1.0], dtype=torch.float64, requires_grad=True)
        target = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
        brier = (z.softmax(0) - target).square().sum()
        (gradient,) = torch.autograd.grad(brier, z)
        assert gradient.norm() < 10 * math.exp(-gap + 1)
        assert brier.item() == pytest.approx(2, abs=0.1)
