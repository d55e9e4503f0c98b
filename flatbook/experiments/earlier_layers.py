r"""Do the other layers see the same?

Images that a network gets right are attacked (Walter et al., 2025, figure 14): ten
steps of projected gradient ascent in the maximum norm, each a quarter of the radius.
At every point of the way the trace of the Hessian of cross-entropy is computed in the
input and in every weight tensor of a convolution or linear layer,

.. math:: \operatorname{Tr} H_l
    = \sum_{i<j} p_i p_j \|\nabla_l z_i - \nabla_l z_j\|^2 ,

exact for piecewise-affine networks (theorem ``thm-piecewise-affine``), from k - 1
backward passes. Relative sharpness is :math:`\|W_l\|^q \operatorname{Tr} H_l` with q
of 0, 1 or 2; for the last layer and q = 2 it is the book's kappa.

Beside it stands Hutchinson's estimate of the traces of the mean loss, at the same
number of backward passes: a probe costs two and the first gradient one, so that m
probes cost 1 + 2m, and `equal_probes` gives the m with 1 + 2m = k - 1. In ``shared``
one probe of all estimated layers serves them all; in ``alone`` each layer has probes
of its own, and all of them together cost as many times more as there are layers.

>>> equal_probes(10), equal_probes(100)
(4, 49)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from flatbook import _checks, curvature, profiles
from flatbook.attacks import Trajectory
from flatbook.data import Dataset
from flatbook.experiments import _common, _statistics
from flatbook.models import check_model, evaluating

VERSION = 1

POWERS = (0, 1, 2)
_STEPS_TO_EDGE = 4
_FALLEN = 0.1
_CONVOLUTIONS = 20
_WEIGHTS_PER_PRODUCT = 0.02
_CHECKS = 180


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        eps: radius of the attack.
        steps: of the attack.
        images: attacked, at most.
        deep: so many of the last layers are estimated: 5 for l to l - 4.
        repeats: independent estimates of each trace.
        chunk: points whose layers are looked at together.
        batch: images at a time in all else.

    Raises:
        ValueError: if a value is out of range.
    """

    eps: float
    steps: int = 10
    images: int = 20
    deep: int = 5
    repeats: int = 2
    chunk: int = 16
    batch: int = 250

    def __post_init__(self) -> None:
        _checks.positive("eps", self.eps)
        for field in fields(self)[1:]:
            _checks.integer(field.name, getattr(self, field.name), 1)


def sizes(profile: str, data: str) -> Sizes:
    """Radius 0.3 for digits, 8/255 for natural images; the paper takes 500 images.

    Raises:
        ValueError: no such profile.
    """
    _checks.choice("profile", profile, profiles.NAMES)
    if data == "digits":
        return Sizes(eps=0.3)
    images = {"cpu": 30, "t4": 30}.get(profile, 500)
    return Sizes(eps=8 / 255, images=images, repeats=5, chunk=8, batch=100)


@dataclass(frozen=True, eq=False, repr=False)
class Walk:
    """Exact traces along the attack on one network; float64, on the CPU.

    Attributes:
        names: of the columns of `trace`: "input", then the layers, the head last.
        trace: (T + 1, N, 1 + L).
        square: (L,), squared Frobenius norms of the layers' weights.
        wrong: (T + 1, N), bool, whether another class leads.
        stuck: (N,), bool: all gradients of the attack were exactly zero.
    """

    names: tuple[str, ...]
    trace: Tensor
    square: Tensor
    wrong: Tensor
    stuck: Tensor

    @property
    def titles(self) -> tuple[str, ...]:
        """Short names of the columns: input, ..., l − 2, l − 1, l."""
        back = range(len(self.names) - 2, 0, -1)
        return ("input", *(f"l − {i}" for i in back), "l")

    @property
    def fallen(self) -> Tensor:
        """(N, 1 + L), bool: the trace ends below a tenth of its peak."""
        return self.trace[-1] < _FALLEN * self.trace.amax(0)

    @property
    def from_last_peak(self) -> Tensor:
        """(N, 1 + L), step of the peak minus that of the last layer's."""
        peak = self.trace.argmax(0)
        return peak - peak[:, -1:]

    @property
    def agreement(self) -> Tensor:
        """(1 + L,), rank correlation with the last layer, over images and steps."""
        columns = self.trace.flatten(0, 1)
        last = columns[:, -1]
        rank = _statistics.rank_correlation
        return torch.tensor([rank(column, last).value for column in columns.T])

    def sharpness(self, power: int = 2) -> Tensor:
        """Relative sharpness of the layers, without the input: (T + 1, N, L).

        Args:
            power: of the norm of a layer's weight, 0, 1 or 2.

        Raises:
            ValueError: another power.
        """
        _checks.choice("power", power, POWERS)
        return self.trace[:, :, 1:] * self.square ** (power / 2)

    def over_last(self, power: int = 0) -> Tensor:
        """Sharpness of every layer over that of the last one: (T + 1, N, L)."""
        values = self.sharpness(power)
        return values / values[:, :, -1:]

    def last_leads(self, power: int = 0) -> Tensor:
        """(T + 1, N), bool: every other layer is less sharp than the last one."""
        return (self.over_last(power)[:, :, :-1] < 1).all(2)


@dataclass(frozen=True, eq=False, repr=False)
class Estimates:
    """R estimates of the traces of the mean loss in D layers, at T + 1 steps.

    Attributes:
        mean: (R, T + 1, D), float64.
        error: (R, T + 1, D), the standard errors that they report.
    """

    mean: Tensor
    error: Tensor


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """Exact traces and estimates along the attack on one network.

    Attributes:
        sizes: what was asked.
        walk: the exact traces.
        probes: of each estimate.
        shared: estimates in the last D layers, one probe for all of them.
        alone: estimates with probes of each layer's own.
        input: (R, T + 1, N), estimates in the input, for each image.
    """

    sizes: Sizes
    walk: Walk
    probes: int
    shared: Estimates
    alone: Estimates
    input: Tensor

    @property
    def truth(self) -> Tensor:
        """(T + 1, D), what `shared` and `alone` estimate."""
        depth = self.shared.mean.shape[2]
        return self.walk.trace[:, :, -depth:].mean(1)


def run(model: nn.Module, dataset: Dataset, sizes: Sizes) -> Result:
    """Attack one network; traces and their estimates on the way.

    Args:
        model: piecewise affine, with `features` and a linear `head` that is the last
            of its layers.
        dataset: whose test images are attacked.
        sizes: how much.

    Raises:
        ValueError: a network that gets no test image right, or whose logits are not
            piecewise affine in a layer; see `flatbook.curvature.layer_grams`.
    """
    layers, path = list(weights(model)), attack(model, dataset, sizes)
    probes = equal_probes(dataset.num_classes)
    deep = layers[-sizes.deep :]
    lists = {"shared": [deep], "alone": [[layer] for layer in deep]}
    found = {k: _estimates(model, path, v, sizes, probes) for k, v in lists.items()}
    return Result(
        sizes=sizes,
        walk=look(model, path, sizes),
        probes=probes,
        input=_input_estimates(model, path, sizes, probes),
        **found,
    )


def walk(model: nn.Module, dataset: Dataset, sizes: Sizes) -> Walk:
    """The exact traces only; for the arguments and errors see `run`."""
    return look(model, attack(model, dataset, sizes), sizes)


def attack(model: nn.Module, dataset: Dataset, sizes: Sizes) -> Trajectory:
    """The walk itself: images that the model gets right, under attack."""
    x, y = _common.correct(model, dataset, sizes.images)
    return _common.attack(
        model,
        x,
        y,
        batch=sizes.batch,
        norm="linf",
        eps=sizes.eps,
        step_size=sizes.eps / _STEPS_TO_EDGE,
        steps=sizes.steps,
    )


def look(model: nn.Module, path: Trajectory, sizes: Sizes) -> Walk:
    """The exact traces on a recorded path.

    Args:
        model: the one that was attacked.
        path: from `flatbook.attacks`.
        sizes: of which `batch` and `chunk` are used.
    """
    layers = weights(model)
    return Walk(
        names=("input", *layers),
        trace=_traces(model, path.points, list(layers), sizes),
        square=torch.tensor(list(layers.values()), dtype=torch.float64),
        wrong=(path.logits.argmax(2) != path.labels).cpu(),
        stuck=path.zero_gradients.all(0).cpu(),
    )


def equal_probes(classes: int) -> int:
    """Probes of Hutchinson's estimate at the price of the exact trace, at least 2."""
    return max(2, (classes - 2) // 2)


def weights(model: nn.Module) -> dict[str, float]:
    """Weight of every convolution and linear layer -> its squared Frobenius norm.

    In the order of ``model.named_parameters()``.

    Raises:
        TypeError, ValueError: the model has no linear head, or it is not the last.
    """
    head = check_model(model)[1].weight
    named = [(name, p) for name, p in model.named_parameters() if p.ndim > 1]
    if named[-1][1] is not head:
        raise ValueError(f"the head should be the last layer, {named[-1][0]} is")
    return {name: float(p.detach().double().square().sum()) for name, p in named}


def numbers(result: Result) -> dict[str, float]:
    """For a card: shares of the layers and of all of them, ratios, curves."""
    walk = result.walk
    near = walk.from_last_peak.abs() <= 1
    by_layer = {
        "valley share": walk.fallen.double().mean(0),
        "peak within a step": near.double().mean(0),
        "rank correlation": walk.agreement,
    }
    values = {
        "robust accuracy": _share(~walk.wrong[-1]),
        "zero gradients": _share(walk.stuck),
    }
    for name, each in by_layer.items():
        values |= {f"{name}[{i}]": float(v) for i, v in enumerate(each)}
        values |= {f"{name}: input": float(each[0]), f"{name}: last": float(each[-1])}
        values[f"{name}: lowest layer"] = float(each[1:].min())
    for step in range(len(walk.trace)):
        values |= {f"{k}[{step}]": v for k, v in _at(result, step).items()}
    return values | _largest(walk)


def panels(result: Result) -> dict[str, Tensor]:
    """For figure 14: small arrays of one seed, float64, and what the estimates miss.

    Relative sharpness is that with the squared norm of the weight. Shapes depend on the
    sizes and on the number of layers.

    Args:
        result: of one network, attacked in T steps.

    Returns:
        For the last D of L layers, the head being the last, and R estimates:

        * ``steps``: (T + 1,), 0 to T,
        * ``quartiles_of_sharpness``: (3, T + 1, D), over the images, exact,
        * ``mean_sharpness``: (T + 1, D), exact, what the next ones estimate,
        * ``shared`` and ``alone``: (R, T + 1, D), Hutchinson's estimates, with
          ``shared_error`` and ``alone_error``, the standard errors that they report,
        * ``input_off``: (T + 1,), median over the images of the relative error of
          an estimate in the input,
        * ``median_trace``: (T + 1, 1 + L), exact, of the input and of all layers,
        * ``wrong``: (T + 1,), share of the images.
    """
    walk, depth = result.walk, result.shared.mean.shape[2]
    sharpness, square = walk.sharpness()[:, :, -depth:], walk.square[-depth:]
    shares = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    off = relative_error(result.input, walk.trace[:, :, 0])
    return {
        "steps": torch.arange(len(walk.trace)).double(),
        "quartiles_of_sharpness": sharpness.quantile(shares, dim=1),
        "mean_sharpness": sharpness.mean(1),
        "shared": result.shared.mean * square,
        "shared_error": result.shared.error * square,
        "alone": result.alone.mean * square,
        "alone_error": result.alone.error * square,
        "input_off": off.quantile(0.5, dim=1),
        "median_trace": walk.trace.quantile(0.5, dim=1),
        "wrong": walk.wrong.double().mean(1),
    }


def passes(sizes: Sizes, *, classes: int, test_images: int, networks: int = 1) -> float:
    """Work of `run` in forward passes of one image; a backward pass counts one more.

    A gradient in the weights counts as another one. An upper bound on the images: those
    that are right may be fewer. What depends on the network is that of a ResNet-18 for
    32x32 images: the last layers are a part of about twenty, and the products of the
    gradients, that grow with the square of the number of classes, cost as much as
    its weights are many. A network of few layers, such as VGG-11, costs up to one half
    more.

    Args:
        sizes: how much is measured.
        classes: k, for k - 1 backward passes an exact trace or an estimate.
        test_images: in the test set.
        networks: measured one after the other.
    """
    images = min(sizes.images, test_images)
    points, others, probes = (
        images * (sizes.steps + 1),
        classes - 1,
        equal_probes(classes),
    )
    part = min(1.0, (sizes.deep - 1) / _CONVOLUTIONS)
    exact = 3 + 3 * others + _WEIGHTS_PER_PRODUCT * others**2
    shared = 1 + part * (2 + 5 * probes)
    alone = sizes.deep * (1 + part / 2 * (2 + 3 * probes))
    inside = 2 + 3 * probes
    looked = points * (exact + sizes.repeats * (shared + alone + inside))
    checked = _CHECKS * math.ceil(points / sizes.batch)
    return float(networks * (looked + checked + images * (2 * sizes.steps + 2)))


def _traces(
    model: nn.Module, points: Tensor, layers: Sequence[str], sizes: Sizes
) -> Tensor:
    """Exact traces in the input and in layers: (T + 1, N, 1 + L), on the CPU."""
    device, parts = _common.device_of(model), []
    with evaluating(model):
        for batch in points.flatten(0, 1).split(sizes.batch):
            x = batch.to(device)
            inside, z = curvature.input_gram(model, x)
            grams, _ = curvature.layer_grams(
                model, x, layers=layers, chunk_size=sizes.chunk
            )
            columns = [
                curvature.gram_trace(gram.double(), z.double())
                for gram in (inside, *grams.values())
            ]
            parts.append(torch.stack(columns, 1).cpu())
    return torch.cat(parts).view(*points.shape[:2], -1)


def _largest(walk: Walk) -> dict[str, float]:
    """Where the maximum is."""
    values: dict[str, float] = {}
    for power, name in zip(POWERS, ("Tr H", "|W| Tr H", "|W|² Tr H"), strict=True):
        ratio = walk.over_last(power)
        values |= {
            f"last layer largest: {name}": _share(walk.last_leads(power)),
            f"first over last: {name}": float(ratio[:, :, 0].median()),
            f"largest over last: {name}": float(ratio.amax(2).median()),
        }
    return values


def _at(result: Result, step: int) -> dict[str, float]:
    """The curves of figure 14 at one step, and how far the estimates are off."""
    walk, depth = result.walk, result.truth.shape[1]
    titles, sharpness = walk.titles[-depth:], walk.sharpness()[step, :, -depth:]
    inside, layers = walk.trace[step, :, 0], walk.trace[step, :, -depth:]
    values = {"median trace input": float(inside.median())}
    for i, name in enumerate(titles):
        values[f"median trace {name}"] = float(layers[:, i].median())
        values[f"mean sharpness {name}"] = float(sharpness[:, i].mean())
    for name, estimates, truth in (
        ("shared", result.shared.mean, result.truth),
        ("alone", result.alone.mean, result.truth),
        ("input", result.input, walk.trace[:, :, 0]),
    ):
        error = relative_error(estimates, truth)[step]
        values[f"estimate off, {name}"] = float(error.median())
    return values


def relative_error(estimates: Tensor, truth: Tensor) -> Tensor:
    """Root mean square over repeats of the relative error.

    Args:
        estimates: (R, ...).
        truth: (...), positive.

    >>> relative_error(torch.tensor([[1.0], [3.0]]), torch.tensor([2.0]))
    tensor([0.5000])
    """
    return (estimates / truth - 1).square().mean(0).sqrt()


def _estimates(
    model: nn.Module,
    path: Trajectory,
    lists: Sequence[Sequence[str]],
    sizes: Sizes,
    probes: int,
) -> Estimates:
    """Estimates at every step; the layers of a list share their probes."""
    source = torch.Generator().manual_seed(1)
    estimate = partial(_hutchinson, model, samples=probes, generator=source)
    rows = [
        _of_the_mean(partial(estimate, layers=layers), x, path.labels, sizes.batch)
        for _ in range(sizes.repeats)
        for x in path.points
        for layers in lists
    ]
    shape = (sizes.repeats, len(path.points), -1)
    mean, error = (torch.cat(part).view(shape) for part in zip(*rows, strict=True))
    return Estimates(mean, error)


def _of_the_mean(
    estimate: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    x: Tensor,
    y: Tensor,
    batch: int,
) -> tuple[Tensor, Tensor]:
    """Estimates for the mean loss (D,) and standard errors (D,), batch by batch."""
    pieces = list(zip(x.split(batch), y.split(batch), strict=True))
    mean, error = zip(*(estimate(*piece) for piece in pieces), strict=True)
    share = torch.tensor([len(labels) / len(y) for _, labels in pieces]).double()
    return share @ torch.cat(mean, 1).T, (share**2 @ torch.cat(error, 1).T ** 2).sqrt()


def _input_estimates(
    model: nn.Module, path: Trajectory, sizes: Sizes, probes: int
) -> Tensor:
    """Traces in the input, estimated for each image: (R, T + 1, N)."""
    source = torch.Generator().manual_seed(2)
    settings = {"wrt": "input", "samples": probes, "generator": source}
    points, labels = path.points.flatten(0, 1), path.labels.repeat(len(path.points))
    rows = [
        _hutchinson(model, x, y, **settings)[0][0]
        for _ in range(sizes.repeats)
        for x, y in zip(
            points.split(sizes.batch), labels.split(sizes.batch), strict=True
        )
    ]
    return torch.cat(rows).view(sizes.repeats, *path.points.shape[:2])


def _hutchinson(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    **settings: Any,  # noqa: ANN401
) -> tuple[Tensor, Tensor]:
    """Means and standard errors as float64 on the CPU, one row for each block."""
    device = _common.device_of(model)
    with evaluating(model):
        found = curvature.hutchinson_trace(
            model, x.to(device), y.to(device), **settings
        )
    estimates = list(found.values())
    mean = torch.stack([e.mean.reshape(-1) for e in estimates])
    error = torch.stack([e.standard_error.reshape(-1) for e in estimates])
    return mean.double().cpu(), error.double().cpu()


def _share(which: Tensor) -> float:
    """Share of True."""
    return float(which.double().mean())
