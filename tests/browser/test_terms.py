"""Definitions over the glossary's words: pointer, keyboard, no network, no script."""

import pytest

from tests.browser.site import PHONE

BOX = "#fb-definition"
CHAPTER = "book/uncanny_valley"
WORD = 'a.fb-term[href$="#term-ramp"]'
FORMULA = 'a.fb-term[href$="#term-softmax"]'


@pytest.fixture
def chapter(reading):
    return reading(CHAPTER)


def test_the_pointer_opens_and_the_box_can_be_entered(chapter):
    page = chapter.page
    link = page.locator(WORD)
    link.hover()
    page.wait_for_selector(BOX, state="visible")
    assert "straight and steep" in page.locator(BOX).inner_text()
    assert link.get_attribute("aria-describedby") == BOX.strip("#")
    page.locator(BOX).hover()
    page.wait_for_timeout(400)
    assert page.locator(BOX).is_visible()
    page.mouse.move(5, 5)
    page.wait_for_selector(BOX, state="hidden")
    assert link.get_attribute("aria-describedby") is None
    assert chapter.is_silent(), (chapter.errors, chapter.outside)


def test_the_keyboard_opens_and_escape_closes(chapter):
    page = chapter.page
    page.locator(WORD).focus()
    page.wait_for_selector(BOX, state="visible")
    page.keyboard.press("Escape")
    page.wait_for_selector(BOX, state="hidden")
    page.locator(FORMULA).focus()
    page.wait_for_selector(f"{BOX} mjx-container", state="visible")
    page.keyboard.press("Tab")
    page.wait_for_selector(f"{BOX} mjx-container", state="hidden")
    assert chapter.is_silent(), (chapter.errors, chapter.outside)


def test_the_box_stays_on_a_phone(reading):
    page = reading(CHAPTER, size=PHONE).page
    for link in page.locator("a.fb-term").all()[:8]:
        link.focus()
        page.wait_for_selector(BOX, state="visible")
        place = page.locator(BOX).bounding_box()
        assert place["x"] >= 0
        assert place["x"] + place["width"] <= PHONE["width"]
        page.keyboard.press("Escape")


def test_without_a_script_the_word_is_a_link(reading):
    page = reading(CHAPTER, javascript=False).page
    page.locator(WORD).click()
    assert page.url.endswith("glossary.html#term-ramp")
