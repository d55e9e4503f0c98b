"""Eigenvalues of graded matrices, where LAPACK's own call may not converge."""

import pytest
import torch

from flatbook._spectrum import eigenvalues
from tests.cases import generator


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [2, 20, 40])
def test_graded_gram_matrices(k, dtype):
    for seed in range(20):
        g = generator(seed)
        rows = torch.randn(64, k, 3, generator=g, dtype=torch.float64)
        rows = rows * 10 ** (-20 * torch.rand(64, k, 1, generator=g).double() ** 2)
        found = eigenvalues((rows @ rows.mT).to(dtype)).double()
        exact = torch.linalg.svdvals(rows).square().flip(1)
        error = (
            (found[:, -3:] - exact[:, -k:]).abs() if k > 2 else found - exact[:, -2:]
        )
        assert (error.abs() <= 1e3 * torch.finfo(dtype).eps * exact[:, -1:]).all()


def test_zero_and_scale():
    assert (eigenvalues(torch.zeros(4, 3, 3)) == 0).all()
    one = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
    for size in (1e-30, 1.0, 1e30):
        got = eigenvalues(size * one)
        torch.testing.assert_close(got, size * torch.tensor([1.0, 3.0]))
