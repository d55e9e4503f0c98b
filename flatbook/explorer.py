"""Figures to play with: sliders that work with a kernel and without one.

A chapter writes one function from slider values to a `View` (charts, numbers,
small images) and calls `explore`. In Jupyter and on Colab the sliders are
ipywidgets and the function computes at every move. In the built book
(``FLATBOOK_STATIC=1``) every combination of slider values is computed once, the
page keeps what differs between them, each piece only along the sliders that it
depends on, and a few lines of JavaScript switch it: no kernel, no network, and the
first view is there without JavaScript too. Both ways draw with the same code.

>>> import numpy as np
>>> def parabola(a):
...     x = np.linspace(-1, 1, 41)
...     curves = {"a x²": (x, a * x**2)}
...     chart = Chart(curves, "x", "y", xlim=(-1, 1), ylim=(0, 2))
...     return View([chart], numbers={"value at 1": a})
>>> from unittest.mock import patch
>>> with patch.dict("os.environ", FLATBOOK_STATIC="1"):     # as the build does
...     explore(parabola, alt="A parabola through (1, {a})", a=[0.5, 1.0, 2.0])
<explorer: a (3), 3 frames>
"""

import hashlib
import html
import importlib.util
import json
import math
import os
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from flatbook._drawing import STYLE, draw
from flatbook._packing import LETTERS, SCRIPT, Slot, pack, share
from flatbook._svg import general
from flatbook._views import Chart, View, plain

if TYPE_CHECKING:
    import ipywidgets

__all__ = ["Chart", "Explorer", "View", "explore"]

MAX_BYTES = 300_000
MAX_FRAMES = 6000

Value = str | int | float


class Explorer:
    """A static explorer: shows its ``html`` as the last value of a cell."""

    def __init__(self, html: str, summary: str) -> None:
        self.html = html
        self._summary = summary

    def __repr__(self) -> str:
        return self._summary

    def _repr_html_(self) -> str:
        return self.html


def explore(
    view: Callable[..., View],
    *,
    alt: str,
    start: Mapping[str, Value] | None = None,
    labels: Mapping[str, str] | None = None,
    **sliders: Sequence[Value],
) -> object:
    """Show ``view(**values)`` under sliders for the values.

    Args:
        view: from one value per slider to a `View`. Axes and names must not change.
        alt: what is seen, for those who do not see it: a format string over the
            slider names and the names in ``View.numbers`` and ``Chart.said``.
        start: slider name -> value shown first (default: the first one).
        labels: slider name -> text beside the slider, where ``{}`` or ``{:.2f}``
            and what follows stands for the value: ``"tolerance ε {:.2f} nats"``.
        **sliders: name -> the values it takes (numbers or texts).

    Returns:
        An object that shows itself as a cell's last value: an ipywidgets box that
        computes live, or with ``FLATBOOK_STATIC=1`` (and where ipywidgets is
        missing) an `Explorer` with all views computed.

    Raises:
        TypeError: view returns something else than a `View`.
        ValueError: no slider, no values, a start value that is none of them, an
            unknown name in start, labels or alt, axes that move between views, or
            a static page of more than 300 kB.
    """
    controls = _controls(sliders, start or {}, labels or {})
    if os.environ.get("FLATBOOK_STATIC") == "1" or not _has_widgets():
        return _static(view, alt, controls)
    return _live(view, alt, controls)


# --- sliders ----------------------------------------------------------------


@dataclass(frozen=True)
class _Control:
    name: str
    values: list[Value]
    start: int
    caption: str
    format: str

    def text(self, value: Value) -> str:
        return self.format.format(_Shown(value))

    @property
    def texts(self) -> list[str]:
        return [self.text(value) for value in self.values]


class _Shown:
    """A value that formats as usual, and as ``:g`` where nothing else is said."""

    def __init__(self, value: Value) -> None:
        self.value = value

    def __format__(self, spec: str) -> str:
        if isinstance(self.value, float) and (not spec or spec.endswith("g")):
            return general(self.value, spec or "g")
        return format(self.value, spec)


def _controls(
    sliders: Mapping[str, Sequence[Value]],
    start: Mapping[str, Value],
    labels: Mapping[str, str],
) -> list[_Control]:
    if not sliders:
        raise ValueError("an explorer needs a slider: explore(view, alt=..., a=[0, 1])")
    for what, given in (("start", start), ("labels", labels)):
        unknown = sorted(set(given) - set(sliders))
        if unknown:
            raise ValueError(
                f"{what} names no slider: {unknown}; sliders: {list(sliders)}"
            )
    return [
        _control(name, values, start.get(name), labels.get(name, name))
        for name, values in sliders.items()
    ]


def _control(
    name: str, values: Sequence[Value], start: Value | None, label: str
) -> _Control:
    array = plain(values)
    options = array.tolist() if hasattr(array, "tolist") else list(values)
    options = [v.item() if hasattr(v, "item") else v for v in options]
    if not options:
        raise ValueError(f"slider {name!r} has no values")
    for value in options:
        if not isinstance(value, str | int | float):
            raise TypeError(f"slider {name!r}: numbers or texts, got {value!r}")
    index = 0 if start is None else _index(name, options, start)
    caption, brace, rest = label.partition("{")
    control = _Control(name, options, index, caption.strip(), (brace + rest) or "{}")
    try:
        control.texts  # noqa: B018
    except (ValueError, LookupError) as error:
        raise ValueError(f"label {label!r} of slider {name!r}: {error}") from None
    return control


def _index(name: str, options: list[Value], start: Value) -> int:
    for i, value in enumerate(options):
        if value == start:
            return i
        if isinstance(value, str) or isinstance(start, str):
            continue
        if math.isclose(value, start, rel_tol=1e-9):
            return i
    raise ValueError(f"start: {name}={start!r} is not one of its values {options}")


class _Alt(string.Formatter):
    """Fills a description: plain ``:g`` for floats, a clear error for unknown names."""

    def get_value(
        self, key: int | str, args: Sequence[Value], kwargs: Mapping[str, Value]
    ) -> _Shown:
        if key not in kwargs:
            raise ValueError(f"alt names {key!r}; there are {list(kwargs)}")
        return _Shown(kwargs[str(key)])

    def pieces(self, alt: str, values: Mapping[str, Value]) -> tuple[str, ...]:
        """The description, cut before and after each value."""
        found: list[str] = []
        for text, name, spec, conversion in self.parse(alt):
            found.append(text)
            if name is not None:
                value = self.get_field(name, (), values)[0]
                value = self.convert_field(value, conversion)
                found.append(self.format_field(value, spec or ""))
        return tuple(found) or ("",)


def _shown(
    view: Callable[..., View], alt: str, values: dict[str, Value]
) -> tuple[View, tuple[str, ...]]:
    """The view at these slider values and its description, in pieces."""
    shown = view(**values)
    if not isinstance(shown, View):
        raise TypeError(f"view must return a View, got {type(shown).__name__}")
    said = {name: text for chart in shown.charts for name, text in chart.said.items()}
    return shown, _Alt().pieces(alt, {**said, **shown.numbers, **values})


# --- without a kernel -------------------------------------------------------


def _static(view: Callable[..., View], alt: str, controls: list[_Control]) -> Explorer:
    shape = [len(control.values) for control in controls]
    count = math.prod(shape)
    if count > MAX_FRAMES:
        raise ValueError(
            f"{count} views are too many for a page (at most {MAX_FRAMES})"
        )
    frames = _frames(view, alt, controls)
    start = int(np.ravel_multi_index([c.start for c in controls], shape))
    body, slots = _merge(frames, start, shape)
    texts = [control.texts for control in controls]
    data: dict[str, object] = {"texts": texts, "letters": LETTERS}
    data |= {"shared": share(slots), "slots": slots}
    inside = _sliders(controls) + body + _NOSCRIPT + _script(data)
    ident = "fb-" + hashlib.sha256(inside.encode()).hexdigest()[:10]
    text = _box(inside).replace("\0", ident)
    if (size := len(text.encode())) > MAX_BYTES:
        raise ValueError(
            f"the explorer takes {size / 1000:.0f} kB, more than {MAX_BYTES // 1000}: "
            f"use fewer slider values (now {count} views), fewer or shorter lines, "
            "smaller images"
        )
    sliders = ", ".join(f"{c.name} ({len(c.values)})" for c in controls)
    return Explorer(text, f"<explorer: {sliders}, {count} frames>")


def _frames(
    view: Callable[..., View], alt: str, controls: list[_Control]
) -> list[list[str | Slot]]:
    names = [control.name for control in controls]
    frames: list[list[str | Slot]] = []
    first: View | None = None
    for combination in product(*(control.values for control in controls)):
        values = dict(zip(names, combination, strict=True))
        shown, described = _shown(view, alt, values)
        first = first or shown
        _check_same(first, shown, values)
        frames.append(list(draw(shown, described)))
    return frames


def _check_same(first: View, shown: View, values: dict[str, Value]) -> None:
    """Views may differ in data only: the page switches data."""
    for what, one, other in zip(
        ("charts", "numbers", "images", "words", *("chart",) * len(first.charts)),
        _outline(first),
        _outline(shown),
        strict=False,
    ):
        if one != other:
            raise ValueError(
                f"all views need the same names and axes; at {values} the {what} are "
                f"{other}, first they were {one}"
            )


def _outline(view: View) -> list[object]:
    """What has to stay the same, in a form that reads well in an error."""
    charts = [
        {
            "names": [*c.lines, *c.points, *c.vlines, *c.hlines, *c.bands, *c.said],
            "labels": [c.title, c.x, c.y, c.named, c.shape, c.ticks],
            "axes": [*c.xlim, c.xscale, *c.ylim, c.yscale],
        }
        for c in view.charts
    ]
    images = [*view.images, *view.changes]
    words = [bool(view.says), view.first]
    return [len(charts), list(view.numbers), images, words, *charts]


def _merge(
    frames: list[list[str | Slot]], start: int, shape: list[int]
) -> tuple[str, list[list[object]]]:
    """The frame shown first, and for each slot that varies what it takes when."""
    text: list[str] = []
    slots: list[list[object]] = []
    for parts in zip(*frames, strict=True):
        now = parts[start]
        if isinstance(now, str):
            text.append(now)
            continue
        found = [part for part in parts if isinstance(part, Slot)]
        varies = len({part.value for part in found}) > 1
        text.append(now.render(f" data-fb-{len(slots)}" if varies else ""))
        if varies:
            slots.append(pack(found, shape))
    return "".join(text), slots


def _sliders(controls: list[_Control]) -> str:
    rows = []
    for i, control in enumerate(controls):
        texts = [html.escape(text) for text in control.texts]
        now, ident = texts[control.start], f"\0-{i}"
        rows.append(
            f'<div class="fb-slider"><label for="{ident}">'
            f"{html.escape(control.caption)}</label>"
            f'<input type="range" id="{ident}" min="0" max="{len(texts) - 1}" step="1" '
            f'value="{control.start}" aria-valuetext="{now}" autocomplete="off">'
            f'<output for="{ident}" aria-live="off" '
            f'style="min-width:{max(map(len, control.texts))}ch">{now}</output></div>'
        )
    return f'<div class="fb-sliders">{"".join(rows)}</div>'


def _script(data: dict[str, object]) -> str:
    packed = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    for letter in "<>&\u2028\u2029":
        packed = packed.replace(letter, f"\\u{ord(letter):04x}")
    return f"<script>{SCRIPT.replace('DATA', packed)}</script>"


def _box(inside: str) -> str:
    """The scoped style and the content; mathjax_ignore keeps texts as they are."""
    return (
        '<div class="fb-explorer mathjax_ignore tex2jax_ignore" id="\0" role="group" '
        f'aria-label="Figure with sliders"><style>{STYLE}</style>{inside}</div>'
    )


# --- with a kernel ----------------------------------------------------------


def _has_widgets() -> bool:
    return importlib.util.find_spec("ipywidgets") is not None


def _live(view: Callable[..., View], alt: str, controls: list[_Control]) -> object:
    """An ipywidgets box, of what versions 7.7 and 8 share."""
    import ipywidgets

    inputs = {control.name: _widget(control) for control in controls}
    picture = ipywidgets.HTML(layout={"width": "100%"})

    def redraw(_change: object = None) -> None:
        values = {name: widget.value for name, widget in inputs.items()}
        parts = draw(*_shown(view, alt, values))
        inside = "".join(p if isinstance(p, str) else p.render() for p in parts)
        picture.value = _box(inside).replace(' id="\0"', "")

    redraw()
    for widget in inputs.values():
        widget.observe(redraw, names="value")
    return ipywidgets.VBox([*inputs.values(), picture])


def _widget(control: _Control) -> "ipywidgets.Widget":
    """The slider that suits the values: whole numbers, even, geometric, any."""
    import ipywidgets

    common = {
        "value": control.values[control.start],
        "description": control.caption,
        "style": {"description_width": "initial"},
        "layout": {"width": "min(100%, 36em)"},
    }
    numbers = _numbers(control.values)
    if len(numbers) > 1:
        low, high = min(numbers), max(numbers)
        fine = {"min": low, "max": high, "step": (high - low) / 100}
        if all(type(v) is int for v in numbers):
            if _even(numbers):
                fine["step"] = abs(numbers[1] - numbers[0])
                return ipywidgets.IntSlider(**common, **fine)
        elif _even(numbers):
            return ipywidgets.FloatSlider(**common, **fine, readout_format=".3g")
        elif low > 0 and _even(np.log10(numbers)):
            low, high = math.log10(low), math.log10(high)
            fine = {"min": low, "max": high, "step": (high - low) / 100}
            return ipywidgets.FloatLogSlider(**common, **fine, readout_format=".3g")
    options = list(zip(control.texts, control.values, strict=True))
    return ipywidgets.SelectionSlider(**common, options=options)


def _numbers(values: list[Value]) -> list[int | float]:
    """The values if all are numbers, else nothing."""
    numbers = [
        v for v in values if isinstance(v, int | float) and not isinstance(v, bool)
    ]
    return numbers if len(numbers) == len(values) else []


def _even(values: Sequence[float] | np.ndarray) -> bool:
    """At least two different values, evenly spaced."""
    gaps = np.diff(np.asarray(values, dtype=float))
    return bool(gaps[0]) and np.allclose(gaps, gaps[0], rtol=1e-6, atol=0)


_NOSCRIPT = (
    '<noscript><p class="fb-note">The sliders need JavaScript; '
    "without it the figure shows the values above.</p></noscript>"
)
