"""Figures with sliders, moved from the keyboard with the network off."""

from tests.browser.site import PHONE
from tools import contents

FIGURE = ".fb-explorer"
# all that a slider may change, apart from its own value
SHOWN = """box => ({
  picture: [...box.querySelectorAll(".fb-chart path, .fb-chart rect, .fb-image img")]
    .map(node => ["d", "transform", "src", "x", "width"]
    .map(name => node.getAttribute(name)).join()).join(),
  words: [...box.querySelectorAll("[role=img]")]
    .map(node => node.getAttribute("aria-label"))
    .concat([...box.querySelectorAll("img")].map(node => node.alt))
    .concat([...box.querySelectorAll(".fb-says, .fb-numbers, .fb-note")]
    .map(node => node.textContent)).join(),
})"""
FOCUS = """() => {
  const node = document.activeElement, style = getComputedStyle(node);
  return [node.type, style.outlineStyle, parseFloat(style.outlineWidth)];
}"""
TEXTS = """box => [...box.querySelectorAll("svg[role=img] text")].map(node =>
  parseFloat(getComputedStyle(node).fontSize) * node.getScreenCTM().a)"""
STROKES = """box => [...box.querySelectorAll(".fb-chart path.fb-l")].map(node =>
  getComputedStyle(node).stroke)"""
CUT_OFF = """box => [...box.querySelectorAll("svg[role=img]")].flatMap(svg => {
  const around = svg.getBoundingClientRect();
  return [...svg.querySelectorAll("text")].filter(text => {
    const seen = text.getBoundingClientRect();
    const away = seen.right < around.left - 500 || seen.bottom < around.top - 500
      || seen.top > around.bottom + 500;
    return !away && (seen.left < around.left - 2 || seen.right > around.right + 2);
  }).map(text => text.textContent);
})"""
CHAPTERS = [
    f"book/{path.relative_to(contents.ROOT / 'book').with_suffix('').as_posix()}"
    for path in contents.notebooks()
]


def figures(seen):
    """The figures with sliders of a page; a page without any has nothing to check."""
    found = seen.page.locator(FIGURE).all()
    assert found or seen.name not in CHAPTERS, "a chapter without a figure to play with"
    return found


def sliders(figure):
    found = figure.get_by_role("slider").all()
    assert found
    return found


def said(slider):
    """What a reader sees, and what a screen reader says, of the slider's value."""
    texts = slider.evaluate(
        "node => [node.nextElementSibling.textContent, "
        "node.getAttribute('aria-valuetext')]"
    )
    assert texts[0] == texts[1]
    return texts[0]


def test_every_slider_works_from_the_keyboard(seen):
    for figure in figures(seen):
        for slider in sliders(figure):
            start = slider.input_value()
            slider.focus()
            slider.press("Home")
            assert slider.input_value() == slider.get_attribute("min")
            states, values = [figure.evaluate(SHOWN)], [said(slider)]
            steps = int(slider.get_attribute("max"))
            assert steps > 0
            for key in ["ArrowRight"] * min(steps, 3) + ["End"]:
                slider.press(key)
                states.append(figure.evaluate(SHOWN))
                values.append(said(slider))
            assert slider.input_value() == slider.get_attribute("max")
            label = slider.evaluate("node => node.labels[0].textContent")
            where = (seen.name, label)
            assert len(set(values)) > 1, where
            assert len({s["picture"] for s in states}) > 1, where
            assert len({s["words"] for s in states}) > 1, where
            for _ in range(steps - int(start)):
                slider.press("ArrowLeft")
            assert slider.input_value() == start
    assert seen.is_silent(), seen


def test_every_slider_has_a_name_and_can_be_tabbed_to(seen):
    for figure in figures(seen):
        for slider in sliders(figure):
            label = slider.evaluate("node => node.labels[0].textContent").strip()
            assert label
            assert figure.get_by_role("slider", name=label).count() >= 1
        first = sliders(figure)[0]
        first.focus()
        for slider in sliders(figure):
            assert slider.evaluate("node => node === document.activeElement")
            kind, outline, width = seen.page.evaluate(FOCUS)
            assert (kind, outline) == ("range", "solid"), "focus is not to be seen"
            assert width >= 2
            seen.page.keyboard.press("Tab")


def test_what_is_seen_is_announced_once(seen):
    """A sentence, where there is one; else the numbers. Not both at every move."""
    for figure in figures(seen):
        live = figure.locator("[aria-live=polite]").all()
        sentence = figure.locator(".fb-says").count()
        numbers = figure.locator(".fb-numbers").count()
        assert len(live) == (1 if sentence or numbers else 0), seen.name
        if sentence:
            assert live[0].evaluate("node => node.className") == "fb-says"
            assert live[0].inner_text().strip().endswith(".")


def test_figures_can_be_used_on_a_phone(phone):
    for figure in figures(phone):
        for slider in sliders(figure):
            box = slider.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= PHONE["width"]
            assert box["width"] >= 200
            assert box["height"] >= 24, "too small for a finger (WCAG 2.5.8)"
        sizes = figure.evaluate(TEXTS)
        assert min(sizes, default=99) >= 9, (phone.name, min(sizes))


def test_on_a_phone_the_picture_is_above_the_sliders(phone):
    """But on the first screen, which `test_landing` looks at, all is seen at once."""
    for figure in figures(phone):
        if figure.evaluate("box => box.closest('.tag_first-screen') !== null"):
            continue
        first = sliders(figure)[0].bounding_box()["y"]
        for picture in figure.locator("svg[role=img]").all():
            box = picture.bounding_box()
            assert box["y"] + box["height"] <= first, phone.name


def test_marks_and_names_stay_inside_their_picture(phone):
    """At both ends of every slider: no text in a chart is cut off."""
    for figure in figures(phone):
        for slider in sliders(figure):
            start = slider.input_value()
            for place in (slider.get_attribute("min"), slider.get_attribute("max")):
                slider.fill(place)
                assert figure.evaluate(CUT_OFF) == [], (phone.name, place)
            slider.fill(start)


def test_a_picture_is_there_without_javascript(seen, reading):
    if not figures(seen):
        return
    still = reading(seen.name, javascript=False)
    try:
        for figure in still.page.locator(FIGURE).all():
            pictures = figure.locator("svg[role=img], .fb-image img").all()
            assert pictures
            for picture in pictures:
                assert picture.is_visible()
            assert figure.locator("path.fb-l, img").count() > 0
            assert figure.locator("noscript p").is_visible()
    finally:
        still.page.context.close()
    assert not still.outside


def test_every_line_stands_out(seen):
    assert faint(seen) == []


def test_every_line_stands_out_in_the_dark(phone):
    assert faint(phone) == []


def faint(seen):
    """Lines with a contrast below 3 to their ground (WCAG 1.4.11)."""
    ground = luminance(
        seen.page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    )
    return [
        colour
        for figure in figures(seen)
        for colour in set(figure.evaluate(STROKES))
        if contrast(luminance(colour), ground) < 3
    ]


def contrast(one, other):
    light, dark = sorted((one, other), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour):
    """Relative luminance of ``rgb(r, g, b)``, by WCAG 2."""
    parts = [int(v) / 255 for v in colour.strip("rgba()").split(",")[:3]]
    linear = [
        v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts
    ]
    return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
