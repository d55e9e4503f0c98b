"""cor-flat-stays-flat: along a step of range R the curvature grows at most by e^R."""

import math

import pytest
import sympy as sp
import torch

from flatbook import radius, softmax
from tests.cases import generator, head


def variance(p, u):
    return (p * (u - (p * u).sum(-1, keepdim=True)).square()).sum(-1)


def angle(value, width):
    return torch.acosh((width / (2 * value.sqrt())).clamp_min(1))


def steps(seed, n=20):
    g, k = generator(seed), 2 + seed % 6
    z, u = torch.randn(2, n, k, generator=g, dtype=torch.float64)
    z = z * (1 + seed % 7)
    u = u * 10 ** (3 * torch.rand(n, 1, generator=g, dtype=torch.float64) - 2)
    return z, u, u.amax(1) - u.amin(1)


@pytest.mark.random
def test_order_of_quadratic_forms():
    """1,000 steps: e^R P - P' and P' - e^-R P have no negative eigenvalue."""
    for seed in range(50):
        z, u, width = steps(seed)
        u, width = u / 4, width / 4
        before, after = softmax.covariance(z), softmax.covariance(z + u)
        factor = width.exp()[:, None, None]
        for low, high in ((after, factor * before), (before, factor * after)):
            least = torch.linalg.eigvalsh(high - low)[:, 0]
            size = high.diagonal(dim1=1, dim2=2).sum(1)
            assert (least >= -1e-13 * size).all()


@pytest.mark.random
def test_other_directions():
    """12,000 variances in a direction of their own: none changes by more than e^R."""
    for seed in range(60):
        z, u, width = steps(seed)
        ways = torch.randn(10, *z.shape, generator=generator(seed), dtype=torch.float64)
        before, after = (variance(v.softmax(1), ways) for v in (z, z + u))
        change = (after.log() - before.log()).abs()
        assert (change <= width + 1e-9).all()


@pytest.mark.random
def test_the_sharp_envelope():
    """1,000 steps in 21 points: theta moves by at most R/2 times the time."""
    for seed in range(50):
        z, u, width = steps(seed)
        start = angle(variance(z.softmax(1), u), width)
        t = torch.linspace(-2, 2, 21, dtype=torch.float64)[:, None]
        value = variance((z + t[..., None] * u).softmax(2), u)
        assert (value <= width.square() / 4 * (1 + 1e-12)).all()
        moved = (angle(value, width) - start).abs()
        assert (moved <= width * t.abs() / 2 + 1e-6).all()


@pytest.mark.random
def test_no_flip_within():
    """6,000 predictions: the nearest flip is never nearer than the flatness allows."""
    for seed in range(60):
        weight, _, logits, _ = head(100, 2 + seed % 8, 3, seed=seed, scale=1 + seed % 5)
        flip = radius.flip_radius(weight, logits, logits.argmax(1))
        diameter = torch.cdist(weight, weight).max()
        doubt = 1 - logits.softmax(1).square().sum(1)
        safe = -(2 * doubt.clamp_min(1e-15)).log() / diameter
        assert (safe <= flip * (1 + 1e-9)).all()
        assert (safe > 0).any()


@pytest.mark.symbolic
def test_symbolic_two_classes():
    """For two classes theta is half the gap, and moves at the rate R/2 exactly."""
    x, width = sp.symbols("x R", positive=True)
    q = 1 / (1 + sp.exp(x))
    value = width**2 * q * (1 - q)
    wanted = width**2 / (4 * sp.cosh(x / 2) ** 2)
    assert sp.simplify((value - wanted).rewrite(sp.exp)) == 0
    theta = sp.Symbol("theta", positive=True)
    curve = width**2 / (4 * sp.cosh(theta) ** 2)
    slope = sp.diff(curve, theta) * width / 2
    root = width * sp.tanh(theta)  # sqrt(R^2 - 4 V)
    assert sp.simplify((width**2 - 4 * curve - root**2).rewrite(sp.exp)) == 0
    assert sp.simplify((slope + curve * root).rewrite(sp.exp)) == 0


@pytest.mark.boundary
def test_two_classes_attain_the_rate():
    """Two classes, far from the tie: the variance grows by e^R up to twelve digits."""
    gap, u = torch.tensor([[40.0, 0.0]]).double(), torch.tensor([[-1.0, 0.0]]).double()
    before, after = (variance(v.softmax(1), u).item() for v in (gap, gap + 8 * u))
    assert after / before == pytest.approx(math.exp(8), rel=1e-12)
    for margin in (1.0, 5.0, 20.0):
        z = torch.tensor([[margin, 0.0]], dtype=torch.float64)
        safe = -math.log(2) - softmax.log_trace_p(z).item()
        assert safe == pytest.approx(2 * math.log(math.cosh(margin / 2)), rel=1e-12)
        assert margin - 2 * math.log(2) < safe < margin


@pytest.mark.boundary
def test_a_constant_step():
    """R = 0, the same number added to every logit: nothing changes."""
    z = torch.tensor([[3.0, 1.0, -2.0]], dtype=torch.float64)
    torch.testing.assert_close(softmax.covariance(z + 5.0), softmax.covariance(z))


@pytest.mark.needed
def test_the_third_class_counts():
    """With the gap of the two leading classes in place of the range the bound fails."""
    z = torch.tensor([[8.0, 0.0, 0.0]], dtype=torch.float64)
    u = torch.tensor([[0.0, 1.0, 6.0]], dtype=torch.float64)
    before, after = (variance(v.softmax(1), u).item() for v in (z, z + u))
    assert after > math.exp(1.0) * before
    assert after <= math.exp(6.0) * before


@pytest.mark.needed
def test_cross_entropy_is_needed():
    """The Brier loss has curvature zero in places: no factor bounds how it changes."""
    x = torch.zeros((), dtype=torch.float64, requires_grad=True)

    def curvature(gap):
        q = torch.sigmoid(gap + x)
        (slope,) = torch.autograd.grad((1 - q) ** 2, x, create_graph=True)
        return torch.autograd.grad(slope, x)[0].item()

    assert curvature(-1.0) < 0 < curvature(0.0)
