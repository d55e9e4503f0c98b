"""prop-lipschitz-rules: products along a path, sums where branches meet."""

import math

import pytest
import torch
from torch import nn
from torch.linalg import matrix_norm, vector_norm

from flatbook import lipschitz
from tests.cases import dense, generator


class Net(nn.Module):
    """Two branches of two layers each, then their sum and both side by side."""

    def __init__(self, g, d):
        super().__init__()
        sizes = [(d, d), (d, d), (d, d), (2 * d, 2 * d)]
        self.layers = nn.ModuleList(nn.Linear(*size).double() for size in sizes)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=g))

    def features(self, x):
        a, b, c, last = self.layers
        left, right = b(a(x).relu()).relu(), c(x).tanh()
        return last(torch.cat([left + right, right], 1)).relu()

    def by_hand(self):
        a, b, c, last = (matrix_norm(m.weight, 2).item() for m in self.layers)
        return math.hypot(a * b + c, c) * last


@pytest.mark.random
def test_500_networks_with_branches():
    """500 random networks with two branches: no secant exceeds the bound."""
    g, ratios = generator(0), []
    for case in range(500):
        d = 1 + case % 6
        net = Net(g, d)
        x = torch.randn(40, d, generator=g, dtype=torch.float64)
        xi = x + 10.0 ** (case % 5 - 3) * torch.randn(40, d, generator=g).double()
        with torch.no_grad():
            moved = vector_norm(net.features(xi) - net.features(x), dim=1)
        ratio = (moved / vector_norm(xi - x, dim=1)).max().item()
        bound = lipschitz.global_bound(net, x)
        assert bound == pytest.approx(net.by_hand(), rel=1e-7)
        assert ratio <= bound
        ratios.append(ratio / bound)
    assert 0.02 < sorted(ratios)[250] < 1


@pytest.mark.random
def test_500_poolings():
    """500 random images through overlapping max- and average-pooling."""
    g = generator(1)
    for case in range(500):
        k, stride = 1 + case % 3, 1 + case % 4
        x, xi = torch.randn(2, 1, 1, 7, 7, generator=g, dtype=torch.float64)
        for pool in (nn.MaxPool2d(k, stride), nn.AvgPool2d(k, stride)):
            net = nn.Module()
            net.features = pool
            moved = (pool(xi) - pool(x)).norm() / (xi - x).norm()
            assert moved.item() <= lipschitz.global_bound(net, x)


@pytest.mark.boundary
def test_equality_where_all_point_the_same_way():
    """Product, sum, concatenation, mean, normalisation: each is attained."""
    eye = torch.eye(3, dtype=torch.float64)
    maps = {
        6.0: lambda x: x @ (2 * eye) @ (3 * eye),
        5.0: lambda x: x @ (2 * eye) + x @ (3 * eye),
        math.sqrt(13): lambda x: torch.cat([x @ (2 * eye), x @ (3 * eye)], 1),
        1 / math.sqrt(3): lambda x: x.mean(1, keepdim=True),
        4.0: lambda x: x / 0.25,
    }
    for norm, linear in maps.items():
        assert matrix_norm(dense(linear, (3,)), 2).item() == pytest.approx(norm)


@pytest.mark.boundary
def test_a_pixel_in_all_windows():
    """One pixel, the largest of nine windows, moves nine outputs: factor three."""
    image, tall = torch.zeros(2, 1, 1, 5, 5, dtype=torch.float64)
    tall[:, :, 2, 2] = 1
    pool = nn.MaxPool2d(3, 1)
    assert (pool(tall) - pool(image)).norm().item() == 3


@pytest.mark.boundary
def test_loose_where_branches_cancel():
    """relu(x) - relu(x) does not move at all, its bound is two."""
    net = nn.Module()
    net.features = lambda x: x.relu() - x.relu()
    x = torch.ones(1, 2)
    assert (net.features(x) == 0).all()
    assert lipschitz.global_bound(net, x) == pytest.approx(2)


@pytest.mark.needed
def test_training_mode_has_no_constant():
    """Batch normalisation in train mode: ever larger quotients, and samples mix."""
    layer = nn.BatchNorm1d(1, eps=1e-14, affine=False).double().train()
    quotients = []
    for near in (1e-1, 1e-3, 1e-5):
        x = torch.tensor([[0.0], [near]]).double()
        xi = torch.tensor([[0.0], [-near]]).double()
        quotients.append(((layer(xi) - layer(x)).norm() / (xi - x).norm()).item())
    assert quotients[2] > 50 * quotients[1] > 2500 * quotients[0]


@pytest.mark.needed
def test_a_square_has_no_constant():
    """x squared has no Lipschitz constant, and is refused."""
    net = nn.Module()
    net.features = lambda x: x * x
    with pytest.raises(TypeError, match="mul"):
        lipschitz.global_bound(net, torch.ones(1, 2))
