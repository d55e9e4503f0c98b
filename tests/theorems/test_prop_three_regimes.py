"""prop-three-regimes: margins at which rounding takes over the gradient."""

import math

import pytest
import torch
from torch import nn

from flatbook import softmax
from tests.cases import generator

# digits t, and q with 2^-q the smallest positive number
TYPES = {
    torch.float64: (53, 1074),
    torch.float32: (24, 149),
    torch.bfloat16: (8, 133),
    torch.float16: (11, 24),
}
LOG2 = math.log(2)


def by_hand(z, count=1):
    """The gradient of -log p_0 in the steps of the proposition, each one rounded."""
    shifted = z - z.amax(1, keepdim=True)
    powers = shifted.exp()
    total = powers[:, 0]
    for j in range(1, z.shape[1]):
        total = total + powers[:, j]
    p = (shifted - total.log()[:, None]).exp()
    p[:, 0] = p[:, 0] - 1
    return p / count


def by_torch(z, count=1):
    leaf = z.clone().requires_grad_()
    y = torch.zeros(len(z), dtype=torch.int64)
    loss = nn.functional.cross_entropy(leaf, y, reduction="none").sum() / count
    return torch.autograd.grad(loss, leaf)[0]


def two_classes(dtype, low, high, steps=4000):
    """Margins of the type, rising, and logits (0, -m)."""
    margins = torch.linspace(low, high, steps, dtype=torch.float64).to(dtype).unique()
    return margins.double(), torch.stack([0 * margins, -margins], 1)


def first(margins, where):
    """The first margin, if it holds from there on."""
    start = int(where.int().argmax())
    assert where[start:].all()
    assert not where[:start].any()
    return margins[start].item()


@pytest.mark.random
@pytest.mark.parametrize("gradient", [by_hand, by_torch])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ten_classes(dtype, gradient):
    """Ten classes, 60,000 margins: the log-odds stop the label, m stops the rest."""
    t, q = TYPES[dtype]
    for seed in range(20):
        z = -20 * torch.rand(1, 10, generator=generator(seed), dtype=torch.float64)
        z[:, 0] = 0
        z = z / -z[:, 1:].amax()  # margin 1
        margin = torch.linspace(1, (q + 10) * LOG2, 3000, dtype=torch.float64)
        z = margin[:, None] * z
        odds = softmax.log_odds(z, torch.zeros(3000, dtype=torch.int64))
        found = gradient(z.to(dtype))
        assert (found[-odds > t * LOG2 + 0.01, 0] == 0).all()
        assert (found[margin < t * LOG2 - 0.01, 0] < 0).all()
        assert (found[margin > (q + 1) * LOG2 + 0.01] == 0).all()
        assert (found[margin < (q + 1) * LOG2 - 0.01, 1:] > 0).any(1).all()


@pytest.mark.random
def test_between_the_two_only_the_rivals_are_left():
    """Between the thresholds the gradient is that of the others' log-sum-exp."""
    for seed in range(20):
        z = -torch.rand(50, 6, generator=generator(seed)) * 60 - 20
        z[:, 0] = 0
        found, others = by_torch(z).double(), z.double()[:, 1:].exp()
        assert (found[:, 0] == 0).all()
        torch.testing.assert_close(found[:, 1:], others, rtol=1e-4, atol=1e-44)


@pytest.mark.boundary
@pytest.mark.parametrize("dtype", list(TYPES))
def test_boundary_two_classes(dtype):
    """Two classes, four types of numbers: every margin is scanned."""
    t, q = TYPES[dtype]
    assert torch.finfo(dtype).eps == 2.0 ** (1 - t)
    assert torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps == 2.0**-q
    margins, z = two_classes(dtype, 1, (q + 20) * LOG2)
    found, step = by_hand(z), margins.diff().max().item()
    start = first(margins, found[:, 0] == 0)
    assert -0.01 <= start - t * LOG2 <= step
    end = first(margins, (found == 0).all(1))
    assert -0.01 <= end - (q + 1) * LOG2 <= step


@pytest.mark.boundary
@pytest.mark.parametrize("count", [1, 2, 3, 10, 128, 1000])
def test_boundary_mean(count):
    """The mean over N images brings the second threshold forward by log N."""
    margins, z = two_classes(torch.float32, 80, 110)
    end = first(margins, (by_torch(z, count) == 0).all(1))
    assert end < 150 * LOG2 - math.log(max(count - 1, 1)) + 0.02
    assert end > 150 * LOG2 - math.log(count + 1) - 0.02
    margins, z = two_classes(torch.float32, 10, 20)
    start = first(margins, by_torch(z, count)[:, 0] == 0)
    assert start == pytest.approx(24 * LOG2, abs=0.02)


@pytest.mark.needed
def test_numbers_below_the_smallest_normal_one_are_needed():
    """A processor that flushes them to zero stops at 126 log 2 in float32, not 150."""
    limit = 126 if torch.set_flush_denormal(True) else 150
    try:
        margins, z = two_classes(torch.float32, 80, 110)
        end = first(margins, (by_torch(z) == 0).all(1))
    finally:
        torch.set_flush_denormal(False)
    assert end == pytest.approx(limit * LOG2, abs=0.02)


@pytest.mark.needed
def test_the_label_must_lead():
    """Where another class leads nothing is lost, at any distance."""
    for dtype in TYPES:
        z = torch.tensor([[-60.0, 0.0], [-20000.0, 0.0]], dtype=dtype)
        expected = torch.tensor([[-1.0, 1.0]] * 2, dtype=dtype)
        torch.testing.assert_close(by_torch(z), expected)


@pytest.mark.needed
def test_cross_entropy_is_needed():
    """The log-odds have a gradient of size one at every margin."""
    y = torch.zeros(3, dtype=torch.int64)
    z = torch.tensor([[17.0, 0.0], [104.0, 0.0], [1e6, 0.0]], requires_grad=True)
    (found,) = torch.autograd.grad(softmax.log_odds(z, y).sum(), z)
    torch.testing.assert_close(found, torch.tensor([[-1.0, 1.0]] * 3))
