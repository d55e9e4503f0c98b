"""Figures of `flatbook.experiments.gradient_masking`; each takes one result per seed.

Robust accuracies are never drawn without the share of images that never moved.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import ArrayLike
from torch import Tensor

from flatbook.experiments.gradient_masking import Result, thresholds
from flatbook.figures import COLORS, LINES, WIDTH, BookFigure, in_style
from flatbook.figures._stacked import BELOW, band, chosen

__all__ = ["attacks", "floors", "masking", "paper_figure", "regimes", "sharpness"]

_REACH = 125.0
_HOLLOW: dict[str, Any] = {
    "linestyle": "none",
    "markerfacecolor": "white",
    "markersize": 6,
    "zorder": 4,
}
_MARKS = ("o", "s", "^", "D")
_DECADES = (5, 0, -10, -100, -1000, -10_000)
_SMALL = _HOLLOW | {"markersize": 5}


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
        band(axes, counts, 100 * share.numpy(), number, label)
        mark: dict[str, Any] = {"color": COLORS[number], "marker": _MARKS[number]}
        axes.plot(counts, 100 * moved.mean(0), **mark, **_HOLLOW)
    axes.plot([], [], color="#595959", marker="o", **_HOLLOW, label="never moved")
    axes.set_xscale("log")
    axes.set_xlabel("images in a batch")
    axes.set_ylabel("percent of the images")
    axes.set_ylim(-4, 64)
    axes.legend(ncols=3, loc="upper left")
    return figure


@in_style
def paper_figure(arrays: Mapping[str, np.ndarray]) -> BookFigure:
    """Figure 13 of the paper, with what explains it beside every curve.

    a) Sharpness of the clean images at every scale, its mean and its quartiles. b)
    Robust accuracy in both types of numbers and under the losses that know no scale,
    with the images that never moved, and what clean margins predict of these. c) The
    first against the second; hollow marks are the same networks under all attacks
    together. d) Examples of the first scale at the others, and clean predictions that
    change.

    Lines are means over seeds, bands go from the lowest to the highest; the band of the
    median goes from quartile to quartile.

    Args:
        arrays: those of `flatbook.experiments.gradient_masking.panels`, stacked over
            seeds: `scales`, `levels`, `log10_mean_sharpness`, `log10_sharpness`,
            `robust`, `never_moved`, `robust_to_all`, `predicted`, `transferred` and
            `changed`.

    Raises:
        ValueError: an array is missing.
    """
    shares = ("robust", "never_moved", "robust_to_all", "predicted", "transferred")
    kappa = ("log10_mean_sharpness", "log10_sharpness", "levels")
    seen = chosen(arrays, "scales", *kappa, *shares, "changed")
    figure = BookFigure(figsize=(WIDTH, 6.6))
    first, second, third, fourth = figure.subplots(2, 2).flat
    _sharpness_by_scale(first, seen)
    _robust_by_scale(second, seen)
    _sharpness_by_robust(third, seen)
    _transfer_by_scale(fourth, seen)
    titles = ("sharpness κ", "robust accuracy", "κ and robust accuracy", "transfer")
    for letter, axes, title in zip("abcd", figure.axes, titles, strict=True):
        axes.set_title(f"{letter}  {title}")
        axes.tick_params(axis="x", labelsize=8)
    return figure


def _sharpness_by_scale(axes: Axes, seen: Mapping[str, np.ndarray]) -> None:
    scales = seen["scales"][0]
    low, middle, high = (_quantile(seen, level) for level in (0.25, 0.5, 0.75))
    axes.fill_between(scales, low, high, color=COLORS[0], alpha=0.18, linewidth=0)
    axes.plot(scales, middle, color=COLORS[0], label="median, quartiles")
    band(axes, scales, seen["log10_mean_sharpness"], 1, "mean")
    _scale_axis(axes, scales)
    _decades(axes)
    axes.legend(**BELOW)


def _robust_by_scale(axes: Axes, seen: Mapping[str, np.ndarray]) -> None:
    scales = seen["scales"][0]
    robust, stuck = 100 * seen["robust"], 100 * seen["never_moved"].mean(0)
    for row, label in enumerate(("cross-entropy", "in float64")):
        band(axes, scales, robust[:, row], row, label)
        axes.plot(scales, stuck[row], color=COLORS[row], marker=_MARKS[row], **_SMALL)
    others = 100 * seen["robust"][:, 2:].mean(0)
    look: dict[str, Any] = {"color": COLORS[2], "linestyle": LINES[2], "linewidth": 1.4}
    axes.plot(
        scales, others.T, **look, label=["other losses", *"_" * (len(others) - 1)]
    )
    _hollow_entry(axes, "never moved")
    guess = 100 * seen["predicted"].mean(0)
    look = {"color": "black", "marker": "x", "markersize": 4, "linestyle": "none"}
    axes.plot(scales, guess.T, **look, zorder=5, label=["predicted", "_"])
    _scale_axis(axes, scales)
    _percent(axes)
    axes.legend(**BELOW)


def _sharpness_by_robust(axes: Axes, seen: Mapping[str, np.ndarray]) -> None:
    masked, honest = (
        100 * share.mean(0) for share in (seen["robust"][:, 0], seen["robust_to_all"])
    )
    curves = {"median": _quantile(seen, 0.5)}
    curves["mean"] = seen["log10_mean_sharpness"].mean(0)
    for number, (name, values) in enumerate(curves.items()):
        look: dict[str, Any] = {"color": COLORS[number], "marker": _MARKS[number]}
        line: dict[str, Any] = {
            "linestyle": LINES[number],
            "linewidth": 1.2,
            "markersize": 5,
        }
        axes.plot(masked, values, **look, **line, label=name)
        axes.plot(honest, values, **look, **_SMALL)
    _hollow_entry(axes, "all attacks together")
    _decades(axes)
    axes.set_xlim(-4, 104)
    axes.set_xticks([0, 50, 100], ["0 %", "50 %", "100 %"])
    axes.set_xlabel("robust accuracy")
    axes.legend(**BELOW)


def _transfer_by_scale(axes: Axes, seen: Mapping[str, np.ndarray]) -> None:
    scales = seen["scales"][0]
    for number, name in enumerate(("whole head scaled", "weight alone")):
        band(axes, scales, 100 * seen["transferred"][:, number], number, name)
        look: dict[str, Any] = {"color": COLORS[number], "marker": _MARKS[number]}
        axes.plot(scales, 100 * seen["changed"][:, number].mean(0), **look, **_SMALL)
    _hollow_entry(axes, "clean, changed")
    _scale_axis(axes, scales)
    _percent(axes)
    axes.legend(**BELOW)


def _quantile(seen: Mapping[str, np.ndarray], level: float) -> np.ndarray:
    """Sharpness (S,) in decades at a level, mean over seeds."""
    row = np.abs(seen["levels"][0] - level).argmin()
    return seen["log10_sharpness"][:, row].mean(0)


def _hollow_entry(axes: Axes, label: str) -> None:
    """A line of the legend for all hollow marks."""
    axes.plot([], [], color="#595959", marker="o", **_SMALL, label=label)


def _decades(axes: Axes) -> None:
    """Powers of ten on a scale that is straight near one and logarithmic far below."""
    low, high = min(1.5 * axes.dataLim.y0, -5), max(1.2 * axes.dataLim.y1, 6)
    axes.set_yscale("symlog", linthresh=10, linscale=0.8)
    axes.set_ylim(low, high)
    ticks = [tick for tick in _DECADES if low < tick < high]
    axes.set_yticks(ticks, [f"$10^{{{tick}}}$" if tick else "1" for tick in ticks])
    axes.set_yticks([], minor=True)


def _percent(axes: Axes) -> None:
    axes.set_ylim(-4, 104)
    axes.yaxis.set_major_formatter("{x:g} %")


def _scale_axis(axes: Axes, scales: ArrayLike) -> None:
    ticks = np.asarray(scales)
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{scale:g}" for scale in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("scale s of the head")


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
    band(axes, _scales(results), 100 * share.numpy(), number, label)


def _stuck(
    axes: Axes, results: Sequence[Result], name: str, number: int, label: str
) -> None:
    """Hollow marks at the mean share of images that never moved."""
    share = torch.stack([result.zero_gradients(name) for result in results])
    look = _HOLLOW | {"color": COLORS[number], "marker": _MARKS[number]}
    axes.plot(_scales(results), 100 * share.mean(0), **look, label=label)


def _finish(axes: Axes, results: Sequence[Result]) -> None:
    _scale_axis(axes, _scales(results))
    axes.set_ylabel("percent of the images")
    axes.set_ylim(-4, 104)
