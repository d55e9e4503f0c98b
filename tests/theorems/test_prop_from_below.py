"""prop-from-below: secants and Jacobians never exceed the constant."""

import pytest
import torch
from torch import nn
from torch.linalg import matrix_norm, vector_norm

from flatbook import lipschitz
from tests.cases import generator


def network(seed, n=3, hidden=5, d=2):
    """Features relu(W x + b) times a matrix, with its pieces enumerable."""
    g, net = generator(seed), nn.Module()
    net.features = nn.Sequential(nn.Linear(n, hidden), nn.ReLU(), nn.Linear(hidden, d))
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=g))
    return net.double()


def piece(net, x):
    """Jacobian (N, d, n) of the affine piece that each x lies in."""
    first, _, last = net.features
    on = (first(x) > 0).double()
    return torch.einsum("dh,nh,hi->ndi", last.weight, on, first.weight)


def cases(number):
    for seed in range(number):
        net, g = (
            network(seed, 2 + seed % 4, 3 + seed % 6, 1 + seed % 3),
            generator(seed),
        )
        x = torch.randn(12, net.features[0].in_features, generator=g)
        yield net, x.double(), g


@pytest.mark.random
def test_500_networks_from_below():
    """500 networks: power iteration below the Jacobian, both below the bound."""
    for net, x, g in cases(500):
        true = matrix_norm(piece(net, x), 2).detach()
        found = lipschitz.local_estimate(net, x, iterations=8, generator=g)
        assert (found <= true * (1 + 1e-12) + 1e-14).all()
        assert (found >= 0.5 * true).double().mean() > 0.7
        assert true.max() <= lipschitz.global_bound(net, x)


@pytest.mark.random
def test_500_secants_below_the_largest_piece():
    """500 networks: no secant exceeds the largest piece that the segment crosses."""
    for net, x, g in cases(500):
        xi = x + torch.randn(x.shape, generator=g)
        first = net.features[0]
        switch = -first(x) / ((xi - x) @ first.weight.T)  # where a unit switches
        ends = torch.cat([torch.zeros(12, 1), switch.clamp(0, 1), torch.ones(12, 1)], 1)
        ends = ends.sort(1).values
        t = ((ends[:, 1:] + ends[:, :-1]) / 2)[:, :, None]  # one point in every piece
        path = x[:, None] + t * (xi - x)[:, None]
        pieces = matrix_norm(piece(net, path.flatten(0, 1)), 2).view(12, -1)
        moved = vector_norm(net.features(xi) - net.features(x), dim=1)
        most = pieces.amax(1) * vector_norm(xi - x, dim=1)
        assert (moved <= most * (1 + 1e-12) + 1e-12).all()


@pytest.mark.random
def test_500_power_iterations_never_fall():
    """500 networks: the lengths in the power iteration never fall."""
    for net, x, g in cases(500):
        j, v = piece(net, x[:1])[0].detach(), torch.randn(x.shape[1], generator=g)
        v, lengths = v.double() / v.norm(), []
        for _ in range(12):
            lengths.append((j @ v).norm())
            back = j.T @ (j @ v)
            v = back / back.norm().clamp_min(1e-300)
        steps = torch.stack(lengths).diff()
        assert (steps >= -1e-12 * matrix_norm(j, 2)).all()


@pytest.mark.boundary
def test_linear_features_reach_it():
    """Linear features: after enough iterations, equality to ten digits."""
    net = nn.Module()
    net.features = nn.Linear(4, 3).double()
    true = matrix_norm(net.features.weight, 2).item()
    x = torch.zeros(1, 4).double()
    found = lipschitz.local_estimate(net, x, iterations=500, generator=generator(0))
    assert found.item() == pytest.approx(true, rel=1e-10)


@pytest.mark.needed
def test_the_constant_may_sit_beside_the_point():
    """relu(x - 1): at 0 the estimate is zero, and the features move at 3."""
    net = nn.Module()
    net.features = lambda x: (x - 1).relu()
    x, g = torch.zeros(1, 1).double(), generator(0)
    assert lipschitz.local_estimate(net, x, generator=g).item() == 0
    assert net.features(x + 3).item() == 2
    assert lipschitz.global_bound(net, x) >= 1


@pytest.mark.needed
def test_at_a_kink_automatic_differentiation_may_say_too_much():
    """2x - relu(x) + relu(-x) is x, but its derivative at 0 comes out as 2."""
    net = nn.Module()
    net.features = lambda x: 2 * x - x.relu() + (-x).relu()
    x = torch.zeros(1, 1).double()
    assert torch.allclose(net.features(x + 3), x + 3)
    assert lipschitz.local_estimate(net, x, generator=generator(0)).item() == 2
    assert lipschitz.local_estimate(net, x + 1, generator=generator(0)).item() == 1
