"""Figures of `flatbook.experiments.loss_geometry`; most take one result per seed.

>>> scale(0.25), scale(50.0)
('s = 1/4', 's = 50')
"""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from matplotlib.axes import Axes

from flatbook.experiments.loss_geometry import Path, Result
from flatbook.figures import COLORS, LINES, WIDTH, BookFigure, in_style

__all__ = [
    "against_sharpness",
    "basin",
    "middle_and_mean",
    "narrowing",
    "plateau",
    "readings",
    "scale",
    "sorted_rises",
]

_GREY = "#595959"
_KINDS = ("weak", "strong")
_SHOWN = {
    "rise of 0.1": "rise of 0.1",
    "tenth of rise": "a tenth of the rise",
    "ten times start": "ten times the start",
    "label flip": "label flip",
}
_READINGS = {"log_odds": "anew, log-odds", "cross_entropy": "anew, float32 CE"}


def scale(s: float) -> str:
    """A scale as it is read: a simple fraction, or a number."""
    part = Fraction(s).limit_denominator(9)
    simple = part.numerator == 1 and part.denominator > 1 and float(part) == s
    return f"s = {part}" if simple else f"s = {s:g}"


@in_style
def sorted_rises(
    results: Sequence[Result], scales: Sequence[float] = (0.25, 1, 10, 50)
) -> BookFigure:
    """All images of all seeds in the order of their rise, one line for each scale."""
    figure = BookFigure(figsize=(WIDTH, 3.3))
    low, high = 1e-9, 3e3
    for axes, kind in zip(figure.subplots(1, 2, sharey=True), _KINDS, strict=True):
        for number, s in enumerate(scales):
            i = results[0].sizes.scales.index(s)
            rise = torch.cat([r.paths[kind].rise[i] for r in results]).sort().values
            share = np.linspace(0, 100, len(rise))
            seen = rise.clamp_min(low / 10)
            _line(axes, share, seen, number, label=scale(s))
        axes.set_title(f"{kind} attack")
        axes.set_xlabel("images, percent")
        axes.set(yscale="log", ylim=(low, high), xlim=(0, 100))
    figure.axes[0].set_ylabel("rise of the loss, nats")
    figure.axes[1].legend(loc="lower right")
    return figure


@in_style
def middle_and_mean(results: Sequence[Result]) -> BookFigure:
    """Median and mean of the rise over the scale; thick: mean of the seeds."""
    scales = results[0].sizes.scales
    figure = BookFigure(figsize=(WIDTH, 3.1))
    low = 1e-9
    for axes, kind in zip(figure.subplots(1, 2, sharey=True), _KINDS, strict=True):
        rises = [r.paths[kind].rise for r in results]
        mean = np.array([rise.mean(1).numpy() for rise in rises])
        middle = np.array([rise.median(1).values.numpy() for rise in rises])
        for number, (name, each) in enumerate((("mean", mean), ("median", middle))):
            shown = np.maximum(each, low / 10)
            _seeds(axes, scales, shown, number)
            typical = np.exp(np.log(shown).mean(0))
            _line(axes, scales, typical, number, label=name)
        axes.set(yscale="log", ylim=(low, 3e3))
        axes.set_title(f"{kind} attack")
        _over_scales(axes)
    figure.axes[0].set_ylabel("rise of the loss, nats")
    figure.axes[0].legend(loc="lower left")
    return figure


@in_style
def basin(
    result: Result, image: int, scales: Sequence[float] = (0.25, 1, 5, 50)
) -> BookFigure:
    """One image on the strong attack: normalised loss, and loss over scale."""
    path = result.paths["strong"]
    margin, steps = path.margins[:, image], np.arange(len(path.margins))
    flip = float(path.width("label flip")[0, image])
    figure = BookFigure(figsize=(WIDTH, 3.2))
    left, right = figure.subplots(1, 2)
    for number, s in enumerate(scales):
        i = result.sizes.scales.index(s)
        _line(left, steps, path.normalised[i, :, image], number, label=scale(s))
        _line(right, steps, path.losses[i, :, image] / s, number)
    hinge = (-margin).clamp_min(0)
    right.plot(steps, hinge, color="black", linewidth=1, linestyle=":", label="hinge")
    for axes in (left, right):
        axes.axvline(flip, color=_GREY, linewidth=1)
        axes.set_xlabel("attack step")
        high = axes.get_ylim()[1]
        place = (flip, 0.97 * high)
        axes.annotate("flip ", place, color=_GREY, fontsize=9, ha="right", va="top")
    left.set_title("normalised loss")
    right.set_title("loss / s")
    left.legend(loc="center left")
    right.legend(loc="center left")
    return figure


@in_style
def narrowing(results: Sequence[Result]) -> BookFigure:
    """Median width of the basin over the scale, by its definition.

    An image that never leaves its basin counts with the last step.
    """
    scales = results[0].sizes.scales
    figure = BookFigure(figsize=(WIDTH, 3.4))
    for axes, kind in zip(figure.subplots(1, 2), _KINDS, strict=True):
        last = len(results[0].paths[kind].margins) - 1
        for number, (name, label) in enumerate(_SHOWN.items()):
            each = [_median_width(r.paths[kind], name) for r in results]
            _seeds(axes, scales, np.array(each), number)
            _line(axes, scales, np.mean(each, 0), number, label=label)
        axes.set_ylim(0, 1.05 * last)
        axes.set_title(f"{kind} attack, {last} steps")
        _over_scales(axes)
    figure.axes[0].set_ylabel("width, attack steps")
    names = figure.axes[0].get_legend_handles_labels()
    figure.legend(*names, loc="outside lower center", ncols=2)
    return figure


@in_style
def against_sharpness(result: Result) -> BookFigure:
    """Sharpness of the clean image against four widths of its basin at s = 1."""
    figure = BookFigure(figsize=(WIDTH, 4.6))
    shown = [("strong", name) for name in _SHOWN if name != "tenth of rise"]
    shown.append(("weak", "tenth of rise"))
    grid = figure.subplots(2, 2, sharex=True)
    for axes, (kind, name) in zip(grid.flat, shown, strict=True):
        path = result.paths[kind]
        width, last = path.width(name)[result.sizes.one], len(path.margins) - 1
        left = width.isfinite()
        style = {"markersize": 3, "linestyle": "none", "alpha": 0.6}
        axes.plot(result.kappa[left], width[left], "o", color=COLORS[0], **style)
        never = torch.full_like(width[~left], 1.04 * last)
        style["markerfacecolor"] = "none"
        axes.plot(result.kappa[~left], never, "^", color=COLORS[1], **style)
        rho = result.correlation(kind, name).value
        axes.set_title(f"{_SHOWN[name]}, {kind}: ρ = {_signed(rho)}", fontsize=9)
        axes.set(xscale="log", ylim=(0, 1.12 * last))
    for axes in grid[1]:
        axes.set_xlabel("sharpness κ of the clean image")
    for axes in grid[:, 0]:
        axes.set_ylabel("attack steps")
    return figure


@in_style
def readings(results: Sequence[Result]) -> BookFigure:
    """The strong attack made anew: mean rise over that of the path, who never moved."""
    scales = results[0].sizes.again
    figure = BookFigure(figsize=(WIDTH, 3.2))
    left, right = figure.subplots(1, 2)
    for number, (name, label) in enumerate(_READINGS.items()):
        each = 100 * np.array([_of_the_path(r, name) for r in results])
        _seeds(left, scales, each, number)
        _line(left, scales, each.mean(0), number, label=label)
    shares = {
        "keep their label": [r.robust("cross_entropy").numpy() for r in results],
        "never moved": [r.stuck("cross_entropy").numpy() for r in results],
    }
    for number, (name, parts) in enumerate(shares.items(), 3):
        _seeds(right, scales, 100 * np.array(parts), number)
        _line(right, scales, 100 * np.mean(parts, 0), number, label=name)
    for axes, title, place in (
        (left, "mean rise, % of the path's", "lower left"),
        (right, "images with float32 CE, %", "upper left"),
    ):
        axes.set(ylim=(-3, 108), title=title)
        _over_scales(axes)
        axes.legend(loc=place)
    return figure


@in_style
def plateau(results: Sequence[Result]) -> BookFigure:
    """Mean and median sharpness over the predicted limit of the mean."""
    figure = BookFigure(figsize=(WIDTH, 3.0))
    axes = figure.subplots()
    low = 1e-6
    for number, (name, of) in enumerate(
        (("mean", lambda p: p.mean), ("median", lambda p: p.median))
    ):
        for count, result in enumerate(results):
            found = result.plateau
            shown = (of(found) / found.predicted).clamp_min(low / 10)
            label = name if not count else None
            _line(axes, found.scales, shown, number, label=label)
    axes.axhline(1, color="black", linewidth=1, linestyle=":", label="predicted")
    axes.set(yscale="log", ylim=(low, 30))
    _over_scales(axes)
    axes.set_ylabel("‖W‖ Tr H over its limit")
    axes.legend(loc="lower right")
    return figure


def _line(
    axes: Axes, x: object, y: object, number: int, *, label: str | None = None
) -> None:
    color, dashes = COLORS[number], LINES[number]
    axes.plot(x, y, color=color, linestyle=dashes, label=label)  # type: ignore[arg-type]


def _seeds(axes: Axes, x: Sequence[float], each: np.ndarray, number: int) -> None:
    """From the smallest to the largest of the seeds."""
    low, high = each.min(0), each.max(0)
    axes.fill_between(x, low, high, color=COLORS[number], alpha=0.2, linewidth=0)


def _over_scales(axes: Axes) -> None:
    """A logarithmic axis whose ticks are read at once."""
    axes.set_xscale("log")
    ticks = {0.25: "¼", 1: "1", 5: "5", 10: "10", 50: "50", 100: "100"}
    low, high = axes.get_xlim()
    shown = {at: text for at, text in ticks.items() if low <= at <= high}
    axes.set_xticks(list(shown), list(shown.values()))
    axes.set_xticks([], minor=True)
    axes.set_xlabel("scale s")


def _of_the_path(result: Result, reading: str) -> np.ndarray:
    rises = result.readings
    return (rises[reading].mean(1) / rises["one path"].mean(1)).numpy()


def _median_width(path: Path, name: str) -> np.ndarray:
    width = path.width(name).clamp_max(len(path.margins) - 1)
    return width.median(1).values.numpy()


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")
