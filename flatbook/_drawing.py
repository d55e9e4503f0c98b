"""From a view to HTML with SVG: fixed text, and slots for what a slider changes.

Colours come from CSS custom properties (``--fb-c0`` ... ``--fb-c5``, ``--fb-ink``,
``--fb-muted``, ``--fb-grid``, ``--fb-ground``) with fallbacks, so that a page in
dark mode only redefines those. Every line has its own dash pattern too.
"""

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from flatbook import _svg
from flatbook._packing import Slot
from flatbook._views import MAX_LINES, Chart, Limits, View

Parts = Iterator[str | Slot]
Words = tuple[str, ...]
_SIZES = {
    "wide": (500, 300),
    "broad": (500, 220),
    "low": (500, 170),
    "half": (340, 220),
    "small": (340, 215),
}
_FULL = ("wide", "broad", "low")
_LETTER = {**dict.fromkeys(_FULL, 95), "half": 68, "small": 118}
"""Width that a letter beside an axis needs, on the smallest screen."""
_MARKERS = (
    "M-50 0a50 50 0 1 0 100 0a50 50 0 1 0-100 0z",
    "M-45-45h90v90h-90z",
    "M0-62l62 62-62 62-62-62z",
    "M0-58l56 100h-112z",
)
_HIDDEN = -99999


def draw(view: View, alt: Words) -> Parts:
    """The whole view but its sliders, as fixed text and slots."""
    if view.says:
        yield '<p class="fb-says" aria-live="polite"'
        yield Slot("text", view.says.replace(" %", "\N{NO-BREAK SPACE}%"))
        yield "</p>"
    if view.first == "images":
        yield from _draw_row(view, alt)
    yield from _draw_charts(view, alt)
    if view.first == "charts":
        yield from _draw_row(view, alt)
    yield '<p class="fb-note"'
    yield Slot("text", view.note)
    yield "</p>"


def _draw_charts(view: View, alt: Words) -> Parts:
    if not view.charts:
        return
    styles = _styles(view.charts)
    yield '<div class="fb-charts">'
    for number, (chart, frame) in enumerate(_frames(view.charts)):
        described = alt if number == 0 else (f"{chart.y} against {chart.x}",)
        yield from _draw_chart(chart, frame, styles, described)
    yield "</div>"


def _frames(charts: Sequence[Chart]) -> list[tuple[Chart, "_Frame"]]:
    """Each chart with its frame; full and small ones share their margins."""
    alone = "wide" if len(charts) == 1 else "half"
    shapes = [alone if c.shape == "auto" else c.shape for c in charts]
    margins = [_margins(c, shape) for c, shape in zip(charts, shapes, strict=True)]
    for group in (_FULL, ("small",)):
        alike = [i for i, shape in enumerate(shapes) if shape in group]
        widest = [max(margins[i][side] for i in alike) for side in (0, 1) if alike]
        for i in alike:
            margins[i] = widest[0], widest[1]
    return [
        (chart, _Frame.inside(chart, shape, own))
        for chart, shape, own in zip(charts, shapes, margins, strict=True)
    ]


def _margins(chart: Chart, shape: str) -> tuple[int, int]:
    """What numbers need on the left, and names on the right."""
    texts = _svg.tick_labels(_svg.ticks(*chart.ylim, chart.yscale, 5), chart.yscale)
    longest = max([2, *map(len, texts)]) if chart.ticks else 0
    right = 270 if shape == "small" else 200
    if chart.named == "ends":
        right = 300 + 80 * max(map(len, chart.lines), default=0)
    return 130 + _LETTER[shape] * longest, right


def _draw_row(view: View, alt: Words) -> Parts:
    if not (view.images or view.changes or view.numbers):
        return
    yield '<div class="fb-row">'
    yield from _draw_images(view, ("",) if view.charts else alt)
    yield from _draw_numbers(view)
    yield "</div>"


def _styles(charts: Sequence[Chart]) -> dict[str, int]:
    """One style per line name, the same in all charts while six suffice."""
    names = list(dict.fromkeys(name for chart in charts for name in chart.lines))
    if len(names) > MAX_LINES:
        return {n: i for chart in reversed(charts) for i, n in enumerate(chart.lines)}
    return {name: i for i, name in enumerate(names)}


def _draw_chart(
    chart: Chart, frame: "_Frame", styles: dict[str, int], described: Words
) -> Parts:
    yield f'<div class="fb-chart fb-{frame.shape}">'
    if chart.title:
        yield f'<p class="fb-title">{html.escape(chart.title)}</p>'
    if chart.named == "legend":
        yield _legend(chart, styles)
    if chart.y:
        yield f'<p class="fb-axis">{html.escape(chart.y)}</p>'
    width, height = (n * _svg.UNIT for n in _SIZES[frame.shape])
    yield f'<svg viewBox="0 0 {width} {height}" role="img"'
    yield Slot("aria-label", described)
    yield ">" + frame.axes(chart)
    if chart.named == "ends":
        yield from _draw_ends(chart, frame, styles)
    yield f'<svg x="{frame.left}" y="{frame.top}" width="{frame.width}" '
    yield f'height="{frame.height}">'
    yield from _draw_bands(chart, frame)
    yield from _draw_lines(chart, frame, styles)
    yield from _draw_vlines(chart, frame)
    yield from _draw_hlines(chart, frame)
    yield "</svg>"
    yield from _draw_points(chart, frame, styles)
    right = 100 * (1 - (frame.left + frame.width) / width)
    yield "</svg>"
    if chart.x:
        style = f'style="padding-right:{right:.1f}%"'
        yield f'<p class="fb-axis fb-x-axis" {style}>{html.escape(chart.x)}</p>'
    yield "</div>"


@dataclass(frozen=True)
class _Frame:
    """The plotting area inside a chart, in tenths of a pixel."""

    left: int
    top: int
    width: int
    height: int
    box: tuple[Limits, Limits]
    scales: tuple[str, str]

    shape: str

    @classmethod
    def inside(cls, chart: Chart, shape: str, margins: tuple[int, ...]) -> "_Frame":
        """What margins on the left and on the right leave of a chart."""
        width, height = (n * _svg.UNIT for n in _SIZES[shape])
        foot = 300 if shape == "small" else 260
        return cls(
            margins[0],
            90,
            width - sum(margins),
            height - 90 - foot,
            (chart.xlim, chart.ylim),
            (chart.xscale, chart.yscale),
            shape,
        )

    @property
    def letter(self) -> int:
        """About the width of a letter inside, on the smallest screen."""
        return 88 if self.shape in _FULL else 100

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height

    def x(self, values: ArrayLike) -> np.ndarray:
        return _svg.project(np.asarray(values), self.box[0], self.scales[0], self.width)

    def y(self, values: ArrayLike) -> np.ndarray:
        up = _svg.project(np.asarray(values), self.box[1], self.scales[1], self.height)
        return self.height - up

    def axes(self, chart: Chart) -> str:
        """Grid lines, base line and tick labels."""
        xs = _svg.ticks(*chart.xlim, chart.xscale, 6 if self.shape in _FULL else 5)
        ys = _svg.ticks(*chart.ylim, chart.yscale, 5) if chart.ticks else []
        base, right = self.top + self.height, self.left + self.width
        across = [self.left + round(float(self.x(x))) for x in xs]
        down = [self.top + round(float(self.y(y))) for y in ys]
        grid = "".join(f"M{self.left} {y}H{right}" for y in down)
        grid += "".join(f"M{x} {self.top}V{base}" for x in across)
        labels = [
            f'<text x="{x}" y="{base + 80}" class="fb-tx">{text}</text>'
            for x, text in zip(across, _svg.tick_labels(xs, chart.xscale), strict=True)
        ]
        labels += [
            f'<text x="{self.left - 70}" y="{y}" class="fb-ty">{text}</text>'
            for y, text in zip(down, _svg.tick_labels(ys, chart.yscale), strict=True)
        ]
        frame = f'<path class="fb-base" d="M{self.left} {base}H{right}"/>'
        return f'<path class="fb-grid" d="{grid}"/>{frame}{"".join(labels)}'


def _legend(chart: Chart, styles: dict[str, int]) -> str:
    names = [*chart.lines, *(p for p in chart.points if p not in chart.lines)]
    if not names or names == [chart.y]:
        return ""
    marks = {name: i % len(_MARKERS) for i, name in enumerate(chart.points)}
    rows = []
    for name in names:
        drawn = ""
        if name in chart.lines:
            drawn += f'<path class="fb-l fb-l{styles[name]}" d="M0 60H300"/>'
        if name in marks:
            place = (
                f'class="{_point_class(name, styles)}" transform="translate(150 60)"'
            )
            drawn += f'<path {place} d="{_MARKERS[marks[name]]}"/>'
        swatch = f'<svg viewBox="0 0 300 120" aria-hidden="true">{drawn}</svg>'
        rows.append(f"<span>{swatch}{html.escape(name)}</span>")
    return f'<p class="fb-legend">{"".join(rows)}</p>'


def _point_class(name: str, styles: dict[str, int]) -> str:
    return f"fb-p fb-p{styles[name]}" if name in styles else "fb-p"


@lru_cache(maxsize=4096)
def _trace(points: bytes, size: tuple[int, int]) -> tuple[str, tuple[float, float]]:
    """The path of a line, and where it is last seen; far away if it never is."""
    xs, ys = np.frombuffer(points).reshape(2, -1)
    runs = _svg.clip(list(zip(xs.tolist(), ys.tolist(), strict=True)), size)
    return _svg.path(xs, ys, size), runs[-1][-1] if runs else (_HIDDEN, _HIDDEN)


def _traces(chart: Chart, frame: _Frame) -> dict[str, tuple[str, tuple[float, float]]]:
    return {
        name: _trace(np.stack([frame.x(xs), frame.y(ys)]).tobytes(), frame.size)
        for name, (xs, ys) in chart.lines.items()
    }


def _draw_lines(chart: Chart, frame: _Frame, styles: dict[str, int]) -> Parts:
    for name, (path, _) in _traces(chart, frame).items():
        yield f'<path class="fb-l fb-l{styles[name]}"'
        yield Slot("d", path)
        yield "/>"


def _draw_ends(chart: Chart, frame: _Frame, styles: dict[str, int]) -> Parts:
    """Names on the right, each at the height at which its line is last seen."""
    ends = {name: end for name, (_, end) in _traces(chart, frame).items()}
    heights = _svg.spread(
        {n: (y, x) for n, (x, y) in ends.items() if x != _HIDDEN}, 175, frame.height
    )
    for name in chart.lines:
        down = heights.get(name, _HIDDEN)
        yield "<g"
        place = str(frame.left + frame.width + 60), str(frame.top + round(down))
        yield Slot("transform", ("translate(", place[0], " ", place[1], ")"))
        yield f'><path class="fb-l fb-l{styles[name]}" d="M0 0h170"/>'
        yield f'<text class="fb-end" x="220">{html.escape(name)}</text></g>'


def _draw_bands(chart: Chart, frame: _Frame) -> Parts:
    """Shades, with names at the top, or at the foot where lines have theirs on top."""
    down = frame.height - 70 if chart.vlines else frame.letter + 70
    for number, (name, limits) in enumerate(chart.bands.items()):
        start, end = (round(float(np.clip(frame.x(x), 0, frame.width))) for x in limits)
        wide = max(end - start, 0)
        yield f'<rect class="fb-band fb-b{number % 3}" height="{frame.height}"'
        yield Slot("x", str(start))
        yield Slot("width", str(wide))
        yield "/>"
        if not name.strip():
            continue
        fits = wide >= frame.letter * (len(name) + 1)
        yield f'<text class="fb-band-name" y="{down}"'
        yield Slot("x", str((start + end) // 2 if fits else _HIDDEN))
        yield f">{html.escape(name)}</text>"


def _draw_vlines(chart: Chart, frame: _Frame) -> Parts:
    """All lines first, so that no line crosses a name."""
    places = [
        round(float(np.clip(frame.x(x), _HIDDEN, -_HIDDEN)))
        for x in chart.vlines.values()
    ]
    for x in places:
        yield f'<path class="fb-v" d="M0 0V{frame.height}"'
        yield Slot("transform", f"translate({x})")
        yield "/>"
    named = [(n, x) for n, x in zip(chart.vlines, places, strict=True) if n.strip()]
    for row, (name, x) in enumerate(named):
        yield f'<text class="fb-tag" y="{130 + 190 * (row % 8)}"'
        yield Slot("x", str(x))
        yield Slot("text-anchor", "end" if x > 0.6 * frame.width else "start")
        yield f">\N{NO-BREAK SPACE}{html.escape(name)}\N{NO-BREAK SPACE}</text>"


def _draw_hlines(chart: Chart, frame: _Frame) -> Parts:
    for name, y in chart.hlines.items():
        down = str(round(float(np.clip(frame.y(y), _HIDDEN, -_HIDDEN))))
        there = Slot("transform", ("translate(0 ", down, ")"))
        yield f'<path class="fb-v" d="M0 0H{frame.width}"'
        yield there
        yield f'/><text class="fb-tag" x="{frame.width - 40}" y="140" text-anchor="end"'
        yield there
        yield f">{html.escape(name)}</text>"


def _place(frame: _Frame, at: tuple[float, float]) -> tuple[int, int]:
    """A point in the plotting area; far away outside the limits."""
    across, down = float(frame.x(at[0])), float(frame.y(at[1]))
    if -1 <= across <= frame.width + 1 and -1 <= down <= frame.height + 1:
        return round(across), round(down)
    return _HIDDEN, _HIDDEN


def _draw_points(chart: Chart, frame: _Frame, styles: dict[str, int]) -> Parts:
    """Marks, not cut off at the edges, with names if the chart has them there."""
    if not chart.points:
        return
    yield f'<g transform="translate({frame.left} {frame.top})">'
    for number, (name, at) in enumerate(chart.points.items()):
        x, y = _place(frame, at)
        there = Slot("transform", ("translate(", str(x), " ", str(y), ")"))
        yield f'<path class="{_point_class(name, styles)}"'
        yield f' d="{_MARKERS[number % len(_MARKERS)]}"'
        yield there
        yield "/>"
        if chart.named == "points":
            left = x > 0.55 * frame.width  # the name stands where there is more room
            yield '<text class="fb-at"'
            yield there
            yield Slot("dx", "-110" if left else "110")
            yield Slot("text-anchor", "end" if left else "start")
            yield Slot("text", chart.said.get(name, name))
            yield "</text>"
    yield "</g>"


def _draw_images(view: View, alt: Words) -> Parts:
    grey = [(name, _svg.png(np.asarray(image))) for name, image in view.images.items()]
    signed = [
        (name, _svg.signed_png(np.asarray(image)))
        for name, image in view.changes.items()
    ]
    for number, (name, source) in enumerate(grey + signed):
        yield '<figure class="fb-image"><img class="no-invert dark-light"'
        yield Slot("src", source)
        yield Slot("alt", alt if any(alt) and number == 0 else name)
        yield f"><figcaption>{html.escape(name)}</figcaption></figure>"


def _draw_numbers(view: View) -> Parts:
    if not view.numbers:
        return
    yield f'<div class="fb-numbers" aria-live="{"off" if view.says else "polite"}">'
    for name, value in view.numbers.items():
        text = value if isinstance(value, str) else _svg.pretty(value)
        yield f"<div><span>{html.escape(name)}</span> <b"
        yield Slot("text", text)
        yield "</b></div>"
    yield "</div>"


STYLE = """
.fb-explorer{container-type:inline-size;width:100%;max-width:46rem;margin:.5rem 0 1rem;
color:var(--fb-ink,currentColor);font-size:.9rem;line-height:1.4}
.fb-explorer p,.fb-explorer figure{margin:0;padding:0}
.fb-sliders{display:grid;grid-template-columns:auto minmax(8rem,1fr) auto;
gap:.3rem .8rem;align-items:center;margin-bottom:.8rem}
.fb-slider{display:contents}
.fb-slider input{width:100%;min-height:1.75rem;margin:0;cursor:pointer;
accent-color:var(--fb-c0,#0072B2)}
.fb-slider output{font-weight:600;font-variant-numeric:tabular-nums}
.fb-explorer .fb-says{min-height:2.8em;margin:0 0 .6rem;font-size:1rem;font-weight:600;
text-wrap:pretty}
.fb-charts{display:flex;flex-wrap:wrap;gap:1rem 1.2rem}
.fb-chart{flex:1 1 300px;min-width:0;display:flex;flex-direction:column;
justify-content:flex-end}
.fb-wide,.fb-broad,.fb-low{flex-basis:100%}
.fb-chart>svg{display:block;width:100%;height:auto;overflow:hidden}
.fb-explorer .fb-title{font-weight:600}
.fb-explorer .fb-axis{color:var(--fb-muted,#767676);font-size:.85rem}
.fb-explorer .fb-x-axis{text-align:right}
.fb-explorer .fb-legend{display:flex;flex-wrap:wrap;gap:.1rem 1.1rem;margin:0 0 .3rem}
.fb-legend span{display:inline-flex;align-items:center;gap:.45em}
.fb-legend svg{width:30px;height:12px;flex:none;overflow:visible}
.fb-explorer text{fill:var(--fb-muted,#767676);font-size:115px;
font-variant-numeric:tabular-nums}
.fb-tx{text-anchor:middle;dominant-baseline:hanging}
.fb-ty{text-anchor:end;dominant-baseline:central}
.fb-explorer .fb-tag{fill:var(--fb-ink,currentColor);paint-order:stroke;
stroke:var(--fb-ground,var(--pst-color-background,
var(--jp-layout-color0,transparent)));stroke-width:40px;stroke-linejoin:round}
.fb-explorer .fb-at{fill:var(--fb-ink,currentColor);dominant-baseline:central;
paint-order:stroke;stroke:var(--fb-ground,var(--pst-color-background,
var(--jp-layout-color0,transparent)));stroke-width:60px;stroke-linejoin:round}
.fb-explorer .fb-end{fill:var(--fb-ink,currentColor);dominant-baseline:central}
.fb-explorer .fb-band-name{text-anchor:middle;font-style:italic;
fill:var(--fb-ink,currentColor)}
.fb-band{fill:var(--fb-c1,#D55E00);fill-opacity:.13}
.fb-b1{fill:var(--fb-muted,#767676)}
.fb-b2{fill:var(--fb-c0,#0072B2)}
.fb-grid,.fb-base,.fb-v,.fb-l{fill:none}
.fb-grid{stroke:var(--fb-grid,#d9d9d9);stroke-width:10px}
.fb-base{stroke:var(--fb-muted,#767676);stroke-width:12px}
.fb-v{stroke:var(--fb-ink,currentColor);stroke-width:13px;stroke-dasharray:40 35}
.fb-l{stroke-width:22px;stroke-linejoin:round}
.fb-l0{stroke:var(--fb-c0,#0072B2)}
.fb-l1{stroke:var(--fb-c1,#D55E00);stroke-dasharray:75 35}
.fb-l2{stroke:var(--fb-c2,#009E73);stroke-dasharray:0 40;stroke-linecap:round;
stroke-width:26px}
.fb-l3{stroke:var(--fb-c3,#CC79A7);stroke-dasharray:90 30 20 30}
.fb-l4{stroke:var(--fb-c4,#E69F00);stroke-dasharray:150 45}
.fb-l5{stroke:var(--fb-c5,#56B4E9);stroke-dasharray:90 30 20 30 20 30}
.fb-p{fill:var(--fb-ink,currentColor);stroke:var(--fb-ground,var(--pst-color-background,
var(--jp-layout-color0,transparent)));
stroke-width:12px;paint-order:stroke}
.fb-p0{fill:var(--fb-c0,#0072B2)}.fb-p1{fill:var(--fb-c1,#D55E00)}
.fb-p2{fill:var(--fb-c2,#009E73)}.fb-p3{fill:var(--fb-c3,#CC79A7)}
.fb-p4{fill:var(--fb-c4,#E69F00)}.fb-p5{fill:var(--fb-c5,#56B4E9)}
.fb-row{display:flex;flex-wrap:wrap;gap:.6rem 1.4rem;align-items:flex-end;
margin-top:.6rem}
.fb-image img{display:block;filter:none!important;background:none!important;
padding:0!important;width:7rem;height:auto;image-rendering:pixelated;
border:1px solid var(--fb-grid,#d9d9d9);border-radius:3px}
.fb-explorer .fb-image figcaption{margin:.2rem 0 0;font:inherit;font-size:.85rem;
text-align:left;color:var(--fb-muted,#767676)}
.fb-row:has(+.fb-charts){margin:0 0 1rem}
.fb-image+.fb-numbers{flex:1 1 13rem;max-width:17rem;align-self:center}
.fb-numbers{display:flex;flex-wrap:wrap;gap:.3rem 1.6rem}
.fb-numbers>div{min-width:6rem}
.fb-numbers span{display:block;font-size:.85rem;color:var(--fb-muted,#767676)}
.fb-numbers b{font-size:1.1rem;font-weight:600;font-variant-numeric:tabular-nums}
.fb-explorer .fb-note{margin-top:.6rem;color:var(--fb-muted,#767676)}
.fb-explorer .fb-note:empty{display:none}
.fb-explorer :is(.fb-wide,.fb-broad,.fb-low) text{font-size:105px}
@media (max-width:32rem){
.fb-explorer{display:flex;flex-direction:column}
.fb-explorer>.fb-says{min-height:4.2em}
.fb-explorer>.fb-sliders{order:1;margin:.8rem 0 0}
.fb-explorer>.fb-charts~.fb-row,.fb-explorer>.fb-note,.fb-explorer>noscript{order:2}}
@container (max-width:30rem){
.fb-sliders{display:block}
.fb-slider{display:grid;grid-template-columns:1fr auto;margin-bottom:.3rem}
.fb-slider input{grid-row:2;grid-column:1/3}
.fb-explorer :is(.fb-wide,.fb-broad,.fb-low) text{font-size:165px}
.fb-explorer :is(.fb-wide,.fb-broad,.fb-low) :is(.fb-end,.fb-at){font-size:145px}
:is(.fb-wide,.fb-broad,.fb-low) .fb-l{stroke-width:30px}
.fb-small{flex-basis:140px}
.fb-explorer .fb-small text{font-size:195px}
.fb-small .fb-l{stroke-width:36px}
.fb-slider output{text-align:right}
.fb-image img{width:5.5rem}}
body[data-jp-theme-light=false] .fb-explorer,html[theme=dark] .fb-explorer{
--fb-c0:#56B4E9;--fb-c1:#F0894D;--fb-c2:#2FC79B;--fb-c3:#E3A3C6;--fb-c5:#A9D9F5;
--fb-muted:#A8A8A8;--fb-grid:#444}
"""
