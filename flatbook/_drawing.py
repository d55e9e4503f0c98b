"""From a view to HTML with SVG: fixed text, and slots for what a slider changes.

Colours come from CSS custom properties (``--fb-c0`` ... ``--fb-c5``, ``--fb-ink``,
``--fb-muted``, ``--fb-grid``, ``--fb-ground``) with fallbacks, so that a page in
dark mode only redefines those. Every line has its own dash pattern too.
"""

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from flatbook import _svg
from flatbook._views import MAX_LINES, Chart, Limits, View


@dataclass(frozen=True)
class Slot:
    """A piece of HTML that may differ between views: an attribute or a text."""

    attribute: str
    value: str

    def render(self, mark: str = "") -> str:
        value = html.escape(self.value)
        if self.attribute == "text":
            return f"{mark}>{value}"
        return f'{mark} {self.attribute}="{value}"'


Parts = Iterator[str | Slot]
_SINGLE = (500, 300)
_MULTIPLE = (340, 220)
_MARKERS = (
    "M-50 0a50 50 0 1 0 100 0a50 50 0 1 0-100 0z",
    "M-45-45h90v90h-90z",
    "M0-62l62 62-62 62-62-62z",
    "M0-58l56 100h-112z",
)
_HIDDEN = -99999


def draw(view: View, alt: str) -> Parts:
    """The whole view but its sliders, as fixed text and slots."""
    styles = _styles(view.charts)
    if view.charts:
        yield '<div class="fb-charts">'
        size = _SINGLE if len(view.charts) == 1 else _MULTIPLE
        for number, chart in enumerate(view.charts):
            described = alt if number == 0 else f"{chart.y} against {chart.x}"
            yield from _draw_chart(chart, size, styles, described)
        yield "</div>"
    if view.images or view.numbers:
        yield '<div class="fb-row">'
        yield from _draw_images(view, "" if view.charts else alt)
        yield from _draw_numbers(view)
        yield "</div>"
    yield '<p class="fb-note"'
    yield Slot("text", view.note)
    yield "</p>"


def _styles(charts: Sequence[Chart]) -> dict[str, int]:
    """One style per line name, the same in all charts while six suffice."""
    names = list(dict.fromkeys(name for chart in charts for name in chart.lines))
    if len(names) > MAX_LINES:
        return {n: i for chart in reversed(charts) for i, n in enumerate(chart.lines)}
    return {name: i for i, name in enumerate(names)}


def _draw_chart(
    chart: Chart, size: tuple[int, int], styles: dict[str, int], described: str
) -> Parts:
    frame = _Frame.around(chart, size)
    yield '<div class="fb-chart">'
    if chart.title:
        yield f'<p class="fb-title">{html.escape(chart.title)}</p>'
    yield _legend(chart, styles)
    yield f'<p class="fb-axis">{html.escape(chart.y)}</p>'
    width, height = (n * _svg.UNIT for n in size)
    yield f'<svg viewBox="0 0 {width} {height}" role="img"'
    yield Slot("aria-label", described)
    yield ">" + frame.axes(chart)
    yield f'<svg x="{frame.left}" y="{frame.top}" width="{frame.width}" '
    yield f'height="{frame.height}">'
    yield from _draw_lines(chart, frame, styles)
    yield from _draw_vlines(chart, frame)
    yield "</svg>"
    yield from _draw_points(chart, frame, styles)
    yield f'</svg><p class="fb-axis fb-x-axis">{html.escape(chart.x)}</p></div>'


@dataclass(frozen=True)
class _Frame:
    """The plotting area inside a chart, in tenths of a pixel."""

    left: int
    top: int
    width: int
    height: int
    box: tuple[Limits, Limits]
    scales: tuple[str, str]

    @classmethod
    def around(cls, chart: Chart, size: tuple[int, int]) -> "_Frame":
        texts = _svg.tick_labels(_svg.ticks(*chart.ylim, chart.yscale, 5), chart.yscale)
        per_letter = 90 if size == _SINGLE else 68
        left = 90 + per_letter * max([2, *map(len, texts)])
        return cls(
            left,
            90,
            size[0] * _svg.UNIT - left - 200,
            size[1] * _svg.UNIT - 90 - 260,
            (chart.xlim, chart.ylim),
            (chart.xscale, chart.yscale),
        )

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
        xs = _svg.ticks(*chart.xlim, chart.xscale, 6 if self.width > 3500 else 5)
        ys = _svg.ticks(*chart.ylim, chart.yscale, 5)
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


def _draw_lines(chart: Chart, frame: _Frame, styles: dict[str, int]) -> Parts:
    for name, (xs, ys) in chart.lines.items():
        yield f'<path class="fb-l fb-l{styles[name]}"'
        yield Slot("d", _svg.path(frame.x(xs), frame.y(ys), frame.size))
        yield "/>"


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
    for row, (name, x) in enumerate(zip(chart.vlines, places, strict=True)):
        yield f'<text class="fb-tag" y="{130 + 190 * (row % 8)}"'
        yield Slot("x", str(x))
        yield Slot("text-anchor", "end" if x > 0.6 * frame.width else "start")
        yield f">\N{NO-BREAK SPACE}{html.escape(name)}\N{NO-BREAK SPACE}</text>"


def _draw_points(chart: Chart, frame: _Frame, styles: dict[str, int]) -> Parts:
    for number, (name, (x, y)) in enumerate(chart.points.items()):
        across, down = float(frame.x(x)), float(frame.y(y))
        shown = -1 <= across <= frame.width + 1 and -1 <= down <= frame.height + 1
        place = (round(frame.left + across), round(frame.top + down))
        yield f'<path class="{_point_class(name, styles)}"'
        yield f' d="{_MARKERS[number % len(_MARKERS)]}"'
        yield Slot(
            "transform",
            "translate({} {})".format(*(place if shown else (_HIDDEN,) * 2)),
        )
        yield "/>"


def _draw_images(view: View, alt: str) -> Parts:
    for number, (name, image) in enumerate(view.images.items()):
        yield '<figure class="fb-image"><img class="no-invert dark-light"'
        yield Slot("src", _svg.png(np.asarray(image)))
        yield Slot("alt", alt if alt and number == 0 else name)
        yield f"><figcaption>{html.escape(name)}</figcaption></figure>"


def _draw_numbers(view: View) -> Parts:
    if not view.numbers:
        return
    yield '<div class="fb-numbers" aria-live="polite">'
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
.fb-charts{display:flex;flex-wrap:wrap;gap:1rem 1.2rem}
.fb-chart{flex:1 1 300px;min-width:0;display:flex;flex-direction:column;
justify-content:flex-end}
.fb-chart>svg{display:block;width:100%;height:auto;overflow:hidden}
.fb-explorer .fb-title{font-weight:600}
.fb-explorer .fb-axis{color:var(--fb-muted,#767676);font-size:.85rem}
.fb-explorer .fb-x-axis{text-align:right;padding-right:1rem}
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
.fb-numbers{display:flex;flex-wrap:wrap;gap:.3rem 1.6rem}
.fb-numbers>div{min-width:6rem}
.fb-numbers span{display:block;font-size:.85rem;color:var(--fb-muted,#767676)}
.fb-numbers b{font-size:1.1rem;font-weight:600;font-variant-numeric:tabular-nums}
.fb-explorer .fb-note{margin-top:.6rem;color:var(--fb-muted,#767676)}
.fb-explorer .fb-note:empty{display:none}
.fb-chart:only-child text{font-size:105px}
@container (max-width:30rem){
.fb-sliders{display:block}
.fb-slider{display:grid;grid-template-columns:1fr auto;margin-bottom:.3rem}
.fb-slider input{grid-row:2;grid-column:1/3}
.fb-chart:only-child text{font-size:165px}
.fb-chart:only-child .fb-l{stroke-width:30px}
.fb-slider output{text-align:right}
.fb-image img{width:5.5rem}}
body[data-jp-theme-light=false] .fb-explorer,html[theme=dark] .fb-explorer{
--fb-c0:#56B4E9;--fb-c1:#F0894D;--fb-c2:#2FC79B;--fb-c3:#E3A3C6;--fb-c5:#A9D9F5;
--fb-muted:#A8A8A8;--fb-grid:#444}
"""
