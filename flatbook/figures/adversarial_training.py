"""Figures of `flatbook.experiments.adversarial_training`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator
from torch import Tensor

from flatbook.experiments.adversarial_training import (
    COOLED,
    Result,
    Seen,
    across,
    cooling,
)
from flatbook.figures import COLORS, LINES, WIDTH, BookFigure, in_style
from flatbook.figures._stacked import band, chosen

__all__ = [
    "clouds",
    "cooled",
    "crossing",
    "definitions",
    "factors",
    "paper_figure",
    "share_within",
    "valleys",
    "within",
]

_LOOKS: Mapping[str, int] = {"standard": 0, "adversarial": 1, COOLED: 2}
_MARKERS = "osD^vPX*<>"
_MAIN = tuple(_LOOKS)
_DISTRIBUTIONS = ("confidence", "trace H", "sharpness", "flip")
_OTHERS = ("width", "robust accuracy", "robust accuracy, margin", "points")
_GREY = "#767676"


def share_within(distances: Tensor, points: Tensor) -> np.ndarray:
    """Percent of distances (N,) that are at most each of the points (P,).

    >>> share_within(torch.tensor([0.1, 0.3]), torch.tensor([0.0, 0.2, 0.4])).tolist()
    [0.0, 50.0, 100.0]
    """
    return (100 * (distances <= points[:, None]).double().mean(1)).numpy()


@in_style
def definitions(results: Sequence[Result]) -> BookFigure:
    """The same two networks under both definitions of robustness.

    Thick: images of all seeds together; thin: one seed.
    """
    index = results[0].sizes.tolerances.index(0.1)
    panels = {
        "a loss 0.1 higher": lambda seen: seen.reach[index],
        "another label": lambda seen: seen.flip,
    }
    figure = BookFigure(figsize=(WIDTH, 3.3))
    grid = figure.subplots(1, 2, sharey=True)
    points = torch.linspace(0, _reach(results), 200)
    for axes, (title, distance) in zip(grid, panels.items(), strict=True):
        for name in ("standard", "adversarial"):
            each = [distance(result.networks[name]) for result in results]
            shares = [share_within(one, points) for one in each]
            _lines(axes, points, shares, name)
        axes.set_title(title)
        axes.set_xlabel("distance from the image (ℓ₂)")
    grid[0].set_ylabel("percent of images reached")
    grid[1].legend(loc="lower right")
    return figure


@in_style
def crossing(results: Sequence[Result]) -> BookFigure:
    """Median distance for every tolerance; the order turns where the lines cross."""
    tolerances = results[0].sizes.tolerances
    figure = BookFigure(figsize=(WIDTH, 3.7))
    axes = figure.subplots()
    for name in _LOOKS:
        each = [result.widths(name).numpy() for result in results]
        _lines(axes, tolerances, each, name)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("tolerance: rise of the loss (nats)")
    axes.set_ylabel("median distance (ℓ₂)")
    axes.legend()
    return figure


@in_style
def factors(results: Sequence[Result]) -> BookFigure:
    """Medians of sharpness and its two factors, a mark for each seed."""
    columns = {
        "‖W‖²‖φ‖²": lambda seen: seen.size,
        "tr P": lambda seen: seen.trace,
        "sharpness κ": lambda seen: seen.kappa,
    }
    figure = BookFigure(figsize=(WIDTH, 2.4))
    grid = figure.subplots(1, 3, sharey=True)
    for axes, (label, quantity) in zip(grid, columns.items(), strict=True):
        for row, name in enumerate(_LOOKS):
            values = [float(quantity(r.networks[name]).median()) for r in results]
            look: dict[str, Any] = {"color": COLORS[row], "linestyle": "none"}
            axes.plot(
                values, [row] * len(values), marker=_MARKERS[row], alpha=0.8, **look
            )
        axes.set_xscale("log")
        axes.set_xlim(*_decades(axes.get_xlim()))
        axes.set_xlabel(f"median {label}")
    grid[0].set_yticks(range(len(_LOOKS)), list(_LOOKS))
    grid[0].set_ylim(len(_LOOKS) - 0.5, -0.5)
    return figure


@in_style
def valleys(results: Sequence[Result]) -> BookFigure:
    """Sharpness on the attack of the training radius; median, quartiles, seeds."""
    figure = BookFigure(figsize=(WIDTH, 3.4))
    axes = figure.subplots()
    for name in ("standard", "adversarial"):
        paths = [r.networks[name].path[:, r.networks[name].right] for r in results]
        pooled = torch.cat(paths, 1).numpy()
        low, high = np.quantile(pooled, [0.25, 0.75], axis=1)
        steps = np.arange(len(pooled))
        color = COLORS[_LOOKS[name]]
        axes.fill_between(steps, low, high, color=color, alpha=0.18, linewidth=0)
        _lines(axes, steps, [np.median(p.numpy(), axis=1) for p in paths], name)
    axes.set_yscale("log")
    axes.set_xlabel("attack step")
    axes.set_ylabel("sharpness κ")
    axes.legend()
    return figure


@in_style
def within(results: Sequence[Result]) -> BookFigure:
    """Sharpness against the distance to a flip: each point is an image."""
    names = ("standard", COOLED, "adversarial")
    figure = BookFigure(figsize=(WIDTH, 3.1))
    grid = figure.subplots(1, 3, sharex=True, sharey=True)
    for axes, name in zip(grid, names, strict=True):
        for seed, result in enumerate(results):
            seen = result.networks[name]
            points = seen.kappa[seen.right], seen.flip[seen.right]
            axes.plot(*points, ".", color=COLORS[seed % 6], alpha=0.45, markersize=4)
        axes.set_xscale("log")
        axes.set_title(f"{name}\n{_correlations(results, name)}", fontsize=10)
    grid[1].set_xlabel("sharpness κ of the image")
    grid[0].set_ylabel("distance to a flip (ℓ₂)")
    return figure


@in_style
def cooled(
    results: Sequence[Result],
    others: Mapping[str, Sequence[Seen]],
    *,
    scales: Sequence[float],
) -> BookFigure:
    """Correlation within a network over its confidence, while its head is scaled.

    Args:
        results: the standard network of each gives a line.
        others: name -> networks, a mark each, at most eight names.
        scales: factors on the head.
    """
    figure = BookFigure(figsize=(WIDTH, 4.0))
    axes = figure.subplots()
    for result in results:
        line = np.array(cooling(result.networks["standard"], scales)).T
        axes.plot(*line, color=COLORS[0], linewidth=1.2, linestyle="-")
    for number, (name, networks) in enumerate(others.items()):
        points = np.array([cooling(seen, [1.0])[0] for seen in networks]).T
        axes.plot(*points, label=name, **_mark(number + 1))
    axes.plot([], [], color=COLORS[0], linestyle="-", label="standard, scaled")
    axes.axhline(0, color="#595959", linewidth=1, linestyle="-")
    axes.set_ylim(-1, 1)
    axes.set_xlabel("mean confidence of the network")
    axes.set_ylabel("rank correlation, κ and flip distance")
    axes.legend(loc="upper right", ncols=2)
    return figure


@in_style
def clouds(groups: Mapping[str, Sequence[Seen]]) -> BookFigure:
    """Networks: median sharpness against median distance to a flip.

    Args:
        groups: name -> networks, a mark each, at most ten names.
    """
    figure = BookFigure(figsize=(WIDTH, 4.0))
    axes = figure.subplots()
    for number, (name, networks) in enumerate(groups.items()):
        kappa = [float(seen.kappa.median()) for seen in networks]
        flip = [float(seen.flip.median()) for seen in networks]
        axes.plot(kappa, flip, label=name, **_mark(number))
    found = across(seen for networks in groups.values() for seen in networks)
    axes.set_title(f"rank correlation {found}".replace("-", "−"), fontsize=10)
    axes.set_xscale("log")
    axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
    axes.set_xlabel("median sharpness κ of a network")
    axes.set_ylabel("median distance to a flip (ℓ₂)")
    axes.legend(loc="lower left", ncols=2)
    return figure


@in_style
def paper_figure(arrays: Mapping[str, np.ndarray]) -> BookFigure:
    """Appendix D.2 of the paper: all networks, with both definitions of robustness.

    a) to d) The images of every network: a point at the median of each seed, lines over
    half and nine tenths of the images, a stroke at the mean. e) Robust accuracy by
    radius; hollow marks are the attack on the margin. f) Median distance at which the
    loss has risen, by tolerance. g) Images of the first seed that are right.

    Values are means over seeds, and bands go from the lowest to the highest.

    Args:
        arrays: those of `flatbook.experiments.adversarial_training.panels`, stacked
            over seeds: `share`, `tolerance`, `eps`, `main`, and of every network, as
            ``name: what``, its `confidence`, `trace H`, `sharpness` and `flip`, the
            mean of each, its `width`, `robust accuracy`, `robust accuracy, margin` and
            `points`. The standard and the adversarial network are among them.

    Raises:
        ValueError: an array is missing.
    """
    names = _networks(arrays)
    whats = (*_DISTRIBUTIONS, *(f"mean {what}" for what in _DISTRIBUTIONS), *_OTHERS)
    wanted = [f"{name}: {what}" for name in names for what in whats]
    seen = chosen(arrays, "share", "tolerance", "eps", "main", *wanted)
    figure = BookFigure(figsize=(WIDTH, 6.4))
    above, below = figure.subfigures(2, 1, height_ratios=(3.1, 3.3))
    _rows(above.subplots(1, 4, sharey=True), seen, names)
    first, second, third = below.subplots(1, 3)
    shown = [name for name in _MAIN if name in names]
    _by_radius(first, seen, names)
    _by_tolerance(second, seen, shown)
    _images(third, seen, shown)
    tight: dict[str, Any] = {"handlelength": 2.4, "columnspacing": 1.3, "fontsize": 8.5}
    below.legend(handles=_keys(shown), loc="outside lower center", ncols=4, **tight)
    return figure


def _networks(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Names of the networks in the arrays; those of the chapter come first."""
    found = [name.partition(": ")[0] for name in arrays if name.endswith(": flip")]
    others = [name for name in found if name not in _MAIN]
    cooled = [name for name in found if name == COOLED]
    return [*_MAIN[:2], *cooled, *others]


def _rows(
    grid: Sequence[Axes], seen: Mapping[str, np.ndarray], names: Sequence[str]
) -> None:
    """A row for each network, an axis for each quantity."""
    titles = ("confidence", "trace of H", "sharpness κ", "ℓ₂ to a flip")
    for axes, what, title, letter in zip(
        grid, _DISTRIBUTIONS, titles, "abcd", strict=True
    ):
        for row, name in enumerate(names):
            _row(axes, seen, f"{name}: {what}", f"{name}: mean {what}", row)
        axes.set_title(f"{letter}  {title}", fontsize=10)
        axes.grid(visible=False, axis="y")
    for axes in grid[1:3]:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=4))
    grid[0].set_xlim(right=1.03)
    grid[0].set_yticks(range(len(names)), names)
    grid[0].set_ylim(len(names) - 0.5, -0.5)


def _row(
    axes: Axes, seen: Mapping[str, np.ndarray], what: str, mean: str, row: int
) -> None:
    """Medians of the seeds, with the spread of the images and their mean."""
    color, shares = COLORS[row] if row < len(_MAIN) else _GREY, seen["share"][0]
    middle = seen[what].mean(0)
    for share, width in ((0.05, 1.0), (0.25, 4.0)):
        ends = np.interp([share, 1 - share], shares, middle)
        axes.plot(ends, [row, row], color=color, lw=width, alpha=0.45, ls="-")
    medians = [np.interp(0.5, shares, each) for each in seen[what]]
    look: dict[str, Any] = {"color": color, "linestyle": "none"}
    axes.plot(medians, [row] * len(medians), marker="o", markersize=4, **look)
    axes.plot(seen[mean].mean(), row, marker="|", markersize=11, mew=1.6, **look)


def _by_radius(
    axes: Axes, seen: Mapping[str, np.ndarray], names: Sequence[str]
) -> None:
    """Robust accuracy in percent; those without a colour of their own are grey."""
    eps, main = seen["eps"][0], seen["main"][0]
    for number, name in reversed(list(enumerate(names))):
        robust = 100 * seen[f"{name}: robust accuracy"]
        if name not in _MAIN:
            axes.plot(eps, robust.mean(0), color=_GREY, linewidth=1, linestyle="-")
            continue
        band(axes, eps, robust, number, name)
        margin = 100 * seen[f"{name}: robust accuracy, margin"].mean()
        axes.plot(main, margin, marker="o", color=COLORS[number], mfc="none")
    axes.set_ylim(0, 100)
    axes.set_title("e  robust accuracy, %", fontsize=10)
    axes.set_xlabel("radius of the attack (ℓ∞)")


def _by_tolerance(
    axes: Axes, seen: Mapping[str, np.ndarray], names: Sequence[str]
) -> None:
    for name in names:
        band(axes, seen["tolerance"][0], seen[f"{name}: width"], _LOOKS[name], name)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_title("f  ℓ₂ to a higher loss", fontsize=10)
    axes.set_xlabel("rise of the loss (nats)")


def _images(axes: Axes, seen: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
    for name in names:
        kappa, flip = seen[f"{name}: points"][0]
        number = _LOOKS[name]
        look: dict[str, Any] = {"color": COLORS[number], "marker": _MARKERS[number]}
        axes.plot(kappa, flip, linestyle="none", markersize=2.5, alpha=0.5, **look)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=5))
    axes.set_ylim(bottom=0)
    axes.set_title("g  ℓ₂ to a flip, by κ", fontsize=10)
    axes.set_xlabel("sharpness κ of the image")


def _keys(names: Sequence[str]) -> list[Line2D]:
    """Entries of the legend, in columns of two."""
    lines = [
        Line2D([], [], color=COLORS[_LOOKS[name]], ls=LINES[_LOOKS[name]], label=name)
        for name in names
    ]
    mark: dict[str, Any] = {"color": _GREY, "linestyle": "none"}
    return [
        *lines,
        Line2D([], [], color=_GREY, linewidth=1, ls="-", label="other networks"),
        Line2D([], [], marker="|", ms=11, mew=1.6, label="mean", **mark),
        Line2D([], [], marker="o", markersize=4, label="median, each seed", **mark),
        Line2D([], [], marker="o", mfc="none", label="attack on the margin", **mark),
    ]


def _mark(number: int) -> dict[str, Any]:
    """A shape and a colour that no other number below ten has together."""
    return {
        "marker": _MARKERS[number],
        "color": COLORS[number % 6],
        "linestyle": "none",
        "markersize": 7,
        "alpha": 0.85,
    }


def _lines(
    axes: Axes, across: Sequence[float] | Tensor | np.ndarray, each: list, name: str
) -> None:
    """Thin: one seed; thick: their mean."""
    look: dict[str, Any] = {
        "color": COLORS[_LOOKS[name]],
        "linestyle": LINES[_LOOKS[name]],
    }
    for one in each:
        axes.plot(across, one, linewidth=0.7, alpha=0.6, **look)
    axes.plot(across, np.mean(each, axis=0), label=name, **look)


def _reach(results: Sequence[Result]) -> float:
    """A distance that nearly all images flip within."""
    flips = torch.cat([seen.flip for r in results for seen in r.networks.values()])
    return float(flips.clamp(max=results[0].sizes.longest).quantile(0.97))


def _decades(limits: tuple[float, float]) -> tuple[float, float]:
    """The powers of ten around two limits."""
    low, high = np.log10(limits)
    return 10.0 ** np.floor(low), 10.0 ** np.ceil(high)


def _correlations(results: Sequence[Result], name: str) -> str:
    """The correlations of the seeds, from the lowest to the highest."""
    values = [result.networks[name].within().value for result in results]
    return f"ρ = {min(values):.2f} to {max(values):.2f}".replace("-", "−")
