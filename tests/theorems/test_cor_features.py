"""cor-features: behind features the last layer still follows, no longer linearly."""

import pytest
import sympy as sp
import torch
from torch.linalg import matrix_norm

from tests.cases import generator


def network(g):
    """First layer (h, n) and head (k, h) of a random ReLU network."""
    n, h, k = (2 + torch.randint(6, (3,), generator=g)).tolist()
    first = torch.randn(h, n, generator=g, dtype=torch.float64)
    return first, torch.randn(k, h, generator=g, dtype=torch.float64)


def features(first, x):
    return (first @ x).relu()


def change(weight, phi, new):
    return torch.outer(weight @ (new - phi), phi) / (phi @ phi)


def cases(number):
    g, done = generator(0), 0
    while done < number:
        first, weight = network(g)
        x, v = torch.randn(2, first.shape[1], generator=g, dtype=torch.float64)
        if features(first, x).norm() > 1e-3:
            done += 1
            yield first, weight, x, v * 10.0 ** (done % 5 - 3)


@pytest.mark.random
def test_500_random_networks():
    """500 random networks: a feature move is a weight move of the head of that norm."""
    for first, weight, x, v in cases(500):
        phi, new = features(first, x), features(first, x + v)
        dw = change(weight, phi, new)
        size = weight.norm() * (phi.norm() + new.norm())
        assert ((weight + dw) @ phi - weight @ new).norm() <= 1e-12 * size
        relative = matrix_norm(dw) / matrix_norm(weight)
        moved = (new - phi).norm() / phi.norm()
        assert relative <= moved * (1 + 1e-12) + 1e-15
        lipschitz = matrix_norm(first, 2)
        assert moved <= lipschitz * v.norm() / phi.norm() * (1 + 1e-12) + 1e-14


@pytest.mark.random
def test_500_first_layers_are_the_proposition_again():
    """In 500 first layers it is the proposition for the linear model again."""
    for first, weight, x, v in cases(500):
        moved = first + torch.outer(first @ v, x) / (x @ x)
        new = weight @ features(first, x + v)
        size = 1 + weight.norm() * first.norm() * (x.norm() + v.norm())
        assert (weight @ features(moved, x) - new).norm() <= 1e-12 * size


@pytest.mark.random
def test_linear_in_v_while_no_unit_switches():
    """Linear in the input move while no unit switches."""
    for first, weight, x, v in cases(300):
        phi = features(first, x)
        slack = (first @ x).abs().min() / (first @ v).abs().max()
        small = 0.9 * slack * v
        whole = change(weight, phi, features(first, x + small))
        half = change(weight, phi, features(first, x + small / 2))
        scale = matrix_norm(weight) * (1 + phi.norm()) * (1 + 1 / phi.norm())
        assert matrix_norm(2 * half - whole) <= 1e-12 * scale


@pytest.mark.needed
def test_500_random_moves_do_not_add_once_units_switch():
    """Once units switch, 500 random moves do not add up."""
    differ = 0
    for first, weight, x, v in cases(500):
        phi = features(first, x)
        far = 3 * v * x.norm() / v.norm()
        whole = change(weight, phi, features(first, x + far))
        half = change(weight, phi, features(first, x + far / 2))
        differ += bool(matrix_norm(2 * half - whole) > 1e-6 * matrix_norm(whole))
    assert differ > 400


@pytest.mark.needed
def test_entries_are_piecewise_linear_but_the_norm_is_not():
    """Two units, one switched on at t = 1: from there the norm is a hyperbola."""
    t = sp.Symbol("t", positive=True)
    phi, new = sp.Matrix([1, 0]), sp.Matrix([1 + t, t - 1])  # for t >= 1
    dw = (new - phi) * phi.T  # W = 1, |phi| = 1
    assert all(sp.diff(entry, t, 2) == 0 for entry in dw)
    norm = sp.sqrt(sum(entry**2 for entry in dw))
    assert sp.simplify(norm**2 - t**2 - (t - 1) ** 2) == 0
    assert sp.simplify(sp.diff(norm, t, 2)) != 0


@pytest.mark.boundary
def test_boundary_no_move():
    """No move of the input is no move of the weights."""
    first, weight, x, v = next(cases(1))
    phi = features(first, x)
    assert (change(weight, phi, features(first, x + 0 * v)) == 0).all()


@pytest.mark.needed
def test_without_features_no_head_follows():
    """Without features no head follows: relu moves from 0 to 1 at x = -1, v = 2."""
    x, v = torch.tensor(-1.0), torch.tensor(2.0)
    assert x.relu() == 0
    assert (x + v).relu() == 1
    for weight in (-1e9, 0.0, 1.0, 1e9):
        assert weight * x.relu() == 0
