r"""How does the loss rise on the way to an attack?

The head is multiplied by s, which is said to make a network flat, and the loss is
followed along attacks in the Euclidean norm (Walter et al., 2025, section 6.1, figures
2 and 4 to 11): a *weak* attack, 25 steps in the paper's ball, and a *strong* one, 50
steps in a ball so large that nearly all images change their label. Attacks ascend the
log-odds at s = 1, from images that the network gets right. Scaling leaves features and
predictions alone, so one recorded path gives the loss

.. math:: \ell_s(t) = \log\Bigl(1 + \sum_{j \ne y} e^{s\,(z_j(t) - z_y(t))}\Bigr)

at every scale. A `Path` holds it with the margin :math:`m = z_y - \max_{j\ne y} z_j`,
whose sign no scale changes. The *basin* of an image ends at one of

====================  =================================================================
``rise of 0.1``       the loss exceeds its start by 0.1
``label flip``        the margin reaches 0
``tenth of rise``     the loss has done a tenth of its whole rise on the path
``ten times start``   the loss is ten times what it was at the start
====================  =================================================================

in steps, straight between two of them, infinity where the path is too short. To see
what happens if the attack is made anew on a scaled network, the strong one is: with
the log-odds, and with cross-entropy as float32 computes it. `Plateau` compares the
mean of the paper's sharpness over all test images with the limit that proposition
``prop-mean-sharpness`` gives.

>>> z = torch.tensor([[[4.0, 0.0]], [[2.0, 0.0]], [[-1.0, 0.0]]])
>>> y = torch.tensor([0])
>>> path = follow(z, y, torch.tensor([[False]]), [1.0, 10.0])
>>> path.rise[:, 0]                        # margin 4 -> -1 at scales 1 and 10
tensor([ 1.2951, 10.0000], dtype=torch.float64)
>>> path.width("label flip")[:, 0]
tensor([1.6667, 1.6667], dtype=torch.float64)
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from flatbook import _checks, attacks, curvature, profiles, scaling, softmax, training
from flatbook.data import Dataset
from flatbook.experiments import _common, _statistics
from flatbook.models import check_model, evaluating, scale_head

VERSION = 1
WIDTHS = ("rise of 0.1", "label flip", "tenth of rise", "ten times start")
LOSSES = ("log_odds", "cross_entropy")
_RISE, _SHARE, _FACTOR = 0.1, 0.1, 10.0
_EXAMPLES, _POINTS = 6, 250
_EDGES = torch.logspace(-9, 3, 25, dtype=torch.float64)


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        weak_eps: radius of the weak attack.
        strong_eps: radius of the strong one, larger.
        weak_steps: of equal length, together as long as the radius.
        strong_steps: the same.
        scales: factors on the head, rising, 1 among them.
        again: scales at which the strong attack is made anew, all of `scales`.
        images: attacked.
        again_images: of them, attacked anew.
        copies: of every test image, with noise, for the mean sharpness; 1 with
            `noise` 0 takes the images as they are.
        noise: standard deviation of the noise.
        points: scales at which the mean sharpness is taken, from 1 to 100.
        batch: images at a time.

    Raises:
        ValueError: if a value is out of range.
    """

    weak_eps: float
    strong_eps: float
    weak_steps: int = 25
    strong_steps: int = 50
    scales: tuple[float, ...] = (0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 50.0)
    again: tuple[float, ...] = (1.0, 5.0, 10.0, 50.0)
    images: int = 200
    again_images: int = 50
    copies: int = 1
    noise: float = 0.0
    points: int = 9
    batch: int = 500

    def __post_init__(self) -> None:
        _checks.positive("weak_eps", self.weak_eps)
        _checks.positive("strong_eps", self.strong_eps)
        if self.weak_eps >= self.strong_eps:
            raise ValueError(
                f"weak_eps must be below strong_eps, got {self.weak_eps} and "
                f"{self.strong_eps}"
            )
        rising = list(self.scales) == sorted(set(self.scales))
        if not rising or 1 not in self.scales or self.scales[0] <= 0:
            raise ValueError(
                f"scales must be positive, rising, with 1 among them, got {self.scales}"
            )
        for scale in self.again:
            _checks.choice("again", scale, self.scales)
        _checks.number("noise", self.noise)
        for name in ("weak_steps", "strong_steps", "images", "again_images"):
            _checks.integer(name, getattr(self, name), 1)
        for name, least in (("copies", 1), ("points", 3), ("batch", 1)):
            _checks.integer(name, getattr(self, name), least)

    @property
    def one(self) -> int:
        """Place of s = 1 among the scales."""
        return self.scales.index(1)

    def ball(self, attack: str) -> dict[str, Any]:
        """Settings of the attack "weak" or "strong" for `attacks.pgd`."""
        eps, steps = {
            "weak": (self.weak_eps, self.weak_steps),
            "strong": (self.strong_eps, self.strong_steps),
        }[attack]
        return {"norm": "l2", "eps": eps, "step_size": eps / steps, "steps": steps}


def sizes(profile: str, data: str) -> Sizes:
    """Digits in balls of 0.2 and 1.5, natural images in 0.025 (the paper's) and 1.

    Raises:
        ValueError: no such profile.
    """
    _checks.choice("profile", profile, profiles.NAMES)
    if data == "digits":
        return Sizes(weak_eps=0.2, strong_eps=1.5, copies=20, noise=0.1)
    images, again = {"cpu": (300, 50), "t4": (500, 50)}.get(profile, (10_000, 1000))
    return Sizes(weak_eps=0.025, strong_eps=1.0, images=images, again_images=again)


def robust_sizes(profile: str, data: str) -> Sizes:
    """The same for an adversarially trained network, with longer attacks.

    On natural images the weak attack is the paper's (appendix D.2): 50 steps in a ball
    of 0.5, twenty times the usual radius; the strong one goes to 6. On digits, where
    twenty times the usual radius turns every label, the weak attack is chosen by what
    it does to a standard network: about as many labels flip.

    Raises:
        ValueError: no such profile.
    """
    weak, strong = (0.3, 2.5) if data == "digits" else (0.5, 6.0)
    return replace(
        sizes(profile, data),
        weak_eps=weak,
        strong_eps=strong,
        weak_steps=50,
        strong_steps=100,
    )


@dataclass(frozen=True, eq=False, repr=False)
class Path:
    """N images on T steps of an attack, under S scales; on the CPU, float64.

    Attributes:
        margins: (T + 1, N), at scale 1.
        losses: (S, T + 1, N), cross-entropy of the true class.
        stuck: (N,), bool: all gradients of the attack were exactly zero.
    """

    margins: Tensor
    losses: Tensor
    stuck: Tensor

    @property
    def rise(self) -> Tensor:
        """(S, N), the loss at the end minus the loss at the start."""
        return self.losses[:, -1] - self.losses[:, 0]

    @property
    def robust(self) -> Tensor:
        """(N,), bool: the true class still leads at the end."""
        return self.margins[-1] > 0

    @property
    def normalised(self) -> Tensor:
        """(S, T + 1, N), the loss from 0 at the start to 1 at its maximum."""
        start = self.losses[:, :1]
        rise = self.losses.amax(1, keepdim=True) - start
        return (self.losses - start) / torch.where(rise > 0, rise, 1)

    def width(self, name: str) -> Tensor:
        """Steps to the end of the basin: (S, N), infinity where it is not reached.

        Args:
            name: one of `WIDTHS`.

        Raises:
            ValueError: no such width.
        """
        _checks.choice("width", name, WIDTHS)
        steps = self.losses.movedim(1, 0)
        if name == "rise of 0.1":
            return scaling.take_off(steps, _RISE)
        if name == "tenth of rise":
            return scaling.share_of_rise(steps, _SHARE)
        if name == "ten times start":
            return scaling.multiple_of_start(steps, _FACTOR)
        return scaling.crossing(-self.margins, 0.0).expand(len(self.losses), -1)


@dataclass(frozen=True, eq=False, repr=False)
class Plateau:
    r"""Mean sharpness :math:`\|W\| \operatorname{Tr} H` over all test images.

    Attributes:
        scales: (G,), from 1 to 100.
        mean: (G,), over the images, right or wrong.
        median: (G,).
        predicted: the limit of the mean, from the images near a tie at s = 1.
    """

    scales: Tensor
    mean: Tensor
    median: Tensor
    predicted: float

    def at(self, scale: float) -> float:
        """The mean at the nearest scale of the grid."""
        return float(self.mean[(self.scales.log() - _log(scale)).abs().argmin()])


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """One network.

    Attributes:
        sizes: what was asked.
        accuracy: share of the test set that is right.
        kappa: (N,), relative sharpness of the clean images at s = 1, both norms
            squared.
        paths: "weak" and "strong" -> the attack of s = 1, seen at every scale.
        again: loss -> for each scale of `Sizes.again` the strong attack that was made
            there, of the first images, with the losses at that scale alone.
        plateau: the mean sharpness.
    """

    sizes: Sizes
    accuracy: float
    kappa: Tensor
    paths: Mapping[str, Path]
    again: Mapping[str, Sequence[Path]]
    plateau: Plateau

    @property
    def readings(self) -> dict[str, Tensor]:
        """Way of attacking -> (A, M), rises at the scales of `Sizes.again`.

        "one path" is the attack of s = 1, seen at the other scales; the others are
        the attacks made anew, of the same M images.
        """
        which = [self.sizes.scales.index(s) for s in self.sizes.again]
        made = {
            loss: torch.cat([path.rise for path in paths])
            for loss, paths in self.again.items()
        }
        count = len(next(iter(self.again.values()))[0].stuck)
        return {"one path": self.paths["strong"].rise[which, :count], **made}

    def stuck(self, loss: str) -> Tensor:
        """(A,), share of images that never moved."""
        return torch.stack([path.stuck.double().mean() for path in self.again[loss]])

    def robust(self, loss: str) -> Tensor:
        """(A,), share of images that kept their label."""
        return torch.stack([path.robust.double().mean() for path in self.again[loss]])

    def correlation(self, attack: str, width: str) -> _statistics.Estimate:
        """Rank correlation of `kappa` with a width of the basin at s = 1.

        Raises:
            ValueError: unknown names, or a width that all images share.
        """
        found = self.paths[attack].width(width)[self.sizes.one]
        return _statistics.rank_correlation(self.kappa, found)

    def given_margin(self, attack: str, width: str) -> _statistics.Estimate:
        """The same after the ranks of the clean margin are taken out of both.

        Raises:
            ValueError: see `correlation`.
        """
        path = self.paths[attack]
        found = path.width(width)[self.sizes.one]
        return _statistics.partial_rank_correlation(self.kappa, found, path.margins[0])


def run(model: nn.Module, dataset: Dataset, sizes: Sizes) -> Result:
    """Attack the images of one network and follow the loss at every scale.

    Args:
        model: with `features` and a linear `head`.
        dataset: whose test images are attacked.
        sizes: how much.

    Raises:
        ValueError: the model gets no test image right.
    """
    x, y = _common.correct(model, dataset, sizes.images, batch=sizes.batch)
    few = x[: sizes.again_images], y[: sizes.again_images]
    return Result(
        sizes=sizes,
        accuracy=training.accuracy(model, dataset.x_test, dataset.y_test),
        kappa=_clean_sharpness(model, x, batch=sizes.batch),
        paths={
            kind: _attack(
                model, x, y, sizes.ball(kind), scales=sizes.scales, batch=sizes.batch
            )
            for kind in ("weak", "strong")
        },
        again={loss: _again(model, *few, sizes, loss=loss) for loss in LOSSES},
        plateau=plateau(model, dataset, sizes),
    )


def follow(
    logits: Tensor, labels: Tensor, zeros: Tensor, scales: Sequence[float]
) -> Path:
    """The loss along recorded logits under every scale.

    Args:
        logits: (T + 1, N, k), at scale 1.
        labels: (N,).
        zeros: (T, N), bool, where the gradient of the attack was exactly zero.
        scales: S positive numbers.
    """
    steps = len(logits)
    z, y = logits.detach().cpu().double().flatten(0, 1), labels.cpu().repeat(steps)
    losses = scaling.losses(z, y, scales)
    margins = softmax.margin(z, y)
    return Path(
        margins=margins.view(steps, -1),
        losses=losses.view(len(scales), steps, -1),
        stuck=zeros.all(0).cpu(),
    )


def plateau(model: nn.Module, dataset: Dataset, sizes: Sizes) -> Plateau:
    r"""Mean and median sharpness under large scales, and where the mean should go.

    The prediction is :math:`\|W\|\, \frac1t \operatorname{E}[\|\phi\|^2;\, g \le t]`
    with the gap g from the largest logit to the second and t = 1.

    Args:
        model: with `features` and `head`.
        dataset: all of its test images count.
        sizes: with copies, noise and points.
    """
    weight = check_model(model)[1].weight.detach().cpu().double()
    phi, z = _seen(model, dataset, sizes)
    scales = torch.logspace(0, 2, sizes.points, dtype=torch.float64)
    size = torch.linalg.matrix_norm(weight)
    log_kappa = scaling.log_sharpness(weight, phi, z, scales)
    kappa = (log_kappa - (scales * size).log()[:, None]).exp()
    first, second = z.topk(2).values.T
    close = phi.square().sum(1) * (first - second <= 1)
    return Plateau(
        scales=scales,
        mean=kappa.mean(1),
        median=kappa.median(1).values,
        predicted=float(size * close.mean()),
    )


def numbers(result: Result) -> dict[str, float]:
    """For a card; ``name[i]`` belongs to the scale i of what the sizes list.

    A median over images of which some never leave the basin counts these with the
    last step; a correlation with a width that all images share is 0.
    """
    values = {"accuracy": result.accuracy}
    for kind, path in result.paths.items():
        named = _rises(path) | _basins(path, result.sizes.one)
        named |= _correlations(result, kind)
        values |= {f"{kind}: {name}": v for name, v in named.items()}
    return values | _made_anew(result) | _levels(result.plateau)


def panels(result: Result) -> dict[str, Tensor]:
    """What figures 2 and 4 to 12 of the paper show, for one network.

    KIND is ``weak``, the paper's attack, or ``strong``, which shows whole basins.
    NaN stands for images that there are not, infinity for a width that the path is too
    short for.

    =========================  ======================================================
    ``scales``                 (S,)
    ``edges``                  (B,), between the bins of the rise of the loss
    ``kappa``                  (P,), sharpness of clean images, the first ones
    ``margin``                 (P,), of the same
    ``KIND_eps``               radius
    ``KIND_steps``             (T + 1,), from 0 to T
    ``KIND_robust``            share of images that keep their label
    ``KIND_rises``             (S, B + 1), share of images in each bin; the first bin
                               lies below all edges, the last above
    ``KIND_mean_rise``         (S,)
    ``KIND_median_rise``       (S,)
    ``KIND_example``           (S, T + 1), normalised loss of one image
    ``KIND_example_flip``      step at which its label flips
    ``KIND_basins``            (6, T + 1), normalised loss at the largest scale of
                               images whose labels flip, from narrow to wide
    ``KIND_flips``             (6,), where they do
    ``KIND_widths``            (4, P), widths of the basin at s = 1, as in `WIDTHS`
    ``KIND_correlation``       (4,), of sharpness and width over all images, NaN where
                               all share one width
    ``KIND_given_margin``      (4,), the same given the margin
    ``KIND_censored``          (4,), share of images whose width is infinite
    =========================  ======================================================
    """
    count = min(result.sizes.images, _POINTS)
    margin = result.paths["weak"].margins[0]
    shown = {
        "scales": torch.tensor(result.sizes.scales, dtype=torch.float64),
        "edges": _EDGES.clone(),
        "kappa": _filled(result.kappa, count),
        "margin": _filled(margin, count),
    }
    for kind, path in result.paths.items():
        named = {
            "eps": torch.tensor(result.sizes.ball(kind)["eps"], dtype=torch.float64),
            "steps": torch.arange(len(path.margins)),
            "robust": path.robust.double().mean(),
        }
        named |= _histograms(path) | _basin_shapes(path) | _scatter(result, kind, count)
        shown |= {f"{kind}_{name}": values for name, values in named.items()}
    return shown


def passes(sizes: Sizes, *, classes: int, test_images: int, networks: int = 1) -> float:
    """Work of `run` in forward passes of one image; a backward pass counts one more.

    As if all images were right: where fewer than `sizes.images` are, it is too high.

    Args:
        sizes: how much is measured.
        classes: of the network; makes no difference here.
        test_images: in the test set.
        networks: measured one after the other.
    """
    images = min(sizes.images, test_images)
    again = min(sizes.again_images, images) * len(LOSSES) * len(sizes.again)
    weak, strong = 2 * sizes.weak_steps + 1, 2 * sizes.strong_steps + 1
    chosen = min(test_images, math.ceil(images / sizes.batch) * sizes.batch)
    looked = chosen + images + (1 + sizes.copies) * test_images
    return float(networks * (looked + images * (weak + strong) + again * strong))


def _histograms(path: Path) -> dict[str, Tensor]:
    """Panel (a): rises of the loss in bins, their mean and median."""
    bins = torch.bucketize(path.rise, _EDGES, right=True)
    counts = torch.stack([row.bincount(minlength=len(_EDGES) + 1) for row in bins])
    return {
        "rises": (counts / path.rise.shape[1]).float(),
        "mean_rise": path.rise.mean(1),
        "median_rise": path.rise.median(1).values,
    }


def _basin_shapes(path: Path) -> dict[str, Tensor]:
    """Panels (b) and (c): one image at all scales, some images at the largest.

    Where no label flips, (b) shows the image that came closest and (c) nothing.
    """
    flips = path.width("label flip")[0]
    middle, some = _between(flips, 1), _between(flips, _EXAMPLES)
    one = int(middle[0]) if len(middle) else int(path.margins[-1].argmin())
    normalised = path.normalised
    return {
        "example": normalised[:, :, one].float(),
        "example_flip": flips[one].clone(),
        "basins": _filled(normalised[-1, :, some].T, _EXAMPLES),
        "flips": _filled(flips[some], _EXAMPLES),
    }


def _scatter(result: Result, kind: str, count: int) -> dict[str, Tensor]:
    """Panel (d): widths at s = 1, how they go with sharpness, how many are unknown."""
    path, one = result.paths[kind], result.sizes.one
    widths = torch.stack([path.width(name)[one] for name in WIDTHS])
    alone = [_value(partial(result.correlation, kind, w), torch.nan) for w in WIDTHS]
    given = [_value(partial(result.given_margin, kind, w), torch.nan) for w in WIDTHS]
    return {
        "widths": _filled(widths.T, count).T,
        "correlation": torch.tensor(alone),
        "given_margin": torch.tensor(given),
        "censored": widths.isinf().float().mean(1),
    }


def _between(widths: Tensor, count: int) -> Tensor:
    """Places of at most `count` finite widths, evenly from narrow to wide."""
    order = widths.argsort(stable=True)[: int(widths.isfinite().sum())]
    if len(order) <= count:
        return order
    return order[((torch.arange(count) + 0.5) * len(order) / count).long()]


def _filled(values: Tensor, count: int) -> Tensor:
    """The first `count` rows in float32, NaN where there are fewer."""
    kept = values[:count].float()
    missing = kept.new_full((count - len(kept), *kept.shape[1:]), torch.nan)
    return torch.cat([kept, missing])


def _rises(path: Path) -> dict[str, float]:
    """Median and mean rise at every scale, and the share that is robust."""
    values = {
        "robust accuracy": _mean(path.robust),
        "zero gradients": _mean(path.stuck),
    }
    for i, rise in enumerate(path.rise):
        values[f"median rise[{i}]"] = _middle(rise)
        values[f"mean rise[{i}]"] = _mean(rise)
    return values


def _basins(path: Path, one: int) -> dict[str, float]:
    """Median widths at every scale, the images that never get there at the last."""
    last, values = len(path.margins) - 1, {}
    for name in WIDTHS:
        width = path.width(name)
        values[f"censored, {name}"] = _mean(width[one].isinf())
        for i, steps in enumerate(width.clamp_max(last)):
            values[f"median {name}[{i}]"] = _middle(steps)
    return values


def _correlations(result: Result, kind: str) -> dict[str, float]:
    """Sharpness of the clean image against the widths, alone and given the margin."""
    values = {}
    for name in WIDTHS:
        for label, of in (
            ("correlation", result.correlation),
            ("given the margin", result.given_margin),
        ):
            values[f"{label}, {name}"] = _value(partial(of, kind, name))
    return values


def _made_anew(result: Result) -> dict[str, float]:
    """Reading A and reading B, of the same images."""
    values = {}
    for reading, rises in result.readings.items():
        for i, rise in enumerate(rises):
            values[f"{reading}: mean rise[{i}]"] = _mean(rise)
    for loss in LOSSES:
        for i, both in enumerate(
            zip(result.robust(loss), result.stuck(loss), strict=True)
        ):
            robust, stuck = both
            values[f"{loss}: robust accuracy[{i}]"] = float(robust)
            values[f"{loss}: zero gradients[{i}]"] = float(stuck)
    return values


def _levels(found: Plateau) -> dict[str, float]:
    values = {"plateau predicted": found.predicted, "plateau at s = 10": found.at(10)}
    for i, (mean, median) in enumerate(zip(found.mean, found.median, strict=True)):
        values[f"mean sharpness[{i}]"] = float(mean)
        values[f"median sharpness[{i}]"] = float(median)
    return values


def _attack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    settings: Mapping[str, Any],
    *,
    scales: Sequence[float],
    batch: int,
) -> Path:
    """Attack and follow, some images at a time; no image of the path is kept."""
    parts = []
    for images, labels in zip(x.split(batch), y.split(batch), strict=True):
        path = attacks.pgd(model, images, labels, **settings)
        parts.append(follow(path.logits, labels, path.zero_gradients, scales))
    return _join(parts)


def _again(
    model: nn.Module, x: Tensor, y: Tensor, sizes: Sizes, *, loss: str
) -> list[Path]:
    """The strong attack made anew on each of the scaled networks."""
    settings = sizes.ball("strong") | {"loss": loss}
    look = {"scales": [1.0], "batch": sizes.batch}
    return [
        _attack(scale_head(model, s), x, y, settings, **look)  # type: ignore[arg-type]
        for s in sizes.again
    ]


def _join(paths: Sequence[Path]) -> Path:
    """Paths of different images as one."""
    names = [field.name for field in fields(Path)]
    parts = {name: [getattr(path, name) for path in paths] for name in names}
    return Path(**{name: torch.cat(part, dim=-1) for name, part in parts.items()})


def _clean_sharpness(model: nn.Module, x: Tensor, *, batch: int) -> Tensor:
    weight = check_model(model)[1].weight.detach().cpu().double()
    phi, z = _look(model, x, batch)
    return curvature.relative_sharpness(weight, phi, z)


def _seen(model: nn.Module, dataset: Dataset, sizes: Sizes) -> tuple[Tensor, Tensor]:
    """Features and logits of the test images, or of noisy copies of them."""
    source = torch.Generator().manual_seed(0)
    device, parts = _common.device_of(model), []
    for _ in range(sizes.copies):
        x = dataset.x_test
        if sizes.noise:
            x = x + sizes.noise * torch.randn(x.shape, generator=source)
        parts.append(_look(model, x.clamp(0, 1).to(device), sizes.batch))
    phi, z = (torch.cat(each) for each in zip(*parts, strict=True))
    return phi, z


def _look(model: nn.Module, x: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """Features and logits in float64 on the CPU."""
    features, head = check_model(model)
    with torch.no_grad(), evaluating(model):
        phi = torch.cat([features(part) for part in x.split(batch)])
        return phi.cpu().double(), head(phi).cpu().double()


def _log(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64).log()


def _mean(values: Tensor) -> float:
    return float(values.double().mean())


def _middle(values: Tensor) -> float:
    return float(values.median())


def _value(estimate: partial[_statistics.Estimate], otherwise: float = 0.0) -> float:
    """The value of a correlation, or another where one of the quantities is constant.

    It is also undefined where images are too few.
    """
    try:
        return estimate().value
    except ValueError:
        return otherwise
