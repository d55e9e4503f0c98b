"""Pictures of the experiment `flatbook.experiments.detection`.

Each takes the results of several seeds, of one kind of network and one size;
`paper_figure` takes stacked arrays instead.

>>> radius(0.05), radius(8 / 255), radius(0.5 / 255)
('0.05', '8/255', '0.5/255')
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, MultipleLocator
from numpy.typing import ArrayLike

from flatbook.experiments.detection import FEATURES, Matched, Result
from flatbook.figures import COLORS, LINES, WIDTH, BookFigure, heatmap, in_style
from flatbook.figures._stacked import BELOW, band, chosen

__all__ = ["across", "adaptive", "paper_figure", "radius", "ridges", "strengths"]

_GREY = "#595959"
_NAMES = ("sharpness κ", "confidence", "margin", "‖φ‖²")
_BINS = 70
_NARROW = 5.4
_PAPER_EPS = 8 / 255
_PAPER = 0.92  # mean over the folds, appendix D.4; there for a WRN-28-4 on CIFAR-10
_DETECTORS = (
    "stump on κ,\nplain attack",
    "the same stump",
    *(f"retrained: {name}" for name in ("κ", *_NAMES[1:], "all four")),
)


def radius(eps: float) -> str:
    """A radius as it is spoken of: a small one in 255ths, in whole ones or halves."""
    pixels = 255 * eps
    if pixels < 20 and abs(2 * pixels - round(2 * pixels)) < 1e-4:
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
    _ridges(figure.subplots(), rows)
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
    figure = BookFigure(figsize=(_NARROW + 0.4, 3.6))
    grid = figure.subplots(1, len(radii), sharey=True, sharex=True, squeeze=False)[0]
    for axes, eps in zip(grid, radii, strict=True):
        found = np.stack([_detected(result, eps) for result in results], 1)
        _detectors(axes, found)
        axes.set_title(f"ε = {radius(eps)}")
    grid[0].invert_yaxis()
    figure.supxlabel("accuracy, clean against attacked", fontsize=10)
    return figure


@in_style
def paper_figure(arrays: Mapping[str, np.ndarray]) -> BookFigure:
    """What appendix D.4 of the paper describes, and how far it carries.

    a) Sharpness of clean images, under the attack of the paper's radius 8/255 (or the
    nearest there is) and the strongest, and at the end of the adaptive attack; upright
    strokes are the thresholds of the best stumps. b) Accuracy of a stump on each
    feature, beside the mean accuracy that the paper reports. c) The stump of that
    radius and of the strongest at all other radii. d) What detects the adaptive attack.

    Thick lines and bars are means over seeds, thin lines and dots the seeds.

    Args:
        arrays: those of `flatbook.experiments.detection.panels`, stacked over seeds:
            `eps`, `adaptive_eps`, `log10_sharpness`, `adaptive_log10_sharpness`,
            `threshold`, `accuracy`, `across`, `same_stump` and `retrained`.

    Raises:
        ValueError: an array is missing.
    """
    names = ("threshold", "accuracy", "across", "same_stump", "retrained")
    kappa = ("log10_sharpness", "adaptive_log10_sharpness")
    seen = chosen(arrays, "eps", "adaptive_eps", *kappa, *names)
    figure = BookFigure(figsize=(WIDTH, 6.4))
    first, second, third, fourth = figure.subplots(2, 2).flat
    _hills(first, seen)
    _by_radius(second, seen)
    _elsewhere(third, seen)
    _adaptive_panel(fourth, seen)
    titles = ["sharpness κ", "accuracy of a stump", "at another radius"]
    titles.append(f"adaptive, ε = {radius(seen['adaptive_eps'][0, -1])}")
    for letter, axes, title in zip("abcd", figure.axes, titles, strict=True):
        axes.set_title(f"{letter}  {title}")
    return figure


def _hills(axes: Axes, seen: Mapping[str, np.ndarray]) -> None:
    """Clean images, two attacks with the thresholds of their stumps, the adaptive."""
    kappa, eps = seen["log10_sharpness"], seen["eps"][0]
    places = sorted({_nearest(eps), len(eps) - 1})
    rows = {"clean": kappa[:, 0]}
    rows |= {f"ε = {radius(eps[i])}": kappa[:, 1 + i] for i in places}
    last = f"adaptive,\nε = {radius(seen['adaptive_eps'][0, -1])}"
    _ridges(axes, rows | {last: seen["adaptive_log10_sharpness"][:, -1]})
    for row, i in enumerate(places, 1):
        axes.vlines(seen["threshold"][:, i], -row, 0.9 - row, color="black", lw=1.2)
    axes.set_ylim(bottom=axes.get_ylim()[0] - 0.25)


def _by_radius(axes: Axes, seen: Mapping[str, np.ndarray]) -> None:
    accuracy = seen["accuracy"].mean(-1)
    for f in range(len(FEATURES)):
        _line(axes, accuracy[:, f], f, _NAMES[f])
    axes.axhline(_PAPER, color=_GREY, linewidth=1.2, linestyle=":", label="paper, D.4")
    _radii(axes, seen)
    axes.legend(**BELOW)


def _elsewhere(axes: Axes, seen: Mapping[str, np.ndarray]) -> None:
    """Rows of `across`, and its diagonal."""
    across, eps = seen["across"], seen["eps"][0]
    places = np.arange(len(eps))
    for number, i in enumerate(sorted({_nearest(eps), len(eps) - 1})):
        band(axes, places, across[:, i], number, f"trained at {radius(eps[i])}")
    band(axes, places, across[:, places, places], 2, "trained there")
    _radii(axes, seen)
    axes.legend(**BELOW)


def _adaptive_panel(axes: Axes, seen: Mapping[str, np.ndarray]) -> None:
    place = int(np.abs(seen["eps"][0] - seen["adaptive_eps"][0, -1]).argmin())
    plain, same = seen["accuracy"][:, 0, place], seen["same_stump"][:, -1]
    again = seen["retrained"][:, -1].mean(-1)
    found = np.concatenate([[plain.mean(-1), same.mean(-1)], again.T])
    _detectors(axes, found)
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=8)
    axes.set_xlabel("accuracy")


def _nearest(eps: np.ndarray) -> int:
    """Place of the radius nearest to the paper's."""
    return int(np.abs(eps - _PAPER_EPS).argmin())


def _radii(axes: Axes, seen: Mapping[str, np.ndarray]) -> None:
    """Radii as names side by side, and the accuracy of guessing."""
    names = [radius(eps) for eps in seen["eps"][0]]
    axes.axhline(0.5, color=_GREY, linewidth=1, linestyle="-", zorder=1)
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel("radius ε of the attack")


def _ridges(axes: Axes, rows: Mapping[str, np.ndarray]) -> None:
    """Distributions below each other, each (seeds, N); the first is grey."""
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


def _detectors(axes: Axes, found: np.ndarray) -> None:
    """Accuracies (7, seeds), a row for each of `_DETECTORS`; a bar is their mean."""
    for row, values in enumerate(found):
        color = _GREY if row == 0 else COLORS[min(row - 1, 1)]
        axes.vlines(values.mean(), row - 0.32, row + 0.32, color=color, lw=2)
        axes.plot(values, [row] * len(values), "o", color=color, alpha=0.55, ms=5)
    axes.axvline(0.5, color=_GREY, linewidth=1, zorder=1)
    axes.set_yticks(range(len(_DETECTORS)), _DETECTORS)
    axes.xaxis.set_major_locator(MultipleLocator(0.1))


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
