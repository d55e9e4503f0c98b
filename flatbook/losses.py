r"""Losses beside cross-entropy, one value per sample, from logits.

Most of them are cross-entropy read through a curve. With :math:`x = -\log p_y`, the
cross-entropy of the true class, a loss of :math:`p_y` alone is some :math:`f(x)`:

====================================  ==========================================
:func:`focal`                         :math:`(1 - e^{-x})^\gamma\, x`
:func:`absolute_error`                :math:`2(1 - e^{-x})`
:func:`generalised_cross_entropy`     :math:`(1 - e^{-qx}) / q`
====================================  ==========================================

Where :math:`f` straightens, the loss flattens; where it levels off, so does the loss
(theorem ``thm-vertex-collapse`` of the book). Others ask for a soft target, or do not
know probabilities at all. Values are exact at confident predictions, right or wrong,
because :math:`1 - p_y = 1 - e^{-x}` is never a subtraction of rounded numbers. For
cross-entropy itself see :func:`flatbook.softmax.cross_entropy`.

>>> z, y = torch.tensor([[0.0, 30.0]]), torch.tensor([0])    # confident and wrong
>>> absolute_error(z, y).item(), brier(z, y).item()          # both have levelled off
(2.0, 2.0)
>>> focal(z, y, gamma=2.0).item()                            # this one has not
30.0
"""

from collections.abc import Callable

import torch
from torch import Tensor

from flatbook import _checks
from flatbook.softmax import (
    _cross_entropy,
    _log_odds,
    check_labels,
    check_logits,
    covariance,
    cross_entropy,
    one_minus,
)

__all__ = [
    "absolute_error",
    "brier",
    "check_target",
    "focal",
    "generalised_cross_entropy",
    "hessian_through",
    "kl_divergence",
    "label_smoothing",
    "logit_gradient",
    "logit_hessian",
    "reverse_kl",
    "squared_error",
    "squared_hinge",
    "temperature_scaled",
]

Loss = Callable[[Tensor, Tensor], Tensor]


# --- cross-entropy, softened ---------------------------------------------------


def check_target(logits: Tensor, target: Tensor) -> None:
    """Refuse a target that is not one probability vector (N, k) for each sample.

    Raises:
        TypeError: not a floating-point tensor, or not of the logits' type.
        ValueError: wrong shape, a negative entry, or a row that does not sum to 1.
    """
    check_logits(logits)
    if not isinstance(target, Tensor) or target.dtype != logits.dtype:
        got = getattr(target, "dtype", type(target).__name__)
        raise TypeError(f"target must be a tensor of {logits.dtype}, got {got}")
    if target.shape != logits.shape:
        want, got = tuple(logits.shape), tuple(target.shape)
        raise ValueError(f"target must have shape {want}, got {got}")
    if not (target >= 0).all():
        raise ValueError(f"target must be >= 0, got {target.min().item():g}")
    total = target.sum(1)
    wrong = ~((total - 1).abs() < 1e-4)
    if wrong.any():
        raise ValueError(f"target must sum to 1, got {total[wrong][0].item():g}")


def _log_p(logits: Tensor) -> Tensor:
    """Log-probabilities (N, k), exact also for the class that is nearly certain."""
    top = logits.argmax(1, keepdim=True)
    behind = logits - logits.gather(1, top)
    rest = behind.exp().scatter(1, top, 0.0).sum(1, keepdim=True)
    return behind - torch.log1p(rest)


def kl_divergence(logits: Tensor, target: Tensor) -> Tensor:
    r"""Divergence :math:`\mathrm{KL}(q\,\|\,p) = \sum_j q_j \log(q_j / p_j)`.

    It is the cross-entropy to the target minus the target's entropy, a constant. A
    one-hot target gives :func:`flatbook.softmax.cross_entropy`.

    Args:
        logits: (N, k).
        target: (N, k), rows >= 0 that sum to 1; zeros are allowed.

    Returns:
        (N,) in nats, 0 where p is the target.

    Raises:
        TypeError, ValueError: see :func:`check_target`.

    Example:
        >>> z = torch.tensor([[3.0, 1.0]], dtype=torch.float64).log()
        >>> kl_divergence(z, torch.tensor([[0.0, 1.0]], dtype=torch.float64)).exp()
        tensor([4.0000], dtype=torch.float64)
    """
    check_target(logits, target)
    return (torch.xlogy(target, target) - target * _log_p(logits)).sum(1)


def label_smoothing(logits: Tensor, labels: Tensor, *, smoothing: float) -> Tensor:
    r"""Cross-entropy to the target :math:`q = (1-\varepsilon)e_y + \varepsilon/k`.

    The optimum is :math:`p = q`, not certainty (Szegedy et al., 2016).

    Args:
        logits: (N, k).
        labels: (N,) integers in 0 .. k-1.
        smoothing: the share of the target that goes to all classes evenly, in [0, 1).

    Returns:
        (N,) in nats.

    Raises:
        TypeError, ValueError: labels or smoothing out of range, named.

    Example:
        >>> z, y = torch.zeros(1, 4, dtype=torch.float64), torch.tensor([2])
        >>> label_smoothing(z, y, smoothing=0.1).exp()       # at p = 1/4, any smoothing
        tensor([4.0000], dtype=torch.float64)
    """
    check_labels(logits, labels)
    _checks.number("smoothing", smoothing, 0, 1)
    spread = -_log_p(logits).mean(1)
    return (1 - smoothing) * cross_entropy(logits, labels) + smoothing * spread


def temperature_scaled(logits: Tensor, labels: Tensor, *, temperature: float) -> Tensor:
    """Cross-entropy of logits / temperature; no prediction changes.

    Args:
        logits: (N, k).
        labels: (N,) integers in 0 .. k-1.
        temperature: positive; 1 is plain cross-entropy, 1/s scales the head by s.

    Returns:
        (N,) in nats.

    Raises:
        TypeError, ValueError: labels or temperature out of range, named.
    """
    check_labels(logits, labels)
    _checks.positive("temperature", temperature)
    return cross_entropy(logits / temperature, labels)


# --- other losses of the probabilities --------------------------------------------


def focal(logits: Tensor, labels: Tensor, *, gamma: float) -> Tensor:
    r"""Focal loss :math:`-(1-p_y)^\gamma \log p_y` (Lin et al., 2017).

    Args:
        logits: (N, k).
        labels: (N,) integers in 0 .. k-1.
        gamma: at least 0; 0 is cross-entropy.

    Returns:
        (N,) in nats, at most the cross-entropy.

    Raises:
        TypeError, ValueError: labels or gamma out of range, named.

    Example:
        >>> z, y = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([0])
        >>> focal(z, y, gamma=2.0).item() * 4                # log 2
        0.693147...
    """
    check_labels(logits, labels)
    _checks.number("gamma", gamma)
    return _focal(logits, labels, gamma=gamma)


def _focal(logits: Tensor, labels: Tensor, *, gamma: float) -> Tensor:
    """Without checks, for training."""
    loss = _cross_entropy(logits, labels)
    log_doubt = _log_odds(logits, labels) - loss  # log(1 - p_y)
    return (gamma * log_doubt).exp() * loss


def absolute_error(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Mean absolute error :math:`\sum_i |p_i - \delta_{iy}| = 2(1 - p_y)`.

    Args:
        logits: (N, k).
        labels: (N,) integers in 0 .. k-1.

    Returns:
        (N,) in [0, 2].
    """
    return -2 * torch.expm1(-cross_entropy(logits, labels))


def generalised_cross_entropy(logits: Tensor, labels: Tensor, *, q: float) -> Tensor:
    r"""Generalised cross-entropy :math:`(1 - p_y^q) / q` (Zhang and Sabuncu, 2018).

    Args:
        logits: (N, k).
        labels: (N,) integers in 0 .. k-1.
        q: positive; q = 1 is half of :func:`absolute_error`, small q cross-entropy.

    Returns:
        (N,) in [0, 1/q].

    Raises:
        TypeError, ValueError: labels or q out of range, named.

    Example:
        >>> z, y = torch.tensor([[3.0, 1.0]]).log(), torch.tensor([1])   # p_y = 1/4
        >>> generalised_cross_entropy(z, y, q=0.5)
        tensor([1.])
    """
    _checks.positive("q", q)
    return -torch.expm1(-q * cross_entropy(logits, labels)) / q


def brier(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Brier score :math:`\sum_i (p_i - \delta_{iy})^2` (Brier, 1950).

    Args:
        logits: (N, k).
        labels: (N,) integers in 0 .. k-1.

    Returns:
        (N,) in [0, 2].
    """
    check_labels(logits, labels)
    return _brier(logits, labels)


def _brier(logits: Tensor, labels: Tensor) -> Tensor:
    """Without checks, for training."""
    doubt = -torch.expm1(-_cross_entropy(logits, labels))
    others = logits.softmax(1).scatter(1, labels.long()[:, None], 0.0)
    return doubt.square() + others.square().sum(1)


def reverse_kl(logits: Tensor, target: Tensor) -> Tensor:
    r"""Reverse divergence :math:`\mathrm{KL}(p\,\|\,q) = \sum_j p_j \log(p_j / q_j)`.

    Args:
        logits: (N, k).
        target: (N, k), rows > 0 that sum to 1.

    Returns:
        (N,) in nats, at most :math:`-\log\min_j q_j`.

    Raises:
        TypeError, ValueError: see :func:`check_target`; or a target entry of 0, which
            would make the loss infinite everywhere.

    Example:
        >>> q = torch.tensor([[0.5, 0.5]])
        >>> reverse_kl(torch.tensor([[90.0, 0.0]]), q).exp()
        tensor([2.])
    """
    check_target(logits, target)
    if not (target > 0).all():
        raise ValueError("target must be > 0 in every class, got 0")
    return (logits.softmax(1) * (_log_p(logits) - target.log())).sum(1)


# --- losses of the logits themselves ---------------------------------------------


def squared_hinge(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Squared hinge loss :math:`\sum_{j\ne y} \max(0,\, 1 + z_j - z_y)^2`.

    Args:
        logits: (N, k).
        labels: (N,) integers in 0 .. k-1.

    Returns:
        (N,), 0 where every margin is at least 1.

    Example:
        >>> squared_hinge(torch.tensor([[2.0, 0.0, 3.0]]), torch.tensor([0]))
        tensor([4.])
    """
    check_labels(logits, labels)
    index = labels.long()[:, None]
    short = (1 + logits - logits.gather(1, index)).clamp_min(0)
    return short.scatter(1, index, 0.0).square().sum(1)


def squared_error(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Squared error on logits, :math:`\frac12 \|z - e_y\|^2`.

    Args:
        logits: (N, k).
        labels: (N,) integers in 0 .. k-1.

    Returns:
        (N,), at least 0.
    """
    check_labels(logits, labels)
    return _squared_error(logits, labels)


def _squared_error(logits: Tensor, labels: Tensor) -> Tensor:
    """Without checks, for training."""
    one_hot = torch.zeros_like(logits).scatter(1, labels.long()[:, None], 1.0)
    return (logits - one_hot).square().sum(1) / 2


# --- derivatives in the logits -------------------------------------------------------


def _derivatives(
    loss: Loss, logits: Tensor, labels: Tensor, *, create_graph: bool
) -> tuple[Tensor, Tensor]:
    """Logits as a leaf, and the gradient of each sample's loss in them."""
    leaf = logits.detach().clone().requires_grad_()
    with torch.enable_grad():
        values = loss(leaf, labels)
        if not isinstance(values, Tensor) or values.shape != leaf.shape[:1]:
            got = getattr(values, "shape", type(values).__name__)
            raise ValueError(f"loss must give one value per sample, got {got}")
        if not values.requires_grad:
            return leaf, torch.zeros_like(leaf)
        (slope,) = torch.autograd.grad(values.sum(), leaf, create_graph=create_graph)
    return leaf, slope


def logit_gradient(loss: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    """Gradient of each sample's loss in its logits, by automatic differentiation.

    Args:
        loss: (logits (N, k), labels or target) -> (N,), no sample touching another.
        logits: (N, k).
        labels: whatever the loss takes: (N,) labels or an (N, k) target.

    Returns:
        (N, k).

    Raises:
        ValueError: the loss does not give N values.

    Example:
        >>> logit_gradient(cross_entropy, torch.zeros(1, 2), torch.tensor([0]))
        tensor([[-0.5000,  0.5000]])
    """
    check_logits(logits)
    return _derivatives(loss, logits, labels, create_graph=False)[1].detach()


def logit_hessian(loss: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    """Hessian of each sample's loss in its logits, by automatic differentiation.

    One backward pass for each class. Entries are exact to the rounding error of the
    type, an absolute one: 1e-16 in float64. Where smaller values matter use
    :func:`flatbook.softmax.covariance` or :func:`hessian_through`.

    Args:
        loss: (logits (N, k), labels or target) -> (N,), no sample touching another.
            A loss with parameters needs them bound first, as by `functools.partial`.
        logits: (N, k).
        labels: whatever the loss takes: (N,) labels or an (N, k) target.

    Returns:
        (N, k, k).

    Raises:
        ValueError: the loss does not give N values.

    Example:
        >>> logit_hessian(cross_entropy, torch.zeros(1, 2), torch.tensor([0]))
        tensor([[[ 0.2500, -0.2500],
                 [-0.2500,  0.2500]]])
    """
    check_logits(logits)
    leaf, slope = _derivatives(loss, logits, labels, create_graph=True)
    if not slope.requires_grad:
        return torch.zeros(*logits.shape, logits.shape[1]).to(logits)
    with torch.enable_grad():
        totals = slope.sum(0).unbind()
    rows = [torch.autograd.grad(t, leaf, retain_graph=True)[0] for t in totals]
    return torch.stack(rows, 1)


def hessian_through(
    f: Callable[[Tensor], Tensor], logits: Tensor, labels: Tensor
) -> Tensor:
    r"""Hessian of :math:`f(-\log p_y)` in the logits, in closed form.

    .. math::
        H_z = f''(x)\,(p - e_y)(p - e_y)^\top + f'(x)\,P, \qquad x = -\log p_y

    (theorem ``thm-vertex-collapse``). A loss :math:`\psi(p_y)` has :math:`f(x) =
    \psi(e^{-x})`, so :math:`f' = -\pi\psi'` and :math:`f'' = \pi^2\psi'' + \pi\psi'`
    at :math:`\pi = p_y`. Both derivatives of f are taken by automatic
    differentiation, the rest keeps all its digits at confident predictions.

    Args:
        f: a smooth function of one number, applied elementwise: (N,) -> (N,).
        logits: (N, k).
        labels: (N,) integers in 0 .. k-1.

    Returns:
        (N, k, k).

    Raises:
        TypeError, ValueError: labels out of range, or f changes the shape.

    Example:
        >>> z, y = torch.tensor([[0.0, 50.0]]), torch.tensor([0])
        >>> hessian_through(torch.square, z, y)              # (log p_y)^2 stays curved
        tensor([[[ 2., -2.],
                 [-2.,  2.]]])
    """
    x = cross_entropy(logits, labels).detach().requires_grad_()
    with torch.enable_grad():
        values = f(x)
        if not isinstance(values, Tensor) or values.shape != x.shape:
            got = getattr(values, "shape", type(values).__name__)
            raise ValueError(f"f must keep the shape {tuple(x.shape)}, got {got}")
        first = _slope(values, x)
        second = _slope(first, x)
    index = labels.long()[:, None]
    away = logits.softmax(1).scatter(1, index, -one_minus(logits).gather(1, index))
    outer = away[:, :, None] * away[:, None, :]
    first, second = first.detach()[:, None, None], second.detach()[:, None, None]
    return second * outer + first * covariance(logits)


def _slope(values: Tensor, x: Tensor) -> Tensor:
    """Elementwise derivative; 0 where the values do not depend on x."""
    if not values.requires_grad:
        return torch.zeros_like(x)
    (slope,) = torch.autograd.grad(values.sum(), x, create_graph=True)
    return slope
