r"""What does an attack walk through?

Images that a network gets right are attacked at several strengths, and the last layer
is looked at in every point of the way (Walter et al., 2025, section 6.2, figures 3 and
16): projected gradient ascent in the maximum norm, T = 10 steps of a quarter of the
radius. A `Walk` holds, for every step and image,

===========  ==========================================================================
``kappa``    relative sharpness :math:`\|W\|^2 \|\phi\|^2 \operatorname{tr} P`
``trace``    :math:`\operatorname{tr} P = 1 - \sum_i p_i^2`
``size``     :math:`\|\phi\|^2`
``loss``     cross-entropy of the true class y
``slope``    :math:`\|p - e_y\|`, the norm of its gradient in the logits
``doubt``    :math:`1 - p_{\max}`
``own``      trace of the logit Hessian of the loss that the network was trained with
``wrong``    whether another class leads
===========  ==========================================================================

and at both ends the norm of the gradient in the input. The same along the straight
line to the end of the strongest attack, and where the ball is taken away. The
*valley* is entered by an image whose kappa ends below a tenth of its peak.

>>> from flatbook import attacks, data, models
>>> digits = data.digits()
>>> network = models.build("mlp", 10, in_channels=1, image_size=8)
>>> x, y = digits.x_test[:2], digits.y_test[:2]
>>> path = attacks.line(network, x, x.flip(3), y, steps=4)
>>> look(network, path).kappa.shape
torch.Size([5, 2])
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from flatbook import _checks, attacks, curvature, losses, profiles, softmax, training
from flatbook.attacks import Trajectory
from flatbook.data import Dataset
from flatbook.experiments import _common, _statistics
from flatbook.models import check_model, evaluating

VERSION = 1
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "standard": {},
    "label smoothing": {"label_smoothing": 0.1},
    "focal": {"loss": "focal"},
    "Brier": {"loss": "brier"},
    "squared error": {"loss": "squared_error", "lr": 0.005},
}
"""Networks of one seed. The squared error of logits needs smaller steps."""

_STEPS_TO_EDGE = 4
_FALLEN = 0.1
_CHOSEN = 500


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        eps: radii of the attacks, rising; all networks but the standard one are
            attacked with the last two only.
        main: the radius whose walks are followed further, one of the last two.
        steps: of each attack.
        images: attacked, for each network.
        line_images: of them, followed on the straight line.
        line_steps: pieces of the line.
        free_images: of them, followed without the ball.
        free_steps: that they walk.
        batch: images at a time.

    Raises:
        ValueError: if a value is out of range.
    """

    eps: tuple[float, ...]
    main: float
    steps: int = 10
    images: int = 100
    line_images: int = 40
    line_steps: int = 100
    free_images: int = 30
    free_steps: int = 25
    batch: int = 250

    def __post_init__(self) -> None:
        for eps in self.eps:
            _checks.positive("eps", eps)
        if len(self.eps) < 2 or list(self.eps) != sorted(set(self.eps)):
            raise ValueError(f"eps must be two or more rising radii, got {self.eps}")
        _checks.choice("main", self.main, self.eps[-2:])
        for field in fields(self)[2:]:
            _checks.integer(field.name, getattr(self, field.name), 1)


def sizes(profile: str, data: str) -> Sizes:
    """Digits are attacked up to 0.3; natural images around the paper's 8/255.

    Raises:
        ValueError: no such profile.
    """
    _checks.choice("profile", profile, profiles.NAMES)
    if data == "digits":
        return Sizes(eps=(0.05, 0.1, 0.15, 0.2, 0.3), main=0.3)
    radii = tuple(n / 255 for n in (1, 2, 4, 8, 16))
    images = {"cpu": 400, "t4": 500}.get(profile, 10_000)
    line, free = (100, 100) if profile in ("cpu", "t4") else (2000, 1000)
    return Sizes(radii, 8 / 255, images=images, line_images=line, free_images=free)


def variants(profile: str, data: str) -> Mapping[str, Mapping[str, Any]]:
    """All of `VARIANTS`, or the standard network alone.

    Natural images on a processor: training one network takes minutes there.
    """
    few = profile == "cpu" and data != "digits"
    return {"standard": VARIANTS["standard"]} if few else VARIANTS


@dataclass(frozen=True, eq=False, repr=False)
class Walk:
    """What the last layer sees at T + 1 points of the ways of N images.

    Float64 on the CPU, (T + 1, N) unless said otherwise; see the top of this module.

    Attributes:
        kappa: relative sharpness.
        trace: of P.
        size: squared norm of the features.
        loss: cross-entropy of the true class.
        slope: norm of its gradient in the logits.
        doubt: one minus the largest probability.
        own: trace of the logit Hessian of the network's own loss.
        wrong: whether another class leads (bool).
        pull: (2, N), norms of the gradient of cross-entropy in the input, at the
            start and at the end.
        stuck: (N,), bool: all gradients of the attack were exactly zero.
    """

    kappa: Tensor
    trace: Tensor
    size: Tensor
    loss: Tensor
    slope: Tensor
    doubt: Tensor
    own: Tensor
    wrong: Tensor
    pull: Tensor
    stuck: Tensor

    @property
    def confidence(self) -> Tensor:
        """The largest probability, whichever class has it."""
        return 1 - self.doubt

    @property
    def fallen(self) -> Tensor:
        """(N,), bool: kappa ends below a tenth of its peak."""
        return self.kappa[-1] < _FALLEN * self.kappa.amax(0)

    @property
    def flip(self) -> Tensor:
        """(N,), the first step classified wrong; T + 1 where there is none."""
        first = self.wrong.int().argmax(0)
        return torch.where(self.wrong.any(0), first, len(self.wrong))

    @property
    def peak_minus_flip(self) -> Tensor:
        """Sharpest step minus first wrong step, of the images that turn wrong."""
        turned = self.wrong.any(0)
        return (self.kappa.argmax(0) - self.flip)[turned]

    def around_flip(self, name: str, reach: int) -> Tensor:
        """A quantity from `reach` steps before the flip to as many after it.

        Where the walk is shorter its first or last value is repeated.

        Args:
            name: one of the quantities of shape (T + 1, N).
            reach: at least 0.

        Returns:
            (2 reach + 1, M) for the M images that turn wrong.
        """
        turned = self.wrong.any(0)
        offsets = torch.arange(-reach, reach + 1)[:, None]
        places = (self.flip[turned] + offsets).clamp(0, len(self.wrong) - 1)
        return getattr(self, name)[:, turned].gather(0, places)


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """Networks of one seed under attack.

    Attributes:
        sizes: what was asked.
        accuracy: variant -> share of the test set that is right.
        walks: variant -> radius -> walk.
        line: the straight line to the adversarial examples of the main radius.
        held: a longer attack of the main radius, `free_steps` steps.
        free: as many steps of the same length, without ball and box.
    """

    sizes: Sizes
    accuracy: Mapping[str, float]
    walks: Mapping[str, Mapping[float, Walk]]
    line: Walk
    held: Walk
    free: Walk

    @property
    def main(self) -> Walk:
        """The standard network at the main radius."""
        return self.walks["standard"][self.sizes.main]

    @property
    def valley_share(self) -> dict[float, float]:
        """Radius -> share of the standard network's images that enter the valley."""
        walks = self.walks["standard"].items()
        return {eps: _share(walk.fallen) for eps, walk in walks}

    @property
    def valley_strength(self) -> float:
        """Smallest radius at which more than half of the images enter the valley.

        It is 1, the side of the box [0, 1], where no radius was large enough.
        """
        return next((e for e, share in self.valley_share.items() if share > 0.5), 1.0)


def run(models: Mapping[str, nn.Module], dataset: Dataset, sizes: Sizes) -> Result:
    """Attack the networks of one seed and follow the images.

    Args:
        models: variant -> network; "standard" and any of the other `VARIANTS`.
        dataset: whose test images are attacked.
        sizes: how much.

    Raises:
        ValueError: no standard network, an unknown variant, or a network that gets no
            test image right.
    """
    _check(models)
    model = models["standard"]
    x, y = _common.correct(model, dataset, sizes.images, batch=_CHOSEN)
    far, near = x[: sizes.free_images], x[: sizes.line_images]
    held = partial(_attack, eps=sizes.main, steps=sizes.free_steps)
    free = partial(climb, step_size=sizes.main / _STEPS_TO_EDGE, steps=sizes.free_steps)
    see = partial(_see, model, batch=sizes.batch)
    return Result(
        sizes=sizes,
        accuracy={
            name: training.accuracy(net, dataset.x_test, dataset.y_test)
            for name, net in models.items()
        },
        walks={name: _walks(name, net, dataset, sizes) for name, net in models.items()},
        line=see(partial(_line, sizes=sizes), near, y[: len(near)]),
        held=see(held, far, y[: len(far)]),
        free=see(free, far, y[: len(far)]),
    )


def look(model: nn.Module, path: Trajectory, *, loss: str = "cross_entropy") -> Walk:
    """What the last layer sees on a recorded path.

    Args:
        model: the one that was attacked.
        path: from `flatbook.attacks` or `climb`.
        loss: the one it was trained with, of `flatbook.training.LOSSES`; only `own`
            depends on it.
    """
    weight = check_model(model)[1].weight.detach().cpu().double()
    phi, z = (t.cpu().double().flatten(0, 1) for t in (path.features, path.logits))
    y = path.labels.cpu().repeat(len(path.points))
    others = softmax.one_minus(z)
    seen = {
        "kappa": curvature.relative_sharpness(weight, phi, z),
        "trace": softmax.trace_p(z),
        "size": phi.square().sum(1),
        "loss": softmax.cross_entropy(z, y),
        "slope": _away(z, others, y).norm(dim=1),
        "doubt": others.amin(1),
        "own": own_trace(loss, z, y),
        "wrong": z.argmax(1) != y,
    }
    seen = {name: values.view(len(path.points), -1) for name, values in seen.items()}
    ends = (path.points[0], path.points[-1])
    pull = torch.stack([input_slope(model, x, path.labels) for x in ends])
    return Walk(**seen, pull=pull, stuck=path.zero_gradients.all(0).cpu())


def own_trace(loss: str, logits: Tensor, labels: Tensor) -> Tensor:
    """Trace of the logit Hessian of a training loss: (N,), of either sign.

    That of cross-entropy, with whatever target, is the trace of P and not negative.

    Args:
        loss: of `flatbook.training.LOSSES`.
        logits: (N, k).
        labels: (N,).

    Raises:
        ValueError: no such loss.

    >>> z, y = torch.tensor([[0.0, 5.0]], dtype=torch.float64), torch.tensor([0])
    >>> [round(own_trace(loss, z, y).item(), 3) for loss in ("cross_entropy", "brier")]
    [0.013, -0.052]
    """
    _checks.choice("loss", loss, tuple(_HESSIANS))
    hessian = _HESSIANS[loss]
    pieces = zip(logits.split(500), labels.split(500), strict=True)
    return torch.cat([hessian(z, y).diagonal(0, 1, 2).sum(1) for z, y in pieces])


def input_slope(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    r"""Norm of the gradient of cross-entropy in the input: (N,), float64, on the CPU.

    It is :math:`1 - p_y` times that of the log-odds, which does not underflow.

    Args:
        model: from images to logits.
        x: images (N, ...).
        y: (N,).
    """
    with torch.enable_grad(), evaluating(model):
        leaf = x.detach().clone().requires_grad_()
        z = model(leaf)
        (slope,) = torch.autograd.grad(softmax.log_odds(z, y).sum(), leaf)
    doubt = softmax.one_minus(z.detach().double()).gather(1, y[:, None])[:, 0]
    return (doubt * slope.double().flatten(1).norm(dim=1)).cpu()


def climb(
    model: nn.Module, x: Tensor, y: Tensor, *, step_size: float, steps: int
) -> Trajectory:
    """The attack of `attacks.pgd` with neither a ball nor the box [0, 1].

    Args:
        model: with `features` and `head`.
        x: images (N, ...).
        y: (N,).
        step_size: in the maximum norm.
        steps: number of steps T.

    Returns:
        The path, T + 1 points that soon are images no more.
    """
    features, head = check_model(model)
    points, zeros = [x.detach()], []
    with evaluating(model):
        for _ in range(steps):
            leaf = points[-1].clone().requires_grad_()
            rise = softmax.log_odds(head(features(leaf)), y).sum()
            (slope,) = torch.autograd.grad(rise, leaf)
            points.append(points[-1] + step_size * slope.sign())
            zeros.append((slope == 0).flatten(1).all(1))
        with torch.no_grad():
            phi = torch.stack([features(point) for point in points])
            z = head(phi)
    loss = softmax.cross_entropy(z.flatten(0, 1), y.repeat(steps + 1))
    return Trajectory(
        torch.stack(points), phi, z, loss.view(z.shape[:2]), torch.stack(zeros), y
    )


def numbers(result: Result) -> dict[str, float]:
    """For a card: shares and medians, for each variant, radius or step."""
    walks = result.walks["standard"]
    values = {"valley strength": result.valley_strength}
    for i, walk in enumerate(walks.values()):
        values |= {f"{name}[{i}]": v for name, v in _ends(walk).items()}
    for step in range(len(result.main.kappa)):
        values |= {f"{k}[{step}]": v for k, v in _at(result.main, step).items()}
    values |= _crossing(result.main, result.line) | _ramp(result)
    for variant, each in result.walks.items():
        walk = each[result.sizes.main]
        named = _ends(walk) | {
            "accuracy": result.accuracy[variant],
            "confidence at the end": _middle(walk.confidence[-1]),
            "negative own curvature at the end": _share(walk.own[-1] < 0),
        }
        values |= {f"{variant}: {name}": v for name, v in named.items()}
    return values


def panels(result: Result) -> dict[str, Tensor]:
    """What figures 3 and 16 of the paper show, for one seed.

    The standard network, attacked at the main radius in T steps: the paper's curves,
    quartiles beside them, and whether the images have left their class.

    ===========================  ==================================================
    ``eps``                      the radius
    ``steps``                    (T + 1,), from 0 to T
    ``mean_sharpness``           (T + 1,), over the images
    ``spread_of_sharpness``      (T + 1,), standard deviation
    ``quartiles_of_sharpness``   (3, T + 1), the second is the median
    ``mean_loss``                (T + 1,), cross-entropy of the true class
    ``quartiles_of_loss``        (3, T + 1)
    ``quartiles_of_confidence``  (3, T + 1), of the largest probability
    ``right``                    (T + 1,), share of images that keep their label
    ===========================  ==================================================
    """
    walk = result.main
    curves = {
        "mean_sharpness": walk.kappa.mean(1),
        "spread_of_sharpness": walk.kappa.std(1, correction=0),
        "quartiles_of_sharpness": _quartiles(walk.kappa),
        "mean_loss": walk.loss.mean(1),
        "quartiles_of_loss": _quartiles(walk.loss),
        "quartiles_of_confidence": _quartiles(walk.confidence),
        "right": (~walk.wrong).double().mean(1),
    }
    eps = torch.tensor(result.sizes.main, dtype=torch.float64)
    return {"eps": eps, "steps": torch.arange(len(walk.kappa)), **curves}


def passes(sizes: Sizes, *, classes: int, test_images: int, networks: int = 1) -> float:
    """Work of `run` in forward passes of one image; a backward pass counts one more.

    As if all images were right: where fewer than `sizes.images` are, it is too high.

    Args:
        sizes: how much is measured.
        classes: of the networks; makes no difference here.
        test_images: in the test set.
        networks: of one seed, the standard one among them.
    """
    images = min(sizes.images, test_images)
    line, free = (min(n, images) for n in (sizes.line_images, sizes.free_images))
    chosen = min(test_images, math.ceil(images / _CHOSEN) * _CHOSEN)
    attack, slopes = 2 * sizes.steps + 1, 4
    walks = (len(sizes.eps) + 2 * (networks - 1)) * images * (attack + slopes)
    straight = line * (attack + sizes.line_steps + 1 + slopes)
    longer = free * (5 * sizes.free_steps + 2 + 2 * slopes)
    looked = networks * test_images + (networks + 1) * chosen
    return float(walks + straight + longer + looked)


def _quartiles(values: Tensor) -> Tensor:
    """(3, T + 1), over the images of (T + 1, N)."""
    shares = torch.tensor([0.25, 0.5, 0.75], dtype=values.dtype)
    return values.quantile(shares, dim=1)


def _ends(walk: Walk) -> dict[str, float]:
    """Where the images of a walk end."""
    return {
        "valley share": _share(walk.fallen),
        "robust accuracy": _share(~walk.wrong[-1]),
        "zero gradients": _share(walk.stuck),
    }


def _at(walk: Walk, step: int) -> dict[str, float]:
    """The curves of figures 3 and 16 at one step."""
    return {
        "mean sharpness": float(walk.kappa[step].mean()),
        "spread of sharpness": float(walk.kappa[step].std(correction=0)),
        "median sharpness": _middle(walk.kappa[step]),
        "mean loss": float(walk.loss[step].mean()),
        "median confidence": _middle(walk.confidence[step]),
    }


def _crossing(attack: Walk, line: Walk) -> dict[str, float]:
    """Peak against flip, and the factors of kappa."""
    gaps, pieces = attack.peak_minus_flip, len(line.kappa) - 1
    size = line.around_flip("size", 0)[0] / line.size[0, line.wrong.any(0)]
    rank = _statistics.rank_correlation
    return {
        "flatter than its own image": _share(attack.kappa[-1] < attack.kappa[0]),
        "peak within a step of the flip": _share(gaps.abs() <= 1),
        "peak within 5 % of the way": _share(
            line.peak_minus_flip.abs() <= 0.05 * pieces
        ),
        "tr P above 0.45 on the line": _share(line.trace.amax(0) > 0.45),
        "size of features at the flip": _middle(size),
        "rank correlation with doubt": rank(
            attack.kappa.flatten(), attack.doubt.flatten()
        ).value,
    }


def _ramp(result: Result) -> dict[str, float]:
    """Slopes at both ends, and what happens without the ball."""
    walk, held, free = result.main, result.held, result.free
    return {
        "input gradient clean": _middle(walk.pull[0]),
        "input gradient at the end": _middle(walk.pull[1]),
        "logit gradient at the end": _middle(walk.slope[-1]),
        "loss held": _middle(held.loss[-1]),
        "loss free": _middle(free.loss[-1]),
        "sharpness held": _middle(held.kappa[-1]),
        "sharpness free": _middle(free.kappa[-1]),
        "input gradient free": _middle(free.pull[1]),
    }


def _walks(
    variant: str, model: nn.Module, dataset: Dataset, sizes: Sizes
) -> dict[float, Walk]:
    """The walks of one network, at every radius that is asked for."""
    radii = sizes.eps if variant == "standard" else sizes.eps[-2:]
    x, y = _common.correct(model, dataset, sizes.images, batch=_CHOSEN)
    loss = VARIANTS[variant].get("loss", "cross_entropy")
    return {
        eps: _see(
            model,
            partial(_attack, eps=eps, steps=sizes.steps),
            x,
            y,
            batch=sizes.batch,
            loss=loss,
        )
        for eps in radii
    }


def _see(
    model: nn.Module,
    walk: Callable[[nn.Module, Tensor, Tensor], Trajectory],
    x: Tensor,
    y: Tensor,
    *,
    batch: int,
    loss: str = "cross_entropy",
) -> Walk:
    """Walk and look, some images at a time; no path is kept."""
    pairs = zip(x.split(batch), y.split(batch), strict=True)
    return _join([look(model, walk(model, *pair), loss=loss) for pair in pairs])


def _attack(
    model: nn.Module, x: Tensor, y: Tensor, *, eps: float, steps: int
) -> Trajectory:
    step_size = eps / _STEPS_TO_EDGE
    return attacks.pgd(
        model, x, y, norm="linf", eps=eps, step_size=step_size, steps=steps
    )


def _line(model: nn.Module, x: Tensor, y: Tensor, *, sizes: Sizes) -> Trajectory:
    end = _attack(model, x, y, eps=sizes.main, steps=sizes.steps).adversarial
    return attacks.line(model, x, end, y, steps=sizes.line_steps)


def _join(walks: Sequence[Walk]) -> Walk:
    """Walks of different images as one."""
    names = [field.name for field in fields(Walk)]
    parts = {name: [getattr(walk, name) for walk in walks] for name in names}
    return Walk(**{name: torch.cat(part, dim=-1) for name, part in parts.items()})


def _away(logits: Tensor, others: Tensor, labels: Tensor) -> Tensor:
    """The gradient p - e_y without a subtraction; `others` is 1 - p."""
    index = labels[:, None]
    return logits.softmax(1).scatter(1, index, -others.gather(1, index))


def _focal(x: Tensor) -> Tensor:
    """The focal loss as a function of cross-entropy."""
    return torch.expm1(-x).square() * x


_HESSIANS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": lambda logits, _: softmax.covariance(logits),
    "focal": partial(losses.hessian_through, _focal),
    "brier": partial(losses.logit_hessian, losses.brier),
    "squared_error": partial(losses.logit_hessian, losses.squared_error),
}


def _check(models: Mapping[str, nn.Module]) -> None:
    if not isinstance(models, Mapping) or "standard" not in models:
        raise ValueError(
            'expected a dictionary of networks with "standard" among them, got '
            f"{list(models) if isinstance(models, Mapping) else type(models).__name__}"
        )
    unknown = sorted(set(models) - set(VARIANTS))
    if unknown:
        raise ValueError(f"variants must be of {list(VARIANTS)}, got {unknown}")


def _share(which: Tensor) -> float:
    """Share of True; 0 of none."""
    return float(which.double().mean()) if len(which) else 0.0


def _middle(values: Tensor) -> float:
    """Median; 0 of none."""
    return float(values.median()) if len(values) else 0.0
