"""What an explorer says in words is what it draws: at many settings of four figures."""

import re

SET = """(node, value) => {
  node.value = value;
  node.dispatchEvent(new Event("input", {bubbles: true}));
}"""


def figure(reading, chapter):
    return reading(f"book/{chapter}").page.locator(".fb-explorer").first


def settings(box, *, several):
    """Move each slider in turn, from several places of the others; yields each time."""
    sliders = box.get_by_role("slider").all()
    tops = [int(slider.get_attribute("max")) for slider in sliders]
    for part in several:
        for slider, top in zip(sliders, tops, strict=True):
            slider.evaluate(SET, round(part * top))
        for slider, top in zip(sliders, tops, strict=True):
            for place in range(top + 1):
                slider.evaluate(SET, place)
                yield
            slider.evaluate(SET, round(part * top))


def said(box):
    return box.locator(".fb-says").inner_text()


def numbers(box):
    rows = [row.inner_text() for row in box.locator(".fb-numbers > div").all()]
    return dict(row.split("\n") for row in rows)


def band(box, number, chart=0):
    """Left end and width of a shaded part, in units of the picture."""
    found = box.locator(".fb-chart").nth(chart).locator(f".fb-b{number}").first
    return [float(found.get_attribute(name)) for name in ("x", "width")]


def place(node):
    return [float(v) for v in re.findall(r"-?\d+", node.get_attribute("transform"))]


def test_a_claim_is_refuted_where_its_rung_is_too_long(reading):
    box, seen = figure(reading, "cardano_radius"), set()
    for _ in settings(box, several=(0.2, 0.6)):
        texts = [rung.text_content() for rung in box.locator(".fb-at").all()]
        rungs = {name: float(v) for name, v in (t.rsplit(" ", 1) for t in texts)}
        assert set(rungs) == {"exact", "valid cubic", "quadratic", "claim"}
        assert rungs["valid cubic"] <= rungs["exact"] * 1.01
        assert rungs["quadratic"] <= rungs["exact"] * 1.01
        apart = abs(rungs["claim"] / rungs["exact"] - 1) > 0.02
        assert ("refuted" in said(box)) == (
            rungs["claim"] > rungs["exact"]
        ) or not apart
        start, width = band(box, 0, chart=1)
        marks = dict(zip(rungs, box.locator(".fb-low .fb-p").all(), strict=True))
        assert start + width >= place(marks["exact"])[0] >= start - 1
        if apart and "refuted" not in said(box):
            assert place(marks["claim"])[0] <= start + 1
        seen.add("refuted" in said(box))
    assert seen == {True, False}


def test_an_image_is_read_wrong_on_the_shaded_part_of_the_walk(reading):
    box, seen = figure(reading, "uncanny_valley"), set()
    for _ in settings(box, several=(0.0, 0.5)):
        step = place(box.locator(".fb-chart .fb-v").first)[0]
        start, width = band(box, 0)
        wrong = width > 0 and step >= start
        assert ("instead of" in said(box)) == wrong
        seen.add(wrong)
    assert seen == {True, False}


def test_the_scale_hides_what_the_margin_finds(reading):
    box, seen = figure(reading, "gradient_masking"), set()
    for _ in settings(box, several=(0.0, 1.0)):
        shares = [float(v.split()[0]) for v in numbers(box).values()]
        fooled, still, honest = shares
        assert still <= fooled + 1
        hidden = "Nothing is hidden" not in said(box)
        assert hidden == (fooled - honest >= 5) or abs(fooled - honest - 5) <= 1
        assert f"{fooled:.0f}" in said(box)
        seen.add(hidden)
    assert seen == {True, False}


def test_a_bound_is_called_false_where_it_is_below_the_truth(reading):
    box, seen = figure(reading, "loss_bound"), set()
    for _ in settings(box, several=(0.0, 0.5, 1.0)):
        orange = box.locator("rect.fb-b0").all()
        width = sum(float(part.get_attribute("width")) for part in orange)
        assert ("is false" in said(box)) == (width > 0)
        found = {name: float(v) for name, v in numbers(box).items()}
        assert found["best bound"] >= found["rise at the flip"] * 0.99
        if found["printed there"] < found["rise at the flip"] * 0.98:
            assert "is false" in said(box)
        seen.add(width > 0)
    assert seen == {True, False}
