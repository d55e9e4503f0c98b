"""cor-flip-and-increase: what an increase says about a flip, and a flip about it."""

import math

import pytest
import torch

from flatbook import softmax
from tests.cases import generator


def pairs(seed, n=100):
    """Logits at x, where y leads, at xi, and y; from timid to saturated."""
    g = generator(seed)
    k, spread = 2 + seed % 8, 10.0 ** (seed % 3 - 1)
    z, after = spread * torch.randn(2, n, k, generator=g, dtype=torch.float64)
    return z, after, z.argmax(1)


def losses(z, y):
    return torch.nn.functional.cross_entropy(z, y, reduction="none")


def wrong(z, y):
    own = z.gather(1, y[:, None])
    return (z >= own).sum(1) > 1


@pytest.mark.random
def test_increase_and_flip():
    """3000 random pairs of predictions: no flip and no increase breaks parts 1 to 3."""
    for seed in range(30):
        z, after, y = pairs(seed)
        k, start = z.shape[1], losses(z, y)
        rise, flip = losses(after, y) - start, wrong(after, y)
        assert flip[rise >= math.log(k) - start + 1e-12].all()
        assert (rise[flip] >= math.log(2) - start[flip] - 1e-12).all()
        assert not flip[rise < math.log(2) - start - 1e-12].any()


@pytest.mark.random
def test_a_quieter_flip_exists_below_one_half():
    """500 random right answers with p_y < 1/2: a flip with a smaller loss."""
    found = 0
    for seed in range(1, 60):
        z, _, y = pairs(8 * seed + 3)
        p = z.softmax(1).gather(1, y[:, None])[:, 0]
        for own, k in [(v.item(), z.shape[1]) for v in p[p < 0.5][:20]]:
            true = (own + 0.5) / 2
            crumb = (1 - 2 * true) / (2 * k)
            moved = torch.full((1, k), crumb, dtype=torch.float64)
            moved[0, 0], moved[0, 1] = true, 1 - true - (k - 2) * crumb
            label = torch.tensor([0])
            assert wrong(moved.log(), label).all()
            assert losses(moved.log(), label).item() < -math.log(own)
            found += 1
    assert found >= 500


@pytest.mark.random
def test_the_nearest_flip_has_a_loss_between_the_thresholds():
    """500 affine models on the plane: the loss at the nearest error, found exactly."""
    g = generator(7)
    for case in range(500):
        k = 2 + case % 6
        w = torch.randn(k, 2, generator=g, dtype=torch.float64)
        b = torch.randn(k, generator=g, dtype=torch.float64)
        x = torch.randn(2, generator=g, dtype=torch.float64)
        z = w @ x + b
        y = z.argmax()
        gap, way = z[y] - z, w - w[y]
        distance = gap / way.norm(dim=1)
        distance[y] = torch.inf
        j = distance.argmin()
        xi = x + gap[j] * way[j] / way[j].square().sum()
        loss = losses((w @ xi + b)[None], y[None]).item()
        assert math.log(2) - 1e-9 <= loss <= math.log(k) + 1e-9
        assert loss - losses(z[None], y[None]).item() < math.log(k)


@pytest.mark.boundary
def test_a_flip_that_lowers_the_loss():
    """(4, 3, 3)/10 to (9, 10, 1)/20: the loss falls by exactly log 9/8."""
    z = torch.tensor([[4.0, 3, 3], [9, 10, 1]], dtype=torch.float64).log()
    y = torch.tensor([0, 0])
    assert wrong(z, y).tolist() == [False, True]
    before, after = softmax.cross_entropy(z, y).tolist()
    assert before - after == pytest.approx(math.log(9 / 8), rel=1e-12)


@pytest.mark.boundary
def test_the_thresholds_cannot_be_improved():
    """Right answers with an increase just below, errors just above."""
    for k in (3, 10):
        start = -math.log(0.9)
        p = 1 / k + 1e-9
        even = torch.full((1, k), (1 - p) / (k - 1), dtype=torch.float64)
        even[0, 0] = p
        label = torch.tensor([0])
        rise = losses(even.log(), label).item() - start
        assert not wrong(even.log(), label).any()
        assert 0 < math.log(k) - start - rise < 1e-6
        tie = torch.full((1, k), 1e-9, dtype=torch.float64)
        tie[0, :2] = (1 - (k - 2) * 1e-9) / 2
        assert wrong(tie.log(), label).all()
        rise = losses(tie.log(), label).item() - start
        assert 0 <= rise - (math.log(2) - start) < 1e-6


@pytest.mark.needed
def test_from_a_wrong_start_the_nearest_error_can_have_any_loss():
    """If x is wrong already it is its own nearest error, here with a loss above 49."""
    z = torch.tensor([[0.0, 50.0, 0.0]], dtype=torch.float64)
    y = torch.tensor([0])
    assert wrong(z, y).all()
    assert losses(z, y).item() > 49 > math.log(3)


@pytest.mark.needed
def test_where_the_logits_jump_the_nearest_error_can_have_any_loss():
    """Continuity is needed: logits that jump from (9, 0, 0) to (0, 50, 0)."""
    x = torch.tensor([0.0, 0.499, 0.5, 1.0], dtype=torch.float64)
    low, high = torch.tensor([[9.0, 0, 0], [0.0, 50, 0]], dtype=torch.float64)
    z = torch.where(x[:, None] < 0.5, low, high)
    y = torch.zeros(4, dtype=torch.int64)
    assert wrong(z, y).tolist() == [False, False, True, True]
    assert losses(z, y)[2].item() > math.log(3)


@pytest.mark.needed
def test_above_one_half_no_flip_lowers_the_loss():
    """p_y < 1/2 is needed for a quieter flip: over 500 flips from above, none."""
    tried = 0
    for seed in range(10):
        z, after, y = pairs(3 * seed + 2)
        sure = z.softmax(1).gather(1, y[:, None])[:, 0] >= 0.5
        flip = wrong(after, y) & sure
        assert (losses(after, y)[flip] >= losses(z, y)[flip] - 1e-12).all()
        tried += int(flip.sum())
    assert tried > 500
