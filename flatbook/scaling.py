r"""Every scale of the head from one pass of features.

Multiplying the head, weight and bias, by :math:`s > 0` multiplies the logits by
:math:`s` and leaves the features alone. So one forward pass gives the loss and the
sharpness at all scales: no network runs again (proposition ``prop-scaling``).

>>> logits, labels = torch.tensor([[3.0, 0.0]]), torch.tensor([0])
>>> losses(logits, labels, [0.0, 1.0, 10.0])[:, 0].log()  # about -3 s
tensor([ -0.3665,  -3.0244, -30.0000])
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from flatbook.curvature import check_head, log_hessian_trace
from flatbook.softmax import check_labels, cross_entropy

__all__ = ["log_sharpness", "losses"]

Scales = Sequence[float] | Tensor


def losses(logits: Tensor, labels: Tensor, scales: Scales) -> Tensor:
    """Cross-entropy of every sample under every scale of the head.

    Args:
        logits: (N, k), at scale 1.
        labels: (N,) integers in 0 .. k-1.
        scales: S finite numbers >= 0.

    Returns:
        (S, N) in nats.

    Raises:
        TypeError, ValueError: shapes, labels or scales out of range, named.
    """
    check_labels(logits, labels)
    factors = _factors(scales, logits)
    return torch.stack([cross_entropy(s * logits, labels) for s in factors])


def log_sharpness(
    weight: Tensor, features: Tensor, logits: Tensor, scales: Scales
) -> Tensor:
    r"""Logarithm of :math:`\kappa = \|sW\|_F^2 \operatorname{Tr} H` under every scale.

    Args:
        weight: (k, d), the head at scale 1.
        features: (N, d).
        logits: (N, k), at scale 1.
        scales: S finite numbers > 0.

    Returns:
        (S, N); values of -1000 and below are exact.

    Raises:
        TypeError, ValueError: shapes or scales out of range, named.
    """
    check_head(weight, features, logits)
    factors = _factors(scales, logits)
    if (factors == 0).any():
        raise ValueError("scales must be > 0, got 0")
    size = torch.linalg.matrix_norm(weight)
    return torch.stack(
        [
            2 * (s * size).log() + log_hessian_trace(features, s * logits)
            for s in factors
        ]
    )


def _factors(scales: Scales, like: Tensor) -> Tensor:
    factors = torch.as_tensor(scales, dtype=like.dtype, device=like.device)
    if factors.ndim != 1 or not len(factors):
        shape = tuple(factors.shape)
        raise ValueError(f"scales must be a sequence of numbers, got shape {shape}")
    wrong = ~torch.isfinite(factors) | (factors < 0)
    if wrong.any():
        bad = factors[wrong][0].item()
        raise ValueError(f"scales must be finite and >= 0, got {bad}")
    return factors
