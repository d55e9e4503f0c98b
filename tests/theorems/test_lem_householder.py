"""lem-householder: every move of a nonzero vector is a reflection of it, scaled."""

import math

import pytest
import sympy as sp
import torch
from torch.linalg import matrix_norm

from tests.cases import generator


def reflection(phi, new):
    """Delta and A of the lemma, for one pair of vectors."""
    move = new - phi
    delta = float(move.norm() / phi.norm())
    identity = torch.eye(len(phi), dtype=phi.dtype)
    if delta == 0:
        return delta, identity
    u = phi / phi.norm() - move / move.norm()
    if float(u.norm()) < 1e-14:
        return delta, identity
    return delta, identity - 2 * torch.outer(u, u) / (u @ u)


def is_orthogonal(matrix):
    gap = matrix @ matrix.T - torch.eye(len(matrix), dtype=matrix.dtype)
    return float(gap.abs().max()) < 1e-12


@pytest.mark.random
def test_600_random_moves():
    """600 random moves in 1 to 20 dimensions, of a hundredth to a hundred times."""
    g = generator(0)
    for case in range(600):
        d = 1 + case % 20
        phi, move = torch.randn(2, d, generator=g, dtype=torch.float64)
        new = phi + move * 10.0 ** (case % 5 - 2)
        delta, a = reflection(phi, new)
        assert is_orthogonal(a)
        size = float(phi.norm() + new.norm())
        assert float((phi + delta * (a @ phi) - new).norm()) <= 1e-11 * size


@pytest.mark.random
def test_500_relu_networks_keep_the_chain():
    """500 random ReLU features: Delta is rho / |phi|, and rho is at most L delta."""
    g = generator(1)
    for _ in range(500):
        n, d = (1 + torch.randint(9, (2,), generator=g)).tolist()
        weight = torch.randn(d, n, generator=g, dtype=torch.float64)
        x, step = torch.randn(2, n, generator=g, dtype=torch.float64)
        phi, new = (weight @ x).relu() + 0.1, (weight @ (x + step)).relu() + 0.1
        delta, _ = reflection(phi, new)
        rho = float((new - phi).norm())
        assert delta * float(phi.norm()) == pytest.approx(rho)
        assert rho <= float(matrix_norm(weight, 2) * step.norm()) * (1 + 1e-12)


@pytest.mark.random
def test_500_rotations_give_no_other_delta():
    """500 random orthogonal A: the only Delta that fits is the relative size."""
    g = generator(2)
    for case in range(500):
        d = 1 + case % 7
        a = torch.linalg.qr(torch.randn(d, d, generator=g, dtype=torch.float64))[0]
        phi = torch.randn(d, generator=g, dtype=torch.float64)
        delta = 10.0 ** (case % 7 - 3)
        new = phi + delta * (a @ phi)
        assert reflection(phi, new)[0] == pytest.approx(delta, rel=1e-9)


@pytest.mark.symbolic
def test_the_reflection_in_the_plane():
    """In the plane, sympy reflects any rational unit vector to any other."""
    a, b = (
        sp.Matrix([1 - s**2, 2 * s]) / (1 + s**2) for s in sp.symbols("s t", real=True)
    )
    u = a - b
    reflected = a - 2 * u * (u.T * a)[0] / (u.T * u)[0]
    assert (reflected - b).applyfunc(sp.cancel) == sp.zeros(2, 1)


@pytest.mark.boundary
def test_no_move_and_moves_along():
    """No move, a stretch, a shrinking to zero, a turn back: also in one dimension."""
    for phi in (torch.tensor([2.0]).double(), torch.tensor([3.0, 4.0]).double()):
        for factor in (0.0, 0.5, 1.0, -2.0):
            new = factor * phi
            delta, a = reflection(phi, new)
            assert delta == pytest.approx(abs(factor - 1))
            assert is_orthogonal(a)
            assert torch.allclose(phi + delta * (a @ phi), new, atol=1e-14)
    assert reflection(phi, phi)[0] == 0


@pytest.mark.needed
def test_a_positive_delta_cannot_stay():
    """With Delta > 0, as printed, equal features are out of reach."""
    for angle in range(360):
        c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        for a in ([[c, -s], [s, c]], [[c, s], [s, -c]]):
            phi = torch.tensor([3.0, 4.0]).double()
            moved = phi + 1e-3 * torch.tensor(a).double() @ phi
            assert (moved - phi).norm().item() == pytest.approx(5e-3)


@pytest.mark.needed
def test_features_that_are_zero_cannot_leave():
    """From phi = 0 no Delta and no A lead anywhere."""
    zero, g = torch.zeros(3, dtype=torch.float64), generator(3)
    a = torch.linalg.qr(torch.randn(3, 3, generator=g, dtype=torch.float64))[0]
    assert (zero + 1e9 * (a @ zero) == 0).all()
