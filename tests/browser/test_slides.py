"""Every deck in a browser: silent, whole on its canvas, with an explorer that moves."""

import pytest

from tests.browser.site import DESKTOP, HTML, MODE
from tools import contents

DECKS = sorted(p.stem for p in contents.notebooks() if contents.slides(p))
SMALLEST = 0.6  # of the usual size of the letters
READY = "window.deckReady.then(() => null)"
# what each slide needs of the canvas; they are shown one after another
SHEETS = """() => [...document.querySelectorAll(".sheet")].map((sheet, i) => {
  const slide = sheet.closest("section"), place = Reveal.getIndices(slide);
  Reveal.slide(place.h, place.v, 99);
  const box = sheet.getBoundingClientRect(), scale = Reveal.getScale();
  const parts = [...sheet.querySelectorAll("div.math, pre, figure, img, table")];
  return {
    number: i + 1,
    says: sheet.textContent.trim().slice(0, 50),
    high: box.height / scale <= Reveal.getConfig().height + 1,
    wide: !parts.some(node => {
      const part = node.getBoundingClientRect();
      return node.scrollWidth > node.clientWidth + 1 && node.tagName !== "IMG" ||
        part.right > slide.getBoundingClientRect().right + 1;
    }),
    filled: box.height > 0,
    zoom: parseFloat(sheet.style.zoom),
  };
})"""
MATHEMATICS = """() => ({
  asked: document.querySelectorAll(".sheet .math").length,
  set: document.querySelectorAll(".sheet .math mjx-container").length,
  wrong: document.querySelectorAll("mjx-merror, .notes .math, merror").length,
})"""


@pytest.fixture
def deck(request, reading):
    opened = reading(f"slides/{request.param}")
    opened.page.evaluate(READY)
    yield opened
    opened.page.context.close()


@pytest.mark.parametrize("deck", DECKS, indirect=True)
def test_a_deck_can_be_shown(deck):
    """One visit for all questions: opening a page is what takes the time."""
    sheets = deck.page.evaluate(SHEETS)
    assert len(sheets) == contents.slides(
        contents.ROOT / "book" / f"{deck.name.split('/')[1]}.ipynb"
    )
    for sheet in sheets:
        assert sheet["filled"], sheet
        assert sheet["high"], sheet
        assert sheet["wide"], sheet
        assert sheet["zoom"] > SMALLEST, sheet
    found = deck.page.evaluate(MATHEMATICS)
    assert found["wrong"] == 0
    assert found["set"] >= found["asked"]
    the_explorer_moves(deck.page)
    assert deck.is_silent(), deck


def the_explorer_moves(page):
    """Arrow keys move the slider, not the slide; a presenter's key leaves it."""
    page.evaluate(
        "Reveal.slide(...Object.values(Reveal.getIndices("
        "document.querySelector('.fb-explorer').closest('section'))))"
    )
    here = page.evaluate("Reveal.getIndices()")
    slider = page.locator(".fb-explorer input[type=range]").first
    slider.focus()
    slider.press("Home")
    before = page.locator(".fb-explorer").inner_html()
    slider.press("ArrowRight")
    assert slider.input_value() == "1"
    assert page.locator(".fb-explorer").inner_html() != before
    assert page.evaluate("Reveal.getIndices()") == here
    slider.press("PageDown")
    assert slider.input_value() == "1"
    assert page.evaluate("Reveal.getIndices()") != here


def test_light_and_dark_with_a_key(reading):
    seen = reading(f"slides/{DECKS[0]}")
    seen.page.evaluate(READY)
    modes = []
    for _ in range(2):
        seen.page.keyboard.press("d")
        modes.append(seen.page.evaluate(MODE))
    assert modes == ["dark", "light"]
    assert seen.is_silent(), seen


def test_the_list_leads_to_every_deck(reading):
    seen = reading("slides/index", size=DESKTOP)
    links = [a.get_attribute("href") for a in seen.page.locator("ol a").all()]
    assert sorted(links) == [f"{name}.html" for name in DECKS]
    assert all((HTML / "slides" / link).is_file() for link in links)
    assert seen.is_silent(), seen
