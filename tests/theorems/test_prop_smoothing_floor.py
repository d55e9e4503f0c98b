"""prop-smoothing-floor: label smoothing keeps the trace up."""

import math

import pytest
import sympy as sp
import torch

from flatbook import losses, softmax
from tests.cases import generator


def floor(k, smoothing):
    return (1 - 1 / k) * smoothing * (2 - smoothing)


def target(labels, k, smoothing):
    hits = torch.nn.functional.one_hot(labels, k).double()
    return (1 - smoothing) * hits + smoothing / k


def excess(logits, labels, smoothing):
    """The smoothed loss minus its minimum, the entropy of the target."""
    q = target(labels, logits.shape[1], smoothing)
    loss = losses.label_smoothing(logits, labels, smoothing=smoothing)
    return loss - torch.special.entr(q).sum(1)


@pytest.mark.random
@pytest.mark.parametrize("k", [2, 3, 5, 10, 100])
def test_the_floor_for_random_predictions(k):
    """3000 predictions, near the optimum and far from it: the trace keeps the floor."""
    g = generator(k)
    labels = torch.randint(k, (200,), generator=g)
    for smoothing in (0.01, 0.1, 0.6):
        best = target(labels, k, smoothing).log()
        noise = torch.randn(200, k, generator=g, dtype=torch.float64)
        logits = best + noise * torch.logspace(-3, 1, 200)[:, None]
        delta = excess(logits, labels, smoothing)
        assert (delta > -1e-12).all()
        least = floor(k, smoothing) - 2 * delta.clamp_min(0).sqrt()
        assert (softmax.trace_p(logits) >= least - 1e-6).all()
        mean = floor(k, smoothing) - 2 * delta.mean().sqrt()
        assert softmax.trace_p(logits).mean() >= mean - 1e-6


@pytest.mark.random
@pytest.mark.parametrize("seed", range(10))
def test_descent_ends_at_the_target(seed):
    """500 descents on the smoothed loss end at the target and at the floor."""
    g, k, smoothing = generator(seed), 2 + seed % 4, (0.05, 0.2, 0.9)[seed % 3]
    labels = torch.randint(k, (50,), generator=g)
    z = torch.randn(50, k, generator=g, dtype=torch.float64)
    for _ in range(20_000):
        slope = z.softmax(1) - target(labels, k, smoothing)
        if slope.abs().max() < 1e-9:
            break
        z = z - 1.9 * slope
    loss = lambda z, y: losses.label_smoothing(z, y, smoothing=smoothing)  # noqa: E731
    assert losses.logit_gradient(loss, z, labels).abs().max() < 1e-8
    torch.testing.assert_close(z.softmax(1), target(labels, k, smoothing))
    wanted = torch.full((50,), floor(k, smoothing), dtype=torch.float64)
    torch.testing.assert_close(softmax.trace_p(z), wanted, rtol=1e-6, atol=0)


@pytest.mark.symbolic
def test_the_trace_at_the_target():
    """The trace at the target, for symbolic smoothing and number of classes."""
    eps, k = sp.symbols("epsilon k", positive=True)
    top, rest = 1 - eps + eps / k, eps / k
    trace = 1 - top**2 - (k - 1) * rest**2
    assert sp.simplify(trace - (1 - 1 / k) * eps * (2 - eps)) == 0


@pytest.mark.boundary
@pytest.mark.parametrize("k", [2, 10])
def test_the_ends_of_the_range(k):
    """All smoothing: the uniform target and the largest trace there is."""
    assert floor(k, 1.0) == pytest.approx(1 - 1 / k)
    z = torch.zeros(1, k, dtype=torch.float64)
    assert softmax.trace_p(z).item() == pytest.approx(floor(k, 1.0))
    assert floor(k, 1e-9) == pytest.approx(2e-9 * (1 - 1 / k))


@pytest.mark.boundary
def test_the_square_root_is_the_right_order():
    """Close to the target the trace can fall like the square root of the excess."""
    y, smoothing = torch.tensor([0]), 0.2
    best = target(y, 2, smoothing).log()
    step = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    for size in (1e-2, 1e-3, 1e-4):
        z = best + size * step
        lost = floor(2, smoothing) - softmax.trace_p(z).item()
        root = math.sqrt(excess(z, y, smoothing).item())
        assert 0.5 < lost / root < 2


@pytest.mark.needed
def test_smoothing_is_needed():
    """Hard labels: loss and trace go to zero together, and no floor is left."""
    y = torch.tensor([0])
    z = torch.tensor([[80.0, 0.0, 0.0]], dtype=torch.float64)
    assert softmax.cross_entropy(z, y).item() < 1e-30
    assert softmax.trace_p(z).item() < 1e-30


@pytest.mark.needed
def test_a_loss_near_its_minimum_is_needed():
    """Far from the optimum the smoothed loss has predictions as flat as any."""
    y = torch.tensor([0])
    z = torch.tensor([[80.0, 0.0, 0.0]], dtype=torch.float64)
    assert excess(z, y, 0.1).item() > 4
    assert softmax.trace_p(z).item() < 1e-30
