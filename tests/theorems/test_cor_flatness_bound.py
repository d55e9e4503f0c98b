"""cor-flatness-bound: trace of P and spectral norm bound the rise, at no minimum."""

import math

import pytest
import sympy as sp
import torch

from flatbook import radius, softmax
from tests.cases import generator, head
from tests.maximum import exact_increase


def bounds(tau, x):
    """Both bounds, from the words of the corollary."""
    root = math.sqrt(2) * x
    cubic = (root + x**2 / 2) * tau + math.sqrt(6) / 54 * x**3
    return cubic, tau / 2 * (torch.expm1(root) + root)


def right_head(seed):
    """A head with 2 to 100 classes whose label is the most probable class."""
    k, d = (2, 2, 3, 5, 10, 100)[seed % 6], (1, 2, 4, 16, 64)[seed % 5]
    weight, _, logits, _ = head(50, k, d, seed=seed, scale=0.2 + seed % 4)
    return weight, (1 + seed % 3) * logits, logits.argmax(1)


@pytest.mark.random
def test_random_heads():
    """1,500 right predictions with 2 to 100 classes against an independent
    maximiser."""
    for seed in range(30):
        weight, logits, labels = right_head(seed)
        g = generator(seed)
        x = 10 ** (3 * torch.rand(50, generator=g, dtype=torch.float64) - 2)
        rho = x / torch.linalg.matrix_norm(weight, 2)
        exact = exact_increase(weight, logits, labels, rho, steps=8)
        for bound in bounds(softmax.trace_p(logits), x):
            assert (exact <= bound * (1 + 1e-10)).all()


@pytest.mark.random
def test_slope_curvature_and_diameter():
    """1,500 right predictions: slope, curvature and diameter are each at most what the
    proof puts in their place."""
    for seed in range(30):
        weight, logits, labels = right_head(seed)
        size, tau = torch.linalg.matrix_norm(weight, 2), softmax.trace_p(logits)
        c, b, a = radius.bound_coefficients(weight, logits, labels)
        assert (c <= math.sqrt(2) * tau * size * (1 + 1e-12)).all()
        assert (2 * b <= tau * size**2 * (1 + 1e-12)).all()
        assert (a <= math.sqrt(6) / 54 * size**3 * (1 + 1e-12)).all()


@pytest.mark.symbolic
def test_constants():
    """The constants, and the sum of slope and exponential remainder, in sympy."""
    assert sp.sqrt(2) ** 3 / (36 * sp.sqrt(3)) == sp.sqrt(6) / 54
    tau, x = sp.symbols("tau X", positive=True)
    h = sp.sqrt(2) * x
    total = tau * h + tau * x**2 / h**2 * (sp.exp(h) - 1 - h)
    assert sp.simplify(total - tau / 2 * (sp.exp(h) - 1 + h)) == 0


@pytest.mark.boundary
def test_the_constants_are_attained():
    """Two opposite rows: at equal logits the first terms are equalities, and for a
    confident class and a long way the exponential one is, up to one percent."""
    weight = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    size, label = math.sqrt(2), torch.tensor([0])
    logits = torch.zeros(1, 2, dtype=torch.float64)
    c, b, a = (v.item() for v in radius.bound_coefficients(weight, logits, label))
    assert c == pytest.approx(math.sqrt(2) * 0.5 * size, rel=1e-12)
    assert 2 * b == pytest.approx(0.5 * size**2, rel=1e-12)
    assert a == pytest.approx(math.sqrt(6) / 54 * size**3, rel=1e-12)
    logits = torch.tensor([[40.0, 0.0]], dtype=torch.float64)
    rho = torch.tensor([8.0], dtype=torch.float64)
    exact = exact_increase(weight, logits, label, rho)
    second = bounds(softmax.trace_p(logits), rho * size)[1]
    assert second.item() == pytest.approx(exact.item(), rel=0.01)


@pytest.mark.boundary
def test_moving_the_scale_and_scaling_the_head():
    """A scale moved into the features changes nothing; as the head is scaled up, the
    radius of the second bound over that of the margin tends to one."""
    weight, logits, labels = right_head(4)
    tau, size = softmax.trace_p(logits), torch.linalg.matrix_norm(weight, 2)
    for t in (0.01, 100.0):
        moved = bounds(tau, (0.3 / t) * (t * size).expand(50))
        torch.testing.assert_close(moved, bounds(tau, 0.3 * size.expand(50)))
    by_margin = softmax.margin(logits, labels) / (math.sqrt(2) * size)
    s = 400 / softmax.margin(logits, labels)[:, None]
    log_tau = softmax.log_trace_p(s * logits)
    rho = (math.log(2 * 0.5) - log_tau) / (math.sqrt(2) * s[:, 0] * size)
    assert (((rho / by_margin) - 1).abs() < 0.05).all()


@pytest.mark.needed
def test_a_wrong_prediction():
    """For a wrong prediction the slope does not shrink with the trace, and both bounds
    fail."""
    weight = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    logits, label = torch.tensor([[-8.0, 0.0]], dtype=torch.float64), torch.tensor([0])
    rho = torch.tensor([0.1], dtype=torch.float64)
    exact = exact_increase(weight, logits, label, rho)
    for bound in bounds(softmax.trace_p(logits), rho * math.sqrt(2)):
        assert exact.item() > bound.item() + 0.1
