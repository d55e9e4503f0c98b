"""Pictures of the experiment `flatbook.experiments.detection`.

Each takes the results of several seeds, of one kind of network and one size.

>>> radius(0.05), radius(8 / 255), radius(0.5 / 255)
('0.05', '8/255', '0.5/255')
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, MultipleLocator
from numpy.typing import ArrayLike

from flatbook.experiments.detection import FEATURES, Matched, Result
from flatbook.figures import COLORS, LINES, BookFigure, heatmap, in_style

__all__ = ["across", "adaptive", "radius", "ridges", "strengths"]

_GREY = "#595959"
_NAMES = ("sharpness κ", "confidence", "margin", "‖φ‖²")
_BINS = 70
_NARROW = 5.4


def radius(eps: float) -> str:
    """A radius as it is spoken of: a small one in 255ths, in whole ones or halves."""
    pixels = 255 * eps
    if pixels < 20 and abs(2 * pixels - round(2 * pixels)) < 1e-6:
        return f"{pixels:g}/255"
    return f"{eps:g}"


@in_style
def ridges(
    results: Sequence[Result], eps: Sequence[float], *, adaptive: float | None = None
) -> BookFigure:
    """How log sharpness is distributed, clean and attacked, below each other.

    Thick outlines are all seeds together, thin ones the seeds, the broken line is the
    median of the clean images.

    Args:
        results: one for each seed.
        eps: the radii shown.
        adaptive: a radius whose adaptive attack is shown too.

    Raises:
        ValueError: a radius that was not measured.
    """
    rows = {"clean": _kappa(results, 0)}
    for value in eps:
        rows[f"ε = {radius(value)}"] = _kappa(results, 1 + _index(results, value))
    if adaptive is not None:
        found = [_matched(result, adaptive).features[0] for result in results]
        rows[f"adaptive,\nε = {radius(adaptive)}"] = _decades(found)
    figure = BookFigure(figsize=(_NARROW, 0.6 + 0.7 * len(rows)))
    axes = figure.subplots()
    low, high = min(map(np.min, rows.values())), max(map(np.max, rows.values()))
    room = 0.07 * (high - low)
    edges = np.linspace(low - room, high + room, _BINS)
    for number, values in enumerate(rows.values()):
        color = _GREY if number == 0 else COLORS[(number - 1) % len(COLORS)]
        _ridge(axes, -number, values, edges, color)
    axes.axvline(np.median(rows["clean"]), color=_GREY, linestyle="--", linewidth=1)
    axes.set_yticks(-np.arange(len(rows)), list(rows))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False, axis="y")
    axes.set_xlim(edges[0], edges[-1])
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel("log₁₀ κ")
    return figure


@in_style
def strengths(results: Sequence[Result]) -> BookFigure:
    """Accuracy of the stumps, and which side is sharper, against the radius.

    Thick lines are means over seeds, thin ones the seeds.
    """
    figure = BookFigure(figsize=(_NARROW, 6.2))
    top, bottom = figure.subplots(2, 1, sharex=True)
    accuracy = np.stack([result.accuracy.mean(2).numpy() for result in results])
    for f in range(len(FEATURES)):
        _line(top, accuracy[:, f], f, _NAMES[f])
    _line(bottom, np.stack([result.auc.numpy() for result in results]), 0, "")
    for axes in (top, bottom):
        axes.axhline(0.5, color=_GREY, linewidth=1, linestyle="-", zorder=1)
    top.set(title="accuracy of a stump", ylim=(0.45, 1.1))
    top.set_yticks([0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    top.legend(loc="upper left", ncols=2, columnspacing=1.2, handlelength=2.6)
    bottom.set(title="P(clean is sharper)", ylim=(0, 1))
    places = {"x": len(results[0].sizes.eps) - 1.05, "color": _GREY, "fontsize": 9}
    bottom.text(y=0.95, s="attacked is flatter", ha="right", va="top", **places)
    bottom.text(y=0.05, s="attacked is sharper", ha="right", va="bottom", **places)
    names = [radius(eps) for eps in results[0].sizes.eps]
    bottom.set_xticks(range(len(names)), names)
    bottom.set_xlabel("radius ε of the attack")
    return figure


@in_style
def across(results: Sequence[Result]) -> BookFigure:
    """Stumps trained at one radius and used at another: points above chance."""
    mean = np.mean([result.across.numpy() for result in results], axis=0)
    names = [radius(eps) for eps in results[0].sizes.eps]
    figure = heatmap(100 * (mean - 0.5), names, annotate="+.0f")
    figure.set_size_inches(_NARROW, 0.86 * _NARROW)
    axes, bar = figure.axes
    axes.set(xlabel="used at ε", ylabel="trained at ε")
    bar.set_ylabel("percentage points above chance")
    return figure


@in_style
def adaptive(results: Sequence[Result]) -> BookFigure:
    """What detects the adaptive attack: a dot for each seed, a bar for their mean."""
    radii = results[0].sizes.adaptive
    names = ["stump on κ,\nplain attack", "the same stump", "retrained: κ"]
    names += [f"retrained: {name}" for name in (*_NAMES[1:], "all four")]
    figure = BookFigure(figsize=(_NARROW + 0.4, 3.6))
    grid = figure.subplots(1, len(radii), sharey=True, sharex=True, squeeze=False)[0]
    for axes, eps in zip(grid, radii, strict=True):
        found = np.stack([_detected(result, eps) for result in results], 1)
        for row, values in enumerate(found):
            color = _GREY if row == 0 else COLORS[min(row - 1, 1)]
            axes.vlines(values.mean(), row - 0.32, row + 0.32, color=color, lw=2)
            axes.plot(values, [row] * len(values), "o", color=color, alpha=0.55, ms=5)
        axes.axvline(0.5, color=_GREY, linewidth=1, zorder=1)
        axes.set_title(f"ε = {radius(eps)}")
        axes.xaxis.set_major_locator(MultipleLocator(0.1))
    grid[0].set_yticks(range(len(names)), names)
    grid[0].invert_yaxis()
    figure.supxlabel("accuracy, clean against attacked", fontsize=10)
    return figure


def _detected(result: Result, eps: float) -> np.ndarray:
    """Accuracies of one seed, in the order of the rows of `adaptive`."""
    found = _matched(result, eps)
    plain = result.accuracy[0, _index([result], eps)].mean()
    return np.array([plain, found.same.mean(), *found.retrained.mean(1)])


def _matched(result: Result, eps: float) -> Matched:
    if eps not in result.matched:
        raise ValueError(f"no adaptive attack at {eps}; at {list(result.matched)}")
    return result.matched[eps]


def _index(results: Sequence[Result], eps: float) -> int:
    known = results[0].sizes.eps
    if eps not in known:
        raise ValueError(f"radius {eps} was not measured; there are {known}")
    return known.index(eps)


def _kappa(results: Sequence[Result], place: int) -> np.ndarray:
    return _decades([result.features[0, place] for result in results])


def _decades(logs: Sequence[ArrayLike]) -> np.ndarray:
    """Natural logarithms of the seeds as decades (seeds, N)."""
    return np.stack([np.asarray(log) for log in logs]) / np.log(10)


def _density(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """A smoothed histogram at the middles of the bins, of height about one."""
    counts = np.histogram(values, edges)[0] / values.size
    kernel = np.exp(-0.5 * (np.arange(-6, 7) / 2) ** 2)
    return np.convolve(counts, kernel / kernel.sum(), mode="same")


def _ridge(
    axes: Axes, base: float, values: np.ndarray, edges: np.ndarray, color: str
) -> None:
    """One distribution above its base line; values (seeds, N)."""
    across = (edges[:-1] + edges[1:]) / 2
    together = _density(values, edges)
    height = 0.85 / together.max()
    line: dict[str, Any] = {"color": color, "linestyle": "-"}
    for seed in values:
        axes.plot(across, base + height * _density(seed, edges), linewidth=0.6, **line)
    up = base + height * together
    axes.fill_between(across, base, up, color=color, alpha=0.25, linewidth=0)
    axes.plot(across, up, linewidth=1.8, **line)


def _line(axes: Axes, values: np.ndarray, number: int, name: str) -> None:
    """Mean and seeds (S, R) at the places 0 .. R - 1."""
    look: dict[str, Any] = {"color": COLORS[number], "linestyle": LINES[number]}
    across = np.arange(values.shape[1])
    axes.plot(across, values.T, linewidth=0.7, alpha=0.6, **look)
    axes.plot(across, values.mean(0), label=name, **look)
