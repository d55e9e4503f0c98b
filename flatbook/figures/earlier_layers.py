"""Figures of `flatbook.experiments.earlier_layers`.

They take one walk or result per seed, or a mapping from the name of a network to them.

>>> places(3).tolist()
[0.0, 0.5, 1.0]
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.image import AxesImage
from torch import Tensor

from flatbook.experiments.earlier_layers import (
    POWERS,
    Estimates,
    Result,
    Walk,
    relative_error,
)
from flatbook.figures import COLORS, LINES, WIDTH, BookFigure, in_style
from flatbook.figures._stacked import chosen

__all__ = [
    "estimates",
    "fall",
    "paper_figure",
    "paths",
    "places",
    "ratios",
    "shares",
]

_MARKS = ("o", "s", "^", "D")
_DECADES = 3
_LEAST = 0.01
_TINY = float(np.finfo(np.float32).tiny)


@in_style
def paths(walks: Sequence[Walk], *, depth: int = 5) -> BookFigure:
    """Medians over the images of all seeds, in the last layers and the input.

    Args:
        walks: one per seed, all of one architecture.
        depth: how many of the last layers.
    """
    figure = BookFigure(figsize=(WIDTH, 3.7))
    left, right = figure.subplots(1, 2)
    titles = walks[0].titles[-depth:][::-1]
    for number, name in enumerate(titles, 1):
        column = [walk.trace[:, :, -number] for walk in walks]
        _median(left, column, number - 1, name)
        sharp = [walk.sharpness()[:, :, -number] for walk in walks]
        _median(right, sharp, number - 1, "")
    _median(left, [walk.trace[:, :, 0] for walk in walks], depth, "input")
    left.set_title("Tr H")
    right.set_title("‖W‖² Tr H")
    for axes in (left, right):
        axes.set_yscale("log")
        axes.set_xlabel("attack step")
    left.set_ylabel("median over images")
    figure.legend(loc="outside lower center", ncols=6, columnspacing=1.2)
    return figure


@in_style
def fall(walks: Mapping[str, Sequence[Walk]]) -> BookFigure:
    """Every layer over its own peak: rows are steps, columns layers, input first.

    Colours are medians over the images of all seeds, in decades below the largest.
    """
    figure = BookFigure(figsize=(WIDTH, 3.1))
    grid = figure.subplots(1, len(walks), sharey=True, squeeze=False)[0]
    for axes, (name, each) in zip(grid, walks.items(), strict=True):
        middle = torch.cat([walk.trace for walk in each], 1).median(1).values
        decades = (middle / middle.amax(0)).log10()
        shown = axes.imshow(
            decades, aspect="auto", vmin=-_DECADES, vmax=0, interpolation="nearest"
        )
        last = decades.shape[1] - 1
        axes.set_xticks([0, last], ["input", "last"])
        axes.set_title(name, fontsize=10)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
    grid[0].set_ylabel("attack step")
    grid[0].set_yticks(range(0, len(middle), 2))
    _peak_bar(figure, list(grid), shown)
    return figure


@in_style
def shares(walks: Mapping[str, Sequence[Walk]]) -> BookFigure:
    """Valleys, peaks and ranks of every layer; bars from lowest to highest seed."""
    rows = {
        "ends below a\ntenth of its peak, %": lambda w: 100 * _mean(w.fallen),
        "peak within a step\nof the last layer's, %": lambda w: (
            100 * _mean(w.from_last_peak.abs() <= 1)
        ),
        "rank correlation\nwith the last layer": lambda w: w.agreement,
    }
    figure = BookFigure(figsize=(WIDTH, 5.4))
    grid = figure.subplots(3, 1, sharex=True)
    for axes, (name, of) in zip(grid, rows.items(), strict=True):
        for number, (network, each) in enumerate(walks.items()):
            values = torch.stack([of(walk) for walk in each]).numpy()
            _bars(axes, values, number, network)
        axes.set_ylabel(name)
    for axes, top in zip(grid, (100, 100, 1), strict=True):
        axes.set_ylim(min(0.5 * top, axes.get_ylim()[0]), 1.03 * top)
    _depth_axis(grid[-1])
    grid[-1].legend(loc="lower right", ncols=3)
    figure.align_ylabels(grid)
    return figure


@in_style
def ratios(walks: Mapping[str, Sequence[Walk]]) -> BookFigure:
    """Every layer over the last one, median over all points, three normalisations."""
    figure = BookFigure(figsize=(WIDTH, 3.6))
    grid = figure.subplots(1, 3, sharey=True)
    for axes, power in zip(grid, POWERS, strict=True):
        for number, (network, each) in enumerate(walks.items()):
            values = [w.over_last(power).flatten(0, 1).median(0).values for w in each]
            _bars(axes, torch.stack(values).numpy(), number, network)
        axes.axhline(1, color="black", linewidth=1, linestyle=":")
        axes.set_yscale("log")
        axes.set_xticks([0, 1], ["first", "last"])
        axes.set_xlim(-0.06, 1.06)
    for axes, name in zip(grid, ("Tr H", "‖W‖ Tr H", "‖W‖² Tr H"), strict=True):
        axes.set_title(name)
    grid[0].set_ylabel("over that of the last layer")
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


@in_style
def estimates(results: Sequence[Result], *, back: int = 1) -> BookFigure:
    """Exact mean traces of one layer with estimates, and all relative errors.

    Args:
        results: one per seed; the left panel shows the first.
        back: the layer l - back.
    """
    figure = BookFigure(figsize=(WIDTH, 3.6))
    left, right = figure.subplots(1, 2)
    column, one = -1 - back, results[0]
    steps = np.arange(len(one.truth))
    left.plot(steps, one.truth[:, column], color="black", ls="-", label="exact")
    for number, found in enumerate(_kinds(one).values()):
        for shift, (mean, error) in enumerate(
            zip(found.mean, found.error, strict=True)
        ):
            look = {"color": COLORS[number], "fmt": _MARKS[number], "ms": 3.5, "lw": 1}
            at = steps + 0.16 * (2 * number - 1) + 0.08 * shift
            left.errorbar(at, mean[:, column], error[:, column], **look)
    left.set_yscale("symlog", linthresh=1.0)
    left.set_title(f"mean Tr H of layer {one.walk.titles[column]}")
    for number, (name, errors) in enumerate(_errors(results).items()):
        _range(right, errors, number, name)
    right.axhline(1, color="black", linewidth=1, linestyle=":")
    right.set_yscale("log")
    right.set_title("relative error")
    lines = [left.get_lines()[0], *right.get_lines()[:3]]
    figure.legend(handles=lines, loc="outside lower center", ncols=4)
    for axes in (left, right):
        axes.set_xlabel("attack step")
    return figure


@in_style
def paper_figure(arrays: Mapping[str, np.ndarray]) -> BookFigure:
    """Figure 14 of the paper, exact, with what an estimate makes of it.

    a) Relative sharpness in the last layers along the attack: median over the images
    with their quartiles, and the mean. b) Hutchinson's estimates of that mean, over the
    exact one: root mean square of what they miss, around 1. c) Traces in the input and
    in all layers, each over its own peak. Means over seeds; of a), b) thin lines are
    the seeds.

    Args:
        arrays: those of `flatbook.experiments.earlier_layers.panels`, stacked over
            seeds: `steps`, `quartiles_of_sharpness`, `mean_sharpness`, `shared`,
            `alone` and `median_trace`.

    Raises:
        ValueError: an array is missing.
    """
    names = ("quartiles_of_sharpness", "mean_sharpness", "shared", "alone")
    seen = chosen(arrays, "steps", *names, "median_trace")
    depth = seen["mean_sharpness"].shape[2]
    figure = BookFigure(figsize=(WIDTH, 6.6))
    above, below = figure.subfigures(2, 1, height_ratios=(4.2, 2.4))
    grid = above.subplots(
        2, depth, sharex=True, sharey="row", squeeze=False, height_ratios=(3, 2)
    )
    for place, (top, bottom) in enumerate(grid.T):
        _layer(top, seen, depth - 1 - place)
        _missed(bottom, seen, depth - 1 - place)
        top.set_title(f"l − {place}" if place else "l", fontsize=10)
    grid[0, 0].set_yscale("log")
    grid[0, 0].set_ylabel("a  ‖W‖² Tr H")
    grid[1, 0].set_yscale("log")
    grid[1, 0].set_ylim(_LEAST, max(2.0, grid[1, 0].get_ylim()[1]))
    grid[1, 0].set_ylabel("b  relative error")
    above.align_ylabels(grid[:, 0])
    above.supxlabel("attack step", fontsize=10)
    both = (axes.get_legend_handles_labels()[0] for axes in grid[:, 0])
    handles = [handle for each in both for handle in each]
    above.legend(handles=handles, loc="outside upper center", ncols=4, fontsize=8.5)
    _all_layers(below, seen)
    return figure


def places(count: int) -> np.ndarray:
    """Depths of layers between 0 and 1, for networks of any depth on one axis."""
    return np.linspace(0, 1, count)


def _layer(axes: Axes, seen: Mapping[str, np.ndarray], layer: int) -> None:
    """Quartiles, median and mean of relative sharpness."""
    steps = seen["steps"][0]
    quartiles = seen["quartiles_of_sharpness"][..., layer]
    low, _, high = _middle(quartiles)
    axes.fill_between(steps, low, high, color=COLORS[0], alpha=0.18, linewidth=0)
    pair = {"median": quartiles[:, 1], "mean": seen["mean_sharpness"][..., layer]}
    for number, (name, each) in enumerate(pair.items()):
        look: dict[str, Any] = {"color": COLORS[number], "linestyle": LINES[number]}
        axes.plot(steps, each.T, linewidth=0.7, alpha=0.6, **look)
        axes.plot(steps, _middle(each), label=name, **look)


def _middle(values: np.ndarray) -> np.ndarray:
    """Geometric mean over seeds (S, ...); what fell below single precision is tiny."""
    return np.exp(np.log(np.maximum(values, _TINY)).mean(0))


def _missed(axes: Axes, seen: Mapping[str, np.ndarray], layer: int) -> None:
    """What the estimates of a mean miss, over the mean."""
    steps = seen["steps"][0]
    exact = np.maximum(seen["mean_sharpness"][:, None, :, layer], _TINY)
    axes.axhline(1, color="black", linewidth=1, linestyle=":")
    kinds = (("shared", "shared probes"), ("alone", "probes of its own"))
    for number, (kind, name) in enumerate(kinds, 2):
        off = (seen[kind][..., layer] / exact - 1).reshape(-1, len(steps))
        look: dict[str, Any] = {"color": COLORS[number]}
        axes.plot(steps, np.abs(off).T, ".", markersize=2.5, alpha=0.6, **look)
        rms, line = np.sqrt((off**2).mean(0)), LINES[number]
        axes.plot(steps, rms, linestyle=line, label=name, **look)


def _all_layers(figure: FigureBase, seen: Mapping[str, np.ndarray]) -> None:
    """Rows are steps, columns layers, input first; decades below the peak."""
    axes = figure.subplots()
    trace = np.log10(_middle(seen["median_trace"]))
    shown = axes.imshow(
        trace - trace.max(0),
        aspect="auto",
        vmin=-_DECADES,
        vmax=0,
        interpolation="nearest",
    )
    axes.set_xticks([0, trace.shape[1] - 1], ["input", "last"])
    axes.set_yticks(range(0, len(trace), 2))
    axes.set_ylabel("attack step")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_title("c  median Tr H of every layer, over its own peak", fontsize=10)
    _peak_bar(figure, axes, shown)


def _peak_bar(
    figure: FigureBase, axes: Axes | Sequence[Axes], shown: AxesImage
) -> None:
    """A colour bar in decades below a peak."""
    bar = figure.colorbar(shown, ax=axes, extend="min", shrink=0.9)
    bar.set_ticks(range(-_DECADES, 1), labels=["1/1000", "1/100", "1/10", "peak"])


def _kinds(result: Result) -> dict[str, Estimates]:
    return {"shared probes": result.shared, "probes of its own": result.alone}


def _errors(results: Sequence[Result]) -> dict[str, np.ndarray]:
    """Name -> (S, T + 1): median over layers or images of the relative error."""
    rows: dict[str, list[Tensor]] = {}
    for result in results:
        truth, inside = result.truth, result.walk.trace[:, :, 0]
        triples = [(n, e.mean, truth) for n, e in _kinds(result).items()]
        triples.append(("input, each image", result.input, inside))
        for name, found, exact in triples:
            error = relative_error(found, exact).median(1).values
            rows.setdefault(name, []).append(error)
    return {name: torch.stack(each).numpy() for name, each in rows.items()}


def _mean(which: Tensor) -> Tensor:
    """Share of the images, for each column."""
    return which.double().mean(0)


def _median(axes: Axes, seen: Sequence[Tensor], number: int, name: str) -> None:
    """Median of the images of all seeds."""
    middle = torch.cat(list(seen), 1).median(1).values
    look: dict[str, Any] = {"color": COLORS[number], "linestyle": LINES[number]}
    axes.plot(middle, label=name, **look)


def _bars(axes: Axes, values: np.ndarray, number: int, name: str) -> None:
    """Mean over seeds (S, X) at X depths, with bars from lowest to highest."""
    middle = values.mean(0)
    reach = np.stack([middle - values.min(0), values.max(0) - middle]).clip(0)
    axes.errorbar(
        places(len(middle)) + 0.006 * (number - 1),
        middle,
        reach,
        color=COLORS[number],
        marker=_MARKS[number],
        markersize=4,
        linestyle="none",
        linewidth=1,
        label=name,
    )


def _range(axes: Axes, values: np.ndarray, number: int, name: str) -> None:
    """Geometric mean over seeds (S, X) with a band from lowest to highest."""
    color, steps = COLORS[number], range(values.shape[1])
    low, high = values.min(0), values.max(0)
    axes.fill_between(steps, low, high, color=color, alpha=0.18, linewidth=0)
    middle = np.exp(np.log(values).mean(0))
    axes.plot(steps, middle, color=color, linestyle=LINES[number], label=name)


def _depth_axis(axes: Axes) -> None:
    axes.set_xticks([0, 1], ["input", "last"])
    axes.set_xlim(-0.03, 1.03)
    axes.set_xlabel("depth of the layer")
