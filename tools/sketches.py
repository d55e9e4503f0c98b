"""Sphinx extension: the one picture of a handout, drawn from two-class formulas.

    ```{sketch} valley
    What a reader who cannot see the picture should know.
    ```

Every line is computed here from a closed form of the book; the tests compare it with
the package. The result is an inline SVG without colours of its own, so that it prints
in grey and follows the dark mode; lines differ in their dashes as well.
"""

import html
import math
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

Point = tuple[float, float]
WIDTH, HEIGHT, PAD, ROW = 460, 200, 12, 20
POINTS = 97


class Sketch(NamedTuple):
    """Lines by their name, the window that is shown, and words at places in it."""

    lines: dict[str, list[Point]]
    x: Point
    y: Point
    words: Sequence[tuple[float, float, str]] = ()
    marks: Sequence[float] = ()


def curve(f: Callable[[float], float], ends: Point) -> list[Point]:
    """Points of a function at equal steps from one end to the other."""
    step = (ends[1] - ends[0]) / (POINTS - 1)
    return [(x, f(x)) for x in (ends[0] + i * step for i in range(POINTS))]


def sigmoid(t: float) -> float:
    """The probability of the class that leads by t."""
    return 1 / (1 + math.exp(-t))


def trace(gap: float) -> float:
    """Tr P of two classes whose logits differ by `gap`."""
    return 2 * sigmoid(gap) * sigmoid(-gap)


def rise(margin: float, rho: float) -> float:
    """Exact rise of the loss of two classes, rows at distance one."""
    return math.log1p(math.exp(rho - margin)) - math.log1p(math.exp(-margin))


def bounds(margin: float, rho: float) -> dict[str, float]:
    """The cubic and the quadratic bound for the same head."""
    doubt = sigmoid(-margin)
    curvature = doubt * (1 - doubt)
    linear, cube = doubt * rho, rho**3 / (36 * math.sqrt(3))
    return {
        "cubic": linear + curvature * rho**2 / 2 + cube,
        "quadratic": linear + rho**2 / 8,
    }


def corner(p: Sequence[float]) -> Point:
    """A prediction of three classes as a point of the triangle, the first on top."""
    return (p[2] - p[1]) / math.sqrt(3), p[0]


def triangle() -> Sketch:
    """Three-class predictions: where the first class wins, and two heights."""
    top, left, right = (1, 0, 0), (0, 1, 0), (0, 0, 1)
    tie = 1 / 2, 1 / 3
    kite = [top, (tie[0], tie[0], 0), (tie[1],) * 3, (tie[0], 0, tie[0]), top]
    wide = 1 / math.sqrt(3)
    lines = {
        "all predictions": [corner(p) for p in (top, left, right, top)],
        "inside: the true class is predicted": [corner(p) for p in kite],
        "above: loss below log 2, always right": [(-wide, tie[0]), (wide, tie[0])],
        "below: loss above log 3, always wrong": [(-wide, tie[1]), (wide, tie[1])],
    }
    words = [(0.04, 0.98, "true class"), (0.62, 0.49, "log 2"), (0.62, 0.32, "log 3")]
    return Sketch(lines, (-1.1, 1.1), (0, 1.05), words)


def scales(margin: float = math.log(3)) -> Sketch:
    """Two classes under a scale 2**t of the head: what moves and what stays."""
    ends = (-4.0, 4.0)
    peak = 2 * max(2 ** (2 * t) * trace(2**t * margin) for t, _ in curve(float, ends))
    lines = {
        "tr P(s), times two": curve(lambda t: 2 * trace(2**t * margin), ends),
        "κ(s), over its peak": curve(
            lambda t: 2 * 2 ** (2 * t) * trace(2**t * margin) / peak, ends
        ),
        "flip radius, over its value at s = 1": curve(lambda t: 1.0, ends),
    }
    words = [(-4, 0.1, "s = 1/16"), (-0.35, 0.1, "s = 1"), (3.1, 0.1, "s = 16")]
    return Sketch(lines, ends, (0, 1.12), words)


def radius(margin: float = math.log(20)) -> Sketch:
    """Two classes at odds of twenty to one: exact rise, two bounds, and the flip."""
    ends = (0.0, 4.5)
    level = rise(margin, margin)
    lines = {
        "exact rise of the loss": curve(lambda r: rise(margin, r), ends),
        "cubic bound": curve(lambda r: bounds(margin, r)["cubic"], ends),
        "quadratic bound": curve(lambda r: bounds(margin, r)["quadratic"], ends),
        "largest tolerance that rules out a flip": [(0, level), (ends[1], level)],
    }
    words = [(margin + 0.06, 0.08, "flip"), (0.05, level + 0.06, "log 2 − ℓ")]
    return Sketch(
        lines, ends, (0, 1.6), [*words, (3.6, 0.08, "distance ρ →")], [margin]
    )


def valley() -> Sketch:
    """Two classes along an attack: curvature, loss and slope over the gap."""
    ends = (-6.0, 6.0)
    top = math.log1p(math.exp(6))
    lines = {
        "tr P, times two": curve(lambda g: 2 * trace(g), ends),
        "loss, over its last value": curve(
            lambda g: math.log1p(math.exp(g)) / top, ends
        ),
        "slope of the loss": curve(sigmoid, ends),
    }
    words = [(-5.9, 1.1, "right, and sure"), (3.3, 1.1, "wrong, and sure")]
    return Sketch(lines, ends, (0, 1.2), [*words, (0.15, 0.06, "flip")], [0.0])


SKETCHES = {"triangle": triangle, "scales": scales, "radius": radius, "valley": valley}


def svg(name: str, alt: str) -> str:
    """The drawing with a legend below, as SVG with a description."""
    sketch = SKETCHES[name]()

    def place(x: float, y: float) -> Point:
        across = (x - sketch.x[0]) / (sketch.x[1] - sketch.x[0])
        up = (y - sketch.y[0]) / (sketch.y[1] - sketch.y[0])
        return PAD + across * (WIDTH - 2 * PAD), HEIGHT - up * (HEIGHT - PAD)

    parts = []
    for x in sketch.marks:
        (left, low), (_, high) = place(x, sketch.y[0]), place(x, sketch.y[1])
        parts.append(f'<path class="mark" d="M{left:.1f},{low:.1f}V{high:.1f}"/>')
    for number, (label, points) in enumerate(sketch.lines.items()):
        inside = [place(*p) for p in points if p[1] <= sketch.y[1] + 1e-9]
        path = "L".join(f"{x:.1f},{y:.1f}" for x, y in inside)
        parts.append(f'<path class="curve c{number}" d="M{path}"/>')
        row = HEIGHT + ROW * (number + 1)
        parts.append(f'<path class="curve c{number}" d="M{PAD},{row - 4}h44"/>')
        parts.append(f'<text x="{PAD + 54}" y="{row}">{html.escape(label)}</text>')
    for x, y, word in sketch.words:
        left, top = place(x, y)
        parts.append(f'<text x="{left:.1f}" y="{top:.1f}">{html.escape(word)}</text>')
    frame = f'<path class="axis" d="M{PAD},{HEIGHT}h{WIDTH - 2 * PAD}"/>'
    tall = HEIGHT + ROW * len(sketch.lines) + 8
    label = html.escape(" ".join(alt.split()), quote=True)
    return (
        f'<figure class="sketch"><svg viewBox="0 0 {WIDTH} {tall}" role="img" '
        f'aria-label="{label}">{frame}{"".join(parts)}</svg></figure>'
    )


class Drawing(SphinxDirective):
    """A sketch by its name; the content is its description."""

    required_arguments = 1
    has_content: ClassVar[bool] = True

    def run(self) -> list[nodes.Node]:
        """The picture as HTML; other formats show its description."""
        name, alt = self.arguments[0], "\n".join(self.content)
        if name not in SKETCHES or not alt.strip():
            known = ", ".join(SKETCHES)
            raise self.error(f"a sketch is one of {known}, with a description")
        drawn = nodes.raw("", svg(name, alt), format="html")
        words = nodes.paragraph(alt, "", nodes.emphasis(alt, alt))
        return [drawn] if self.env.app.builder.format == "html" else [words]


def setup(app: Sphinx) -> dict:
    """Register the directive."""
    app.add_directive("sketch", Drawing)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
