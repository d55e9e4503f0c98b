r"""Every scale of the head from one pass of features.

Multiplying the head, weight and bias, by :math:`s > 0` multiplies the logits by
:math:`s` and leaves the features alone. So one forward pass gives the loss and the
sharpness at all scales: no network runs again (proposition ``prop-scaling``). The
largest sharpness over all scales cannot be changed by scaling
(:func:`peak_sharpness`).

Along an attack the same pass gives the *basin* under every scale: how far the path goes
before the loss takes off (:func:`take_off`, proposition ``prop-take-off``).

>>> logits, labels = torch.tensor([[3.0, 0.0]]), torch.tensor([0])
>>> losses(logits, labels, [0.0, 1.0, 10.0])[:, 0].log()  # about -3 s
tensor([ -0.3665,  -3.0244, -30.0000])
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from flatbook.curvature import check_head, log_hessian_trace
from flatbook.softmax import check_labels, cross_entropy

__all__ = [
    "crossing",
    "log_sharpness",
    "losses",
    "multiple_of_start",
    "peak_sharpness",
    "share_of_rise",
    "take_off",
]

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


def peak_sharpness(
    weight: Tensor, features: Tensor, logits: Tensor, *, points: int = 128
) -> Tensor:
    r"""Largest relative flatness over all scales of the head.

    .. math::
        \kappa_P^\star = \|\phi\|^2 \max_{s > 0}\,
        s^2 \sum_{i<j} p_i(s)\, p_j(s)\, \|w_i - w_j\|^2,
        \qquad p(s) = \operatorname{softmax}(sz).

    Scaling weight and bias does not change it, and up to constants it is the squared
    inverse of the relative flip radius (theorem ``thm-peak-sharpness``). The peak lies
    between :math:`s = 1/m_{\max}` and :math:`s = (2 + 2\log k)/m_{\min}`, with the
    largest and the smallest distance of a logit from the first. There may be several
    humps: the best of a grid is refined by golden section.

    Args:
        weight: (k, d), the head.
        features: (N, d).
        logits: (N, k), bias included.
        points: scales on the grid, at least 3, spaced evenly in log s.

    Returns:
        (N,), infinity where the first place is tied. Never above the true peak (up to
        rounding), and below it only if a hump falls between two points of the grid.

    Raises:
        TypeError, ValueError: shapes or values out of range, named.

    Example:
        >>> W, phi = torch.eye(2), torch.tensor([[3.0, 0.0]])
        >>> peaks = [peak_sharpness(s * W, phi, s * phi @ W.T) for s in (1.0, 50.0)]
        >>> [round(peak.item(), 4) for peak in peaks]  # 0.4392 (|phi| / flip radius)^2
        [0.8785, 0.8785]
    """
    check_head(weight, features, logits)
    if points < 3:
        raise ValueError(f"points must be at least 3, got {points}")
    top = logits.argmax(1, keepdim=True)
    gaps = logits.gather(1, top) - logits
    least = gaps.scatter(1, top, torch.inf).amin(1)
    tied = least == 0
    gaps, least = gaps.masked_fill(tied[:, None], 1.0), least.masked_fill(tied, 1.0)
    exact = "donot_use_mm_for_euclid_dist"
    squares = torch.cdist(weight, weight, compute_mode=exact).square()

    def scatter(log_s: Tensor) -> Tensor:
        p = (-log_s.exp()[:, None] * gaps).softmax(1)
        return (2 * log_s).exp() * ((p @ squares) * p).sum(1) / 2

    low = -gaps.amax(1).log()
    high = math.log(2 + 2 * math.log(gaps.shape[1])) - least.log()
    step = (high - low) / (points - 1)
    grid = torch.stack([scatter(low + i * step) for i in range(points)])
    middle = low + grid.argmax(0) * step
    best = _golden(scatter, middle - step, middle + step)
    peak = features.square().sum(1) * torch.maximum(best, grid.amax(0))
    return torch.where(tied, torch.inf, peak)


def _golden(function: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> Tensor:
    """Largest value of a function with one hump between low and high, elementwise."""
    share = (math.sqrt(5) - 1) / 2
    for _ in range(30):
        left, right = high - share * (high - low), low + share * (high - low)
        rising = function(left) < function(right)
        low, high = torch.where(rising, left, low), torch.where(rising, high, right)
    return function((low + high) / 2)


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


# --- how far a path stays in its basin ---------------------------------------------


def crossing(values: Tensor, level: float | Tensor) -> Tensor:
    """First step at which a quantity reaches a level, straight between two steps.

    Args:
        values: (T + 1, ...), the quantity at steps 0 .. T; infinities are allowed.
        level: a finite number, or a tensor of the shape of ``values[0]``.

    Returns:
        (...) in [0, T], 0 where it starts at or above the level, infinity where it
        never gets there: the path is then too short to say (censored).

    Raises:
        ValueError: values without steps, NaN, or a level that is not finite or has
            another shape.

    Example:
        >>> crossing(torch.tensor([0.0, 1.0, 5.0]), 2.0)
        tensor(1.2500)
    """
    target = _level("level", level, values)
    reached = values >= target
    after = reached.int().argmax(0, keepdim=True)
    before = (after - 1).clamp_min(0)
    high, low = values.gather(0, after)[0], values.gather(0, before)[0]
    inside = (after[0] > 0) & low.isfinite() & high.isfinite()
    span = torch.where(inside, high - low, 1)
    behind = torch.where(inside, (high - target) / span, 0)
    return torch.where(reached.any(0), after[0] - behind, torch.inf)


def take_off(losses: Tensor, rise: float | Tensor) -> Tensor:
    r"""First step at which cross-entropy exceeds its start by a given rise.

    Between two steps the log-odds :math:`\Lambda = \log(e^\ell - 1)` is taken to be
    straight, not the loss: under a large scale the loss has a sharp bend there, the
    log-odds has none. A loss that underflowed counts as the smallest positive number.

    Args:
        losses: (T + 1, ...), cross-entropy at steps 0 .. T, at least 0.
        rise: a finite number of nats >= 0, or a tensor of the shape of ``losses[0]``.

    Returns:
        (...) in [0, T], infinity where the loss never rises that much.

    Raises:
        ValueError: no steps, NaN, a negative loss or rise, or another shape.

    Example:
        >>> logits = torch.tensor([[4.0, 0.0], [2.0, 0.0], [-2.0, 0.0]])  # flips at 1.5
        >>> y = torch.zeros(3, dtype=torch.int64)
        >>> [round(take_off(l, 0.1).item(), 2) for l in losses(logits, y, [1.0, 10.0])]
        [0.96, 1.44]
    """
    extra = _level("rise", rise, losses)
    if not (losses >= 0).all() or not (extra >= 0).all():
        low = min(losses.min().item(), extra.min().item())
        raise ValueError(f"losses and rise must be >= 0, got {low}")
    return crossing(_odds(losses), _odds(losses[0] + extra))


def share_of_rise(losses: Tensor, share: float) -> Tensor:
    """First step at which the loss has done a share of its whole rise on the path.

    This is where the normalised loss, 0 at the start and 1 at its maximum, reaches
    the share. It depends on where the path ends: on a path that stays in its basin it
    marks a share of nearly nothing.

    Args:
        losses: (T + 1, ...), at least 0.
        share: in (0, 1).

    Returns:
        (...) in [0, T], infinity where the loss never rises.

    Raises:
        ValueError: see :func:`take_off`; or a share out of range.
    """
    if not 0 < share < 1:
        raise ValueError(f"share must lie in (0, 1), got {share}")
    rise = (losses.amax(0) - losses[0]).clamp_min(0)
    return torch.where(rise > 0, take_off(losses, share * rise), torch.inf)


def multiple_of_start(losses: Tensor, factor: float) -> Tensor:
    """First step at which the loss is a multiple of what it was at the start.

    Args:
        losses: (T + 1, ...), at least 0.
        factor: finite, at least 1.

    Returns:
        (...) in [0, T], infinity where it never is.

    Raises:
        ValueError: see :func:`take_off`; or a factor out of range.
    """
    if not 1 <= factor < math.inf:
        raise ValueError(f"factor must be finite and at least 1, got {factor}")
    return take_off(losses, (factor - 1) * losses[0])


def _odds(losses: Tensor) -> Tensor:
    """The log-odds of cross-entropies; of 0 those of the smallest positive number."""
    held = losses.clamp_min(torch.finfo(losses.dtype).tiny)
    return held + (-torch.expm1(-held)).log()


def _level(name: str, level: float | Tensor, values: Tensor) -> Tensor:
    """A level as a tensor of the shape of one step."""
    if values.ndim < 1 or not len(values):
        raise ValueError(f"expected values (T + 1, ...), got {tuple(values.shape)}")
    if values.isnan().any():
        raise ValueError("the path must not contain NaN")
    target = torch.as_tensor(level, dtype=values.dtype, device=values.device)
    if target.ndim and target.shape != values.shape[1:]:
        want, got = tuple(values.shape[1:]), tuple(target.shape)
        raise ValueError(f"{name} must be a number or have shape {want}, got {got}")
    if not target.isfinite().all():
        raise ValueError(f"{name} must be finite, got {target.sum().item()}")
    return target.expand(values.shape[1:])
