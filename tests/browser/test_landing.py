"""The first screen of the first page, before anybody scrolls: a figure to play with."""

import pytest

from tests.browser.site import DESKTOP, PHONE

# of a phone's height the bars of its browser take away up to a quarter
BARS = {**PHONE, "height": 660}
screens = pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])


@pytest.fixture(scope="module")
def first(reading):
    """The first page, opened anew on a screen of each size."""
    opened = {}

    def open_on(size):
        key = tuple(size.values())
        if key not in opened:
            opened[key] = reading("book/intro", size=size)
        return opened[key]

    yield open_on
    for seen in opened.values():
        seen.page.context.close()


def parts(seen):
    """Title, sentences, first slider, image and chart."""
    figure = seen.page.locator(".fb-explorer").first
    return [
        seen.page.locator("article h1"),
        seen.page.locator("article h1 + p"),
        figure.get_by_role("slider").first,
        figure.locator(".fb-image img"),
        figure.locator(".fb-chart > svg"),
    ]


def sides(part):
    box = part.bounding_box()
    return box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]


@screens
def test_the_figure_is_seen_without_scrolling(first, size):
    seen = first(size)
    assert seen.page.evaluate("window.scrollY") == 0
    for part in parts(seen):
        left, top, right, bottom = sides(part)
        assert 0 <= left < right <= size["width"], part
        assert 0 <= top < bottom <= size["height"], part


@screens
def test_the_chart_is_large_enough_to_read(first, size):
    left, top, right, bottom = sides(parts(first(size))[-1])
    assert right - left >= 0.34 * size["width"]
    assert bottom - top >= 190


def test_slider_image_and_answer_stay_above_the_bars_of_a_phone(first):
    seen = first(BARS)
    figure = seen.page.locator(".fb-explorer").first
    for part in (*parts(seen)[:-1], figure.locator(".fb-numbers")):
        assert sides(part)[3] <= BARS["height"]
    chart = sides(parts(seen)[-1])
    assert (BARS["height"] - chart[1]) / (chart[3] - chart[1]) > 0.5


@screens
def test_the_first_slider_leads_from_right_to_wrong(first, size):
    seen = first(size)
    figure = seen.page.locator(".fb-explorer").first
    slider, answer = figure.get_by_role("slider").first, figure.locator("b").first
    assert "right" in answer.text_content()
    slider.press("End")
    assert "wrong" in answer.text_content()
    slider.press("Home")
    assert "right" in answer.text_content()
    assert seen.is_silent(), seen
