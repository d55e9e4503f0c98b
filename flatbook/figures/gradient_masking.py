"""Figures of `flatbook.experiments.gradient_masking`; each takes one result per seed.

Robust accuracies are never drawn without the share of images that never moved.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from flatbook.experiments.gradient_masking import Result, thresholds
from flatbook.figures import COLORS, LINES, WIDTH, BookFigure, in_style

__all__ = ["attacks", "floors", "masking", "regimes", "sharpness"]

_REACH = 125.0
_HOLLOW: dict[str, Any] = {
    "linestyle": "none",
    "markerfacecolor": "white",
    "markersize": 6,
    "zorder": 4,
}
_MARKS = ("o", "s", "^", "D")


@in_style
def masking(results: Sequence[Result]) -> BookFigure:
    """The paper's attack in two types of numbers: robust, stuck, and predicted.

    Lines are means over seeds with a band from the lowest to the highest, hollow marks
    the images that never moved, crosses what clean margins predict of them.
    """
    figure = BookFigure(figsize=(WIDTH, 3.9))
    axes = figure.subplots()
    kinds = {"float32": "cross-entropy", "float64": "cross-entropy, float64"}
    for number, (kind, name) in enumerate(kinds.items()):
        _robust(axes, results, name, number, f"robust, {kind}")
        dtype = getattr(torch, kind)
        guess = torch.stack([result.predicted(dtype) for result in results])
        _stuck(axes, results, name, number, f"never moved, {kind}")
        look: dict[str, Any] = {"color": "black", "marker": "x", "linestyle": "none"}
        label = "predicted from margins" if number else None
        axes.plot(_scales(results), 100 * guess.mean(0), **look, zorder=5, label=label)
    _finish(axes, results)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@in_style
def attacks(results: Sequence[Result]) -> BookFigure:
    """Every attack at every scale: percent robust, and below it percent never moved.

    Both are means over seeds.
    """
    names, scales = list(results[0].robust), _scales(results)
    robust, stuck = (
        100 * torch.stack([torch.stack([_share(r, n) for r in results]) for n in names])
        for _share in (Result.robust_accuracy, Result.zero_gradients)
    )
    figure = BookFigure(figsize=(WIDTH, 3.8))
    axes = figure.subplots()
    axes.imshow(robust.mean(1), cmap="Blues", vmin=0, vmax=150, aspect="auto")
    cells = zip(robust.mean(1).flatten(), stuck.mean(1).flatten(), strict=True)
    for place, (upper, lower) in enumerate(cells):
        x, y = place % len(scales), place // len(scales)
        look: dict[str, Any] = {"ha": "center", "va": "center"}
        axes.text(x, y - 0.13, f"{upper:.0f}", **look, fontsize=12)
        axes.text(x, y + 0.27, f"{lower:.0f} stuck", **look, fontsize=8)
    axes.set_xticks(range(len(scales)), [f"{s:g}" for s in scales])
    axes.set_yticks(range(len(names)), [n.replace(", ", ",\n") for n in names])
    axes.set_xlabel("scale s of the head")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    return figure


@in_style
def regimes(results: Sequence[Result]) -> BookFigure:
    """Cosine between the plain gradient and the exact one, over the scaled margin.

    Every point is one clean image at one scale; all seeds and scales together.
    """
    margins = torch.cat([_times_scale(r.margin, r) for r in results]).numpy()
    cosines = torch.cat([r.cosine.flatten() for r in results]).numpy()
    shown = (margins > 0) & (margins < _REACH)
    figure = BookFigure(figsize=(WIDTH, 3.6))
    axes = figure.subplots()
    limits = thresholds(torch.float32, count=results[0].sizes.batch)
    edges = (0.0, *limits, _REACH)
    names = ("right", "true class lost", "zero")
    for number, name in enumerate(names):
        low, high = edges[number], edges[number + 1]
        axes.axvspan(low, high, color=COLORS[number], alpha=0.10, linewidth=0)
        middle = (low + high) / 2
        axes.text(middle, 1.10, name, ha="center", va="bottom", fontsize=9)
    look: dict[str, Any] = {"color": COLORS[0], "s": 7, "alpha": 0.45, "linewidth": 0}
    axes.scatter(margins[shown], cosines[shown], **look, rasterized=True)
    axes.set_xlim(0, _REACH)
    axes.set_ylim(-1.08, 1.08)
    axes.set_xlabel("margin of the image times the scale, s m")
    axes.set_ylabel("cosine with the exact gradient")
    return figure


@in_style
def sharpness(results: Mapping[str, Sequence[Result]]) -> BookFigure:
    """Mean and median sharpness of the clean images, over the robust accuracy.

    Every line is a network, every mark a scale of its head; what lies below the axes
    is left out.

    Args:
        results: name of the architecture -> one result per seed.
    """
    figure = BookFigure(figsize=(WIDTH, 3.7))
    grid = figure.subplots(1, 2, sharex=True)
    for number, (name, each) in enumerate(results.items()):
        look: dict[str, Any] = {"color": COLORS[number], "marker": _MARKS[number]}
        look |= {"linewidth": 1.2, "linestyle": LINES[number], "markersize": 4}
        for seed, result in enumerate(each):
            robust = 100 * result.robust_accuracy("cross-entropy")
            logs = result.log_sharpness / np.log(10)
            mean = result.log_sharpness.exp().mean(1).clamp_min(1e-300).log10()
            label = None if seed else name
            grid[0].plot(robust, mean, **look, label=label)
            grid[1].plot(robust, logs.median(1).values, **look)
    for axes, title in zip(grid, ("mean", "median"), strict=True):
        axes.set_title(f"{title} over images")
        axes.set_xlabel("robust accuracy in percent")
    grid[0].set_ylabel("log₁₀ of sharpness κ")
    grid[0].set_ylim(-4, 7.5)
    grid[1].set_ylim(-420, 20)
    figure.legend(loc="outside lower center", ncols=len(results))
    return figure


@in_style
def floors(results: Sequence[Result]) -> BookFigure:
    """Euclidean attack with a floor under the gradient, by the size of the batch."""
    counts = results[0].sizes.floor_batches
    figure = BookFigure(figsize=(WIDTH, 3.0))
    axes = figure.subplots()
    for number, (name, label) in enumerate(
        (("unfloored", "log-odds, no floor"), ("floored", "mean loss, with a floor"))
    ):
        share = torch.stack([getattr(r, name).double().mean(-1) for r in results])
        share = share.view(len(results), -1).expand(-1, len(counts))
        stuck = [getattr(r, f"{name}_stuck").double().mean(-1) for r in results]
        moved = torch.stack(stuck).view(len(results), -1).expand(-1, len(counts))
        _range(axes, counts, 100 * share, number, label)
        mark: dict[str, Any] = {"color": COLORS[number], "marker": _MARKS[number]}
        axes.plot(counts, 100 * moved.mean(0), **mark, **_HOLLOW)
    axes.plot([], [], color="#595959", marker="o", **_HOLLOW, label="never moved")
    axes.set_xscale("log")
    axes.set_xlabel("images in a batch")
    axes.set_ylabel("percent of the images")
    axes.set_ylim(-4, 64)
    axes.legend(ncols=3, loc="upper left")
    return figure


def _scales(results: Sequence[Result]) -> tuple[float, ...]:
    return results[0].sizes.scales


def _times_scale(margin: Tensor, result: Result) -> Tensor:
    """Margins (N,) at all S scales, as (S N,)."""
    scales = torch.tensor(result.sizes.scales, dtype=margin.dtype)
    return (scales[:, None] * margin).flatten()


def _robust(
    axes: Axes, results: Sequence[Result], name: str, number: int, label: str
) -> None:
    share = torch.stack([result.robust_accuracy(name) for result in results])
    _range(axes, _scales(results), 100 * share, number, label)


def _stuck(
    axes: Axes, results: Sequence[Result], name: str, number: int, label: str
) -> None:
    """Hollow marks at the mean share of images that never moved."""
    share = torch.stack([result.zero_gradients(name) for result in results])
    look = _HOLLOW | {"color": COLORS[number], "marker": _MARKS[number]}
    axes.plot(_scales(results), 100 * share.mean(0), **look, label=label)


def _range(
    axes: Axes, x: Sequence[float], values: Tensor, number: int, label: str
) -> None:
    """Mean over seeds (R, X) with a band from the lowest to the highest."""
    color = COLORS[number]
    low, high = values.amin(0), values.amax(0)
    axes.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)
    axes.plot(x, values.mean(0), color=color, linestyle=LINES[number], label=label)


def _finish(axes: Axes, results: Sequence[Result]) -> None:
    scales = _scales(results)
    axes.set_xscale("log")
    axes.set_xticks(scales, [f"{s:g}" for s in scales])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("scale s of the head")
    axes.set_ylabel("percent of the images")
    axes.set_ylim(-4, 104)
