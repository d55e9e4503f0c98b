"""prop-preimage: regions in input space contain a ball, and may have no end."""

import pytest
import torch
from torch.linalg import matrix_norm, vector_norm

from tests.cases import generator


def features(weight, bias, x):
    return (x @ weight.T + bias).relu()


def cases(number):
    g = generator(0)
    for case in range(number):
        n, hidden = 2 + case % 5, 1 + case % 6
        weight = torch.randn(hidden, n, generator=g, dtype=torch.float64)
        bias = torch.randn(hidden, generator=g, dtype=torch.float64)
        x = torch.randn(n, generator=g, dtype=torch.float64)
        yield weight, bias, x, 10.0 ** (case % 5 - 2), g


def dead_direction(weight, bias, x):
    """A direction that moves no active unit and wakes no other, or None."""
    on = weight @ x + bias > 0
    basis = torch.linalg.svd(weight[on])[2][int(on.sum()) :] if on.any() else None
    basis = torch.eye(len(x), dtype=x.dtype) if basis is None else basis
    if not len(basis):
        return None
    others = weight[~on] @ basis.T
    if len(others) and len(basis) < len(others):
        return None
    way = (
        -torch.linalg.pinv(others).sum(1) if len(others) else basis.new_ones(len(basis))
    )
    return basis.T @ (way / way.norm())


@pytest.mark.random
def test_500_balls_inside():
    """500 feature maps, 200 points each: the ball of radius rho / L is inside."""
    for weight, bias, x, rho, g in cases(500):
        ways = torch.randn(200, len(x), generator=g, dtype=torch.float64)
        ways = ways / vector_norm(ways, dim=1, keepdim=True)
        points = x + rho / matrix_norm(weight, 2) * ways
        moved = features(weight, bias, points) - features(weight, bias, x)
        assert (vector_norm(moved, dim=1) <= rho * (1 + 1e-12)).all()


@pytest.mark.random
def test_rays_that_never_leave():
    """Of 500 feature maps, those with a dead direction: constant along the ray."""
    found = 0
    for weight, bias, x, _, _ in cases(500):
        v = dead_direction(weight, bias, x)
        if v is not None:
            found += 1
            far = x + torch.tensor([1.0, 1e3, 1e6]).double()[:, None] * v
            moved = features(weight, bias, far) - features(weight, bias, x)
            assert vector_norm(moved, dim=1).max() < 1e-7
    assert found > 150


@pytest.mark.random
def test_fewer_units_than_inputs_always_have_one():
    """500 maps with fewer units than inputs: all have such a ray."""
    g = generator(1)
    for case in range(500):
        n = 2 + case % 5
        weight = torch.randn(n - 1, n, generator=g, dtype=torch.float64)
        bias, x = torch.randn(n - 1, generator=g), torch.randn(n, generator=g)
        v = torch.linalg.svd(weight)[2][-1]
        assert dead_direction(weight, bias.double(), x.double()) is not None
        assert (weight @ v).abs().max() < 1e-12


@pytest.mark.boundary
def test_no_larger_ball():
    """phi(x) = L x: the ball of radius rho / L is all there is."""
    for lipschitz in (0.1, 1.0, 30.0):
        rho, x = 2.0, torch.tensor([1.0, -1.0])
        way = torch.tensor([0.6, 0.8])
        for factor, inside in ((0.999, True), (1.001, False)):
            xi = x + factor * rho / lipschitz * way
            assert bool((lipschitz * (xi - x)).norm() <= rho) is inside


@pytest.mark.boundary
def test_the_keyhole():
    """relu of two coordinates at (1, -1): down without end, up to rho."""
    weight, bias = torch.eye(2, dtype=torch.float64), torch.zeros(2).double()
    x, rho = torch.tensor([1.0, -1.0]).double(), 0.5
    points = torch.tensor([[1.0, -1e9], [1.5, -1e9], [1, 0.5], [1.51, -1], [1, 0.51]])
    moved = features(weight, bias, points.double()) - features(weight, bias, x)
    inside = vector_norm(moved, dim=1) <= rho
    assert inside.tolist() == [True, True, True, False, False]


@pytest.mark.needed
def test_an_estimate_from_below_is_not_enough():
    """With the Jacobian at x in place of L the ball sticks out."""
    weight, bias = torch.eye(2, dtype=torch.float64), torch.zeros(2).double()
    weight[1], rho = 3 * weight[1], 0.5  # asleep at x, where the Jacobian has norm 1
    x, xi = torch.tensor([[1.0, -0.2], [1.0, 0.2]]).double()
    moved = features(weight, bias, xi) - features(weight, bias, x)
    assert (xi - x).norm() < rho / 1.0
    assert moved.norm() > rho


@pytest.mark.needed
def test_features_that_lose_nothing_have_bounded_regions():
    """An invertible linear map has no dead direction: its regions are ellipses."""
    weight = torch.tensor([[2.0, 1.0], [0.0, 0.5]]).double()
    far = 1e3 * torch.randn(500, 2, generator=generator(2), dtype=torch.float64)
    lowest = torch.linalg.svdvals(weight)[-1]
    assert (
        vector_norm(far @ weight.T, dim=1) >= lowest * far.norm(dim=1) * 0.999
    ).all()
