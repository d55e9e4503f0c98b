"""prop-eps-star: the smallest increase at a flip, and what it cannot do."""

import math

import pytest
import torch

from flatbook import softmax
from tests.cases import generator


def model(seed):
    """Logits of 3 to 5 classes, smooth in a number in [0, 1]."""
    g = generator(seed)
    k = 3 + seed % 3
    slope, bend, start = torch.randn(3, k, 1, generator=g, dtype=torch.float64)
    size = 10.0 ** (seed % 3 - 1)
    return lambda x: size * (slope * x + 2 * bend * (5 * x).sin() + start).T


def ball(seed, delta, n=801):
    g = generator(10_000 + seed)
    x = torch.rand(1, generator=g, dtype=torch.float64).item()
    low, high = max(0.0, x - delta), min(1.0, x + delta)
    return x, torch.linspace(low, high, n, dtype=torch.float64)


def measured(seed, delta):
    """Start loss, increases and flips on a grid of the ball."""
    z = model(seed)
    x, grid = ball(seed, delta)
    start = z(torch.tensor([x], dtype=torch.float64))
    y = start.argmax(1)
    loss = softmax.cross_entropy(start, y)
    after = z(grid)
    labels = y.expand(len(grid))
    own = after.gather(1, labels[:, None])
    flip = (after >= own).sum(1) > 1
    rise = torch.nn.functional.cross_entropy(after, labels, reduction="none") - loss
    return loss.item(), rise, flip


def eps_star(rise, flip):
    return rise[flip].min().item() if flip.any() else math.inf


@pytest.mark.random
def test_smooth_models():
    """600 smooth models and balls, on grids of 801 points: all three parts."""
    finite = negative = 0
    for seed in range(600):
        loss, rise, flip = measured(seed, 0.05 + 0.4 * (seed % 5) / 5)
        star = eps_star(rise, flip)
        assert (star == math.inf) == (not flip.any())
        assert star >= math.log(2) - loss - 1e-12
        for eps in (star - 1e-6, star / 2 if star > 0 else star - 1):
            robust = bool((rise <= eps).all())
            assert not (robust and flip.any())
            assert not (star < math.inf and robust)
        finite += star < math.inf
        negative += star <= 0
    assert finite > 100
    assert negative > 3


def interval(x):
    """Three classes on [0, 1]: (4, 3, 3)/10 at 0 and (9, 10, 1)/20 at 1."""
    ends = torch.tensor([[4.0, 3, 3], [9, 10, 1]], dtype=torch.float64).log()
    return ends[0] + x[:, None] * (ends[1] - ends[0])


@pytest.mark.boundary
def test_robust_at_eps_star_and_flipped():
    """With the tolerance eps_* itself the model is robust and a flip is in the ball."""
    nearest = math.log(4 / 3) / math.log(40 / 27)
    x = torch.linspace(0, 1, 4001, dtype=torch.float64)
    x = torch.cat([x, torch.tensor([nearest, nearest + 1e-9]).double()])
    z, y = interval(x), torch.zeros(len(x), dtype=torch.int64)
    rise = softmax.cross_entropy(z, y) - math.log(5 / 2)
    flip = softmax.margin(z, y) <= 0
    star = eps_star(rise, flip)
    assert flip.any()
    assert star < -0.1
    assert (rise <= 0.0).all()  # robust with every tolerance eps >= 0


@pytest.mark.boundary
def test_two_classes_tie_attains_it():
    """Two classes, x at odds 1/9, ball up to the tie: eps_* = log 9/5, attained."""
    x = torch.linspace(0.25, 0.75, 1001, dtype=torch.float64)
    z = torch.stack([0 * x, (4 * x - 3) * math.log(3)], 1)
    y = torch.zeros(len(x), dtype=torch.int64)
    rise = softmax.cross_entropy(z, y) - math.log(10 / 9)
    flip = softmax.margin(z, y) <= 0
    assert eps_star(rise, flip) == pytest.approx(math.log(9 / 5), rel=1e-12)
    assert flip.sum() == 1
    assert (rise <= math.log(9 / 5) + 1e-12).all()


@pytest.mark.boundary
def test_without_flips_every_tolerance_is_vacuous():
    """A constant model: eps_* is infinite at every radius, at accuracy 1/k."""
    z = torch.tensor([[1.0, 0, 0]], dtype=torch.float64).expand(100, 3)
    y = torch.zeros(100, dtype=torch.int64)
    assert eps_star(0 * z[:, 0], softmax.margin(z, y) <= 0) == math.inf


@pytest.mark.needed
def test_where_y_is_not_predicted_the_sample_is_its_own_flip():
    """If y is not predicted at x, eps_* is at most 0 in every ball, also for k = 2."""
    z = torch.tensor([[0.0, 1], [0.0, 2]], dtype=torch.float64)
    y = torch.tensor([0, 0])
    loss = softmax.cross_entropy(z, y)
    assert eps_star(loss - loss[0], softmax.margin(z, y) <= 0) == 0


@pytest.mark.needed
def test_where_the_loss_jumps_the_infimum_is_not_attained():
    """Continuity is needed: flips right of one half only, all above the infimum."""
    x = 0.5 + 0.5 ** torch.arange(1, 50, dtype=torch.float64)
    z = torch.stack([0 * x, x - 0.5 + 0.1], 1)  # at one half itself: (1, 0)
    y = torch.zeros(len(x), dtype=torch.int64)
    rise = softmax.cross_entropy(z, y) - math.log1p(math.exp(-1))
    infimum = math.log1p(math.exp(0.1)) - math.log1p(math.exp(-1))
    assert (softmax.margin(z, y) < 0).all()
    assert (rise > infimum).all()
    assert rise.min().item() == pytest.approx(infimum, abs=1e-12)


@pytest.mark.needed
def test_the_bound_needs_cross_entropy():
    """With the loss |z|^2 the smallest increase at a flip is below log 2 - loss."""
    z = torch.tensor([[9.0, 0, 0], [0.0, 0, 0]], dtype=torch.float64)
    loss = z.square().sum(1)
    assert softmax.margin(z, torch.tensor([0, 0])).tolist() == [9, 0]
    assert loss[1] - loss[0] < math.log(2) - loss[0]
