"""prop-input-as-weight: one matrix of rank one moves the output as the input did."""

import pytest
import sympy as sp
import torch
from torch.linalg import lstsq, matrix_norm, matrix_rank

from tests.cases import generator

CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def change(weight, x, v):
    return torch.outer(weight @ v, x) / (x @ x)


def cases(number, *, lowest=1):
    """Weights (k, d), inputs and moves over eight orders of magnitude."""
    g = generator(0)
    for case in range(number):
        k, d = torch.randint(lowest, 8, (2,), generator=g).tolist()
        weight = torch.randn(k, d, generator=g, dtype=torch.float64)
        x, v = torch.randn(2, d, generator=g, dtype=torch.float64)
        yield weight, x, v * 10.0 ** (case % 9 - 4), g


@pytest.mark.random
def test_500_random_cases_same_output_and_norm():
    """500 random cases: the same output, and the stated norms."""
    for weight, x, v, _ in cases(500):
        dw, moved = change(weight, x, v), weight @ v
        size = 1 + moved.norm()
        torch.testing.assert_close(dw @ x / size, moved / size, **CLOSE)
        least = moved.norm() / x.norm()
        torch.testing.assert_close(matrix_norm(dw), least, **CLOSE)
        torch.testing.assert_close(matrix_norm(dw, 2), least, **CLOSE)
        assert matrix_rank(dw) <= 1


@pytest.mark.symbolic
def test_identity_in_symbols():
    """The identity in sympy."""
    weight = sp.Matrix(2, 3, sp.symbols("w:6", real=True))
    x, v = (sp.Matrix(sp.symbols(f"{n}:3", real=True)) for n in "xv")
    dw = (weight * v) * x.T / x.dot(x)
    gap = (weight + dw) * x - weight * (x + v)
    assert gap.applyfunc(sp.simplify) == sp.zeros(2, 1)
    frobenius = sum(entry**2 for entry in dw) - (weight * v).dot(weight * v) / x.dot(x)
    assert sp.simplify(frobenius) == 0


@pytest.mark.random
def test_500_random_competitors_are_larger_and_pythagorean():
    """500 random competitors are larger, by Pythagoras."""
    for weight, x, v, g in cases(500, lowest=2):
        dw = change(weight, x, v)
        free = torch.randn(weight.shape, generator=g, dtype=torch.float64)
        extra = free - torch.outer(free @ x, x) / (x @ x)
        other = dw + extra
        squares = matrix_norm(dw) ** 2 + matrix_norm(extra) ** 2
        torch.testing.assert_close(matrix_norm(other) ** 2, squares)
        assert matrix_norm(other) > matrix_norm(dw)
        assert matrix_norm(other, 2) >= matrix_norm(dw, 2) * (1 - 1e-12)


@pytest.mark.random
def test_least_norm_is_that_of_a_solver():
    """The least norm is that of a solver which knows nothing of the formula."""
    for weight, x, v, _ in cases(100):
        solved = ((weight @ v)[:, None] @ torch.linalg.pinv(x[:, None])).contiguous()
        torch.testing.assert_close(change(weight, x, v), solved, rtol=1e-9, atol=1e-9)


@pytest.mark.boundary
def test_spectral_norm_has_other_minimisers_frobenius_has_not():
    """In the spectral norm there are other minimisers, in the Frobenius norm none."""
    weight = torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
    x = torch.tensor([1.0, 2.0], dtype=torch.float64)
    v = torch.tensor([1.0, -1.0], dtype=torch.float64)
    dw = change(weight, x, v)
    left = torch.tensor([2.0, 1.0], dtype=torch.float64)  # orthogonal to W v = (1, -2)
    right = torch.tensor([-2.0, 1.0], dtype=torch.float64)  # orthogonal to x
    other = dw + 0.1 * torch.outer(left, right)
    torch.testing.assert_close(other @ x, weight @ v)
    assert matrix_norm(other, 2).item() == pytest.approx(1.0, rel=1e-12)
    assert matrix_norm(other).item() > 1.05


@pytest.mark.random
def test_a_change_is_an_input_move_iff_it_stays_in_the_range():
    """A change is an input move exactly if it stays in the range of W."""
    g = generator(1)
    for k, d in [(5, 2), (4, 3), (3, 3), (2, 5)] * 125:
        weight = torch.randn(k, d, generator=g, dtype=torch.float64)
        x = torch.randn(d, generator=g, dtype=torch.float64)
        inside = weight @ torch.randn(d, d, generator=g, dtype=torch.float64)
        free = torch.randn(k, d, generator=g, dtype=torch.float64)
        for matrix, reachable in [(inside, True), (free, k <= d)]:
            target = (matrix @ x)[:, None]
            v = lstsq(weight, target, driver="gelsd").solution
            gap = (weight @ v - target).norm()
            assert (gap < 1e-9 * (1 + target.norm())) == reachable


@pytest.mark.boundary
def test_boundary_no_move_is_no_change():
    """No move is no change."""
    weight, x, v, _ = next(cases(1))
    assert (change(weight, x, 0 * v) == 0).all()


@pytest.mark.needed
def test_without_x_nonzero_no_change_of_the_weights_does_it():
    """At x = 0 no change of the weights moves the output."""
    weight = torch.eye(2, dtype=torch.float64)
    zero, v = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    for seed in range(20):
        matrix = torch.randn(2, 2, generator=generator(seed), dtype=torch.float64)
        assert ((weight + 1e6 * matrix) @ zero == weight @ zero).all()
    assert (weight @ (zero + v) != weight @ zero).any()
    assert not torch.isfinite(change(weight, zero, v)).all()


@pytest.mark.needed
def test_a_scalar_reaches_the_ray_only():
    """A scalar in place of the matrix reaches the ray through x only."""
    x = sp.Matrix([1, 2])
    delta = sp.Symbol("delta")
    assert sp.solve(list(x + delta * x - sp.Matrix([2, 1])), delta) == []
    assert sp.solve(list(x + delta * x - sp.Matrix([3, 6])), delta) == {delta: 2}
