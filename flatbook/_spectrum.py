"""Eigenvalues of small positive semidefinite matrices, in every floating-point type.

LAPACK's solver may fail to converge in float32 on a graded matrix, with diagonal
entries of very different size, and the Gram matrix of a confident prediction is one.
Scaled to a largest diagonal entry of 1 and shifted by the identity it is not graded any
more; the shift costs one bit of the largest eigenvalue.
"""

import torch
from torch import Tensor

__all__ = ["eigenvalues"]


def eigenvalues(matrix: Tensor) -> Tensor:
    """Eigenvalues of symmetric positive semidefinite matrices.

    Args:
        matrix: (..., k, k).

    Returns:
        (..., k), ascending, at least 0, each to the rounding of the largest.

    Example:
        >>> eigenvalues(torch.tensor([[1.0, 0.0], [0.0, 3.0]]))
        tensor([1.0000, 3.0000])
    """
    size = matrix.diagonal(dim1=-2, dim2=-1).amax(-1)[..., None, None]
    scaled = matrix / torch.where(size > 0, size, 1.0)
    one = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    return (torch.linalg.eigvalsh(scaled + one) - 1).clamp_min(0) * size[..., 0]
