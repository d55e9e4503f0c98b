"""Figures of `flatbook.experiments.loss_geometry`; most take one result per seed.

>>> scale(0.25), scale(50.0)
('s = 1/4', 's = 50')
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes

from flatbook.experiments.loss_geometry import WIDTHS, Path, Result
from flatbook.figures import COLORS, LINES, WIDTH, BookFigure, in_style
from flatbook.figures._stacked import chosen

__all__ = [
    "against_sharpness",
    "basin",
    "middle_and_mean",
    "narrowing",
    "paper_figure",
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
_PANELS = (
    "eps",
    "steps",
    "robust",
    "rises",
    "mean_rise",
    "median_rise",
    "example",
    "example_flip",
    "basins",
    "flips",
    "widths",
    "correlation",
    "given_margin",
)
_SCATTER = {
    "weak": ("tenth of rise", "to a tenth of its rise"),
    "strong": ("label flip", "to the label flip"),
}
_READINGS = {"log_odds": "anew, log-odds", "cross_entropy": "anew, float32 CE"}


def scale(s: float) -> str:
    """A scale as it is read: a simple fraction, or a number."""
    part = Fraction(float(s)).limit_denominator(9)
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


@in_style
def paper_figure(arrays: Mapping[str, np.ndarray]) -> BookFigure:
    """Figures 2 and 4 to 12 of the paper, and the same under a stronger attack.

    Left the paper's weak attack, right one that turns nearly every label. In (a) each
    row is a histogram, as high as its highest bin, with the mean and the median of the
    seeds. (b), (c) and the points of (d) are of the first seed, correlations are means
    over seeds. Points of images that the attack does not turn are hollow: their basin
    ends beyond the path. The width in (d) is on the left the one that can be read off
    normalised losses.

    Args:
        arrays: those of `flatbook.experiments.loss_geometry.panels`, each with an axis
            for the seeds in front.

    Raises:
        ValueError: an array is missing.
    """
    names = [f"{kind}_{name}" for kind in _KINDS for name in _PANELS]
    seen = chosen(arrays, "scales", "edges", "kappa", *names)
    figure = BookFigure(figsize=(WIDTH, 9.2))
    grid = figure.subplots(4, 2, height_ratios=[1.5, 1, 1, 1.1])
    for column, kind in zip(grid.T, _KINDS, strict=True):
        own = {name: seen[f"{kind}_{name}"] for name in _PANELS}
        draw = (_rise_rows, _example_basin, _some_basins, _scatter)
        for axes, panel in zip(column, draw, strict=True):
            panel(axes, seen | own, kind)
        column[0].annotate(
            _heading(own, kind),
            (0, 1),
            xytext=(0, 26),
            xycoords="axes fraction",
            textcoords="offset points",
        )
    points = grid[-1, 0].get_legend_handles_labels()
    figure.legend(*points, loc="outside lower right", ncols=2, handlelength=1.2)
    figure.align_ylabels(grid[1:])
    return figure


def _heading(own: Mapping[str, np.ndarray], kind: str) -> str:
    kept = 100 * own["robust"].mean()
    return f"{kind} attack, ε = {own['eps'][0]:g}: {kept:.0f} % stay right"


def _rise_rows(axes: Axes, seen: Mapping[str, np.ndarray], kind: str) -> None:
    """(a): one histogram above the other; the outer bins hold all that is beyond."""
    log = np.log10(seen["edges"][0])
    step = log[1] - log[0]
    edges = np.concatenate([[log[0] - step], log, [log[-1] + step]])
    share, scales = seen["rises"].mean(0), seen["scales"][0]
    for row, heights in enumerate(share):
        tall = row + 0.85 * heights / heights.max()
        look: dict[str, Any] = {"color": COLORS[0], "alpha": 0.55, "fill": True}
        axes.stairs(tall, edges, baseline=row, linewidth=0, **look)
    for name, marker, color in (("median", "|", "black"), ("mean", "o", COLORS[1])):
        places = seen[f"{name}_rise"].clip(10 ** edges[0]).mean(0)
        look = {"linestyle": "none", "markersize": 9 if marker == "|" else 5}
        look |= {"markeredgewidth": 2 if marker == "|" else 0, "clip_on": False}
        rows = np.arange(len(scales)) + 0.25
        axes.plot(np.log10(places), rows, marker, color=color, label=name, **look)
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, len(scales) + 0.1))
    axes.set_yticks(range(len(scales)), [scale(s) for s in scales])
    ticks = np.arange(np.ceil(log[0]), log[-1] + 1, 4)
    texts = [f"$10^{{{int(tick)}}}$" for tick in ticks]
    axes.set_xticks(ticks, [f"≤ {texts[0]}", *texts[1:]])
    axes.set_xlabel("rise of the loss, nats")
    _title(axes, "(a) rise of the loss", kind, handlelength=0.8)


def _example_basin(axes: Axes, seen: Mapping[str, np.ndarray], kind: str) -> None:
    """(b): four of the scales."""
    scales = seen["scales"][0]
    some = np.unique(np.linspace(0, len(scales) - 1, 4).round().astype(int))
    for number, i in enumerate(some):
        curve = seen["example"][0, i]
        _line(axes, seen["steps"][0], curve, number, label=scale(scales[i]))
    _flips(axes, seen["example_flip"][:1])
    _title(axes, "(b) one image", kind, handlelength=2.1)
    _along(axes, seen, kind)


def _some_basins(axes: Axes, seen: Mapping[str, np.ndarray], kind: str) -> None:
    """(c): at the largest scale."""
    for number, curve in enumerate(seen["basins"][0]):
        _line(axes, seen["steps"][0], curve, number)
    flips = seen["flips"][0]
    _flips(axes, flips)
    largest = scale(seen["scales"][0, -1])
    _title(axes, f"(c) some images, {largest}", kind)
    if not np.isfinite(flips).any():
        axes.text(0.5, 0.5, "no label flips", transform=axes.transAxes, ha="center")
    _along(axes, seen, kind)


def _scatter(axes: Axes, seen: Mapping[str, np.ndarray], kind: str) -> None:
    """(d): width of the basin at s = 1 against sharpness."""
    name, label = _SCATTER[kind]
    which, last = WIDTHS.index(name), seen["steps"][0, -1]
    width = seen["widths"][0, which].clip(max=1.05 * last)
    flip = seen["widths"][0, WIDTHS.index("label flip")]
    style: dict[str, Any] = {"markersize": 3.5, "linestyle": "none", "alpha": 0.6}
    kappa = seen["kappa"][0]
    for shown, marker, number, text in (
        (np.isfinite(flip), "o", 0, "label flips on the path"),
        (np.isinf(flip), "^", 1, "never does: the basin ends beyond"),
    ):
        face = {} if marker == "o" else {"markerfacecolor": "none"}
        look = style | face | {"color": COLORS[number], "label": text}
        axes.plot(kappa[shown], width[shown], marker, **look)
    axes.set(xscale="log", ylim=(0, 1.2 * last))
    axes.set_xlabel("sharpness κ of the clean image")
    axes.set_ylabel(f"steps {label}")
    rho, given = (seen[n][:, which].mean() for n in ("correlation", "given_margin"))
    axes.set_title(f"(d) basin width: ρ = {_signed(rho)}")
    text = f"given the margin: ρ = {_signed(given)}"
    place: dict[str, Any] = {"ha": "right", "va": "top", "transform": axes.transAxes}
    axes.text(0.98, 0.98, text, fontsize=9, color=_GREY, **place)


def _title(axes: Axes, text: str, kind: str, **look: Any) -> None:  # noqa: ANN401
    """Of a row: its words on the left, what its lines mean on the right."""
    if kind == "weak":
        axes.set_title(text)
    elif axes.get_legend_handles_labels()[1]:
        place = {"loc": "lower right", "bbox_to_anchor": (1.01, 1), "ncols": 4}
        axes.legend(**place, borderaxespad=0.2, columnspacing=1.0, **look)


def _flips(axes: Axes, flips: np.ndarray) -> None:
    """Small triangles where labels flip."""
    places = flips[np.isfinite(flips)]
    look: dict[str, Any] = {"linestyle": "none", "markersize": 6, "clip_on": False}
    if len(places):
        axes.plot(places, np.zeros(len(places)), "^", color=_GREY, zorder=5, **look)


def _along(axes: Axes, seen: Mapping[str, np.ndarray], kind: str) -> None:
    axes.set(xlim=(0, seen["steps"][0, -1]), ylim=(-0.03, 1.05), yticks=[0, 0.5, 1])
    axes.set_xlabel("attack step  (▲ label flip)")
    if kind == "weak":
        axes.set_ylabel("normalised loss")


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
    if np.isnan(value):
        return "–"
    return f"{value:.2f}".replace("-", "−")
