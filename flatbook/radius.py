r"""How far features may move before the loss rises or the prediction flips.

A head with rows :math:`w_j`, logits :math:`z` and true label :math:`y` gives, for a
move of the features by at most :math:`\rho`, four upper bounds on the increase of
cross-entropy, valid at every point and for every head. The cubic one is theorem
``thm-loss-cubic`` of the book; the others, ``thm-three-bounds``, rest on Popoviciu's
inequality (1935), on Bennett's (1962), and on bounding the loss term by term. With
:math:`\Gamma_j = \|w_j - w_y\|`, :math:`\Gamma = \max_{a,b}\|w_a - w_b\|`,
:math:`c = \|\nabla_\phi \ell\|`, :math:`\lambda = \lambda_{\max}(W^\top P W)`:

=============  ==================================================================
``cubic``      :math:`c\rho + \frac\lambda2\rho^2 + \frac{\Gamma^3}{36\sqrt3}\rho^3`
``quadratic``  :math:`c\rho + \frac18\Gamma^2\rho^2`
``bennett``    :math:`c\rho + B(\lambda\rho^2, c_1\rho)`, Bennett's two-point bound,
               :math:`c_1 = \max_j\|w_j - \bar w\|`
``union``      :math:`\log\sum_j p_j e^{\rho\Gamma_j}`, exact for two classes
``best``       the smallest of the four
=============  ==================================================================

Solving a bound for :math:`\rho` gives a radius; the cubic one is
:func:`cubic_radius`, a closed form that keeps every digit where the textbook formula
loses all of them (``thm-cubic-radius``). :func:`flip_radius` is exact, needs no loss at
all and does not change when the head is scaled.

>>> round(cubic_radius(0.1, 0.0, 0.5, 1 / 12), 4)  # 0.1 = D^2/2 + D^3/12
0.4319
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import torch
from torch import Tensor

from flatbook.curvature import centred_rows, lambda_max
from flatbook.softmax import check_labels, check_weight, cross_entropy

__all__ = [
    "BOUNDS",
    "bound_coefficients",
    "certified_radius",
    "cubic_radius",
    "flip_radius",
    "flip_radius_from_flatness",
    "loss_increase_bounds",
    "loss_radius",
]

BOUNDS = ("cubic", "quadratic", "bennett", "union")
THIRD_CUMULANT = 1 / (6 * math.sqrt(3))  # largest |third cumulant| on [0, 1]

Number = float | Tensor


# --- the cubic --------------------------------------------------------------


@overload
def cubic_radius(  # type: ignore[overload-overlap]
    eps: float, c: float, b: float, a: float
) -> float: ...
@overload
def cubic_radius(eps: Number, c: Number, b: Number, a: Number) -> Tensor: ...
def cubic_radius(eps: Number, c: Number, b: Number, a: Number) -> Number:
    r"""The positive root D of :math:`cD + bD^2 + aD^3 = \epsilon`.

    Theorem ``thm-cubic-radius`` of the book. The unknown is scaled by a power of two,
    so the coefficients become numbers of order one without a rounding error; the
    reciprocal :math:`1/D` then solves a cubic whose Cardano (cosh) and trigonometric
    (cos) branches only add non-negative terms; two Newton steps remove the last ulp.

    Args:
        eps: right-hand side, >= 0.
        c: linear coefficient, >= 0.
        b: quadratic coefficient, >= 0.
        a: cubic coefficient, >= 0. All broadcast together.

    Returns:
        A float for four numbers, else a tensor: 0 where ``eps`` is 0 (and some
        coefficient is not), infinity where all coefficients are 0.

    Raises:
        TypeError: neither numbers nor floating-point tensors.
        ValueError: a negative, infinite or NaN value, named.

    Example:
        >>> cubic_radius(torch.tensor([1.0, 8.0]), 0.0, 0.0, 1.0)
        tensor([1., 2.])
    """
    values = _coefficients(eps=eps, c=c, b=b, a=a)
    root = _cubic_root(*values)
    if any(isinstance(v, Tensor) for v in (eps, c, b, a)):
        return root
    return root.item()


def _cubic_root(eps: Tensor, c: Tensor, b: Tensor, a: Tensor) -> Tensor:
    """The root for checked tensors of one shape."""
    *scaled, exponent = _scale(eps, c, b, a)
    root = _times_power(_unit_root(*scaled), exponent)
    root = torch.where(eps == 0, 0.0, root)
    return torch.where((c == 0) & (b == 0) & (a == 0), torch.inf, root)


def _times_power(x: Tensor, exponent: Tensor) -> Tensor:
    """Return x * 2**exponent; two factors, so that neither leaves the range."""
    half = torch.div(exponent, 2, rounding_mode="floor")
    return x * torch.exp2(half.to(x.dtype)) * torch.exp2((exponent - half).to(x.dtype))


def _coefficients(**values: Number) -> list[Tensor]:
    """Broadcast float tensors from numbers and tensors, all finite and >= 0."""
    for name, value in values.items():
        if isinstance(value, Tensor):
            if not value.is_floating_point():
                raise TypeError(f"{name} must be floating point, got {value.dtype}")
        elif isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{name} must be a number or a tensor, got {value!r}")
    given = [v for v in values.values() if isinstance(v, Tensor)]
    dtype = torch.float64
    for i, v in enumerate(given):
        dtype = torch.promote_types(dtype, v.dtype) if i else v.dtype
    device = given[0].device if given else None
    tensors = [torch.as_tensor(v, dtype=dtype, device=device) for v in values.values()]
    for name, t in zip(values, tensors, strict=True):
        if not (torch.isfinite(t) & (t >= 0)).all():
            bad = t[~(torch.isfinite(t) & (t >= 0))].flatten()[0].item()
            raise ValueError(f"{name} must be finite and >= 0, got {bad}")
    return list(torch.broadcast_tensors(*tensors))


def _scale(
    eps: Tensor, c: Tensor, b: Tensor, a: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """C, B, A of order one and e with D = 2^e x, Cx + Bx^2 + Ax^3 = 1; exact."""
    m_eps, e_eps = torch.frexp(eps)
    parts = [torch.frexp(v) for v in (c, b, a)]
    far = torch.iinfo(torch.int32).max // 4
    guesses = [
        torch.where(m == 0, far, torch.div(e_eps - e, n, rounding_mode="floor"))
        for n, (m, e) in enumerate(parts, start=1)
    ]
    exponent = torch.stack(guesses).amin(0)
    exponent = torch.where((exponent == far) | (m_eps == 0), 0, exponent)
    lowest = -100 if eps.dtype == torch.float32 else -1000
    ratio = m_eps.clamp_min(0.5)
    scaled = [
        _times_power(m / ratio, (e - e_eps + n * exponent).clamp_min(lowest))
        for n, (m, e) in enumerate(parts, start=1)
    ]
    return scaled[0], scaled[1], scaled[2], exponent


def _unit_root(c: Tensor, b: Tensor, a: Tensor) -> Tensor:
    """Root of cx + bx^2 + ax^3 = 1 for coefficients of order one, not all 0."""
    g = b / 3 + (c / 3).square()
    h = a / 2 + b * c / 6 + (c / 3) ** 3
    g32 = g * g.sqrt()
    one_real = h >= g32
    u = (h + (h.square() - g32.square()).clamp_min(0).sqrt()).pow(1 / 3)
    cosh = u + g / torch.where(u > 0, u, 1.0)
    theta = torch.where(g32 > 0, h / torch.where(g32 > 0, g32, 1.0), 1.0)
    cos = 2 * g.sqrt() * torch.cos(torch.acos(theta.clamp(0, 1)) / 3)
    x = 1 / (c / 3 + torch.where(one_real, cosh, cos))
    for _ in range(2):
        value = ((a * x + b) * x + c) * x - 1
        x = x - value / ((3 * a * x + 2 * b) * x + c)
    return x


# --- bounds on the loss increase --------------------------------------------


def bound_coefficients(
    weight: Tensor, logits: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Coefficients (c, b, a) of the cubic bound in the feature distance.

    Theorem ``thm-loss-cubic`` of the book:
    :math:`c = \|\sum_{j\ne y} p_j (w_j - w_y)\|`, :math:`b = \lambda/2`,
    :math:`a = \Gamma^3 / (36\sqrt3)`.

    Args:
        weight: (k, d), the head.
        logits: (N, k).
        labels: (N,) integers in 0 .. k-1.

    Returns:
        Three tensors (N,), all >= 0, for :func:`cubic_radius`.
    """
    _check(weight, logits, labels)
    head = _Head(weight, logits, labels)
    return head.slope, head.largest / 2, head.cubic.expand_as(head.slope)


def loss_increase_bounds(
    weight: Tensor, logits: Tensor, labels: Tensor, rho: Number
) -> dict[str, Tensor]:
    r"""Upper bounds on :math:`\max_{\|v\|\le\rho} \ell(\phi+v) - \ell(\phi)`.

    Theorems ``thm-loss-cubic`` and ``thm-three-bounds`` of the book. ``union`` is at
    most :math:`\log(k - 1)` above the maximum, and equal to it for two classes.

    Args:
        weight: (k, d), the head.
        logits: (N, k).
        labels: (N,) integers in 0 .. k-1.
        rho: feature distance >= 0, a number or (N,).

    Returns:
        ``cubic``, ``quadratic``, ``bennett``, ``union`` and ``best``, their minimum;
        each (N,).

    Raises:
        TypeError, ValueError: shapes, labels or values out of range, named.

    Example:
        >>> W, z, y = torch.eye(2), torch.zeros(1, 2), torch.tensor([0])
        >>> bounds = loss_increase_bounds(W, z, y, 2**0.5)  # exact: log((1+e^2)/2)
        >>> [f"{name} {bound.item():.3f}" for name, bound in bounds.items()]
        ['cubic 1.628', 'quadratic 1.500', 'bennett 1.434', 'union 1.434', 'best 1.434']
    """
    rho = _distance("rho", rho, weight, logits, labels)
    head = _Head(weight, logits, labels)
    bounds = {
        "cubic": ((head.cubic * rho + head.largest / 2) * rho + head.slope) * rho,
        "quadratic": (head.diameter.square() / 8 * rho + head.slope) * rho,
        "bennett": head.bennett(rho),
        "union": _softplus(head.log_excess(rho)),
    }
    bounds["best"] = torch.stack(list(bounds.values())).amin(0)
    return bounds


@dataclass(frozen=True, eq=False)
class _Head:
    """A checked head at N samples: what the bounds share, computed once, if at all."""

    weight: Tensor
    logits: Tensor
    labels: Tensor

    @cached_property
    def slope(self) -> Tensor:
        """(N,) norm of the gradient in the features."""
        from_true = self.weight - self.weight[self.labels.long()][:, None, :]
        slope = (self.logits.softmax(1)[:, None, :] @ from_true)[:, 0]
        size = slope.abs().amax(1, keepdim=True)
        unit = slope / torch.where(size > 0, size, 1.0)
        return torch.linalg.vector_norm(unit, dim=1) * size[:, 0]

    @cached_property
    def largest(self) -> Tensor:
        """(N,) largest curvature in the features."""
        return lambda_max(self.weight, self.logits)

    @cached_property
    def reach(self) -> Tensor:
        """(N,) largest distance of a row from the mean row."""
        rows = centred_rows(self.weight, self.logits)
        return torch.linalg.vector_norm(rows, dim=2).amax(1)

    @cached_property
    def diameter(self) -> Tensor:
        """() largest distance of two rows."""
        return _pair_distances(self.weight).amax()

    @property
    def cubic(self) -> Tensor:
        """() coefficient of the cubic bound."""
        return self.diameter**3 * (THIRD_CUMULANT / 6)

    @cached_property
    def others(self) -> tuple[Tensor, Tensor]:
        """(N, k) log-probability (-inf at y) and distance from w_y of every row."""
        index = self.labels.long()[:, None]
        log_mass = self.logits.log_softmax(1).scatter(1, index, -torch.inf)
        return log_mass, _pair_distances(self.weight)[self.labels.long()]

    def bennett(self, rho: Tensor) -> Tensor:
        """Bennett's bound at distances (N,)."""
        excess = _bennett(self.largest * rho.square(), self.reach * rho)
        return self.slope * rho + excess

    def log_excess(self, rho: Tensor) -> Tensor:
        r""":math:`\log \sum_{j\ne y} p_j (e^{\rho\Gamma_j} - 1)`; union's exp - 1."""
        log_mass, gamma = self.others
        return (log_mass + _log_expm1(rho[:, None] * gamma)).logsumexp(1)


def _bennett(variance: Tensor, reach: Tensor) -> Tensor:
    r"""Largest :math:`\log E e^{X - EX}` with variance <= V and X - EX <= h."""
    h = reach.clamp_min(torch.finfo(reach.dtype).tiny)
    # below the range of the type: the bound grows with V, so rounding up is safe
    v_h = (variance / h).clamp_min(torch.finfo(h.dtype).tiny)
    q = v_h / (h + v_h)  # the mass at h; the rest of it is at -V/h
    log_q = v_h.log() - (h + v_h).log()
    large = torch.logaddexp(-torch.log1p(v_h / h) - v_h, log_q + h)
    mean = (1 - q) * v_h.square() * _phi2(-v_h) + q * h.square() * _phi2(h.clamp_max(1))
    return torch.where(h > 1, large, torch.log1p(mean)).clamp_min(0)


def _phi2(x: Tensor) -> Tensor:
    r""":math:`(e^x - 1 - x)/x^2`, also near 0."""
    small = x.abs() < 0.03
    series = 0.5 + x * (1 / 6 + x * (1 / 24 + x * (1 / 120 + x / 720 * (1 + x / 7))))
    safe = torch.where(small, 1.0, x)
    return torch.where(small, series, (torch.expm1(safe) - safe) / safe.square())


def _pair_distances(weight: Tensor) -> Tensor:
    """(k, k) distances between the rows; equal rows are exactly 0 apart."""
    return torch.cdist(weight, weight, compute_mode="donot_use_mm_for_euclid_dist")


def _softplus(x: Tensor) -> Tensor:
    return torch.logaddexp(x, torch.zeros_like(x))


def _log_expm1(x: Tensor) -> Tensor:
    """log(e^x - 1) for x >= 0, -inf at 0, without overflow."""
    return x + torch.log(-torch.expm1(-x))


# --- radii ------------------------------------------------------------------


def loss_radius(
    weight: Tensor,
    logits: Tensor,
    labels: Tensor,
    eps: Number,
    *,
    bound: str = "best",
) -> Tensor:
    r"""A feature distance within which the loss rises by at most ``eps``.

    Args:
        weight: (k, d), the head.
        logits: (N, k).
        labels: (N,) integers in 0 .. k-1.
        eps: loss tolerance in nats, >= 0, a number or (N,).
        bound: one of :data:`BOUNDS`, or ``"best"``, the largest of their radii.

    Returns:
        (N,), infinity where the loss cannot rise (all rows of the head equal).

    Raises:
        TypeError, ValueError: unknown bound, shapes or values out of range, named.
    """
    if bound not in (*BOUNDS, "best"):
        raise ValueError(f"bound must be one of {(*BOUNDS, 'best')}, got {bound!r}")
    eps = _distance("eps", eps, weight, logits, labels)
    head = _Head(weight, logits, labels)
    chosen = BOUNDS if bound == "best" else (bound,)
    return torch.stack([_RADII[name](head, eps) for name in chosen]).amax(0)


def _cubic_radius(head: _Head, eps: Tensor) -> Tensor:
    return _cubic_root(eps, head.slope, head.largest / 2, head.cubic.expand_as(eps))


def _quadratic_radius(head: _Head, eps: Tensor) -> Tensor:
    square = (head.diameter.square() / 8).expand_as(eps)
    return _cubic_root(eps, head.slope, square, torch.zeros_like(eps))


def _union_radius(head: _Head, eps: Tensor) -> Tensor:
    log_mass, gamma = head.others
    target = _log_expm1(eps)
    reach = _softplus(target[:, None] - log_mass)  # where one class alone spends eps
    upper = torch.where(gamma > 0, reach / gamma, torch.inf).amin(1)
    return _bisect(lambda rho: head.log_excess(rho) <= target, upper)


def _bennett_radius(head: _Head, eps: Tensor) -> Tensor:
    largest, reach = head.largest, head.reach

    def holds(rho: Tensor) -> Tensor:
        return head.bennett(rho) <= eps

    # its two-point law has mass V / (V + h^2) at the upper end for every rho, so
    # reach * rho <= eps - log(mass), and no more than the rounded-up variance allows
    rare = _softplus(2 * reach.log() - largest.log())
    rare = rare.clamp_max(-2 * math.log(torch.finfo(eps.dtype).tiny)) + eps
    ends = torch.where(reach > 0, 2 * rare / reach, torch.inf)
    taylor = _cubic_root(eps, head.slope, largest / 2, torch.zeros_like(eps))
    upper = torch.minimum(taylor, ends)
    for _ in range(64):  # the bound grows at least linearly: a few doublings
        low = holds(upper)
        if not low.any():
            break
        upper = torch.where(low, 2 * upper, upper)
    return _bisect(holds, upper)


_RADII = {
    "cubic": _cubic_radius,
    "quadratic": _quadratic_radius,
    "bennett": _bennett_radius,
    "union": _union_radius,
}


def _bisect(holds: Callable[[Tensor], Tensor], upper: Tensor) -> Tensor:
    """Largest value in [0, upper] that holds, from below; an infinite upper stays."""
    low, high = torch.zeros_like(upper), upper
    for _ in range(64 if upper.dtype == torch.float64 else 36):
        middle = (low + high) / 2
        ok = holds(middle)
        low, high = torch.where(ok, middle, low), torch.where(ok, high, middle)
    return torch.where(torch.isinf(upper), upper, low)


def flip_radius(weight: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    r"""Exact distance in feature space to the nearest change of the prediction.

    :math:`\rho_{\mathrm{flip}} = \min_{j\ne y} (z_y - z_j) / \|w_y - w_j\|`: the
    region where ``y`` wins is a polyhedron. It does not change when weight and bias
    are scaled. Where features cannot leave a set (after a ReLU, say) it is a lower
    bound for the features that can occur.

    Args:
        weight: (k, d), the head.
        logits: (N, k).
        labels: (N,) integers in 0 .. k-1.

    Returns:
        (N,): 0 where the prediction is wrong or tied, infinity where no other class
        can ever win.
    """
    _check(weight, logits, labels)
    index = labels.long()[:, None]
    gaps = logits.gather(1, index) - logits
    distance = _pair_distances(weight)[labels.long()]
    far = (distance == 0) & (gaps > 0)
    ratio = torch.where(far, torch.inf, gaps / torch.where(distance > 0, distance, 1.0))
    return ratio.scatter(1, index, torch.inf).amin(1).clamp_min(0)


def flip_radius_from_flatness(
    weight: Tensor, logits: Tensor, labels: Tensor, *, measure: str = "lambda"
) -> Tensor:
    r"""A true lower bound on the flip radius from curvature and confidence.

    .. math::
        \rho_{\mathrm{flip}} \ge \min_{j\ne y} \log\frac{p_y}{p_j}
        \sqrt{\frac{p_y p_j}{(p_y + p_j)\lambda}}
        \ge \min_{j\ne y} \log\frac{p_y}{p_j}
        \sqrt{\frac{p_y p_j}{\operatorname{Tr} W^\top P W}},

    with equality throughout for two classes. The root of it is
    :math:`\operatorname{Var}_p(X) \ge \frac{p_y p_j}{p_y + p_j}(x_y - x_j)^2`. And
    :math:`\operatorname{Tr} W^\top P W` is Petzka's relative flatness divided by
    :math:`\|\phi\|^2`.

    Args:
        weight: (k, d), the head.
        logits: (N, k).
        labels: (N,) integers in 0 .. k-1.
        measure: ``"lambda"`` for the first bound, ``"trace"`` for the second.

    Returns:
        (N,), at most :func:`flip_radius`; 0 where the prediction is wrong.

    Raises:
        ValueError: any other measure.
    """
    if measure not in ("lambda", "trace"):
        raise ValueError(f'measure must be "lambda" or "trace", got {measure!r}')
    _check(weight, logits, labels)
    index, log_p = labels.long()[:, None], logits.log_softmax(1)
    true = log_p.gather(1, index)
    mass = log_p + true
    if measure == "lambda":
        mass = mass - torch.logaddexp(log_p, true)
        curvature = lambda_max(weight, logits)
    else:
        rows = centred_rows(weight, logits).square().sum(2)
        curvature = (log_p.exp() * rows).sum(1)
    bound = (true - log_p) * ((mass - curvature.log()[:, None]) / 2).exp()
    return bound.scatter(1, index, torch.inf).amin(1).clamp_min(0)


def certified_radius(
    weight: Tensor,
    logits: Tensor,
    labels: Tensor,
    *,
    lipschitz: Number,
    bound: str = "best",
) -> Tensor:
    r"""Input distance within which the prediction cannot change.

    The loss certificates use :math:`\epsilon = \log 2 - \ell`: while the loss stays
    below :math:`\log 2` the true class holds more than half of the probability. None
    of them exceeds the flip radius, so this one is also the best; it caps the others
    against rounding, and the result is rounded down by more than its own error.

    Args:
        weight: (k, d), the head.
        logits: (N, k), taken as exact.
        labels: (N,) integers in 0 .. k-1.
        lipschitz: upper bound on the Lipschitz constant of the features around each
            input, > 0, a number or (N,). An estimate from below gives an estimate,
            not a certificate.
        bound: one of :data:`BOUNDS`, or ``"flip"``, exact in feature space, which
            ``"best"`` is another name for.

    Returns:
        (N,), 0 where nothing can be certified.

    Raises:
        TypeError, ValueError: unknown bound, shapes or values out of range, named.
    """
    if bound not in (*BOUNDS, "flip", "best"):
        known = (*BOUNDS, "flip", "best")
        raise ValueError(f"bound must be one of {known}, got {bound!r}")
    constant = _distance("lipschitz", lipschitz, weight, logits, labels)
    if (constant == 0).any():
        raise ValueError("lipschitz must be > 0, got 0")
    radius = flip_radius(weight, logits, labels)
    if bound in BOUNDS:
        eps = (math.log(2) - cross_entropy(logits, labels)).clamp_min(0)
        by_loss = loss_radius(weight, logits, labels, eps, bound=bound)
        radius = torch.minimum(by_loss, radius)  # the rounding of eps cannot pass it
    down = (weight.shape[1] + 16) * torch.finfo(logits.dtype).eps
    return radius / constant * (1 - down)


def _check(weight: Tensor, logits: Tensor, labels: Tensor) -> None:
    check_weight(weight, logits)
    check_labels(logits, labels)


def _distance(
    name: str, value: Number, weight: Tensor, logits: Tensor, labels: Tensor
) -> Tensor:
    """A checked (N,) tensor like the logits from a number or an (N,) tensor."""
    _check(weight, logits, labels)
    (checked,) = _coefficients(**{name: value})
    if checked.ndim > 1 or (checked.ndim == 1 and len(checked) != len(logits)):
        raise ValueError(
            f"{name} must be a number or have shape ({len(logits)},), "
            f"got {tuple(checked.shape)}"
        )
    return checked.to(logits).expand(len(logits))
