"""From numbers to the pieces of an SVG: ticks, coordinates, paths, tiny pictures.

Everything here is a pure function of numbers; `flatbook.explorer` puts the
pieces together. One SVG unit is a tenth of a pixel (`UNIT`), so that all
coordinates are short integers.

>>> ticks(0.0, 1.0)
[0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
>>> path([0, 10, 20, 30], [0, 10, 20, 0])        # the point on the way is dropped
'M0 0l20 20 10-20'
"""

import base64
import itertools
import math
import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

UNIT = 10
_TOLERANCE = 0.12 * UNIT
_OVERDRAW = 3 * UNIT
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

Point = tuple[float, float]


def pretty(value: float, spec: str = ".3g") -> str:
    """A number for the eye: true minus signs, powers of ten, the infinity sign.

    >>> pretty(-0.25), pretty(1e-12), pretty(2.5e7), pretty(float("inf"))
    ('−0.25', '10⁻¹²', '2.5·10⁷', '∞')
    """
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    mantissa, e, exponent = general(value, spec).partition("e")
    mantissa = mantissa.replace("-", "−")
    if not e:
        return mantissa
    power = _power(int(exponent))
    if mantissa in ("1", "−1"):
        return mantissa[:-1] + power
    return f"{mantissa}·{power}"


def general(value: float, spec: str = "g") -> str:
    """``format(value, spec)``, but thousands are written out.

    >>> general(1250.0, ".2g"), general(1e-5), general(1e9)
    ('1250', '1e-05', '1e+09')
    """
    text = format(value, spec)
    return f"{value:.0f}" if "e+0" in text and abs(value) < 1e6 else text


def _power(exponent: int) -> str:
    return "10" + str(exponent).translate(_SUPERSCRIPTS)


def ticks(low: float, high: float, scale: str = "linear", most: int = 6) -> list[float]:
    """At most ``most`` round values in [low, high], evenly spaced on the scale."""
    if scale == "linear":
        return _linear_ticks(low, high, most)
    first = math.ceil(math.log10(low) - 1e-9)
    last = math.floor(math.log10(high) + 1e-9)
    if last - first < 2:
        decades = range(first - 1, last + 2)
        fine = [m * 10.0**e for e in decades for m in (1, 2, 5)]
        inside = [v for v in fine if low * (1 - 1e-9) <= v <= high * (1 + 1e-9)]
        return inside if 2 <= len(inside) <= most else _linear_ticks(low, high, most)
    steps = (1, 2, 3, 5, 10, 20, 30, 50, 100, 200)
    every = next(s for s in steps if last // s - (first - 1) // s <= most)
    return [10.0**e for e in range(first, last + 1) if e % every == 0]


def _linear_ticks(low: float, high: float, most: int) -> list[float]:
    rough = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10, 20) if m * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    digits = 12 - math.floor(math.log10(step))
    return [round(i * step, digits) for i in range(first, last + 1)]


def tick_labels(values: Sequence[float], scale: str = "linear") -> list[str]:
    """One text per tick, all written in the same way.

    >>> tick_labels([0.0, 0.5, 1.0])
    ['0', '0.5', '1']
    >>> tick_labels([1e-6, 1e-3, 1.0], "log")
    ['10⁻⁶', '10⁻³', '1']
    """
    largest = max(map(abs, values), default=0.0)
    smallest = min((abs(v) for v in values if v), default=0.0)
    if largest < 1e5 and smallest >= 1e-3:
        return [f"{v:g}".replace("-", "−") for v in values]
    if scale == "log":
        exponents = [round(math.log10(v)) for v in values]
        return ["1" if e == 0 else _power(e) for e in exponents]
    return ["0" if v == 0 else pretty(v) for v in values]


def project(
    values: np.ndarray, limits: tuple[float, float], scale: str, size: float
) -> np.ndarray:
    """Place values between the two limits on [0, size], linearly or by logarithm."""
    low, high = limits
    if scale == "log":
        values, low, high = np.log10(values), math.log10(low), math.log10(high)
    return (values - low) / (high - low) * size


def path(x: ArrayLike, y: ArrayLike, box: Point | None = None) -> str:
    """SVG path data of a polyline: whole units, relative, without idle points.

    With ``box = (width, height)`` only what lies in the box is kept. The path
    stays within a fifth of a pixel of the polyline.
    """
    points = list(zip(_floats(x), _floats(y), strict=True))
    runs = [points] if box is None else clip(points, box)
    return "".join(_run(simplify(run)) for run in runs if run)


def _floats(values: ArrayLike) -> list[float]:
    return np.asarray(values, dtype=float).tolist()


def _run(points: list[Point]) -> str:
    whole = [(round(x), round(y)) for x, y in points]
    text = f"M{whole[0][0]} {whole[0][1]}"
    steps = [(x1 - x0, y1 - y0) for (x0, y0), (x1, y1) in itertools.pairwise(whole)]
    moves = [s for s in steps if s != (0, 0)]
    if not moves:
        return text + "h0"
    numbers = [str(n) for step in moves for n in step]
    joined = "".join(n if n.startswith("-") else " " + n for n in numbers)
    return text + "l" + joined.removeprefix(" ")


def clip(points: list[Point], box: Point) -> list[list[Point]]:
    """The parts of a polyline inside a box, a little overdrawn at its edges."""
    if len(points) == 1:
        return [points] if _inside(points[0], points[0], box) else []
    runs: list[list[Point]] = []
    joined = False
    for start, end in itertools.pairwise(points):
        part = _inside(start, end, box)
        if part is None:
            joined = False
            continue
        (t0, t1), span = part, (end[0] - start[0], end[1] - start[1])
        if not joined:
            runs.append([(start[0] + t0 * span[0], start[1] + t0 * span[1])])
        runs[-1].append((start[0] + t1 * span[0], start[1] + t1 * span[1]))
        joined = t1 == 1.0
    return runs


def _inside(start: Point, end: Point, box: Point) -> tuple[float, float] | None:
    """Where a segment enters and leaves the box (Liang and Barsky's method)."""
    t0, t1 = 0.0, 1.0
    for a, b, size in zip(start, end, box, strict=True):
        low, high = -_OVERDRAW, size + _OVERDRAW
        if a == b:
            if not low <= a <= high:
                return None
            continue
        enter, leave = sorted(((low - a) / (b - a), (high - a) / (b - a)))
        t0, t1 = max(t0, enter), min(t1, leave)
    return (t0, t1) if t0 <= t1 else None


def simplify(points: list[Point], tolerance: float = _TOLERANCE) -> list[Point]:
    """Drop points that lie within the tolerance of the line through their neighbours.

    Source: D. Douglas and T. Peucker, Cartographica 10(2), 1973.
    """
    array = np.asarray(points, dtype=float)
    keep = {0, len(points) - 1}
    open_spans = [(0, len(points) - 1)]
    while open_spans:
        first, last = open_spans.pop()
        if last - first < 2:
            continue
        middle = array[first + 1 : last]
        away = _distance(middle, array[first], array[last])
        worst = int(away.argmax())
        if away[worst] > tolerance:
            split = first + 1 + worst
            keep.add(split)
            open_spans += [(first, split), (split, last)]
    return [points[i] for i in sorted(keep)]


def _distance(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    span = end - start
    length = float(span @ span)
    along = (points - start) @ span / length if length else np.zeros(len(points))
    nearest = start + np.clip(along, 0, 1)[:, None] * span
    return np.hypot(*(points - nearest).T)


def spread(ends: Mapping[str, Point], gap: float, height: float) -> dict[str, float]:
    """Heights of labels: each as near to its own as the others leave room.

    Args:
        ends: name -> (the height that it would like, what decides between equals).
        gap: least distance of two labels.
        height: labels stay between 0 and here, as far as the gap allows.

    >>> spread({"a": (50, 0), "b": (52, 0), "c": (90, 0)}, 10, 100)
    {'a': 46.0, 'b': 56.0, 'c': 90.0}
    """
    groups: list[tuple[float, list[str]]] = []  # the first height, the names below it
    for name in sorted(ends, key=lambda name: ends[name]):
        start, members = float(ends[name][0]), [name]
        while True:
            start = max(0.0, min(start, height - gap * (len(members) - 1)))
            if not groups or groups[-1][0] + gap * len(groups[-1][1]) <= start:
                break
            above, first = groups.pop()
            count, more = len(first), len(members)
            start = (above * count + (start - gap * count) * more) / (count + more)
            members = first + members
        groups.append((start, members))
    return {n: start + gap * i for start, m in groups for i, n in enumerate(m)}


def png(image: np.ndarray) -> str:
    """A grey image with values in [0, 1] as a data URI (8-bit PNG, one pixel each)."""
    return _png(image, kind=0)


def signed_png(image: np.ndarray) -> str:
    """An image with values in [-1, 1], blue to orange, pale at zero, as a data URI."""
    return _png((np.asarray(image, dtype=float) + 1) / 2, kind=3)


def _png(image: np.ndarray, *, kind: int) -> str:
    """A PNG of grey values (kind 0), or of places in the palette (kind 3)."""
    height, width = image.shape
    top = 255 if kind == 0 else len(_PALETTE) // 3 - 1
    pixels = np.rint(np.asarray(image, dtype=float) * top).astype(np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    chunks = [(b"IHDR", header)]
    chunks += [(b"PLTE", _PALETTE)] * (kind == 3)
    chunks += [(b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(k, body) for k, body in chunks)
    return "data:image/png;base64," + base64.b64encode(data).decode()


def _diverging(steps: int = 33) -> bytes:
    """Colours from blue over a pale grey to orange, three bytes each."""
    anchors = np.array([[0, 84, 147], [242, 242, 240], [200, 82, 0]])
    places = np.linspace(0, 2, steps)
    channels = [np.interp(places, range(3), column) for column in anchors.T]
    return np.rint(channels).T.astype(np.uint8).tobytes()


_PALETTE = _diverging()


def _chunk(kind: bytes, body: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + checksum
