r"""Curvature of cross-entropy: in the head's weights, in the input, in every layer.

For features :math:`\phi`, head weight :math:`W` (rows :math:`w_j`) and logits
:math:`z = W\phi + b` the Hessian in :math:`W` (row-major) is :math:`P \otimes
\phi\phi^\top` with :math:`P = \operatorname{diag}(p) - pp^\top`, whatever the label
(theorem ``thm-softmax-hessian``). Hence everything about the last layer is a
closed form of features and logits:

===========================  =====================================================
:func:`hessian_trace`        :math:`\|\phi\|^2 \operatorname{tr} P`
:func:`relative_sharpness`   :math:`\|W\|^2 \operatorname{Tr} H`, the book's kappa
:func:`relative_flatness`    :math:`\|\phi\|^2 \sum_j p_j \|w_j - \bar w\|^2`, Petzka
                             et al. (2021)
:func:`lambda_max`           largest eigenvalue of :math:`W^\top P W`
===========================  =====================================================

Networks made of affine maps, ReLU and pooling add no curvature of their own:
their Hessian in the input, or in the weights of one layer, is exactly
:math:`J^\top P J` with the Jacobian :math:`J` of the logits (theorem
``thm-piecewise-affine``), known from the Gram matrix of k - 1 backward passes:

===========================  =====================================================
:func:`input_hessian_trace`  trace in the input, at every sample
:func:`layer_hessian_traces` trace in the parameters of each layer
:func:`input_gram`,          the Gram matrices behind them: :func:`gram_trace` and
:func:`layer_grams`          :func:`gram_eigenvalues` for any scale of the head
:func:`hutchinson_trace`     an estimate with its error bar, for all other networks
===========================  =====================================================

>>> phi, z = torch.ones(1, 3), torch.zeros(1, 2)
>>> hessian_trace(phi, z).item()              # 3 * (1 - 1/2)
1.5
"""

import torch
from torch import Tensor

from flatbook._backwards import (
    Estimate,
    gram_eigenvalues,
    gram_trace,
    hutchinson_trace,
    input_gram,
    input_hessian_trace,
    layer_grams,
    layer_hessian_traces,
)
from flatbook._spectrum import eigenvalues
from flatbook.softmax import (
    check_features,
    check_weight,
    log_trace_p,
    trace_p,
)

__all__ = [
    "Estimate",
    "centred_rows",
    "gram_eigenvalues",
    "gram_trace",
    "hessian_trace",
    "hutchinson_trace",
    "input_gram",
    "input_hessian_trace",
    "lambda_max",
    "layer_grams",
    "layer_hessian_traces",
    "log_hessian_trace",
    "relative_flatness",
    "relative_sharpness",
]


def hessian_trace(features: Tensor, logits: Tensor) -> Tensor:
    r"""Trace of the Hessian in the head's weights.

    It is :math:`\|\phi\|^2 \operatorname{tr} P`, for either label (``cor-trace``).

    Args:
        features: (N, d).
        logits: (N, k).

    Returns:
        (N,), at least 0; 0 only where the type cannot hold the value.

    Raises:
        TypeError, ValueError: see :func:`flatbook.softmax.check_features`.
    """
    check_features(features, logits)
    return features.square().sum(1) * trace_p(logits)


def log_hessian_trace(features: Tensor, logits: Tensor) -> Tensor:
    r"""Logarithm of :func:`hessian_trace`, finite wherever the features are not 0.

    Args:
        features: (N, d).
        logits: (N, k).

    Returns:
        (N,). Confident networks reach -300 and below.
    """
    check_features(features, logits)
    return 2 * torch.linalg.vector_norm(features, dim=1).log() + log_trace_p(logits)


def relative_sharpness(
    weight: Tensor,
    features: Tensor,
    logits: Tensor,
    *,
    power: int = 2,
    norm: str = "fro",
) -> Tensor:
    r"""Relative sharpness :math:`\kappa = \|W\|^q \operatorname{Tr} H` of every sample.

    With ``power=2`` it does not change when a layer's scale moves into the next
    one (:math:`W \to sW`, :math:`\phi \to \phi/s`). ``power=1`` is equation (1) of
    Walter et al. (2025) as printed, which does.

    Args:
        weight: (k, d), the head.
        features: (N, d).
        logits: (N, k).
        power: 1 or 2.
        norm: ``"fro"`` (Frobenius) or ``"spectral"``.

    Returns:
        (N,).

    Raises:
        ValueError: any other power or norm, or shapes that do not fit.
    """
    check_head(weight, features, logits)
    if power not in (1, 2):
        raise ValueError(f"power must be 1 or 2, got {power!r}")
    if norm not in ("fro", "spectral"):
        raise ValueError(f'norm must be "fro" or "spectral", got {norm!r}')
    size = torch.linalg.matrix_norm(weight, "fro" if norm == "fro" else 2)
    return size**power * hessian_trace(features, logits)


def relative_flatness(weight: Tensor, features: Tensor, logits: Tensor) -> Tensor:
    r"""Petzka's relative flatness: the scatter of the head's rows, times ``|phi|**2``.

    .. math::
        \kappa_P = \sum_{s,s'} \langle w_s, w_{s'}\rangle \operatorname{Tr} H_{s,s'}
                 = \|\phi\|^2 \sum_j p_j \|w_j - \bar w\|^2,
        \qquad \bar w = \sum_j p_j w_j,

    the sum running over the blocks of the Hessian (Petzka et al., 2021).

    Args:
        weight: (k, d), the head.
        features: (N, d).
        logits: (N, k).

    Returns:
        (N,), at least 0.
    """
    check_head(weight, features, logits)
    scatter = centred_rows(weight, logits).square().sum(2)
    return features.square().sum(1) * (logits.softmax(1) * scatter).sum(1)


def lambda_max(weight: Tensor, logits: Tensor) -> Tensor:
    r"""Largest eigenvalue of :math:`W^\top P W`, the Hessian in the features.

    Taken from the k x k Gram matrix of the rows :math:`\sqrt{p_j}(w_j - \bar w)`,
    scaled so that saturated predictions neither underflow nor drown in the
    rounding of the confident row.

    Args:
        weight: (k, d), the head.
        logits: (N, k).

    Returns:
        (N,), at least 0.
    """
    check_weight(weight, logits)
    rows = centred_rows(weight, logits)
    log_size = logits.log_softmax(1) / 2 + torch.linalg.vector_norm(rows, dim=2).log()
    shift = log_size.amax(1, keepdim=True)
    shift = torch.where(torch.isfinite(shift), shift, 0.0)
    scaled = torch.nn.functional.normalize(rows, dim=2, eps=0.0).nan_to_num(0.0)
    scaled = scaled * (log_size - shift).exp()[:, :, None]
    top = eigenvalues(scaled @ scaled.mT)[:, -1]
    return top * (2 * shift[:, 0]).exp()


def centred_rows(weight: Tensor, logits: Tensor) -> Tensor:
    r"""Rows of the head seen from their mean, :math:`w_j - \bar w` for every sample.

    Computed from differences to the most probable row, so that the row of a
    confident class, :math:`\sum_j p_j (w_\text{top} - w_j)`, keeps its digits.

    Args:
        weight: (k, d).
        logits: (N, k).

    Returns:
        (N, k, d).
    """
    check_weight(weight, logits)
    top = logits.argmax(1)
    from_top = weight - weight[top][:, None, :]
    mean = (logits.softmax(1)[:, None, :] @ from_top)[:, 0]
    return from_top - mean[:, None, :]


def check_head(weight: Tensor, features: Tensor, logits: Tensor) -> None:
    """Refuse a head (k, d), features (N, d) and logits (N, k) that do not fit."""
    check_features(features, logits)
    check_weight(weight, logits)
    if weight.shape[1] != features.shape[1]:
        raise ValueError(
            f"weight (k, d) and features (N, d) must share d, got {weight.shape[1]} "
            f"and {features.shape[1]}"
        )
