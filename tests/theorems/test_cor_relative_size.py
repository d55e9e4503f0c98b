"""cor-relative-size: |dW| / |W| <= |v| / |x|, with the cases of equality."""

import pytest
import torch
from torch.linalg import matrix_norm, svd

from tests.cases import generator
from tests.theorems.test_prop_input_as_weight import cases, change


def relative(weight, x, v):
    return matrix_norm(change(weight, x, v)) / matrix_norm(weight)


def rotation(source, target):
    """Orthogonal A with A s/|s| = t/|t|: a Householder reflection."""
    gap = source / source.norm() - target / target.norm()
    size = gap @ gap
    eye = torch.eye(len(source), dtype=source.dtype)
    return eye - 2 * torch.outer(gap, gap) / size if size > 0 else eye


@pytest.mark.random
def test_500_random_cases():
    """500 random weights, inputs and moves obey the chain of inequalities."""
    for weight, x, v, _ in cases(500):
        size = relative(weight, x, v)
        spread = matrix_norm(weight, 2) / matrix_norm(weight)
        ratio = v.norm() / x.norm()
        assert size <= spread * ratio * (1 + 1e-12)
        assert spread <= 1 + 1e-12


@pytest.mark.random
def test_500_orthogonal_matrices_give_the_relative_size_of_the_input_move():
    """500 orthogonal matrices give the relative size of the input move."""
    for weight, x, v, _ in cases(500):
        step = v.norm() / x.norm()
        turn = rotation(x, v)
        eye = torch.eye(len(x), dtype=x.dtype)
        torch.testing.assert_close(turn @ turn.T, eye, rtol=0, atol=1e-12)
        torch.testing.assert_close(step * turn @ x, v, rtol=1e-10, atol=1e-12)
        other = step * weight @ turn
        torch.testing.assert_close(matrix_norm(other) / matrix_norm(weight), step)
        assert relative(weight, x, v) <= step * (1 + 1e-12)


@pytest.mark.boundary
def test_boundary_equality_along_the_top_singular_direction():
    """Equality along the top singular direction."""
    for weight, x, _, _ in cases(50):
        top = svd(weight).Vh[0]
        spread = matrix_norm(weight, 2) / matrix_norm(weight)
        expected = (spread / x.norm()).item()
        assert relative(weight, x, top).item() == pytest.approx(expected, rel=1e-12)
        assert relative(weight, x, 0 * top) == 0


@pytest.mark.boundary
def test_boundary_rank_one_weights_reach_the_bound():
    """Weights of rank one reach the outer bound."""
    g = generator(4)
    left = torch.randn(3, generator=g, dtype=torch.float64)
    right, x = torch.randn(2, 5, generator=g, dtype=torch.float64)
    size = relative(torch.outer(left, right), x, 0.3 * right)
    assert size.item() == pytest.approx(0.3 * (right.norm() / x.norm()).item())


@pytest.mark.boundary
def test_rank_two_weights_never_reach_it():
    """Weights of rank two never do."""
    for weight, x, v, _ in cases(200, lowest=2):
        assert relative(weight, x, v) < v.norm() / x.norm()


@pytest.mark.needed
def test_without_x_nonzero_the_size_has_no_bound():
    """At x near 0 the relative size has no bound."""
    weight = torch.eye(2, dtype=torch.float64)
    v = torch.tensor([1.0, 0.0], dtype=torch.float64)
    sizes = [
        relative(weight, torch.tensor([s, 0.0], dtype=torch.float64), v).item()
        for s in (1.0, 1e-3, 1e-6)
    ]
    assert sizes[2] > 1e3 * sizes[1] * 0.99 > 1e5
