"""What an explorer shows: charts, numbers and small images, checked when made.

`flatbook.explorer` is where these are used from.

>>> Chart({"loss": ([0, 1], [1, 0])}, "step", "loss", xlim=(0, 1), ylim=(1, 0))
Traceback (most recent call last):
    ...
ValueError: ylim must be increasing, got (1, 0)
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["Chart", "View"]

MAX_LINES = 6

Scale = Literal["linear", "log"]
Named = Literal["legend", "ends", "points", "nowhere"]
Shape = Literal["auto", "wide", "broad", "low", "half", "small"]
First = Literal["charts", "images"]
Limits = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Chart:
    """Curves on fixed axes.

    Args:
        lines: name -> (xs, ys), two sequences (or tensors) of one length; at most
            six lines. What leaves the limits is cut off.
        x: label of the horizontal axis, or nothing.
        y: label of the vertical axis.
        xlim: (low, high), the same in every view of an explorer.
        ylim: (low, high), the same in every view of an explorer.
        title: a short heading, or nothing.
        yscale: "linear" or "log".
        xscale: "linear" or "log".
        points: name -> (x, y), one marked point each; hidden outside the limits. A
            point with the name of a line takes its colour.
        vlines: name -> x, vertical lines with their name beside them; a name of
            spaces is not shown.
        hlines: name -> y, horizontal lines with their name below them.
        bands: name -> (from, to), shaded parts of the horizontal axis with their name
            inside; nothing is shaded where the second is not the larger one.
        named: where names stand: in a "legend" above, at the "ends" of lines,
            beside the "points", or "nowhere".
        said: name -> what stands beside the point in place of the name; it may change
            from view to view.
        shape: "wide", "broad" or "low" (a row of its own, less and less high), "half"
            (two in a row), "small" (two in a row on a phone too), or "auto": wide for
            one chart, else half.
        ticks: whether the vertical axis has numbers.

    Raises:
        TypeError: something is not a number or a sequence of numbers.
        ValueError: lengths differ, a value is not finite (or not positive on a
            logarithmic axis), limits are not increasing, too many lines, no such
            shape or place of names, or a text for a point that is not drawn.
    """

    lines: Mapping[str, tuple[ArrayLike, ArrayLike]]
    x: str
    y: str
    xlim: Limits
    ylim: Limits
    title: str = ""
    yscale: Scale = "linear"
    xscale: Scale = "linear"
    points: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    vlines: Mapping[str, float] = field(default_factory=dict)
    hlines: Mapping[str, float] = field(default_factory=dict)
    bands: Mapping[str, Limits] = field(default_factory=dict)
    named: Named = "legend"
    said: Mapping[str, str] = field(default_factory=dict)
    shape: Shape = "auto"
    ticks: bool = True

    def __post_init__(self) -> None:
        _check_choice("named", self.named, Named)
        _check_choice("shape", self.shape, Shape)
        if unknown := sorted({*self.said} - {*self.points}):
            raise ValueError(f"said names no point: {unknown}")
        if len(self.lines) > MAX_LINES:
            raise ValueError(
                f"a chart has at most {MAX_LINES} lines, got {len(self.lines)}"
            )
        for axis, limits, scale in (
            ("x", self.xlim, self.xscale),
            ("y", self.ylim, self.yscale),
        ):
            _check_axis(axis, limits, scale)
        lines = {name: self._line(name, pair) for name, pair in self.lines.items()}
        points = {name: self._point(name, pair) for name, pair in self.points.items()}
        vlines = {
            name: float(_values(f"vertical line {name!r}", x, self.xscale, ndim=0))
            for name, x in self.vlines.items()
        }
        object.__setattr__(self, "lines", lines)
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "vlines", vlines)
        hlines = {
            name: float(_values(f"horizontal line {name!r}", y, self.yscale, ndim=0))
            for name, y in self.hlines.items()
        }
        object.__setattr__(self, "hlines", hlines)
        bands = {name: self._band(name, pair) for name, pair in self.bands.items()}
        object.__setattr__(self, "bands", bands)

    def _line(self, name: str, pair: object) -> tuple[np.ndarray, np.ndarray]:
        xs, ys = _pair(f"line {name!r}", pair)
        xs = _values(f"x of line {name!r}", xs, self.xscale, ndim=1)
        ys = _values(f"y of line {name!r}", ys, self.yscale, ndim=1)
        if len(xs) != len(ys):
            raise ValueError(
                f"line {name!r}: x and y need one length, got {len(xs)} and {len(ys)}"
            )
        return xs, ys

    def _point(self, name: str, pair: object) -> tuple[float, float]:
        x, y = _pair(f"point {name!r}", pair)
        return (
            float(_values(f"x of point {name!r}", x, self.xscale, ndim=0)),
            float(_values(f"y of point {name!r}", y, self.yscale, ndim=0)),
        )

    def _band(self, name: str, pair: object) -> Limits:
        start, end = _pair(f"band {name!r}", pair)
        return (
            float(_values(f"start of band {name!r}", start, self.xscale, ndim=0)),
            float(_values(f"end of band {name!r}", end, self.xscale, ndim=0)),
        )


@dataclass(frozen=True, eq=False)
class View:
    """What an explorer shows for one setting of its sliders.

    Args:
        charts: charts, side by side; on a phone below each other.
        numbers: name -> number or text, shown as a row of readings.
        images: name -> 2-D array with values in [0, 1], shown in grey.
        note: a sentence below.
        changes: name -> 2-D array with values in [-1, 1], shown beside the images:
            blue below zero, pale at zero, orange above.
        says: what is seen here, in words: a sentence above the charts, announced to
            screen readers.
        first: what comes first, "charts" or "images" (with the numbers).

    Raises:
        TypeError: a chart is not a `Chart`, a number neither number nor text.
        ValueError: a number is NaN, an image is not 2-D or leaves its range, or
            something else is to come first.
    """

    charts: Sequence[Chart] = ()
    numbers: Mapping[str, float | str] = field(default_factory=dict)
    images: Mapping[str, ArrayLike] = field(default_factory=dict)
    note: str = ""
    changes: Mapping[str, ArrayLike] = field(default_factory=dict)
    says: str = ""
    first: First = "charts"

    def __post_init__(self) -> None:
        _check_choice("first", self.first, First)
        if isinstance(self.charts, Chart):
            raise TypeError("charts must be a sequence of charts: write [chart]")
        for chart in self.charts:
            if not isinstance(chart, Chart):
                raise TypeError(f"charts must be Chart objects, got {chart!r}")
        numbers = {name: _number(name, v) for name, v in self.numbers.items()}
        images = {name: _image(name, v, 0) for name, v in self.images.items()}
        changes = {name: _image(name, v, -1) for name, v in self.changes.items()}
        object.__setattr__(self, "charts", tuple(self.charts))
        object.__setattr__(self, "numbers", numbers)
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "changes", changes)


def _check_axis(axis: str, limits: object, scale: str) -> None:
    if scale not in ("linear", "log"):
        raise ValueError(f"{axis}scale must be 'linear' or 'log', got {scale!r}")
    low, high = (
        float(_values(f"{axis}lim", v, "linear", ndim=0))
        for v in _pair(f"{axis}lim", limits)
    )
    if low >= high:
        raise ValueError(f"{axis}lim must be increasing, got {limits}")
    if scale == "log" and low <= 0:
        raise ValueError(f"{axis}lim must be positive on a log axis, got {limits}")


def _check_choice(what: str, value: object, kinds: object) -> None:
    if value not in (known := get_args(kinds)):
        raise ValueError(f"{what} must be one of {known}, got {value!r}")


def _pair(what: str, pair: object) -> Sequence[object]:
    if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
        raise TypeError(f"{what} must be a pair (a, b), got {pair!r}")
    return pair


def plain(value: object) -> object:
    """A tensor as an array on the host; anything else as it is."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value


def _array(what: str, values: object) -> np.ndarray:
    try:
        return np.asarray(plain(values), dtype=float)
    except (TypeError, ValueError):
        raise TypeError(f"{what} must be numbers, got {values!r}") from None


def _values(what: str, values: object, scale: str, *, ndim: int) -> np.ndarray:
    """Finite numbers (positive on a log axis) as a float64 array of ``ndim`` axes."""
    array = _array(what, values)
    if array.ndim != ndim:
        expected = "one number" if ndim == 0 else "a sequence of numbers"
        raise ValueError(f"{what} must be {expected}, got shape {array.shape}")
    wrong = ~np.isfinite(array)
    if scale == "log":
        wrong |= array <= 0
    if wrong.any():
        where = f" at index {int(wrong.argmax())}" if ndim else ""
        needed = "finite and positive (log axis)" if scale == "log" else "finite"
        raise ValueError(f"{what} must be {needed}, got {array[wrong][0]:g}{where}")
    return array


def _number(name: str, value: object) -> float | str:
    if isinstance(value, str):
        return value
    number = plain(value)
    number = number.item() if hasattr(number, "item") else number
    if not isinstance(number, int | float):
        raise TypeError(f"number {name!r} must be a number or text, got {value!r}")
    if math.isnan(number):
        raise ValueError(f"number {name!r} must not be NaN")
    return number


def _image(name: str, value: object, least: int) -> np.ndarray:
    array = _array(f"image {name!r}", value)
    if array.ndim != 2 or not array.size:
        raise ValueError(f"image {name!r} must be 2-D, got shape {array.shape}")
    if not (np.isfinite(array).all() and array.min() >= least and array.max() <= 1):
        got = f"[{array.min():g}, {array.max():g}]"
        raise ValueError(f"image {name!r} must lie in [{least}, 1], got {got}")
    return array
