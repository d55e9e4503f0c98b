"""prop-take-off: under large scales the loss takes off where the label flips."""

import math

import pytest
import torch

from flatbook import scaling, softmax
from tests.cases import generator

SCALES = [0.1, 0.5, 1.0, 3.0, 10.0, 50.0]


def walks(seed, steps=60, n=100):
    """Random walks of logits whose first point is right; margins and labels."""
    g, k = generator(seed), 2 + seed % 9
    z = torch.randn(steps, n, k, generator=g, dtype=torch.float64)
    z[0] *= 4
    z = z.cumsum(0)
    y = z[0].argmax(1)
    drift = torch.linspace(0, 30, steps, dtype=torch.float64)[:, None]
    z[:, torch.arange(n), y] -= drift
    return z, y


def losses_and_margins(z, y, scales=SCALES):
    steps, n, _ = z.shape
    flat, labels = z.flatten(0, 1), y.repeat(steps)
    losses = scaling.losses(flat, labels, scales).view(len(scales), steps, n)
    return losses, softmax.margin(flat, labels).view(steps, n)


def first(reached):
    """First step (N,) that is True; the number of steps where there is none."""
    steps = len(reached)
    return torch.where(reached.any(0), reached.int().argmax(0), steps)


def bounds(s, k, eps, start):
    """Margins b and -a of the proposition; `start` is the margin at the start."""
    b = (math.log(k - 1) - math.log(math.expm1(eps))) / s
    a = (math.exp(eps) * (1 + (k - 1) * (-s * start).exp()) - 1).log() / s
    return b, -a


@pytest.mark.random
@pytest.mark.parametrize("seed", range(10))
def test_the_scaled_loss_is_a_hinge(seed):
    """1000 walks of 2 to 10 classes at 6 scales: the loss is a hinge, up to log k."""
    z, y = walks(seed)
    k = z.shape[2]
    losses, margins = losses_and_margins(z, y)
    for s, loss in zip(SCALES, losses, strict=True):
        excess = loss - s * (-margins).clamp_min(0)
        assert (excess >= -1e-9 * s).all()
        assert (excess <= math.log(k) * (1 + 1e-9)).all()
        inside = margins > 0
        ceiling = (k - 1) * (-s * margins[inside]).exp()
        assert (loss[inside] <= ceiling * (1 + 1e-9) + 1e-300).all()


@pytest.mark.random
@pytest.mark.parametrize("seed", range(10))
def test_the_take_off_lies_between_two_margins(seed):
    """Their first step above the rise lies between the two bounds, for three rises."""
    z, y = walks(seed)
    k = z.shape[2]
    losses, margins = losses_and_margins(z, y)
    for s, loss in zip(SCALES, losses, strict=True):
        for eps in (0.01, 0.1, 2.0):
            b, a = bounds(s, k, eps, margins[0])
            off = first(loss >= loss[0] + eps)
            slack = 1e-9 / s
            assert (first(margins <= b + slack) <= off).all()
            assert (off <= first(margins <= a - slack)).all()
            small = eps <= math.log(2) - loss[0]
            assert (off <= first(margins <= 0))[small].all()


@pytest.mark.random
@pytest.mark.parametrize("seed", range(10))
def test_the_take_off_tends_to_the_flip(seed):
    """Between the steps: the gap to the flip shrinks like one over the scale."""
    z, y = walks(seed)
    scales = [1.0, 8.0, 64.0]
    losses, margins = losses_and_margins(z, y, scales)
    flip = scaling.crossing(-margins, 0.0)
    gaps = [(scaling.take_off(loss, 0.1) - flip).abs() for loss in losses]
    known = flip.isfinite() & torch.stack(gaps).isfinite().all(0)
    middle = [gap[known].median() for gap in gaps]
    assert middle[0] > 4 * middle[1] > 16 * middle[2] > 0
    assert (gaps[2][known] < 0.1).double().mean() > 0.95


@pytest.mark.boundary
@pytest.mark.parametrize("s", SCALES)
def test_two_classes_attain_the_upper_bound(s):
    """Two classes: the margin at the take-off is the bound, exactly."""
    m = torch.linspace(5, -60 / s, 400_001, dtype=torch.float64)
    grid = (m[0] - m[1]).item()
    z = torch.stack([m, 0 * m], 1)[:, None]
    losses, margins = losses_and_margins(z, torch.tensor([0]), [s])
    off = first(losses[0] >= losses[0, 0] + 0.1)
    _, a = bounds(s, 2, 0.1, margins[0])
    assert margins[off, 0].item() == pytest.approx(a.item(), abs=2 * grid)


@pytest.mark.boundary
@pytest.mark.parametrize("k", [2, 3, 10])
def test_equal_rivals_attain_the_upper_bound(k):
    """All rivals equal and far at first: the slack log k is needed."""
    s = 20.0
    m = torch.linspace(3, -1, 100_001, dtype=torch.float64)
    z = torch.cat([m[:, None], torch.zeros(len(m), k - 1).double()], 1)[:, None]
    losses, margins = losses_and_margins(z, torch.tensor([0]), [s])
    off = first(losses[0] >= losses[0, 0] + 0.1)
    b, _ = bounds(s, k, 0.1, margins[0])
    assert margins[off, 0].item() == pytest.approx(b, abs=1e-4)
    excess = losses[0] - s * (-margins).clamp_min(0)
    assert excess.max().item() == pytest.approx(math.log(k), rel=1e-3)


@pytest.mark.boundary
def test_a_path_that_never_flips():
    """A margin that stays positive: no take-off once the scale is large."""
    m = torch.linspace(5, 0.5, 100, dtype=torch.float64)
    z = torch.stack([m, 0 * m, 0 * m], 1)[:, None]
    losses, _ = losses_and_margins(z, torch.tensor([0]), [1.0, 10.0])
    assert (losses[0] >= losses[0, 0] + 0.1).any()
    assert not (losses[1] >= losses[1, 0] + 0.1).any()


@pytest.mark.needed
def test_a_path_that_only_touches_is_excluded():
    """The margin touches 0 and comes back: the loss never rises by more than log 2."""
    m = torch.linspace(-2, 2, 401, dtype=torch.float64).square()
    z = torch.stack([m, 0 * m], 1)[:, None]
    losses, margins = losses_and_margins(z, torch.tensor([0]), [1e3])
    assert margins.min() < 1e-30
    assert not (losses >= losses[:, :1] + 1).any()


@pytest.mark.needed
def test_a_rise_above_zero_is_needed():
    """A rise that shrinks with the scale, such as ten times the start, stays behind."""
    m = torch.linspace(4, -1, 5001, dtype=torch.float64)
    z = torch.stack([m, 0 * m], 1)[:, None]
    losses, margins = losses_and_margins(z, torch.tensor([0]), [1.0, 50.0])
    off = [first(loss >= 10 * loss[0]).item() for loss in losses]
    assert margins[off[1], 0] > 3.9 > margins[off[0], 0]


@pytest.mark.needed
def test_a_right_start_is_needed():
    """A start that is wrong: the loss takes off at once under a large scale."""
    m = torch.linspace(-1, -3, 2001, dtype=torch.float64)
    z = torch.stack([m, 0 * m], 1)[:, None]
    losses, _ = losses_and_margins(z, torch.tensor([0]), [1e3])
    assert first(losses[0] >= losses[0, 0] + 0.1).item() <= 1
