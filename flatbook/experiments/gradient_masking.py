r"""Why does scaling stop an attack?

The head of a network, weight and bias, is multiplied by s, and the network is attacked
by projected sign ascent in the maximum norm (Walter et al., 2025, appendix D.3, figure
13: 10 steps of a quarter of the radius). All test images take part, also those that are
wrong already. In exact arithmetic the ascent on cross-entropy does not depend on how
large its gradient is, :math:`\nabla\ell = (1 - p_y) \nabla\Lambda` with the log-odds
:math:`\Lambda`. In a floating-point type with t digits and smallest positive number
:math:`2^{-q}` that gradient, taken as the mean over N images, is at a margin m

=======================================  ==============================================
right                                    :math:`m < t \log 2`
without the part of the true class       from there on
exactly zero                             :math:`m \ge (q + 1) \log 2 - \log N`
=======================================  ==============================================

(`thresholds`; proposition ``prop-three-regimes``). `run` attacks at every scale through
the losses of `ATTACKS` and keeps with every robust accuracy the images that never moved
because all gradients were exactly zero. Beside it: the sharpness of the clean images,
the direction of their gradients, examples made at the first scale and tried at the
others, and an attack in the Euclidean norm with a floor under the gradient's length.

>>> [round(value, 2) for value in thresholds(torch.float32)]
[16.64, 103.97]
"""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from flatbook import _checks, attacks, models, profiles, scaling, softmax
from flatbook.data import Dataset
from flatbook.experiments import _common
from flatbook.models import check_model

VERSION = 1

_STEPS_TO_EDGE = 4
FLOOR = 1e-10
"""What the Euclidean attack adds to the length of a gradient."""

HEADS = ("both", "weight only")
"""What of the head is scaled when examples are tried at other scales."""

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles of sharpness that `panels` keeps."""

Loss = Callable[[Tensor, Tensor], Tensor]
Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        eps: radius of the attacks in the maximum norm.
        eps_l2: radius of the attack in the Euclidean norm.
        images: attacked, the first of the test set.
        batch: images that are attacked together; their mean loss is differentiated.
        scales: factors on the head, rising.
        steps: of each attack.
        floor_scale: factor on the head for the attack with a floor.
        floor_batches: sizes of a batch that are compared there.

    Raises:
        ValueError: if a value is out of range.
    """

    eps: float
    eps_l2: float
    images: int = 150
    batch: int = 150
    scales: tuple[float, ...] = (1.0, 2.5, 5.0, 10.0, 20.0, 50.0, 100.0, 1000.0)
    steps: int = 10
    floor_scale: float = 2.5
    floor_batches: tuple[int, ...] = (1, 10, 100, 1000)

    def __post_init__(self) -> None:
        for name in ("eps", "eps_l2", "floor_scale"):
            _checks.positive(name, getattr(self, name))
        for name in ("images", "batch", "steps"):
            _checks.integer(name, getattr(self, name), 1)
        for scale in self.scales:
            _checks.positive("scales", scale)
        if not self.scales or list(self.scales) != sorted(set(self.scales)):
            raise ValueError(f"scales must be rising numbers, got {self.scales}")
        for count in self.floor_batches:
            _checks.integer("floor_batches", count, 1)


def sizes(profile: str, data: str) -> Sizes:
    """Digits within 0.3, natural images within the paper's 8/255.

    Raises:
        ValueError: no such profile.
    """
    _checks.choice("profile", profile, profiles.NAMES)
    if data == "digits":
        return Sizes(eps=0.3, eps_l2=2.0)
    images, batch = {"cpu": (150, 150), "t4": (200, 200)}.get(profile, (10_000, 500))
    return Sizes(eps=8 / 255, eps_l2=0.5, images=images, batch=batch)


# --- where rounding takes over -------------------------------------------------------


class Thresholds(NamedTuple):
    """Margins from which the gradient of cross-entropy is wrong, and zero."""

    wrong: float
    zero: float


def thresholds(
    dtype: torch.dtype, *, count: int = 1, subnormal: bool = True
) -> Thresholds:
    r"""Margins at which the computed gradient of cross-entropy changes its nature.

    Args:
        dtype: a floating-point type.
        count: images N over which the mean is taken, at least 1.
        subnormal: whether numbers below the smallest normal one exist; processors
            that flush them to zero do without.

    Returns:
        `wrong`, from which the part of the true class is exactly zero, and `zero`, from
        which all of it is.

    Raises:
        ValueError: if N is below 1.

    >>> thresholds(torch.float64).zero / math.log(2)
    1075.0
    """
    _checks.integer("count", count, 1)
    kind = torch.finfo(dtype)
    wrong = math.log(2) - math.log(kind.eps)
    least = -math.log(kind.smallest_normal)
    return Thresholds(wrong, least + subnormal * wrong - math.log(count))


def zero_share(
    margins: Tensor, scale: float, dtype: torch.dtype, *, count: int = 1
) -> float:
    """Share of images whose gradient `thresholds` predicts to be exactly zero.

    Args:
        margins: (N,), true logit minus the best other one, at scale 1.
        scale: factor on the head.
        dtype: in which the gradient is computed.
        count: images over which the mean is taken.
    """
    return _share(scale * margins > thresholds(dtype, count=count).zero)


# --- attacks -------------------------------------------------------------------------


@dataclass(frozen=True)
class Attack:
    """What is differentiated, and in which arithmetic.

    Attributes:
        loss: from logits (N, k) and labels (N,) to one value per image.
        dtype: of the network and the images.
        mean: whether the gradient is that of the mean over a batch.
    """

    loss: Loss
    dtype: torch.dtype = torch.float32
    mean: bool = False


def normalised(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the logits divided by their length: no scale can change it."""
    length = torch.linalg.vector_norm(logits, dim=1, keepdim=True)
    tiny = torch.finfo(logits.dtype).tiny
    return attacks.LOSSES["cross_entropy"](logits / length.clamp_min(tiny), labels)


_CROSS_ENTROPY = attacks.LOSSES["cross_entropy"]
ATTACKS: Mapping[str, Attack] = {
    "cross-entropy": Attack(_CROSS_ENTROPY, mean=True),
    "cross-entropy, float64": Attack(_CROSS_ENTROPY, torch.float64, mean=True),
    "log-odds": Attack(attacks.LOSSES["log_odds"]),
    "margin": Attack(attacks.LOSSES["margin"]),
    "DLR": Attack(attacks.LOSSES["dlr"]),
    "normalised logits": Attack(normalised),
}
"""The paper's attack and its repetition in float64; then four that know no scale."""


class End(NamedTuple):
    """Where an attack ended.

    Attributes:
        points: (N, C, H, W).
        robust: (N,), whether the point is classified as its label; a tie is not.
        stuck: (N,), whether all gradients were exactly zero: the image never moved.
    """

    points: Tensor
    robust: Tensor
    stuck: Tensor


def climb(
    network: Network,
    x: Tensor,
    y: Tensor,
    *,
    loss: Loss,
    move: Callable[[Tensor], Tensor],
    hold: Callable[[Tensor, Tensor], Tensor],
    steps: int,
) -> End:
    """Projected gradient ascent on any loss; `attacks.pgd` has a fixed list of them.

    Args:
        network: from images to logits, in evaluation mode.
        x: images (N, C, H, W) in [0, 1], where the attack starts.
        y: labels (N,).
        loss: from logits and labels to one value per image, or one for all.
        move: from gradients (N, C, H, W) to steps.
        hold: from points and `x` to the nearest points that are allowed.
        steps: how many.
    """
    point, stuck = x.clone(), torch.ones_like(y, dtype=torch.bool)
    for _ in range(steps):
        slope = input_gradient(network, point, y, loss)
        stuck &= (slope == 0).flatten(1).all(1)
        point = hold(point + move(slope), x).clamp(0, 1)
    with torch.no_grad():
        robust = softmax.margin(network(point), y) > 0
    return End(point, robust, stuck)


def input_gradient(network: Network, x: Tensor, y: Tensor, loss: Loss) -> Tensor:
    """Gradient of a loss in the images, as automatic differentiation rounds it."""
    leaf = x.detach().requires_grad_()
    return torch.autograd.grad(loss(network(leaf), y).sum(), leaf)[0]


def cube(
    eps: float, step_size: float
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]:
    """Sign steps in the ball of the maximum norm: `move` and `hold` of `climb`."""

    def move(slope: Tensor) -> Tensor:
        return step_size * slope.sign()

    def hold(point: Tensor, centre: Tensor) -> Tensor:
        return point.clamp(centre - eps, centre + eps)

    return move, hold


def ball(
    eps: float, step_size: float, *, floor: float
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]:
    """Steps along the gradient over its length plus a floor, in a Euclidean ball."""

    def move(slope: Tensor) -> Tensor:
        return step_size * slope / (_length(slope) + floor)

    def hold(point: Tensor, centre: Tensor) -> Tensor:
        away = point - centre
        return centre + away * (eps / _length(away).clamp_min(eps))

    return move, hold


# --- the experiment ------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """One network at S scales of its head, seen on N test images; on the CPU.

    Attributes:
        sizes: what was asked.
        margin: (N,), float64, of the clean images at scale 1; negative where wrong.
        log_sharpness: (S, N), float64, of the clean images.
        robust: attack -> (S, N), whether the image survives it.
        stuck: attack -> (S, N), whether all its gradients were exactly zero.
        cosine: (S, N), float64, at the clean images, between the gradient of the mean
            cross-entropy in float32 and the exact direction, that of the log-odds in
            float64; 0 where the first is zero.
        zero: (S, N), whether that gradient is exactly zero.
        fooled: (N,), images that cross-entropy turns wrong at the first scale.
        transferred: head -> (S, N), whether these examples are wrong at every scale;
            with weight and bias scaled ("both"), or the weight alone ("weight only").
        changed: head -> (S, N), whether the prediction of a clean image changes.
        floored: (B, N), whether an image survives the Euclidean attack with a floor,
            for every size of a batch.
        floored_stuck: (B, N), whether all its gradients were exactly zero.
        unfloored: (N,), the same without a floor, on the log-odds.
        unfloored_stuck: (N,), whether all gradients of that were exactly zero.
    """

    sizes: Sizes
    margin: Tensor
    log_sharpness: Tensor
    robust: Mapping[str, Tensor]
    stuck: Mapping[str, Tensor]
    cosine: Tensor
    zero: Tensor
    fooled: Tensor
    transferred: Mapping[str, Tensor]
    changed: Mapping[str, Tensor]
    floored: Tensor
    floored_stuck: Tensor
    unfloored: Tensor
    unfloored_stuck: Tensor
    accuracy: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "accuracy", _share(self.margin > 0))

    def robust_accuracy(self, attack: str) -> Tensor:
        """(S,), float64, the share of images that survive."""
        return self.robust[attack].double().mean(1)

    def zero_gradients(self, attack: str) -> Tensor:
        """(S,), float64, the share of images that never moved."""
        return self.stuck[attack].double().mean(1)

    def predicted(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """(S,), float64, the share of zero gradients that clean margins predict."""
        shares = [
            zero_share(self.margin, s, dtype, count=self.sizes.batch)
            for s in self.sizes.scales
        ]
        return torch.tensor(shares, dtype=torch.float64)


def run(model: nn.Module, dataset: Dataset, sizes: Sizes) -> Result:
    """Attack one network at every scale, through every loss.

    Args:
        model: a network with `features` and a linear `head`, in float32.
        dataset: whose first test images are attacked.
        sizes: how much.

    Raises:
        TypeError: if the model has no features or head, or is not in float32.
        ValueError: if it has fewer than three classes (DLR needs them).
    """
    _check(model)
    device = _common.device_of(model)
    x, y = (
        part[: sizes.images].to(device) for part in (dataset.x_test, dataset.y_test)
    )
    pieces = [_piece(model, *pair, sizes) for pair in _batches(x, y, sizes.batch)]
    return _join(sizes, pieces)


def numbers(result: Result) -> dict[str, float]:
    """For a card: a robust accuracy and its zero gradients for each attack and scale.

    Names end in the number of the scale, or of the batch size for the floor.
    """
    curves = {
        "mean sharpness": result.log_sharpness.exp().mean(1),
        "log10 median sharpness": result.log_sharpness.median(1).values / math.log(10),
        "predicted zero gradients": result.predicted(),
        "predicted zero gradients, float64": result.predicted(torch.float64),
        "cosine": result.cosine.mean(1),
        "floor: robust accuracy": result.floored.double().mean(1),
        "floor: zero gradients": result.floored_stuck.double().mean(1),
    }
    for name in ATTACKS:
        curves[f"{name}: robust accuracy"] = result.robust_accuracy(name)
        curves[f"{name}: zero gradients"] = result.zero_gradients(name)
    for head, wrong in result.transferred.items():
        kept = [_share(row[result.fooled]) for row in wrong]
        curves[f"transfer, {head}"] = torch.tensor(kept)
        curves[f"changed, {head}"] = result.changed[head].double().mean(1)
    values = {
        "accuracy": result.accuracy,
        "no floor: robust accuracy": _share(result.unfloored),
        "no floor: zero gradients": _share(result.unfloored_stuck),
    }
    for name, curve in curves.items():
        values |= {f"{name}[{i}]": float(value) for i, value in enumerate(curve)}
    return values


def panels(result: Result) -> dict[str, Tensor]:
    """What figure 13 of the paper shows, and beside it why: small arrays of one seed.

    Returns:
        For S scales, shares being those of all images where nothing else is said:

        - `scales` (S,) and `levels` (Q,), the axes;
        - `accuracy` (), of the clean images;
        - `log10_mean_sharpness` (S,), of the clean images, as the paper's panels a, c;
        - `log10_sharpness` (Q, S), the quantiles at `levels`;
        - `robust` (A, S), share that survives each of the `ATTACKS`, in their order;
        - `never_moved` (A, S), share whose gradients were all exactly zero;
        - `robust_to_all` (S,), share that survives every one of them;
        - `predicted` (2, S), share of zero gradients that the clean margins predict, in
          float32 and in float64;
        - `transferred` (2, S), share of the examples made at the first scale that are
          wrong; weight and bias scaled, then the weight alone; 0 where none was made;
        - `changed` (2, S), share of the clean predictions that change, likewise.
    """
    kinds = (torch.float32, torch.float64)
    seen = {
        "scales": _double(result.sizes.scales),
        "levels": _double(LEVELS),
        "accuracy": _double(result.accuracy),
        "predicted": torch.stack([result.predicted(kind) for kind in kinds]),
    }
    return seen | _sharpness_panel(result) | _attack_panels(result)


def passes(
    sizes: Sizes,
    *,
    classes: int,
    test_images: int,
    networks: int = 1,
) -> float:
    """Work of `run`, in forward passes of one image.

    A gradient in the image counts as one pass more, and a pass in float64 as one,
    though it takes longer.

    Args:
        sizes: how much is measured.
        classes: not used; `experiments` have this signature in common.
        test_images: of the data set; no more than `sizes.images` are used.
        networks: each is measured.
    """
    scales, attack = len(sizes.scales), 2 * sizes.steps + 1
    clean = 1 + 4 * scales
    attacks_made = len(ATTACKS) * scales + len(sizes.floor_batches) + 1
    each = clean + attack * attacks_made + 2
    return float(networks * min(sizes.images, test_images) * each)


def _sharpness_panel(result: Result) -> dict[str, Tensor]:
    """Mean and quantiles of sharpness in decades; no logarithm is ever taken of 0."""
    logs = result.log_sharpness
    mean = logs.logsumexp(1) - math.log(logs.shape[1])
    quantiles = logs.quantile(_double(LEVELS), 1)
    ten = math.log(10)
    return {"log10_mean_sharpness": mean / ten, "log10_sharpness": quantiles / ten}


def _attack_panels(result: Result) -> dict[str, Tensor]:
    """Shares that survive, that never moved, and that carry over to other scales."""
    robust = torch.stack([result.robust[name] for name in ATTACKS])
    stuck = torch.stack([result.stuck[name] for name in ATTACKS])
    wrong = torch.stack([result.transferred[head] for head in HEADS])
    changed = torch.stack([result.changed[head] for head in HEADS])
    made = max(int(result.fooled.sum()), 1)
    return {
        "robust": robust.double().mean(2),
        "never_moved": stuck.double().mean(2),
        "robust_to_all": robust.all(0).double().mean(1),
        "transferred": wrong[..., result.fooled].double().sum(2) / made,
        "changed": changed.double().mean(2),
    }


def _double(values: float | tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _piece(model: nn.Module, x: Tensor, y: Tensor, sizes: Sizes) -> dict[str, Tensor]:
    """All that is measured on one batch; names with a colon are dictionaries later."""
    networks = {dtype: frozen(model, dtype) for dtype in (torch.float32, torch.float64)}
    exact = networks[torch.float64]
    features, head = check_model(exact)
    phi = features(x.double())
    z = head(phi)
    seen = {
        "margin": softmax.margin(z, y),
        "log_sharpness": scaling.log_sharpness(head.weight, phi, z, sizes.scales),
    }
    seen |= _directions(networks, x, y, sizes)
    ends = {name: _attack(networks, x, y, name, sizes) for name in ATTACKS}
    for name, each in ends.items():
        seen[f"robust:{name}"] = torch.stack([end.robust for end in each])
        seen[f"stuck:{name}"] = torch.stack([end.stuck for end in each])
    plain, first = networks[torch.float32], ends["cross-entropy"][0]
    seen["fooled"] = ~first.robust
    seen |= _transfer(plain, x, first.points, y, sizes) | _floor(plain, x, y, sizes)
    return {name: value.cpu() for name, value in seen.items()}


def frozen(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy for evaluation in another type, without gradients of parameters."""
    other = copy.deepcopy(model).to(dtype).eval().requires_grad_(requires_grad=False)
    return models.fold(other) if isinstance(other, models.Model) else other


def scaled(head: nn.Linear, s: float, *, weight_only: bool = False) -> Network:
    """The head times s, as a function of features; see `models.scale_head`."""
    bias = head.bias if weight_only or head.bias is None else s * head.bias
    return partial(nn.functional.linear, weight=s * head.weight, bias=bias)


def at_scale(model: nn.Module, s: float) -> Network:
    """A network with its head scaled, as a function of images: nothing is copied."""
    features, head = check_model(model)
    top = scaled(head, s)
    return lambda x: top(features(x))


def _mean(loss: Loss, count: int) -> Loss:
    """The mean over a batch of `count` images, also where the last one is shorter."""
    return lambda logits, labels: loss(logits, labels).sum() / count


def _attack(
    networks: Mapping[torch.dtype, nn.Module],
    x: Tensor,
    y: Tensor,
    name: str,
    sizes: Sizes,
) -> list[End]:
    """One attack at every scale."""
    attack = ATTACKS[name]
    loss = _mean(attack.loss, sizes.batch) if attack.mean else attack.loss
    move, hold = cube(sizes.eps, sizes.eps / _STEPS_TO_EDGE)
    network, start = networks[attack.dtype], x.to(attack.dtype)
    how = {"loss": loss, "move": move, "hold": hold, "steps": sizes.steps}
    return [climb(at_scale(network, s), start, y, **how) for s in sizes.scales]  # type: ignore[arg-type]


def _directions(
    networks: Mapping[torch.dtype, nn.Module], x: Tensor, y: Tensor, sizes: Sizes
) -> dict[str, Tensor]:
    """Plain gradients at the clean images, beside the exact directions."""
    plain = _mean(_CROSS_ENTROPY, sizes.batch)
    cosines, zeros = [], []
    for s in sizes.scales:
        single, double = (
            at_scale(networks[t], s) for t in (torch.float32, torch.float64)
        )
        slope = input_gradient(single, x, y, plain)
        truth = input_gradient(double, x.double(), y, attacks.LOSSES["log_odds"])
        cosines.append(cosine(slope, truth))
        zeros.append((slope == 0).flatten(1).all(1))
    return {"cosine": torch.stack(cosines), "zero": torch.stack(zeros)}


def cosine(first: Tensor, second: Tensor) -> Tensor:
    """Cosine of the angle between gradients (N, ...): (N,), float64, 0 with a zero.

    Each is divided by its largest entry first, so that nothing underflows.
    """
    return torch.cosine_similarity(_enlarged(first), _enlarged(second), dim=1)


def _enlarged(vectors: Tensor) -> Tensor:
    """Vectors (N, ...) as (N, d) in float64 whose largest entry is 1, or all are 0."""
    flat = vectors.double().flatten(1)
    largest = flat.abs().amax(1, keepdim=True)
    return flat / torch.where(largest > 0, largest, 1)


def _transfer(
    model: nn.Module, x: Tensor, points: Tensor, y: Tensor, sizes: Sizes
) -> dict[str, Tensor]:
    """Examples of the first scale at all of them, and what happens to clean images."""
    features, head = check_model(model)
    clean, moved = features(x), features(points)
    before = head(clean).argmax(1)
    seen = {}
    for name, weight_only in zip(HEADS, (False, True), strict=True):
        tops = [scaled(head, s, weight_only=weight_only) for s in sizes.scales]
        wrong = [~(softmax.margin(top(moved), y) > 0) for top in tops]
        changed = [top(clean).argmax(1) != before for top in tops]
        seen[f"transferred:{name}"] = torch.stack(wrong)
        seen[f"changed:{name}"] = torch.stack(changed)
    return seen


def _floor(model: nn.Module, x: Tensor, y: Tensor, sizes: Sizes) -> dict[str, Tensor]:
    """The Euclidean attack with a floor, as in a batch of every size, and without."""
    step_size = sizes.eps_l2 / _STEPS_TO_EDGE
    move, hold = ball(sizes.eps_l2, step_size, floor=FLOOR)
    network, steps = at_scale(model, sizes.floor_scale), sizes.steps
    losses = [_mean(_CROSS_ENTROPY, count) for count in sizes.floor_batches]
    ends = [
        climb(network, x, y, loss=loss, move=move, hold=hold, steps=steps)
        for loss in losses
    ]
    high = models.scale_head(model, sizes.floor_scale)
    how = {"norm": "l2", "eps": sizes.eps_l2, "step_size": step_size, "steps": steps}
    path = attacks.pgd(high, x, y, **how)  # type: ignore[arg-type]
    return {
        "floored": torch.stack([end.robust for end in ends]),
        "floored_stuck": torch.stack([end.stuck for end in ends]),
        "unfloored": path.robust,
        "unfloored_stuck": path.stuck,
    }


def _join(sizes: Sizes, pieces: list[dict[str, Tensor]]) -> Result:
    """Batches side by side."""
    parts: dict[str, Tensor | dict[str, Tensor]] = {}
    for name in pieces[0]:
        whole = torch.cat([piece[name] for piece in pieces], dim=-1)
        group, _, member = name.partition(":")
        if member:
            inner = parts.setdefault(group, {})
            assert isinstance(inner, dict)
            inner[member] = whole
        else:
            parts[name] = whole
    assert set(parts) | {"sizes"} == {f.name for f in fields(Result) if f.init}
    return Result(sizes=sizes, **parts)  # type: ignore[arg-type]


def _batches(x: Tensor, y: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(x.split(size), y.split(size), strict=True))


def _length(vectors: Tensor) -> Tensor:
    """Euclidean lengths (N, 1, ...) of vectors (N, ...)."""
    axes = tuple(range(1, vectors.ndim))
    return torch.linalg.vector_norm(vectors, dim=axes, keepdim=True)


def _check(model: nn.Module) -> None:
    _, head = check_model(model)
    if head.weight.dtype != torch.float32:
        raise TypeError(f"the network must be in float32, got {head.weight.dtype}")
    if head.out_features < 3:
        raise ValueError(f"expected three or more classes, got {head.out_features}")


def _share(which: Tensor) -> float:
    """Share of True; 0 of none."""
    return float(which.double().mean()) if len(which) else 0.0
