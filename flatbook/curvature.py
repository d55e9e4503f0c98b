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
:math:`J^\top P J` with the Jacobian :math:`J` of the logits. Its trace costs one
vector-Jacobian product per class.

>>> phi, z = torch.ones(1, 3), torch.zeros(1, 2)
>>> hessian_trace(phi, z).item()              # 3 * (1 - 1/2)
1.5
"""

import torch
from torch import Tensor, nn

from flatbook.softmax import (
    check_features,
    check_weight,
    log_trace_p,
    trace_p,
)

__all__ = [
    "centred_rows",
    "hessian_trace",
    "input_hessian_trace",
    "lambda_max",
    "layer_hessian_traces",
    "log_hessian_trace",
    "relative_flatness",
    "relative_sharpness",
]

PIECEWISE_AFFINE = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.ReLU,
    nn.LeakyReLU,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.Flatten,
    nn.Unflatten,
    nn.Dropout,
    nn.Identity,
)


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
    gram = scaled @ scaled.mT
    top = torch.linalg.eigvalsh(gram)[:, -1].clamp_min(0)
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


def _check_piecewise_affine(model: nn.Module) -> None:
    """Refuse a model whose Hessian is not J^T P J."""
    for name, module in model.named_modules():
        if next(module.children(), None) is not None:
            continue
        kind = type(module).__name__
        batch_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if module.training and (batch_norm or isinstance(module, nn.Dropout)):
            raise ValueError(f"{name or kind}: {kind} in train mode; call model.eval()")
        own = getattr(module, "piecewise_affine", False)
        if not (own or isinstance(module, PIECEWISE_AFFINE)):
            raise ValueError(
                f"{name or kind}: {kind} is not piecewise affine, so the Hessian is "
                "not J^T P J; use affine layers, ReLU, pooling and BatchNorm"
            )


def _check_input(x: Tensor) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = getattr(x, "dtype", type(x).__name__)
        raise TypeError(f"x must be a floating-point tensor (N, ...), got {got}")
    if x.ndim < 2 or not len(x):
        raise ValueError(f"x must have shape (N, ...), N > 0, got {tuple(x.shape)}")
    if not torch.isfinite(x).all():
        raise ValueError("x must be finite, got NaN or infinity")


def _contract(logits: Tensor, products: list[Tensor]) -> Tensor:
    r"""Trace of :math:`J^\top P J` from the k rows of J, each (N, ...)."""
    rows = torch.stack([g.flatten(1) for g in products], 1)
    top = logits.argmax(1)[:, None, None].expand(-1, 1, rows.shape[2])
    from_top = rows - rows.gather(1, top)
    p = logits.softmax(1)
    mean = (p[:, None, :] @ from_top)[:, 0]
    return (p * (from_top - mean[:, None]).square().sum(2)).sum(1)


def input_hessian_trace(model: nn.Module, x: Tensor) -> Tensor:
    r"""Exact trace of the Hessian of cross-entropy in the input, at every sample.

    For piecewise-affine networks in eval mode it is :math:`\sum_j p_j
    \|\nabla_x z_j - \sum_i p_i \nabla_x z_i\|^2`, whatever the label: one forward
    and k backward passes, k times the memory of the input.

    Args:
        model: maps (N, ...) to logits (N, k); samples must not mix (eval mode).
        x: (N, ...), floating point.

    Returns:
        (N,), detached.

    Raises:
        ValueError: a module of the model is not piecewise affine, or BatchNorm or
            dropout is in train mode.
    """
    _check_piecewise_affine(model)
    _check_input(x)
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        logits = model(x)
        products = [
            torch.autograd.grad(z.sum(), x, retain_graph=True)[0] for z in logits.mT
        ]
    return _contract(logits.detach(), products)


def layer_hessian_traces(
    model: nn.Module, x: Tensor, *, chunk_size: int = 16
) -> dict[str, Tensor]:
    r"""Exact trace of the Hessian in the parameters of every layer, at every sample.

    Each block is :math:`J_l^\top P J_l`, as for the input. Weight and bias of a layer
    are summed into one trace.

    Args:
        model: maps (N, ...) to logits (N, k), piecewise affine, in eval mode.
        x: (N, ...), floating point.
        chunk_size: samples at once; memory is chunk_size * k * parameters.

    Returns:
        Module name -> (N,), in the order of ``model.named_parameters()``.

    Raises:
        ValueError: see :func:`input_hessian_trace`.
    """
    _check_piecewise_affine(model)
    _check_input(x)
    parameters = {n: p.detach() for n, p in model.named_parameters()}

    def logits_of(params: dict[str, Tensor], image: Tensor) -> tuple[Tensor, Tensor]:
        z = torch.func.functional_call(model, params, (image[None],))[0]
        return z, z

    jacobian = torch.func.vmap(
        torch.func.jacrev(logits_of, has_aux=True), (None, 0), chunk_size=chunk_size
    )
    traces: dict[str, Tensor] = {}
    for part in x.split(chunk_size):
        rows, logits = jacobian(parameters, part)
        sums: dict[str, Tensor] = {}
        for name, j in rows.items():
            layer = name.rpartition(".")[0]
            trace = _contract(logits, list(j.flatten(2).unbind(1)))
            sums[layer] = sums[layer] + trace if layer in sums else trace
        traces = {
            n: torch.cat([traces[n], t]) if traces else t for n, t in sums.items()
        }
    return traces
