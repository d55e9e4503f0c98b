"""prop-kronecker-order: rows first gives P (x) phi phi^T, columns first the reverse."""

import pytest
import sympy as sp
import torch
from torch.func import hessian, vmap
from torch.nn.functional import cross_entropy

from flatbook import softmax
from tests.cases import head


def swap(k, d):
    """The permutation that takes u (x) v to v (x) u, for u in R^k, v in R^d."""
    order = torch.arange(k * d).reshape(k, d).T.flatten()
    return torch.eye(k * d, dtype=torch.float64)[order]


def hessians(weight, features, labels):
    """Rows first and columns first, both by autograd in the order they name."""
    k, d = weight.shape

    def by_rows(flat, phi, label):
        return cross_entropy(flat.reshape(k, d) @ phi, label)

    def by_columns(flat, phi, label):
        return cross_entropy(flat.reshape(d, k).T @ phi, label)

    return (
        vmap(hessian(f), (None, 0, 0))(flat, features, labels)
        for f, flat in (
            (by_rows, weight.flatten()),
            (by_columns, weight.T.flatten()),
        )
    )


@pytest.mark.random
@pytest.mark.parametrize(("k", "d"), [(2, 1), (2, 3), (3, 2), (3, 4), (5, 2), (4, 4)])
def test_100_random_heads(k, d):
    """600 random heads in both orders against automatic differentiation."""
    weight, features, logits, labels = head(100, k, d, seed=k + 7 * d)
    rows, columns = hessians(weight, features, labels)
    permutation = swap(k, d)
    for n, matrix in enumerate(softmax.covariance(logits)):
        outer = torch.outer(features[n], features[n])
        close = {"rtol": 1e-12, "atol": 1e-13}
        torch.testing.assert_close(rows[n], torch.kron(matrix, outer), **close)
        torch.testing.assert_close(columns[n], torch.kron(outer, matrix), **close)
        moved = permutation @ rows[n] @ permutation.T
        torch.testing.assert_close(moved, columns[n], **close)


@pytest.mark.random
@pytest.mark.parametrize(("k", "d"), [(2, 3), (3, 4), (5, 2)])
def test_the_spectrum_is_that_of_p_times_the_squared_features(k, d):
    """The spectrum is that of P times the squared features, and zeros."""
    weight, features, logits, labels = head(170, k, d, seed=k * d)
    rows, _ = hessians(weight, features, labels)
    scaled = features.square().sum(1)[:, None] * torch.linalg.eigvalsh(
        softmax.covariance(logits)
    )
    zeros = torch.zeros(170, k * d - k, dtype=torch.float64)
    wanted = torch.cat([scaled, zeros], 1).sort(1).values
    torch.testing.assert_close(
        torch.linalg.eigvalsh(rows), wanted, rtol=1e-9, atol=1e-12
    )


@pytest.mark.symbolic
def test_symbolic_two_by_two():
    """Two classes and two features in sympy."""
    w = sp.Matrix(2, 2, sp.symbols("w:4", real=True))
    phi = sp.Matrix(sp.symbols("phi:2", real=True))
    z = w * phi
    loss = sp.log(sum(sp.exp(v) for v in z)) - z[0]
    p = sp.Matrix([sp.exp(v) for v in z]) / sum(sp.exp(v) for v in z)
    covariance, outer = sp.diag(*p) - p * p.T, phi * phi.T
    kron = sp.kronecker_product
    for order, wanted in (
        ([w[0], w[1], w[2], w[3]], kron(covariance, outer)),
        ([w[0], w[2], w[1], w[3]], kron(outer, covariance)),
    ):
        difference = sp.hessian(loss, order) - wanted
        assert difference.applyfunc(sp.simplify).is_zero_matrix


@pytest.mark.boundary
def test_boundary_one_feature_knows_one_order():
    """With one feature there is only one order."""
    weight, features, logits, labels = head(5, 3, 1, seed=2)
    rows, columns = hessians(weight, features, labels)
    torch.testing.assert_close(rows, columns, rtol=0, atol=0)
    wanted = features[:, :, None].square() * softmax.covariance(logits)
    torch.testing.assert_close(rows, wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.needed
def test_the_order_is_needed_though_trace_and_spectrum_do_not_see_it():
    """The order matters, though trace and spectrum do not see it."""
    weight, features, _, labels = head(20, 3, 4, seed=1)
    rows, columns = hessians(weight, features, labels)
    for row, column in zip(rows, columns, strict=True):
        assert (row - column).norm() > 0.1 * row.norm()
        assert row.trace().item() == pytest.approx(column.trace().item(), rel=1e-12)
        torch.testing.assert_close(
            *map(torch.linalg.eigvalsh, (row, column)), rtol=1e-9, atol=1e-12
        )
