r"""Stable pieces of a softmax head, as functions of its logits.

With :math:`p = \mathrm{softmax}(z)` the cross-entropy :math:`\ell = \log\sum_j
e^{z_j} - z_y` has, in the logits, the gradient :math:`p - e_y`, the Hessian
:math:`P = \operatorname{diag}(p) - pp^\top` and as third derivative the third
cumulant of :math:`p` (theorem ``thm-softmax-hessian`` of the book). Two rules
keep them exact where it matters:

* ``1 - p_j`` of the most probable class is the sum of the other probabilities,
  never a subtraction, so confident predictions keep all their digits;
* anything that can leave the range of the floating-point type has a logarithm.

>>> logits = torch.tensor([[40.0, 0.0]])      # float32, p = (1 - 4e-18, 4e-18)
>>> trace_p(logits).item() > 0                # 1 - sum(p**2) would say 0
True
"""

import torch
from torch import Tensor
from torch.nn.functional import softplus

__all__ = [
    "check_features",
    "check_labels",
    "check_logits",
    "check_weight",
    "covariance",
    "cross_entropy",
    "log_odds",
    "log_one_minus",
    "log_trace_p",
    "margin",
    "one_minus",
    "third_derivative",
    "trace_p",
]


def _check_matrix(name: str, value: Tensor, shape: str) -> None:
    """Refuse anything but a finite floating-point matrix."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor {shape}, got {type(value).__name__}")
    if not value.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {value.dtype}")
    if value.ndim != 2:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(value.shape)}")
    if not torch.isfinite(value).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")


def check_logits(logits: Tensor) -> None:
    """Refuse anything but a finite floating-point tensor (N, k) with k >= 2.

    Raises:
        TypeError: not a floating-point tensor.
        ValueError: wrong shape, fewer than two classes, NaN or infinity.
    """
    _check_matrix("logits", logits, "(N, k)")
    if logits.shape[1] < 2:
        raise ValueError(f"logits need k >= 2 classes, got k = {logits.shape[1]}")


def check_labels(logits: Tensor, labels: Tensor) -> None:
    """Refuse labels that are not N integers in 0 .. k-1 for logits (N, k).

    Raises:
        TypeError: labels are not an integer tensor.
        ValueError: wrong length, or a label outside 0 .. k-1.
    """
    check_logits(logits)
    if not isinstance(labels, Tensor) or labels.dtype not in (
        torch.int64,
        torch.int32,
        torch.int16,
        torch.uint8,
    ):
        got = getattr(labels, "dtype", type(labels).__name__)
        raise TypeError(f"labels must be an integer tensor (N,), got {got}")
    n, k = logits.shape
    if labels.shape != (n,):
        raise ValueError(f"labels must have shape ({n},), got {tuple(labels.shape)}")
    if n and (labels.min() < 0 or labels.max() >= k):
        bad = labels[(labels < 0) | (labels >= k)][0].item()
        raise ValueError(f"labels must lie in 0 .. {k - 1}, got {bad}")


def check_features(features: Tensor, logits: Tensor) -> None:
    """Refuse features that are not a finite (N, d) beside logits (N, k)."""
    check_logits(logits)
    _check_matrix("features", features, "(N, d)")
    if features.shape[0] != logits.shape[0]:
        raise ValueError(
            f"features and logits must have the same N, got {features.shape[0]} "
            f"and {logits.shape[0]}"
        )


def check_weight(weight: Tensor, logits: Tensor) -> None:
    """Refuse a head weight that is not a finite (k, d) beside logits (N, k)."""
    check_logits(logits)
    _check_matrix("weight", weight, "(k, d)")
    if weight.shape[0] != logits.shape[1]:
        raise ValueError(
            f"weight must have one row for each of the {logits.shape[1]} classes, "
            f"got {weight.shape[0]} rows"
        )
    if weight.dtype != logits.dtype:
        raise TypeError(
            f"weight and logits must share a dtype, got {weight.dtype} "
            f"and {logits.dtype}"
        )


def _top(logits: Tensor) -> Tensor:
    """Index (N, 1) of the largest logit."""
    return logits.argmax(1, keepdim=True)


def log_one_minus(logits: Tensor) -> Tensor:
    r"""Logarithm of :math:`1 - p_j`, without cancellation.

    For the most probable class this is the log-sum-exp of the others minus the
    log-sum-exp of all; every other :math:`p_j` is at most one half and
    ``log1p`` is exact.

    Args:
        logits: (N, k).

    Returns:
        (N, k), all values at most 0.
    """
    check_logits(logits)
    log_p = logits.log_softmax(1)
    top = _top(logits)
    others = log_p.scatter(1, top, -torch.inf).logsumexp(1, keepdim=True)
    rest = log_p.exp().scatter(1, top, 0.0)
    return torch.log1p(-rest).scatter(1, top, others)


def one_minus(logits: Tensor) -> Tensor:
    r"""The complement :math:`1 - p_j` of every probability, to full relative precision.

    Args:
        logits: (N, k).

    Returns:
        (N, k) in [0, 1].

    Example:
        >>> one_minus(torch.tensor([[60.0, 0.0]]))[0, 0].item()  # e^-60 in float32
        8.75651...e-27
    """
    check_logits(logits)
    p = logits.softmax(1)
    top = _top(logits)
    rest = p.scatter(1, top, 0.0)
    return (1 - rest).scatter(1, top, rest.sum(1, keepdim=True))


def trace_p(logits: Tensor) -> Tensor:
    r"""Trace of the logit Hessian, :math:`\operatorname{tr} P = \sum_j p_j(1-p_j)`.

    Args:
        logits: (N, k).

    Returns:
        (N,) in [0, 1 - 1/k]; 0 only where the type cannot hold the value.

    Example:
        >>> trace_p(torch.zeros(1, 4, dtype=torch.float64)).item()
        0.75
    """
    check_logits(logits)
    return (logits.softmax(1) * one_minus(logits)).sum(1)


def log_trace_p(logits: Tensor) -> Tensor:
    r"""Logarithm of :func:`trace_p`, finite for every finite logit.

    Args:
        logits: (N, k).

    Returns:
        (N,) below 0. Values such as ``-1000`` occur and are exact.
    """
    check_logits(logits)
    return (logits.log_softmax(1) + log_one_minus(logits)).logsumexp(1)


def covariance(logits: Tensor) -> Tensor:
    r"""The Hessian of cross-entropy in the logits: the covariance of a one-hot draw.

    :math:`P = \operatorname{diag}(p) - pp^\top` (theorem ``thm-softmax-hessian``).

    Args:
        logits: (N, k).

    Returns:
        (N, k, k), positive semidefinite, rows sum to 0.
    """
    check_logits(logits)
    p = logits.softmax(1)
    off = -p[:, :, None] * p[:, None, :]
    diagonal = torch.diag_embed(p * one_minus(logits))
    return off - torch.diag_embed(torch.diagonal(off, dim1=1, dim2=2)) + diagonal


def third_derivative(logits: Tensor) -> Tensor:
    r"""Third derivative of cross-entropy in the logits: the third cumulant of p.

    .. math::
        T_{jlo} = \mathbb E[(e_j - p_j)(e_l - p_l)(e_o - p_o)]
                = \sum_i p_i (\delta_{ij}-p_j)(\delta_{il}-p_l)(\delta_{io}-p_o)

    It does not depend on the label, is symmetric and sums to 0 along every
    axis. No entry exceeds :math:`1/(6\sqrt3)`.

    Args:
        logits: (N, k).

    Returns:
        (N, k, k, k).

    Example:
        >>> third_derivative(torch.zeros(1, 2, dtype=torch.float64)).abs().max().item()
        0.0
    """
    check_logits(logits)
    p, k = logits.softmax(1), logits.shape[1]
    centred = torch.eye(k, dtype=p.dtype, device=p.device) - p[:, None, :]
    diagonal = torch.diag_embed(one_minus(logits))
    centred = centred * (1 - torch.eye(k, dtype=p.dtype, device=p.device)) + diagonal
    return torch.einsum("ni,nij,nil,nio->njlo", p, centred, centred, centred)


def log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Log-odds against the true class.

    It is :math:`\Lambda = \log\sum_{j\ne y} e^{z_j} - z_y`. Cross-entropy is
    :math:`\log(1 + e^\Lambda)`, and its gradient is :math:`(1-p_y)\nabla\Lambda`:
    the same direction, times a factor that underflows. Positive means that the
    other classes together beat ``y``.

    Args:
        logits: (N, k).
        labels: (N,) integers in 0 .. k-1.

    Returns:
        (N,), any real number.
    """
    check_labels(logits, labels)
    return _log_odds(logits, labels)


def _log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """Without checks, which would make a loop on a GPU wait at every step."""
    index = labels.long()[:, None]
    others = logits.scatter(1, index, -torch.inf).logsumexp(1)
    return others - logits.gather(1, index)[:, 0]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Per-sample cross-entropy :math:`\ell = \log(1 + e^\Lambda)`, never a mean.

    Computed from :func:`log_odds`, so a loss of :math:`e^{-60}` is not rounded
    to 0 as :math:`\log\sum e^{z} - z_y` would be.

    Args:
        logits: (N, k).
        labels: (N,) integers in 0 .. k-1.

    Returns:
        (N,) in nats, at least 0.

    Example:
        >>> y = torch.tensor([0])
        >>> cross_entropy(torch.tensor([[60.0, 0.0]]), y).item()
        8.75651...e-27
    """
    check_labels(logits, labels)
    return _cross_entropy(logits, labels)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    # What the threshold cuts off, e^-40, is below rounding. Unlike that of logaddexp,
    # the second derivative of softplus is finite at every gap.
    return softplus(_log_odds(logits, labels), threshold=40.0)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """True logit minus the best other logit; positive if and only if correct.

    Args:
        logits: (N, k).
        labels: (N,) integers in 0 .. k-1.

    Returns:
        (N,); ties give 0 and count as errors in this book.
    """
    check_labels(logits, labels)
    return _margin(logits, labels)


def _margin(logits: Tensor, labels: Tensor) -> Tensor:
    index = labels.long()[:, None]
    best_other = logits.scatter(1, index, -torch.inf).amax(1)
    return logits.gather(1, index)[:, 0] - best_other
