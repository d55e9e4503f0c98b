"""Pictures of results in one style; nothing here computes anything about a model.

The functions here draw numbers of any kind. A module below, such as
`flatbook.figures.loss_geometry`, draws the results of the experiment of its name.

Every function returns a matplotlib figure that shows itself as the last value of a
cell, with or without pyplot. Figures are made without pyplot, so none stays open.
Colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/); lines differ in
their dashes too.

>>> figure = curves({"loss": ([0, 1, 2], [3.0, 1.0, 0.5])}, x="epoch", y="loss")
>>> figure.axes[0].get_xlabel()
'epoch'
"""

import io
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

__all__ = [
    "COLORS",
    "LINES",
    "WIDTH",
    "BookFigure",
    "curves",
    "heatmap",
    "image_row",
    "in_style",
    "trajectory",
    "use_style",
]

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1.5, 2)), (0, (9, 3)), "-.")

WIDTH = 7.0
_STYLE: dict[str, Any] = {
    "figure.figsize": (WIDTH, 3.6),
    "figure.dpi": 150,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "white",
    "axes.prop_cycle": cycler(color=COLORS) + cycler(linestyle=LINES),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#767676",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#d9d9d9",
    "grid.linewidth": 0.8,
    "lines.linewidth": 2.0,
    "font.size": 10,
    "xtick.color": "#595959",
    "ytick.color": "#595959",
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 3.2,
    "image.cmap": "cividis",
}
_SIGNED = "PuOr"

P = ParamSpec("P")


class BookFigure(Figure):
    """A figure that a notebook shows by itself.

    IPython turns matplotlib's own figures into pictures only once pyplot is imported.
    This class brings the picture along, at twice the resolution of its place.
    """

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        stream = io.BytesIO()
        self.savefig(stream, format="png", metadata={"Software": None})
        width, height = (round(96 * inches) for inches in self.get_size_inches())
        return stream.getvalue(), {"width": width, "height": height}


def use_style() -> None:
    """Give all later matplotlib figures the style of the book."""
    mpl.rcParams.update(_STYLE)


def in_style(draw: Callable[P, BookFigure]) -> Callable[P, BookFigure]:
    """The style of the book for one figure, whatever is set outside."""

    @wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> BookFigure:
        with mpl.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return styled


@in_style
def curves(
    lines: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    x: str,
    y: str,
    log: str = "",
    title: str = "",
) -> BookFigure:
    """Named curves on one pair of axes.

    Args:
        lines: name -> (xs, ys), at most six.
        x: label of the horizontal axis.
        y: label of the vertical axis.
        log: the axes with a logarithmic scale: "", "x", "y" or "xy".
        title: a heading, or nothing.

    Raises:
        ValueError: more than six lines, lengths that differ, or NaN.
    """
    _check_count(lines)
    figure = BookFigure()
    axes = figure.subplots()
    for name, (xs, ys) in lines.items():
        across, up = _array(f"x of {name!r}", xs, 1), _array(f"y of {name!r}", ys, 1)
        if len(across) != len(up):
            raise ValueError(f"line {name!r}: {len(across)} x but {len(up)} y values")
        axes.plot(across, up, label=name)
    _finish(axes, x, y, log)
    axes.set_title(title)
    return figure


@in_style
def trajectory(
    panels: Mapping[str, Mapping[str, ArrayLike]],
    *,
    x: str = "attack step",
    log: Sequence[str] = (),
    steps: ArrayLike | None = None,
) -> BookFigure:
    """Quantities along an attack: median over samples, band from quartile to quartile.

    Args:
        panels: label of the vertical axis -> {line name: values}, side by side.
            Values are (T + 1, N) for N samples, or (S, T + 1, N) for S seeds: then
            thin lines are the medians of the seeds, and the thick line and the band
            are those of all samples together.
        x: label of the horizontal axis.
        log: the panels with a logarithmic vertical axis.
        steps: (T + 1,) positions on the horizontal axis (default 0 .. T).

    Raises:
        ValueError: wrong shapes, NaN, more than six lines, or an unknown panel in log.
    """
    unknown = sorted(set(log) - set(panels))
    if unknown or not panels:
        raise ValueError(f"log names no panel: {unknown}; panels: {list(panels)}")
    figure = BookFigure(figsize=(WIDTH, 2.9 if len(panels) > 1 else 3.6))
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (label, lines) in zip(grid, panels.items(), strict=True):
        _check_count(lines)
        for number, (name, values) in enumerate(lines.items()):
            array = _array(f"{label}, {name!r}", values, 2, 3)
            _band(axes, number, name, array, steps)
        _finish(axes, x, label, "y" if label in log else "")
    return figure


@in_style
def image_row(
    images: ArrayLike | Sequence[ArrayLike],
    titles: Sequence[str] = (),
    *,
    signed: bool = False,
) -> BookFigure:
    """Images side by side; perturbations on a diverging scale around zero.

    Args:
        images: N images (H, W), (1, H, W) or (3, H, W).
        titles: N texts, or nothing.
        signed: values of both signs (grey images only): one symmetric colour scale
            for all, with a colour bar. Otherwise values in [0, 1].

    Raises:
        ValueError: no images, another number of titles, wrong shapes, NaN, or values
            outside [0, 1] when not signed.
    """
    arrays = [_image(i, image, signed) for i, image in enumerate(_each(images))]
    if not arrays or len(titles) not in (0, len(arrays)):
        raise ValueError(f"got {len(arrays)} images and {len(titles)} titles")
    largest = max(float(np.abs(array).max()) for array in arrays) or 1.0
    look: dict[str, Any] = {
        "cmap": _SIGNED if signed else "gray",
        "interpolation": "nearest",
    }
    look |= {"vmin": -largest if signed else 0.0, "vmax": largest if signed else 1.0}
    side = min(1.5, WIDTH / len(arrays))
    size = (side * len(arrays) + (0.8 if signed else 0), side + 0.3)
    figure = BookFigure(figsize=size)
    grid = figure.subplots(1, len(arrays), squeeze=False)[0]
    texts = titles or [""] * len(arrays)
    for axes, array, title in zip(grid, arrays, texts, strict=True):
        shown = axes.imshow(array, **look)
        axes.set_title(title, fontsize=9, fontweight="normal", loc="center")
        axes.set_axis_off()
    if signed:
        figure.colorbar(shown, ax=list(grid), shrink=0.8)
    return figure


@in_style
def heatmap(
    matrix: ArrayLike,
    labels: Sequence[str] | tuple[Sequence[str], Sequence[str]] = (),
    *,
    annotate: str = "",
    title: str = "",
) -> BookFigure:
    """A matrix as colours: diverging around zero when it has both signs.

    Args:
        matrix: (R, C).
        labels: names of rows and columns alike, or (names of rows, names of columns).
        annotate: format of the number in every cell, such as ".2f", or nothing.
        title: a heading, or nothing.

    Raises:
        ValueError: not a matrix, NaN, or another number of labels.
    """
    array = _array("matrix", matrix, 2)
    rows, columns = _labels(labels, array.shape)
    diverging = bool(array.min() < 0 < array.max())
    largest = float(np.abs(array).max())
    low, high = (-largest, largest) if diverging else (array.min(), array.max())
    cell = max(0.45, min(0.9, 5.0 / max(array.shape)))
    size = (array.shape[1] * cell + 2.0, array.shape[0] * cell + 0.8)
    figure = BookFigure(figsize=size)
    axes = figure.subplots()
    cmap = _SIGNED if diverging else "cividis"
    shown = axes.imshow(array, cmap=cmap, vmin=low, vmax=high)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.grid(visible=False)
    axes.set_title(title)
    for place, value in np.ndenumerate(array if annotate else np.empty((0, 0))):
        color = _readable(shown.to_rgba(value))
        text = format(value, annotate).replace("-", "−")
        axes.text(place[1], place[0], text, ha="center", va="center", color=color)
    figure.colorbar(shown, ax=axes, shrink=0.85)
    return figure


def _array(what: str, values: ArrayLike, *dimensions: int) -> np.ndarray:
    """Values (also a tensor) as float64, of a given number of axes, without NaN."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    array = np.asarray(values, dtype=float)
    if array.ndim not in dimensions or not array.size:
        axes = " or ".join(map(str, dimensions))
        raise ValueError(f"{what} must have {axes} axes, got shape {array.shape}")
    if np.isnan(array).any():
        raise ValueError(f"{what} must not contain NaN")
    return array


def _check_count(lines: Mapping[str, object]) -> None:
    if not 0 < len(lines) <= len(COLORS):
        raise ValueError(f"between 1 and {len(COLORS)} lines, got {len(lines)}")


def _band(
    axes: Axes, number: int, name: str, values: np.ndarray, steps: ArrayLike | None
) -> None:
    """One quantity (T + 1, N) or (S, T + 1, N): seeds, quartiles, median."""
    seeds = values.reshape(-1, *values.shape[-2:])
    pooled = np.concatenate(list(seeds), axis=1)
    across = np.arange(len(pooled)) if steps is None else _array("steps", steps, 1)
    if len(across) != len(pooled):
        raise ValueError(f"{len(across)} steps for {len(pooled)} points of {name!r}")
    color, line = COLORS[number], LINES[number]
    low, middle, high = np.quantile(pooled, [0.25, 0.5, 0.75], axis=1)
    axes.fill_between(across, low, high, color=color, alpha=0.18, linewidth=0)
    if len(seeds) > 1:
        medians = np.median(seeds, axis=2).T
        axes.plot(
            across, medians, color=color, linestyle=line, linewidth=0.7, alpha=0.6
        )
    axes.plot(across, middle, color=color, linestyle=line, label=name)


def _finish(axes: Axes, x: str, y: str, log: str) -> None:
    if set(log) - set("xy"):
        raise ValueError(f"log must be '', 'x', 'y' or 'xy', got {log!r}")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    for axis in log:
        getattr(axes, f"set_{axis}scale")("log")
    labels = axes.get_legend_handles_labels()[1]
    if len(labels) > 1 or labels != [y]:
        axes.legend()


def _each(images: ArrayLike | Sequence[ArrayLike]) -> Sequence[ArrayLike]:
    if hasattr(images, "detach"):
        images = images.detach().cpu().numpy()
    return list(images)  # type: ignore[arg-type]


def _image(number: int, image: ArrayLike, signed: bool) -> np.ndarray:
    array = _array(f"image {number}", image, 2, 3)
    if array.ndim == 3:
        if array.shape[0] not in (1, 3) or (signed and array.shape[0] == 3):
            raise ValueError(f"image {number} has shape {array.shape}")
        array = array[0] if array.shape[0] == 1 else np.moveaxis(array, 0, -1)
    if not signed and not (array.min() >= 0 and array.max() <= 1):
        low, high = array.min(), array.max()
        raise ValueError(f"image {number} leaves [0, 1]: [{low:g}, {high:g}]")
    return array


def _labels(
    labels: Sequence[str] | tuple[Sequence[str], Sequence[str]], shape: tuple[int, ...]
) -> tuple[list[str], list[str]]:
    if not labels:
        rows, columns = (list(map(str, range(n))) for n in shape)
    elif isinstance(labels[0], str):
        rows = columns = list(map(str, labels))
    else:
        rows, columns = (list(map(str, names)) for names in labels)
    if (len(rows), len(columns)) != shape:
        raise ValueError(f"{len(rows)} x {len(columns)} labels for a matrix {shape}")
    return rows, columns


def _readable(rgba: ArrayLike) -> str:
    """Black or white, whichever reads better on this ground."""
    red, green, blue = np.asarray(rgba, dtype=float)[:3] ** 2.2
    return "black" if 0.21 * red + 0.72 * green + 0.07 * blue > 0.18 else "white"
