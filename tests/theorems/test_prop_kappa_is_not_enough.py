"""prop-kappa-is-not-enough: sharpness and tolerance alone bound no radius from below.

Features are the inputs (L = 1), x = (1, 0), two classes, W = [[s, B], [0, -B]], and
the target is the prediction itself, so the slope is 0.
"""

import math

import pytest
import sympy as sp
import torch

from flatbook import curvature, radius, softmax
from tests.cases import generator

X = torch.tensor([[1.0, 0.0]], dtype=torch.float64)


def weights(s, b):
    return torch.tensor([[s, b], [0.0, -b]], dtype=torch.float64)


def with_sharpness(kappa, s):
    """The head of the family with this s and this sharpness."""
    trace = 2 / (1 + math.exp(-s)) / (1 + math.exp(s))
    square = (kappa / trace - s * s) / 2
    assert square > 0
    return weights(s, math.sqrt(square))


def soft_rise(weight, point, target):
    def loss(x):
        z = x @ weight.T
        return (z.logsumexp(1) - (target * z).sum(1)).item()

    return loss(point) - loss(X)


def crossing(weight, eps):
    """A point where the loss has risen by more than eps, and its distance from x."""
    s, gap = weight[0, 0].item(), weight[0] - weight[1]
    move = (1 + 1e-6) * (s + math.log(math.expm1(eps))) / gap.norm().item()
    return X - move * gap / gap.norm(), move


def claimed(kappa, eps):
    return radius.cubic_radius(eps, 0.0, kappa / 2, 2 * 2 / 24)


@pytest.mark.random
def test_500_sharpnesses_and_tolerances():
    """500 sharpnesses and tolerances: the true radius falls below any claim."""
    g = generator(0)
    draws = torch.rand(500, 2, generator=g, dtype=torch.float64)
    for first, second in draws.tolist():
        kappa, eps = 10 ** (8 * first - 6), 0.05 + 0.6 * second
        distances = []
        for s in (40.0, 160.0):
            weight = with_sharpness(kappa, s)
            z = X @ weight.T
            got = curvature.relative_sharpness(weight, X, z).item()
            assert got == pytest.approx(kappa, rel=1e-9)
            target = z.softmax(1)
            point, distance = crossing(weight, eps)
            assert soft_rise(weight, point, target) > eps
            assert point.norm() <= 1
            assert softmax.margin(point @ weight.T, torch.tensor([0])) < s
            distances.append(distance)
        assert distances[1] < 1e-15 * distances[0]
        assert distances[1] < 1e-20
        assert claimed(kappa, eps) > 1e-3


@pytest.mark.symbolic
def test_symbolic_the_distance_vanishes_at_fixed_sharpness():
    """The distance vanishes at fixed sharpness, in sympy."""
    s, kappa, eps = sp.symbols("s kappa epsilon", positive=True)
    trace = 2 * sp.exp(-s) / (1 + sp.exp(-s)) ** 2
    b = sp.sqrt((kappa / trace - s**2) / 2)
    assert sp.simplify((s**2 + 2 * b**2) * trace - kappa) == 0
    largest = (s + sp.log(sp.exp(eps) - 1)) / (2 * b)  # the distance is below this
    values = [float(largest.subs({kappa: 1, eps: 1, s: v})) for v in (20, 60, 100)]
    assert values[0] > 1e3 * values[1] > 1e6 * values[2] > 0


@pytest.mark.boundary
@pytest.mark.parametrize(("b", "wanted"), [(0.0, 0.991), (1e2, 0.240), (1e6, 2.48e-5)])
def test_boundary_the_printed_example(b, wanted):
    """The paper's own example."""
    weight, eps = weights(50.0, b), 0.5
    target = (X @ weight.T).softmax(1)
    point, distance = crossing(weight, eps)
    assert distance == pytest.approx(wanted, rel=3e-3)
    assert soft_rise(weight, point, target) > eps
    nearer = X + (point - X) * 0.999
    assert soft_rise(weight, nearer, target) < eps
    kappa = curvature.relative_sharpness(weight, X, X @ weight.T).item()
    assert claimed(kappa, eps) == pytest.approx(3 ** (1 / 3), rel=1e-6)


@pytest.mark.boundary
def test_the_flip_radius_vanishes_too():
    """The distance to a flip vanishes too."""
    for s in (40.0, 80.0, 160.0):
        weight = with_sharpness(1.0, s)
        flip = radius.flip_radius(weight, X @ weight.T, torch.tensor([0])).item()
        gap = (weight[0] - weight[1]).norm().item()
        assert flip == pytest.approx(s / gap, rel=1e-12)
    assert flip < 1e-30


@pytest.mark.needed
def test_with_the_size_of_the_weights_a_bound_exists():
    """With the diameter of the head known, a bound exists."""
    eps = 0.5
    reach = radius.cubic_radius(eps, 0.0, 1 / 8, 1 / (36 * math.sqrt(3)))
    for s in (2.0, 5.0, 20.0):
        weight = with_sharpness(2.0 * s * s, s)
        target = (X @ weight.T).softmax(1)
        gap = weight[0] - weight[1]
        point = X - reach / gap.norm() * gap / gap.norm()
        assert soft_rise(weight, point, target) <= eps
