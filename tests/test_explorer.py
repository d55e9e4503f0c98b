"""The explorer: what the page shows must be what the view says."""

import base64
import itertools
import json
import re
import zlib
from html.parser import HTMLParser
from itertools import product

import ipywidgets
import numpy as np
import pytest
import torch

from flatbook import _svg
from flatbook.explorer import Chart, View, explore

X = np.linspace(0, 2, 81)


@pytest.fixture(autouse=True)
def _static_page(monkeypatch):
    monkeypatch.setenv("FLATBOOK_STATIC", "1")


def waves(a, b):
    """Two curves, a point, a vertical line, numbers, an image and a note."""
    up, down = a * X**2, np.exp(-b * X)
    chart = Chart(
        {"up": (X, up), "down": (X, down)},
        "distance",
        "loss",
        xlim=(0, 2),
        ylim=(0, 4),
        points={"now": (a, b)},
        vlines={"wall": b},
    )
    image = np.full((3, 4), a / 2) * np.linspace(0, 1, 4)
    return View([chart], {"sum": a + b, "kind": "waves"}, {"digit": image}, f"a is {a}")


GRID = {"a": [0.5, 1.0, 2.0], "b": [0.25, 1.5]}
ALT = "Curves for a {a} and b {b:.2f}: sum {sum}"


def shown(**kwargs):
    return explore(waves, alt=ALT, **{**GRID, **kwargs}).html


class Page(HTMLParser):
    """The elements of a page, each (tag, attributes, text directly inside)."""

    VOID = ("input", "img", "path")

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        element = [tag, dict(attrs), ""]
        self.elements.append(element)
        if tag not in self.VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.elements.append([tag, dict(attrs), ""])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if self.open:
            self.open[-1][2] += data

    def all(self, tag, **attrs):
        return [
            e
            for e in self.elements
            if e[0] == tag and all(e[1].get(k) == v for k, v in attrs.items())
        ]


def script_data(html):
    packed = re.search(r"data = (\{.*\});", html)[1]
    return json.loads(packed)


def read(piece, at, data):
    """What the script reads: text, or a value looked up by the sliders' places."""
    letters = data["letters"]
    if isinstance(piece, str):
        return piece
    piece = data["shared"][piece]
    head, tail, values, steps, *which = piece
    k = sum(step * place for step, place in zip(steps, at, strict=True))
    if which:
        width = 2 if len(values) > len(letters) else 1
        digits = which[0][width * k : width * (k + 1)]
        k = 0
        for letter in digits:
            k = k * len(letters) + letters.index(letter)
    return head + values[k] + tail


def frame(html, k):
    """What the script shows for combination k: {(tag, class, attribute): [value]}."""
    data, page, found = script_data(html), Page(html), {}
    at = np.unravel_index(k, [len(texts) for texts in data["texts"]])
    for tag, attrs, text in page.elements:
        number = next((a for a in attrs if a.startswith("data-fb-")), None)
        values = {a: v for a, v in attrs.items() if a != number} | {"text": text}
        for mark in [a for a in attrs if a.startswith("data-fb-")]:
            name, *pieces = data["slots"][int(mark[8:])]
            values[name] = "".join(read(p, at, data) for p in pieces)
        for name, value in values.items():
            key = (tag, attrs.get("class", ""), name)
            found.setdefault(key, []).append(value)
    return found


def decode(d):
    """Path data (absolute M, relative l and h0) to an array of points."""
    numbers = re.findall(r"[Mlh]|-?\d+", d)
    points, mode, at = [], "", None
    stream = iter(numbers)
    for token in stream:
        if token in "Mlh":
            mode = token
            continue
        pair = np.array([int(token), 0 if mode == "h" else int(next(stream))])
        at = pair if mode == "M" else at + pair
        points.append(at)
    return np.array(points, dtype=float)


def plot_area(html):
    inner = next(e for e in Page(html).all("svg") if "x" in e[1])
    return [float(inner[1][k]) for k in ("x", "y", "width", "height")]


def distance_to_path(points, path):
    """Largest distance of points to a polyline."""
    start, end = path[:-1], path[1:]
    span = end - start
    t = ((points[:, None] - start) * span).sum(-1) / (span**2).sum(-1)
    nearest = start + np.clip(t, 0, 1)[..., None] * span
    return np.linalg.norm(points[:, None] - nearest, axis=-1).min(1).max()


# --- the page ---------------------------------------------------------------


def test_every_frame_draws_its_view_within_a_pixel():
    html = shown()
    _, _, width, height = plot_area(html)
    for k, (a, b) in enumerate(product(*GRID.values())):
        chart = waves(a, b).charts[0]
        for style, (xs, ys) in enumerate(chart.lines.values()):
            d = frame(html, k)[("path", f"fb-l fb-l{style}", "d")][-1]
            inside = (ys >= 0) & (ys <= 4)
            points = np.stack([xs / 2 * width, (1 - ys / 4) * height], 1)[inside]
            assert distance_to_path(points, decode(d)) < _svg.UNIT


def test_every_frame_shows_its_point_line_numbers_image_note_and_alt():
    html = shown()
    width, height = plot_area(html)[2:]
    for k, (a, b) in enumerate(product(*GRID.values())):
        now, view = frame(html, k), waves(a, b)
        x, y = map(int, re.findall(r"-?\d+", now[("path", "fb-p", "transform")][-1]))
        assert x == pytest.approx(a / 2 * width, abs=1)
        assert y == pytest.approx((1 - b / 4) * height, abs=1)
        wall = int(re.search(r"\d+", now[("path", "fb-v", "transform")][0])[0])
        assert wall == pytest.approx(b / 2 * width, abs=1)
        texts = [v for key, values in now.items() if key[0] == "b" for v in values]
        assert f"{a + b:.3g}" in texts
        assert "waves" in texts
        pixels = decode_png(now[("img", "no-invert dark-light", "src")][0])
        assert np.abs(pixels / 255 - view.images["digit"]).max() <= 0.5 / 255 + 1e-9
        assert now[("p", "fb-note", "text")][0] == f"a is {a}"
        alt = f"Curves for a {a:g} and b {b:.2f}: sum {a + b:g}"
        assert alt in [
            v for key, vs in now.items() if key[2] == "aria-label" for v in vs
        ]


def decode_png(uri):
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    length = int.from_bytes(data[33:37])
    rows = np.frombuffer(zlib.decompress(data[41 : 41 + length]), np.uint8)
    return rows.reshape(height, width + 1)[:, 1:].astype(float)


def test_first_frame_is_there_without_javascript():
    html = shown(start={"a": 2.0, "b": 1.5})
    text = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    page = Page(text)
    assert page.all("p", **{"class": "fb-note"})[0][2] == "a is 2.0"
    assert [e[1]["value"] for e in page.all("input")] == ["2", "1"]
    assert [e[2] for e in page.all("output")] == ["2", "1.5"]
    assert all(e[1].get("d") for e in page.all("path"))
    assert page.all("noscript")


def test_sliders_are_labelled_and_operable_by_keyboard():
    page = Page(shown(labels={"a": "steepness {:.1f} per unit"}))
    for element in page.all("input"):
        attrs = element[1]
        assert attrs["type"] == "range"
        assert attrs["step"] == "1"
        assert attrs["aria-valuetext"]
        assert page.all("label", **{"for": attrs["id"]})
        assert page.all("output", **{"for": attrs["id"]})
    assert page.all("label")[0][2] == "steepness"
    assert page.all("output")[0][2] == "0.5 per unit"
    assert page.all("svg", role="img")
    assert page.all("div", **{"aria-live": "polite"})
    ids = [e[1]["id"] for e in page.elements if "id" in e[1]]
    assert len(ids) == len(set(ids))


def test_lines_differ_in_more_than_colour():
    html = shown()
    dashes = [re.search(rf"\.fb-l{i}\{{[^}}]*\}}", html)[0] for i in range(6)]
    patterns = [re.search(r"dasharray:([\d ]+)", d) for d in dashes]
    assert len({m[1] if m else "" for m in patterns}) == 6


def test_page_stands_alone_and_is_deterministic():
    html = shown()
    assert html == shown()
    assert not re.search(r"https?:|//|import\(|src=\"(?!data:)", html)
    assert "\0" not in html


def test_text_from_the_author_cannot_break_the_page():
    nasty = '</script><b title="x">&'

    def view(a):
        chart = Chart({nasty: ([0, 1], [0, a])}, nasty, nasty, (0, 1), (0, 1))
        return View([chart], {nasty: f"{nasty}{a}"}, note=nasty * int(a + 1))

    html = explore(view, alt="a </script> {a}", a=[0.0, 1.0]).html
    page = Page(html)
    assert html.count("</script>") == 1
    assert not page.all("b", title="x")
    assert script_data(html)["slots"]


def test_hidden_points_and_lines_outside_the_limits():
    def view(a):
        far = {"far": (a, 0.5)}
        chart = Chart({"l": ([-5, 5], [a, a])}, "x", "y", (0, 1), (0, 1), points=far)
        return View([chart])

    html = explore(view, alt="", a=[0.5, 7.0]).html
    inside, outside = frame(html, 0), frame(html, 1)
    assert "-99999" not in inside[("path", "fb-p", "transform")][-1]
    assert "-99999" in outside[("path", "fb-p", "transform")][-1]
    assert outside[("path", "fb-l fb-l0", "d")][-1] == ""
    path = decode(inside[("path", "fb-l fb-l0", "d")][-1])
    width = plot_area(html)[2]
    assert path[:, 0].min() > -100
    assert path[:, 0].max() < width + 100


def test_log_axes_place_decades_evenly():
    def view(s):
        xs = np.geomspace(0.01, 100, 41)
        chart = Chart({"l": (xs, xs**s)}, "x", "y", (0.01, 100), (1e-8, 1e8), **logs)
        return View([chart])

    logs = {"xscale": "log", "yscale": "log"}
    html = explore(view, alt="", s=[1.0, 3.0]).html
    width, height = plot_area(html)[2:]
    for k, s in enumerate([1.0, 3.0]):
        path = decode(frame(html, k)[("path", "fb-l fb-l0", "d")][-1])
        assert len(path) == 2, "a power law is straight on log axes"
        slope = -np.diff(path[:, 1]) / np.diff(path[:, 0]) * width / height
        assert slope == pytest.approx(s * 4 / 16, rel=1e-2)


def test_too_large_a_page_is_refused():
    rng = np.random.default_rng(0)

    def view(a):
        return View(images={"noise": rng.random((400, 400))})

    with pytest.raises(ValueError, match=r"kB.*fewer slider values"):
        explore(view, alt="", a=range(2))
    with pytest.raises(ValueError, match="10000 views are too many"):
        explore(view, alt="", a=range(100), b=range(100))


def test_a_radius_explorer_is_small():
    assert len(shown().encode()) < 20_000


def test_values_may_be_arrays_tensors_and_texts():
    def view(mode, n):
        line = (torch.tensor([0.0, 1.0], requires_grad=True), np.array([0, 1]) * n)
        chart = Chart({"l": line}, "x", "y", (0, 1), (0, 3))
        return View([chart], {"n": torch.tensor(1.5), "mode": mode, "r": float("inf")})

    html = explore(view, alt="{mode} {n}", mode=["l2", "linf"], n=torch.arange(3)).html
    assert Page(html).all("output")[0][2] == "l2"
    assert "∞" in html


def test_result_is_displayed_by_the_notebook():
    figure = explore(waves, alt=ALT, **GRID)
    assert figure._repr_html_() == figure.html
    assert repr(figure) == "<explorer: a (3), b (2), 6 frames>"


# --- what a view can say and mark ---------------------------------------------


def described(a, b):
    """Waves with everything that may be marked: bands, texts, ends, a sentence."""
    up, flat = (X, a * X**2), (X, 0 * X + b)
    marks = {"bands": {"danger zone": (a, 2)}, "hlines": {"limit": b}, "shape": "wide"}
    above = Chart(
        {"up": up, "flat": flat}, "", "y", (0, 2), (0, 4), named="ends", **marks
    )
    rung = {"named": "points", "ticks": False, "shape": "low"}
    rung |= {"points": {"up": (a, 1)}, "said": {"up": f"up to {a:g}"}}
    below = Chart({"up": ([0, a], [1, 1])}, "x", "rungs", (0, 2), (0, 2), **rung)
    change = {"change": np.linspace(-a / 2, a / 2, 6).reshape(2, 3)}
    return View([above, below], {"n": b}, changes=change, says=f"a is {a:g} %")


def marked(**grid):
    return explore(described, alt="{up} of {n}", **{**GRID, **grid}).html


def test_a_band_is_as_wide_as_it_says():
    html = marked()
    width = plot_area(html)[2]
    for k, (a, _) in enumerate(product(*GRID.values())):
        band = frame(html, k)
        start, wide = (
            int(band[("rect", "fb-band fb-b0", name)][0]) for name in ("x", "width")
        )
        assert start == pytest.approx(a / 2 * width, abs=1)
        assert start + wide == pytest.approx(width, abs=1)
        named = int(band[("text", "fb-band-name", "x")][0])
        assert (named > 0) == (wide > 12 * 70), "a name only where it fits"


def test_a_horizontal_line_is_at_its_height():
    html = marked()
    height = plot_area(html)[3]
    for k, (_, b) in enumerate(product(*GRID.values())):
        place = frame(html, k)[("path", "fb-v", "transform")][0]
        assert int(place.split()[1][:-1]) == pytest.approx((1 - b / 4) * height, abs=1)


def test_names_stand_where_lines_end():
    html = marked()
    top, height = plot_area(html)[1], plot_area(html)[3]
    names = [e[2] for e in Page(html).all("text", **{"class": "fb-end"})]
    assert names == ["up", "flat"]
    assert not Page(html).all("p", **{"class": "fb-legend"})
    for k, (a, b) in enumerate(product(*GRID.values())):
        places = frame(html, k)[("g", "", "transform")][:2]
        heights = [int(place.split()[1][:-1]) - top for place in places]
        wanted = [(1 - min(4 * a, 4) / 4) * height, (1 - b / 4) * height]
        assert abs(heights[0] - heights[1]) >= 174, "names do not cover each other"
        if abs(wanted[0] - wanted[1]) > 200:
            assert heights == pytest.approx(wanted, abs=31)  # clipping overdraws a bit


def test_points_say_what_they_are_told_on_the_side_with_room():
    html = marked()
    for k, (a, _) in enumerate(product(*GRID.values())):
        now = frame(html, k)
        assert now[("text", "fb-at", "text")] == [f"up to {a:g}"]
        side = "end" if a > 1.1 else "start"
        assert now[("text", "fb-at", "text-anchor")] == [side]
        mark = now[("path", "fb-p fb-p0", "transform")]
        assert now[("text", "fb-at", "transform")] == mark[-1:]


def test_charts_of_full_width_share_their_margins():
    inner = [e[1] for e in Page(marked()).all("svg") if "x" in e[1]]
    assert len(inner) == 2
    assert inner[0]["x"] == inner[1]["x"]
    assert inner[0]["width"] == inner[1]["width"]


def test_the_sentence_is_announced_and_the_numbers_are_then_not():
    html = marked()
    live = [e[1]["aria-live"] for e in Page(html).elements if "aria-live" in e[1]]
    assert live.count("polite") == 1
    for k, (a, b) in enumerate(product(*GRID.values())):
        now = frame(html, k)
        assert now[("p", "fb-says", "text")] == [f"a is {a:g}\N{NO-BREAK SPACE}%"]
        assert f"up to {a:g} of {b:g}" in now[("svg", "", "aria-label")]
    assert Page(shown()).all("div", **{"class": "fb-numbers", "aria-live": "polite"})


def test_changes_are_blue_below_zero_and_orange_above():
    for value, sign in ((-1.0, 1), (0.0, 0), (1.0, -1)):
        red, _, blue = colour(_svg.signed_png(np.full((2, 2), value)))
        assert np.sign(blue - red) == sign or abs(blue - red) <= 2 == 2 + sign


def colour(uri):
    """The colour of the first pixel of a PNG with a palette."""
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    palette, start = data.index(b"PLTE") + 4, data.index(b"IDAT")
    size = int.from_bytes(data[start - 4 : start])
    pixel = zlib.decompress(data[start + 4 : start + 4 + size])[1]
    return [int(v) for v in data[palette + 3 * pixel : palette + 3 * pixel + 3]]


def test_images_may_come_first():
    def view(a):
        chart = Chart({}, "x", "y", (0, 1), (0, 1))
        return View([chart], {"n": a}, {"i": [[a]]}, first=order)

    order = "images"
    html = explore(view, alt="", a=[0.0, 1.0]).html
    assert html.index('fb-image"') < html.index('fb-charts"')
    order = "charts"
    html = explore(view, alt="", a=[0.0, 1.0]).html
    assert html.index('fb-image"') > html.index('fb-charts"')


def test_sliders_that_decide_nothing_cost_nothing():
    def view(a, b):
        chart = Chart({"l": (X, a * X)}, "x", "y", (0, 2), (0, 9))
        return View([chart], {"b": b})

    values = np.linspace(0.5, 4, 12).tolist()
    small = len(explore(view, alt="", a=values, b=[1.0, 2.0]).html)
    large = len(explore(view, alt="", a=values, b=np.arange(1.0, 41).tolist()).html)
    assert large - small < 40 * 30


def test_thousands_of_views_are_read_back():
    def view(a, b, c):
        return View(numbers={"sum": a * 100 + b + c / 100, "b": b})

    grid = {"a": range(20), "b": range(10), "c": range(15)}
    html = explore(view, alt="", **grid).html
    for k in np.random.default_rng(0).integers(0, 3000, 40):
        a, b, c = np.unravel_index(k, (20, 10, 15))
        texts = next(v for key, v in frame(html, int(k)).items() if key[0] == "b")
        assert texts == [_svg.pretty(a * 100 + b + c / 100), f"{b}"]


@pytest.mark.parametrize("seed", range(20))
def test_spread_labels_keep_their_distance_and_order(seed):
    rng = np.random.default_rng(seed)
    count, height = int(rng.integers(1, 7)), 100.0
    wanted = {str(i): (float(rng.uniform(-20, 120)), i) for i in range(count)}
    found = _svg.spread(wanted, 15, height)
    order = sorted(wanted, key=lambda name: wanted[name])
    placed = [found[name] for name in order]
    assert all(b - a >= 15 - 1e-9 for a, b in itertools.pairwise(placed))
    assert -1e-9 <= placed[0] <= placed[-1] <= height + 1e-9
    near = {name: min(max(y, 0), height) for name, (y, _) in wanted.items()}
    if all(b - a >= 15 for a, b in itertools.pairwise([near[n] for n in order])):
        assert found == pytest.approx(near)


# --- refusals -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"lines": {"l": ([0, 1], [0, float("nan")])}},
            r"y of line 'l'.*nan at index 1",
        ),
        ({"lines": {"l": ([0, 1], [0])}}, "one length, got 2 and 1"),
        (
            {"lines": {"l": ([0, 1], [0, 1])}, "yscale": "log", "ylim": (1, 2)},
            "positive",
        ),
        ({"lines": {"l": ([0, 1], [[0, 1]])}}, r"shape \(1, 2\)"),
        ({"lines": {str(i): ([0], [0]) for i in range(7)}}, "at most 6 lines, got 7"),
        ({"xlim": (1, 1)}, r"xlim must be increasing, got \(1, 1\)"),
        ({"ylim": (0, float("inf"))}, "ylim must be finite"),
        ({"ylim": (0, 1), "yscale": "log"}, "ylim must be positive on a log axis"),
        ({"xscale": "cubic"}, "'cubic'"),
        ({"points": {"p": (0, float("inf"))}}, "y of point 'p'"),
        ({"vlines": {"v": float("nan")}}, "vertical line 'v'"),
        ({"hlines": {"h": float("inf")}}, "horizontal line 'h'"),
        ({"bands": {"b": (0, float("nan"))}}, "end of band 'b'"),
        ({"shape": "tall"}, "shape must be one of .*'tall'"),
        ({"named": "above"}, "named must be one of .*'above'"),
        ({"said": {"l": "text"}}, r"said names no point: \['l'\]"),
    ],
)
def test_chart_refuses(change, message):
    good = {"lines": {}, "x": "x", "y": "y", "xlim": (0, 1), "ylim": (0, 1)}
    with pytest.raises(ValueError, match=message):
        Chart(**{**good, **change})


def test_chart_refuses_what_is_no_number():
    with pytest.raises(TypeError, match="y of line 'l' must be numbers"):
        Chart({"l": ([0], ["a"])}, "x", "y", (0, 1), (0, 1))
    with pytest.raises(TypeError, match="line 'l' must be a pair"):
        Chart({"l": [0, 1, 2]}, "x", "y", (0, 1), (0, 1))


def test_view_refuses():
    with pytest.raises(ValueError, match="'kappa' must not be NaN"):
        View(numbers={"kappa": float("nan")})
    with pytest.raises(TypeError, match="'kappa' must be a number or text"):
        View(numbers={"kappa": [1, 2]})
    with pytest.raises(
        ValueError, match=r"image 'x' must lie in \[0, 1\], got \[0, 2\]"
    ):
        View(images={"x": [[0.0, 2.0]]})
    with pytest.raises(ValueError, match="image 'x' must be 2-D"):
        View(images={"x": [0.0, 1.0]})
    with pytest.raises(ValueError, match=r"image 'x' must lie in \[-1, 1\]"):
        View(changes={"x": [[-2.0, 0.0]]})
    with pytest.raises(ValueError, match="first must be one of .*'numbers'"):
        View(first="numbers")
    with pytest.raises(TypeError, match=r"\[chart\]"):
        View(Chart({}, "x", "y", (0, 1), (0, 1)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alt": ""}, "needs a slider"),
        ({"alt": "", "a": []}, "'a' has no values"),
        ({"alt": "", "a": [1.0], "b": [1.0], "start": {"a": 3}}, "a=3 is not one of"),
        ({"alt": "", "a": [1.0], "start": {"c": 3}}, r"start names no slider: \['c'\]"),
        ({"alt": "", "a": [1.0], "labels": {"c": ""}}, r"labels names no slider"),
        ({"alt": "", "a": [1.0], "labels": {"a": "s {:q}"}}, "label 's {:q}'"),
        ({"alt": "{kappa}", "a": [1.0], "b": [1.0]}, "alt names 'kappa'.*'sum'"),
    ],
)
def test_explore_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        explore(waves, **arguments)


def test_axes_must_not_move_between_frames():
    def view(a):
        return View([Chart({}, "x", "y", (0, 1), (0, a))])

    with pytest.raises(ValueError, match=r"\{'a': 2\} the chart"):
        explore(view, alt="", a=[1, 2])
    with pytest.raises(ValueError, match="numbers"):
        explore(lambda a: View(numbers={f"n{a}": a}), alt="", a=[1, 2])
    with pytest.raises(TypeError, match="must return a View, got int"):
        explore(lambda a: a, alt="", a=[1, 2])


# --- live -----------------------------------------------------------------------


@pytest.fixture
def live(monkeypatch):
    monkeypatch.delenv("FLATBOOK_STATIC")
    return ipywidgets


def test_live_sliders_redraw_what_the_view_gives(live):
    box = explore(
        waves, alt=ALT, a=[0.5, 1.0, 1.5], b=[0.1, 1.0, 10.0], start={"a": 1.0}
    )
    a, b, picture = box.children
    assert isinstance(a, live.FloatSlider)
    assert isinstance(b, live.FloatLogSlider)
    before = picture.value
    a.value = 0.7
    assert picture.value != before
    assert "a is 0.7" in picture.value
    assert "Curves for a 0.7 and b 0.10: sum 0.8" in picture.value
    width, height = plot_area(picture.value)[2:]
    d = Page(picture.value).all("path", **{"class": "fb-l fb-l0"})[-1][1]["d"]
    points = np.stack([X / 2 * width, (1 - 0.7 * X**2 / 4) * height], 1)
    assert distance_to_path(points, decode(d)) < _svg.UNIT
    assert "<script" not in picture.value


def test_live_views_say_and_mark_as_the_page_does(live):
    box = explore(described, alt="{up} of {n}", a=[0.5, 1.0, 1.5], b=[0.5, 1.0])
    box.children[0].value = 1.25
    page = Page(box.children[-1].value)
    assert page.all("p", **{"class": "fb-says"})[0][2].startswith("a is 1.25")
    assert page.all("text", **{"class": "fb-at"})[0][2] == "up to 1.25"
    band = page.all("rect", **{"class": "fb-band fb-b0"})[0][1]
    width = plot_area(box.children[-1].value)[2]
    assert int(band["x"]) == pytest.approx(1.25 / 2 * width, abs=1)


def test_live_sliders_suit_their_values(live):
    def view(**values):
        return View(numbers={k: str(v) for k, v in values.items()})

    values = {"i": range(0, 9, 2), "t": ["x", "y"], "odd": [1, 2, 5], "f": [0.0, 0.5]}
    box = explore(view, alt="", labels={"i": "step {} of 8"}, **values)
    step, text, odd, number, _ = box.children
    assert isinstance(step, live.IntSlider)
    assert (step.step, step.description) == (2, "step")
    assert isinstance(text, live.SelectionSlider)
    assert isinstance(odd, live.SelectionSlider)
    assert isinstance(number, live.FloatSlider)
    odd.value = 5
    assert "<b>5</b>" in box.children[-1].value


def test_without_ipywidgets_the_page_is_static(monkeypatch):
    monkeypatch.delenv("FLATBOOK_STATIC")
    monkeypatch.setattr("flatbook.explorer._has_widgets", lambda: False)
    assert explore(waves, alt=ALT, **GRID).html == shown()


# --- the pieces -------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_ticks_are_round_inside_and_few(seed):
    rng = np.random.default_rng(seed)
    low = float(rng.normal() * 10.0 ** rng.integers(-6, 6))
    high = low + float(10.0 ** rng.uniform(-3, 6))
    found = _svg.ticks(low, high)
    assert 2 <= len(found) <= 7
    slack = 1e-8 * (high - low)
    assert all(low - slack <= t <= high + slack for t in found)
    start = float(10.0 ** rng.uniform(-144, 0))
    end = start * float(10.0 ** rng.uniform(0.5, 100))
    decades = _svg.ticks(start, end, "log")
    assert 2 <= len(decades) <= 6
    assert all(start * 0.999 <= t <= end * 1.001 for t in decades)


def test_clip_keeps_what_is_inside_and_splits_what_leaves():
    zigzag = [(0, 50), (50, 500), (100, 50)]
    runs = _svg.clip(zigzag, (100, 100))
    assert len(runs) == 2
    assert all(-31 <= y <= 131 for run in runs for _, y in run)
    assert _svg.clip([(0, 500), (100, 500)], (100, 100)) == []


def test_simplify_stays_close():
    xs = np.linspace(0, 1000, 400)
    curve = list(zip(xs, 300 * np.sin(xs / 100), strict=True))
    short = _svg.simplify(curve)
    assert len(short) < 120
    assert distance_to_path(np.array(curve), np.array(short)) <= 1.2 + 1e-9
