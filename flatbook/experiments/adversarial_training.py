r"""Are robust networks flat?

Networks of one seed, trained on clean images, on attacked ones (Madry et al., Towards
deep learning models resistant to adversarial attacks, 2018) and with other losses, are
measured on the same test images: the evaluation of Walter et al. (2025), appendix D.2
and figure 12, with both definitions of robustness. An image x with label y is followed
on an :math:`\ell_2` attack without a bound on its length, and

==============  =======================================================================
``flip``        is the distance from x at which another class leads,
``reach[e]``    the distance at which the loss has risen by the tolerance
                :math:`\epsilon_e`.
==============  =======================================================================

Both lie between two steps and are interpolated, in the margin and in the log-odds, of
which cross-entropy is a function. A better attack may find shorter ones: they are
upper bounds of the smallest distances, up to the interpolation. Sharpness is
:math:`\kappa = \|W\|^2 \|\phi\|^2 \operatorname{tr} P`, kept with its two factors. With
every robust accuracy comes that of a second attack, on the margin instead of the
log-odds, and the share of images whose gradients were all exactly zero.

>>> rise = torch.tensor([[0.0], [1.0], [3.0], [5.0]])     # of one image, four points
>>> distance = torch.tensor([[0.0], [0.1], [0.2], [0.4]])
>>> round(first_reach(rise, distance, torch.tensor(4.0)).item(), 6)
0.3
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from flatbook import _checks, attacks, profiles, softmax, training
from flatbook.attacks import Trajectory
from flatbook.data import Dataset
from flatbook.experiments import _common
from flatbook.experiments._adversary import adversary, radius
from flatbook.experiments._statistics import Estimate, rank_correlation
from flatbook.models import check_model, evaluating, scale_head

VERSION = 1
COOLED = "standard, cooled"
"""The standard network, its head scaled down to the adversarial one's confidence."""

_DEFINITION = 0.1
_STEPS_TO_EDGE = 4
_FALLEN = 0.1
_QUANTILES = 41
_POINTS = 100


def variants(profile: str, data: str) -> dict[str, dict[str, Any]]:
    """The networks of one seed.

    The networks without an adversary are those of `flatbook.experiments.uncanny_valley`
    and share their checkpoints.

    Raises:
        ValueError: no such profile.
    """
    _checks.choice("profile", profile, profiles.NAMES)
    return {
        "standard": {},
        "adversarial": {"adversary": adversary(profile, data)},
        "half radius": {"adversary": adversary(profile, data, share=0.5)},
        "label smoothing": {"label_smoothing": 0.1},
        "focal": {"loss": "focal"},
        "Brier": {"loss": "brier"},
        "squared error": {"loss": "squared_error", "lr": 0.005},
    }


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        eps: radii of the attacks in the maximum norm, rising.
        main: the one of the adversary in training, one of them.
        steps: of these attacks, each a quarter of the radius long.
        step_size: of the attack without a radius, Euclidean.
        walk_steps: how many of them.
        tolerances: rises of the loss, rising; 0.1 is one.
        images: of the test set, the first ones, right or wrong.
        batch: images at a time.

    Raises:
        ValueError: if a value is out of range.
    """

    eps: tuple[float, ...]
    main: float
    steps: int
    step_size: float
    walk_steps: int
    tolerances: tuple[float, ...]
    images: int
    batch: int = 250

    def __post_init__(self) -> None:
        for name in ("eps", "tolerances"):
            values = getattr(self, name)
            for value in values:
                _checks.positive(name, value)
            if list(values) != sorted(set(values)):
                raise ValueError(f"{name} must be rising numbers, got {values}")
        _checks.choice("main", self.main, self.eps)
        _checks.positive("step_size", self.step_size)
        for name in ("steps", "walk_steps", "images", "batch"):
            _checks.integer(name, getattr(self, name), 1)
        if _DEFINITION not in self.tolerances:
            raise ValueError(f"one tolerance must be 0.1, got {self.tolerances}")

    @property
    def longest(self) -> float:
        """No distance of the attack without a radius is longer."""
        return self.step_size * self.walk_steps


def sizes(profile: str, data: str) -> Sizes:
    """Digits are attacked around 0.2, natural images around the paper's 8/255.

    Raises:
        ValueError: no such profile.
    """
    _checks.choice("profile", profile, profiles.NAMES)
    grid = tuple(round(10 ** (i / 8), 4) for i in range(-20, 4))
    if data == "digits":
        return Sizes((0.1, 0.2, 0.3), 0.2, 10, 0.05, 32, grid, 120)
    radii = tuple(n / 255 for n in (2, 4, 8, 16))
    images = {"cpu": 300, "t4": 500}.get(profile, 5000)
    return Sizes(radii, radius(data), 20, 0.02, 150, grid, images, batch=100)


@dataclass(frozen=True, eq=False, repr=False)
class Seen:
    """One network, measured on N test images, on the CPU.

    Attributes:
        logits: (N, k).
        size: (N,), the factor of sharpness that is not the trace of P: both norms.
        features: (N,), one of them: the squared norm of the features.
        right: (N,), bool: the label is predicted.
        flip: (N,), distance at which another class leads: 0 where one does at once,
            infinite where the attack does not get there.
        reach: (E, N), distance at which the loss has risen by each tolerance.
        path: (T + 1, N), sharpness on the attack of the main radius.
        robust: (R, N), bool: right at the start and after the attack of each radius.
        stuck: (R, N), bool: all gradients of that attack were exactly zero.
        margin: (N,), bool: right after the attack on the margin at the main radius.
        margin_stuck: (N,), bool: all gradients of that attack were exactly zero.
    """

    logits: Tensor
    size: Tensor
    features: Tensor
    right: Tensor
    flip: Tensor
    reach: Tensor
    path: Tensor
    robust: Tensor
    stuck: Tensor
    margin: Tensor
    margin_stuck: Tensor

    @property
    def trace(self) -> Tensor:
        """(N,), of P."""
        return softmax.trace_p(self.logits)

    @property
    def hessian(self) -> Tensor:
        """(N,), trace of the Hessian in the weights of the head."""
        return self.features * self.trace

    @property
    def kappa(self) -> Tensor:
        """(N,), relative sharpness at the image."""
        return self.size * self.trace

    @property
    def confidence(self) -> Tensor:
        """(N,), the largest probability."""
        return 1 - softmax.one_minus(self.logits).amin(1)

    @property
    def fallen(self) -> Tensor:
        """(M,), bool: sharpness ends below a tenth of its peak; of the right images."""
        path = self.path[:, self.right]
        return path[-1] < _FALLEN * path.amax(0)

    def within(self) -> Estimate:
        """Rank correlation of sharpness and flip distance over the right images."""
        return rank_correlation(self.kappa[self.right], self.flip[self.right])


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """Networks of one seed.

    Attributes:
        sizes: what was asked.
        accuracy: variant -> share of the test set that is right.
        networks: variant -> what was seen; `COOLED` is among them.
        scale: of the cooled network's head.
    """

    sizes: Sizes
    accuracy: Mapping[str, float]
    networks: Mapping[str, Seen]
    scale: float

    def widths(self, name: str) -> Tensor:
        """(E,), median distance for every tolerance, at most the longest."""
        reach = self.networks[name].reach.clamp(max=self.sizes.longest)
        return reach.median(1).values

    def width(self, name: str, tolerance: float = _DEFINITION) -> float:
        """Median distance for one of the tolerances."""
        return float(self.widths(name)[self.sizes.tolerances.index(tolerance)])

    def flip(self, name: str) -> float:
        """Median distance to another class, at most the longest."""
        return min(float(self.networks[name].flip.median()), self.sizes.longest)

    def crossing(self, name: str = "adversarial") -> float:
        """The largest tolerance at which the standard network is the wider one.

        In the median; 0 where it is at none.
        """
        ahead = self.widths("standard") > self.widths(name)
        pairs = zip(self.sizes.tolerances, ahead, strict=True)
        return max(
            (tolerance for tolerance, is_ahead in pairs if is_ahead), default=0.0
        )


def run(models: Mapping[str, nn.Module], dataset: Dataset, sizes: Sizes) -> Result:
    """Measure the networks of one seed.

    Args:
        models: variant -> network; "standard", "adversarial" and any others.
        dataset: whose test images are attacked.
        sizes: how much.

    Raises:
        ValueError: one of the two networks is missing.
    """
    _check(models)
    standard, test = models["standard"], (dataset.x_test, dataset.y_test)
    accuracy = {name: training.accuracy(net, *test) for name, net in models.items()}
    seen = {name: measure(net, dataset, sizes) for name, net in models.items()}
    goal = float(seen["adversarial"].confidence.mean())
    scale = matching_scale(seen["standard"].logits, goal)
    seen[COOLED] = measure(scale_head(standard, scale), dataset, sizes)
    accuracy[COOLED] = accuracy["standard"]
    return Result(sizes, accuracy, seen, scale)


def measure(model: nn.Module, dataset: Dataset, sizes: Sizes) -> Seen:
    """Attack the first test images with every attack, some images at a time.

    Args:
        model: with `features` and a linear `head`.
        dataset: whose test images are attacked.
        sizes: how much.
    """
    device = _common.device_of(model)
    x, y = (part[: sizes.images] for part in (dataset.x_test, dataset.y_test))
    pieces = [
        _measure(model, images.to(device), labels.to(device), sizes)
        for images, labels in zip(
            x.split(sizes.batch), y.split(sizes.batch), strict=True
        )
    ]
    names = [field.name for field in fields(Seen)]
    parts = {name: [getattr(piece, name) for piece in pieces] for name in names}
    axes = {name: 0 if name == "logits" else -1 for name in names}
    return Seen(**{name: torch.cat(parts[name], dim=axes[name]) for name in names})


def first_reach(rise: Tensor, distance: Tensor, level: Tensor) -> Tensor:
    """Distance at which a quantity first reaches a level, between two points.

    Both are taken as straight between neighbouring points of a path.

    Args:
        rise: (T + 1, N), the quantity.
        distance: (T + 1, N), of each point from the start.
        level: (N,), or one for all: what is to be reached.

    Returns:
        (N,), the start's distance where the level is reached at once, infinity where it
        never is.
    """
    above = rise >= level
    after = above.int().argmax(0, keepdim=True)
    before = (after - 1).clamp_min(0)
    (low, high), (near, far) = (
        [values.gather(0, step)[0] for step in (before, after)]
        for values in (rise, distance)
    )
    step = torch.where(high > low, high - low, 1)
    share = torch.where(high > low, (level - low) / step, 1).clamp(0, 1)
    return torch.where(above.any(0), torch.lerp(near, far, share), torch.inf)


def matching_scale(logits: Tensor, confidence: float) -> float:
    """Factor on the logits that gives them a mean confidence.

    Args:
        logits: (N, k).
        confidence: the mean largest probability to reach.

    Returns:
        The factor, between 1e-6 and 1e6, by bisection: the mean confidence rises
        with the factor.

    Raises:
        ValueError: no such factor gives this confidence.

    >>> z = torch.tensor([[3.0, 0.0]])
    >>> round(matching_scale(z, torch.tensor(1.5).sigmoid().item()), 6)
    0.5
    """

    def mean(log_scale: float) -> float:
        return float((math.exp(log_scale) * z).softmax(1).amax(1).mean())

    z = logits.double()
    low, high = -math.log(1e6), math.log(1e6)
    if not mean(low) <= confidence <= mean(high):
        raise ValueError(
            f"confidence must lie in [{mean(low):.4g}, {mean(high):.4g}], what scaling "
            f"can reach, got {confidence!r}"
        )
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if mean(middle) < confidence else (low, middle)
    return math.exp((low + high) / 2)


def cooling(seen: Seen, scales: Iterable[float]) -> list[tuple[float, float]]:
    """What scaling the head does to confidence and to the correlation within.

    The distances to a flip stay: scaling weight and bias moves no decision.

    Args:
        seen: a network.
        scales: factors on its head.

    Returns:
        For every factor, the mean confidence and the rank correlation of sharpness and
        flip distance over the images that are right.
    """
    scaled = [
        replace(seen, logits=scale * seen.logits, size=scale**2 * seen.size)
        for scale in scales
    ]
    return [(float(one.confidence.mean()), one.within().value) for one in scaled]


def across(networks: Iterable[Seen]) -> Estimate:
    """Rank correlation over networks: median sharpness against median flip distance."""
    kappa, flip = zip(
        *((float(n.kappa.median()), float(n.flip.median())) for n in networks),
        strict=True,
    )
    return rank_correlation(kappa, flip)


def numbers(result: Result) -> dict[str, float]:
    """For a card: of every network its medians and shares, then what compares them."""
    values: dict[str, float] = {}
    for name in result.networks:
        named = _of_one(result, name) | _attacked(result, name)
        values |= {f"{name}: {key}": value for key, value in named.items()}
    pair = [result.networks[name] for name in ("adversarial", "standard")]
    values |= {
        "times sharper": _ratio(*(float(seen.kappa.median()) for seen in pair)),
        "times larger trace": _ratio(*(float(seen.trace.median()) for seen in pair)),
        "times farther to the flip": _ratio(
            *map(result.flip, ("adversarial", "standard"))
        ),
        "times wider": _ratio(*map(result.width, ("adversarial", "standard"))),
        "crossing tolerance": result.crossing(),
        "scale of the cooled head": result.scale,
    }
    trained = [seen for name, seen in result.networks.items() if name != COOLED]
    if len(trained) > 3:
        values["rank correlation across"] = across(trained).value
    return values


def panels(result: Result) -> dict[str, Tensor]:
    """For the figure of appendix D.2: small arrays of one seed, float64.

    Their shapes depend on the sizes and on the number of networks.

    Args:
        result: of one seed.

    Returns:
        Axes: ``share`` (Q,) of the images, rising from 0 to 1; ``tolerance`` (E,);
        ``eps`` (R + 1,), that begins with 0; ``main`` (), one of them. Then of every
        network, as ``name: what``:

        * ``confidence``, ``trace H``, ``sharpness``, ``flip``: (Q,), quantiles over
          the images; a distance is at most the longest,
        * ``mean confidence`` and so on: (), means beside them,
        * ``width``: (E,), median distance for every tolerance,
        * ``robust accuracy``: (R + 1,), the first one without an attack,
        * ``robust accuracy, margin``: (), of the second attack at the main radius,
        * ``points``: (2, 100), sharpness and flip distance of the first images, NaN
          for one that is wrong from the start and where there are fewer.
    """
    sizes = result.sizes
    values = {
        "share": torch.linspace(0, 1, _QUANTILES, dtype=torch.float64),
        "tolerance": torch.tensor(sizes.tolerances, dtype=torch.float64),
        "eps": torch.tensor((0, *sizes.eps), dtype=torch.float64),
        "main": torch.tensor(sizes.main, dtype=torch.float64),
    }
    for name, seen in result.networks.items():
        robust = torch.cat([seen.right[None], seen.robust]).double().mean(1)
        drawn = _distributions(seen, sizes.longest, values["share"]) | {
            "width": result.widths(name),
            "robust accuracy": robust,
            "robust accuracy, margin": seen.margin.double().mean(),
            "points": _points(seen, sizes.longest),
        }
        values |= {f"{name}: {what}": array for what, array in drawn.items()}
    return values


def passes(sizes: Sizes, *, classes: int, test_images: int, networks: int = 1) -> float:
    """What `run` costs, in forward passes of one image.

    A gradient in the input counts as one more forward pass. The cooled network is
    measured as one more network.

    Args:
        sizes: how much; if the test set has fewer images it is an upper bound.
        classes: without influence here.
        test_images: of the whole test set, for the accuracy.
        networks: that are given to `run`.

    >>> few = Sizes((0.1,), 0.1, 5, 0.1, 20, (0.1,), 30)
    >>> passes(few, classes=10, test_images=100, networks=2)     # 2 * 100 + 3 * 30 * 64
    5960.0
    """
    _checks.integer("classes", classes, 2)
    _checks.integer("test_images", test_images, 1)
    _checks.integer("networks", networks, 1)
    attacked = (len(sizes.eps) + 1) * (2 * sizes.steps + 1)
    walked = 2 * sizes.walk_steps + 1
    measured = min(sizes.images, test_images) * (1 + attacked + walked)
    return float(networks * test_images + (networks + 1) * measured)


def _distributions(seen: Seen, longest: float, share: Tensor) -> dict[str, Tensor]:
    """Quantiles and means over the images of what is seen of a network."""
    values = {
        "confidence": seen.confidence,
        "trace H": seen.hessian,
        "sharpness": seen.kappa,
        "flip": seen.flip.clamp(max=longest),
    }
    means = {f"mean {what}": each.mean() for what, each in values.items()}
    return {what: each.quantile(share) for what, each in values.items()} | means


def _points(seen: Seen, longest: float) -> Tensor:
    """Sharpness and flip distance of the first images that are right: (2, 100)."""
    both = torch.stack([seen.kappa, seen.flip.clamp(max=longest)])
    both = torch.where(seen.right, both, torch.nan)[:, :_POINTS]
    filled = both.new_full((2, _POINTS), torch.nan)
    filled[:, : both.shape[1]] = both
    return filled


def _of_one(result: Result, name: str) -> dict[str, float]:
    """What one network is like, without its robust accuracies."""
    seen = result.networks[name]
    values = {
        "accuracy": result.accuracy[name],
        "mean confidence": float(seen.confidence.mean()),
        "mean sharpness": float(seen.kappa.mean()),
        "median sharpness": float(seen.kappa.median()),
        "median trace": float(seen.trace.median()),
        "flip distance": result.flip(name),
        "width": result.width(name),
        "never flips": _share(seen.flip.isinf()),
        "valley share": _share(seen.fallen),
        "rank correlation within": _within(seen),
    }
    widths = enumerate(result.widths(name).tolist())
    return values | {f"width[{i}]": width for i, width in widths}


def _attacked(result: Result, name: str) -> dict[str, float]:
    """Robust accuracies, each with what would give an artefact away."""
    seen, main = result.networks[name], result.sizes.eps.index(result.sizes.main)
    shares = {
        f"{what}[{i}]": _share(which[i])
        for what, which in (
            ("robust accuracy", seen.robust),
            ("zero gradients", seen.stuck),
        )
        for i in range(len(which))
    }
    return shares | {
        "robust accuracy": _share(seen.robust[main]),
        "zero gradients": _share(seen.stuck[main]),
        "robust accuracy, margin": _share(seen.margin),
        "zero gradients, margin": _share(seen.margin_stuck),
    }


def _within(seen: Seen) -> float:
    """The rank correlation; 0 of a network for which there is none."""
    flip = seen.flip[seen.right]
    few = len(flip) < 4 or bool((flip == flip[0]).all())
    return 0.0 if few else seen.within().value


def _measure(model: nn.Module, x: Tensor, y: Tensor, sizes: Sizes) -> Seen:
    """All of `measure` for images that are attacked together."""
    phi, z = _look(model, x)
    walks = {eps: _attack(model, x, y, eps, sizes.steps) for eps in sizes.eps}
    margin = _attack(model, x, y, sizes.main, sizes.steps, loss="margin")
    flip, reach = _distances(model, x, y, sizes)
    right = z.argmax(1) == y.cpu()
    weight = check_model(model)[1].weight.detach().cpu().double()
    features = phi.square().sum(1)
    return Seen(
        logits=z,
        size=weight.square().sum() * features,
        features=features,
        right=right,
        flip=flip,
        reach=reach,
        path=_common.sharpness(model, walks[sizes.main]),
        robust=torch.stack([walk.robust.cpu() & right for walk in walks.values()]),
        stuck=torch.stack([walk.stuck.cpu() for walk in walks.values()]),
        margin=margin.robust.cpu() & right,
        margin_stuck=margin.stuck.cpu(),
    )


def _distances(
    model: nn.Module, x: Tensor, y: Tensor, sizes: Sizes
) -> tuple[Tensor, Tensor]:
    """Flip distance (N,) and reach (E, N) on the attack without a radius."""
    path = attacks.pgd(
        model,
        x,
        y,
        norm="l2",
        eps=2 * sizes.longest,
        step_size=sizes.step_size,
        steps=sizes.walk_steps,
    )
    moved = (path.points - path.points[0]).flatten(2)
    away = moved.norm(dim=2).cpu().double()
    z, labels = path.logits.cpu().double().flatten(0, 1), y.cpu().repeat(len(away))
    lead = -softmax.margin(z, labels).view(away.shape)
    odds = softmax.log_odds(z, labels).view(away.shape)
    start = softmax.cross_entropy(z, labels).view(away.shape)[0]
    reach = torch.stack(
        [first_reach(odds, away, _log_odds(start + rise)) for rise in sizes.tolerances]
    )
    return first_reach(lead, away, torch.zeros_like(start)), reach


def _log_odds(loss: Tensor) -> Tensor:
    """The log-odds against the label at a positive cross-entropy."""
    return loss + (-torch.expm1(-loss)).log()


def _attack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    steps: int,
    *,
    loss: str = "log_odds",
) -> Trajectory:
    step_size = eps / _STEPS_TO_EDGE
    return attacks.pgd(
        model, x, y, norm="linf", eps=eps, step_size=step_size, steps=steps, loss=loss
    )


def _look(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Features and logits, float64, on the CPU."""
    features, head = check_model(model)
    with torch.no_grad(), evaluating(model):
        phi = features(x)
        return phi.cpu().double(), head(phi).cpu().double()


def _share(which: Tensor) -> float:
    """Share of True; 0 of none."""
    return float(which.double().mean()) if len(which) else 0.0


def _ratio(above: float, below: float) -> float:
    """Of two numbers; 0 where the second is 0."""
    return above / below if below else 0.0


def _check(models: Mapping[str, nn.Module]) -> None:
    needed = ("standard", "adversarial")
    if not isinstance(models, Mapping) or not set(needed) <= set(models):
        got = list(models) if isinstance(models, Mapping) else type(models).__name__
        raise ValueError(f"expected a dictionary with networks {needed}, got {got}")
