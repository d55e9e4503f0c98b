"""Figures of `flatbook.experiments.uncanny_valley`; each takes one result per seed.

>>> radius(0.3), radius(8 / 255)
('ε = 0.3', 'ε = 8/255')
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from flatbook.experiments.uncanny_valley import Result, Walk
from flatbook.figures import (
    COLORS,
    LINES,
    WIDTH,
    BookFigure,
    in_style,
    trajectory,
)
from flatbook.figures._stacked import band, chosen

__all__ = [
    "architectures",
    "losses",
    "paper_figure",
    "peak_minus_flip",
    "radius",
    "ramp",
    "ridge",
    "strengths",
    "walks",
]

_FACE: dict[str, Any] = {"linewidth": 0, "alpha": 0.18}
_ROWS: Mapping[str, Callable[[Walk], Tensor]] = {
    "sharpness κ": lambda walk: walk.kappa,
    "loss": lambda walk: walk.loss,
    "confidence": lambda walk: walk.confidence,
}


def radius(eps: float) -> str:
    """A radius as it is usually written: in grey levels where it is a few of them."""
    levels = 255 * eps
    whole = levels < 32 and abs(levels - round(levels)) < 1e-6
    return f"ε = {round(levels)}/255" if whole else f"ε = {eps:g}"


@in_style
def walks(results: Sequence[Result]) -> BookFigure:
    """Sharpness, loss and confidence along the attack; a column for each radius.

    Thick: median of all images; band: quartiles; thin: median of each seed.
    """
    radii = results[0].sizes.eps
    figure = BookFigure(figsize=(WIDTH, 4.8))
    grid = figure.subplots(3, len(radii), sharex=True, sharey="row", squeeze=False)
    for row, (name, quantity) in zip(grid, _ROWS.items(), strict=True):
        for axes, eps in zip(row, radii, strict=True):
            seen = [quantity(r.walks["standard"][eps]) for r in results]
            _medians(axes, seen, COLORS[0])
        row[0].set_ylabel(name)
    grid[0, 0].set_yscale("log")
    for top, bottom, eps in zip(grid[0], grid[-1], radii, strict=True):
        top.set_title(radius(eps), fontsize=10)
        bottom.set_xticks([0, len(seen[0]) // 2, len(seen[0]) - 1])
    grid[-1, len(radii) // 2].set_xlabel("attack step")
    figure.align_ylabels(grid[:, 0])
    return figure


@in_style
def strengths(results: Sequence[Result]) -> BookFigure:
    """Shares of images that end wrong, and in the valley, over the radius."""
    radii = results[0].sizes.eps
    shares = {
        "ends in the valley": lambda walk: walk.fallen,
        "ends wrong": lambda walk: walk.wrong[-1],
    }
    figure = BookFigure(figsize=(WIDTH, 3.2))
    axes = figure.subplots()
    for number, (name, share) in enumerate(shares.items()):
        each = [
            [100 * share(w).double().mean() for w in r.walks["standard"].values()]
            for r in results
        ]
        _range(axes, radii, np.array(each), number, name)
    axes.axhline(50, color="#595959", linewidth=1, linestyle=":")
    axes.set_xscale("log")
    axes.set_xticks(radii, [radius(eps).removeprefix("ε = ") for eps in radii])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("radius ε of the attack")
    axes.set_ylabel("percent of the images")
    axes.legend()
    return figure


@in_style
def architectures(results: Mapping[str, Sequence[Result]]) -> BookFigure:
    """Sharpness along the main attack: mean and median over images, by network.

    Lines are means over seeds, bands reach from the lowest to the highest seed.

    Args:
        results: name of the network -> one result per seed; at most four.
    """
    figure = BookFigure(figsize=(WIDTH, 4.6))
    grid = figure.subplots(2, 2, sharex=True, sharey=True)
    for axes, (name, each) in zip(grid.flat, results.items(), strict=False):
        kappa = [result.main.kappa for result in each]
        steps = range(len(kappa[0]))
        mean = torch.stack([k.mean(1) for k in kappa])
        middle = torch.stack([k.median(1).values for k in kappa])
        _range(axes, steps, mean.numpy(), 0, "mean")
        _range(axes, steps, middle.numpy(), 1, "median")
        axes.set_title(name)
        axes.set_yscale("log")
    grid[0, 0].legend()
    for axes in grid[:, 0]:
        axes.set_ylabel("sharpness κ")
    for axes in grid[-1]:
        axes.set_xlabel("attack step")
    return figure


@in_style
def peak_minus_flip(results: Sequence[Result]) -> BookFigure:
    """How far the sharpest point lies behind the flip: in steps, and on the line."""
    steps = torch.cat([result.main.peak_minus_flip for result in results])
    pieces = len(results[0].line.kappa) - 1
    line = torch.cat([result.line.peak_minus_flip for result in results])
    figure = BookFigure(figsize=(WIDTH, 3.0))
    left, right = figure.subplots(1, 2, sharey=True)
    _histogram(left, steps.numpy(), 4)
    _histogram(right, 100 * line.numpy() / pieces, 10)
    left.set_xlabel("peak minus flip, attack steps")
    right.set_xlabel("peak minus flip, percent of the line")
    left.set_ylabel("percent of the images")
    return figure


def ridge(results: Sequence[Result], *, reach: int = 40) -> BookFigure:
    """The two factors of kappa that move, on lines shifted to a common flip."""
    names = {"tr P": "trace", "‖φ‖²": "size"}
    pieces = len(results[0].line.kappa) - 1
    panels = {
        label: {label: _pool([r.line.around_flip(name, reach) for r in results])}
        for label, name in names.items()
    }
    way = 100 * torch.arange(-reach, reach + 1) / pieces
    x = "way past the flip, in percent"
    return trajectory(panels, x=x, steps=way, log=["tr P"])


def ramp(results: Sequence[Result]) -> BookFigure:
    """A longer attack of the main radius, with its ball and without."""
    names = {"loss": "loss", "sharpness κ": "kappa"}
    panels = {
        label: {
            "in the ball": torch.stack([getattr(r.held, name) for r in results]),
            "free": torch.stack([getattr(r.free, name) for r in results]),
        }
        for label, name in names.items()
    }
    return trajectory(panels, log=["sharpness κ"])


@in_style
def losses(results: Sequence[Result]) -> BookFigure:
    """Networks trained with other losses: sharpness, confidence, own curvature."""
    figure = BookFigure(figsize=(WIDTH, 3.4))
    grid = figure.subplots(1, 3)
    for number, variant in enumerate(results[0].walks):
        each = [r.walks[variant][r.sizes.main] for r in results]
        look = {"color": COLORS[number], "linestyle": LINES[number]}
        kappa, doubt, own = (
            _pool([getattr(walk, name) for walk in each])
            for name in ("kappa", "doubt", "own")
        )
        grid[0].plot(kappa.median(1).values, **look)
        grid[1].plot(1 - doubt.median(1).values, **look)
        grid[2].plot(100 * (own < 0).double().mean(1), label=variant, **look)
    titles = ("sharpness κ", "confidence", "own trace < 0, in %")
    for axes, title in zip(grid, titles, strict=True):
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("attack step")
    grid[0].set_yscale("log")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@in_style
def paper_figure(arrays: Mapping[str, np.ndarray]) -> BookFigure:
    """Figures 3 and 16 of the paper, and what their mean does not show.

    Above the paper's curves: the mean sharpness, with one standard deviation of the
    images on either side, and the loss. Below the same images once more: the median
    sharpness, and how sure and how right the network is. Thick lines are means over
    seeds, geometric ones for quartiles. In (a) and (c) bands are spreads of images and
    thin lines seeds; in (b) and (d) bands reach from the lowest seed to the highest.

    Args:
        arrays: those of `flatbook.experiments.uncanny_valley.panels`, each with an axis
            for the seeds in front.

    Raises:
        ValueError: an array is missing.
    """
    of = ("sharpness", "loss", "confidence")
    names = ("mean_sharpness", "spread_of_sharpness", "mean_loss", "right")
    seen = chosen(arrays, "eps", "steps", *names, *(f"quartiles_of_{n}" for n in of))
    steps = seen["steps"][0]
    figure = BookFigure(figsize=(WIDTH, 5.2))
    grid = figure.subplots(2, 2, sharex=True)
    (mean, loss), (middle, sure) = grid
    _mean_and_spread(mean, seen)
    band(loss, steps, seen["mean_loss"], 0, "mean")
    band(loss, steps, seen["quartiles_of_loss"][:, 1], 1, "median")
    loss.set_title("(b) loss, nats")
    _quartile_band(middle, seen)
    band(sure, steps, seen["quartiles_of_confidence"][:, 1], 0, "confidence, median")
    band(sure, steps, seen["right"], 1, "share that is right")
    sure.set(title="(d) sure and right", ylim=(-0.03, 1.03))
    places = {mean: "upper right", loss: "upper left", sure: "center right"}
    for axes, place in places.items():
        axes.legend(loc=place)
    for axes in grid[1]:
        axes.set_xlabel(f"attack step, {radius(float(seen['eps'][0]))}")
    return figure


def _mean_and_spread(axes: Axes, seen: Mapping[str, np.ndarray]) -> None:
    """(a), as in the paper; below zero there is no sharpness."""
    steps, mean = seen["steps"][0], seen["mean_sharpness"].mean(0)
    spread = seen["spread_of_sharpness"].mean(0)
    low, high = (mean - spread).clip(0), mean + spread
    axes.fill_between(steps, low, high, color=COLORS[0], **_FACE)
    _thin(axes, steps, seen["mean_sharpness"], 0)
    axes.plot(steps, mean, color=COLORS[0], linestyle=LINES[0], label="mean ± s.d.")
    axes.set(title="(a) sharpness κ", ylim=(0, None))


def _quartile_band(axes: Axes, seen: Mapping[str, np.ndarray]) -> None:
    """(c): on a logarithmic axis, with the mean of (a)."""
    steps = seen["steps"][0]
    quartiles = seen["quartiles_of_sharpness"].clip(1e-300)
    low, middle, high = np.exp(np.log(quartiles).mean(0))
    _thin(axes, steps, quartiles[:, 1], 1)
    axes.fill_between(steps, low, high, color=COLORS[1], **_FACE)
    look: dict[str, Any] = {"color": COLORS[1], "linestyle": LINES[1]}
    axes.plot(steps, middle, label="median, quartiles", **look)
    mean = seen["mean_sharpness"].mean(0)
    axes.plot(steps, mean, color=COLORS[0], linestyle=LINES[0], label="mean")
    axes.set(title="(c) sharpness κ, logarithmic", yscale="log")
    axes.legend(loc="upper right")


def _thin(axes: Axes, steps: np.ndarray, each: np.ndarray, number: int) -> None:
    """A thin line for each of several seeds."""
    for values in each if len(each) > 1 else []:
        axes.plot(steps, values, color=COLORS[number], ls="-", lw=0.7, alpha=0.6)


def _pool(walks: Sequence[Tensor]) -> Tensor:
    """Images of all seeds side by side: (T + 1, M)."""
    return torch.cat(list(walks), dim=1)


def _medians(axes: Axes, seen: Sequence[Tensor], color: str) -> None:
    """Median and quartiles of all images, and the median of each seed."""
    pooled = _pool(seen).numpy()
    low, middle, high = np.quantile(pooled, [0.25, 0.5, 0.75], axis=1)
    axes.fill_between(range(len(pooled)), low, high, color=color, **_FACE)
    for each in seen:
        axes.plot(each.median(1).values, color=color, ls="-", lw=0.7, alpha=0.6)
    axes.plot(middle, color=color, linestyle="-")


def _range(
    axes: Axes, x: Sequence[float], values: np.ndarray, number: int, name: str
) -> None:
    """Mean over seeds (S, X) with a band from the lowest to the highest."""
    color = COLORS[number]
    low, high = values.min(0), values.max(0)
    axes.fill_between(x, low, high, color=color, **_FACE)
    axes.plot(x, values.mean(0), color=color, linestyle=LINES[number], label=name)


def _histogram(axes: Axes, values: np.ndarray, reach: int) -> None:
    """Shares of whole numbers in percent; the outer bars hold all that is beyond."""
    places = np.arange(-reach, reach + 1)
    nearest = np.clip(np.round(values), -reach, reach)
    share = [100 * np.mean(nearest == place) for place in places]
    axes.bar(places, share, width=0.85, color=COLORS[0])
    ticks = [-reach, -reach // 2, 0, reach // 2, reach]
    texts = [f"≤ −{reach}", f"−{reach // 2}", "0", f"{reach // 2}", f"≥ {reach}"]
    axes.set_xticks(ticks, texts)
    axes.grid(visible=False, axis="x")
