"""Equations in view come first, the others in pauses; paper and links do not wait."""

import pytest

CHAPTER = "book/cardano_radius"
SHORT = "book/intro"
NO_PAUSE = "window.requestIdleCallback = () => 0;"  # a page that never rests
IN_VIEW = "performance.getEntriesByName('equations in view').length === 1"
UNSET = """() => [...document.querySelectorAll("article .math")]
  .filter(node => !node.querySelector("mjx-container"))
  .map(node => [node.getClientRects().length > 0,
    node.getBoundingClientRect().top, node.getBoundingClientRect().bottom])"""
TOP = "name => document.getElementById(name).getBoundingClientRect().top"
ICONS = """() => [...document.querySelectorAll('[class^="fa"], [class*=" fa-"]')]
  .filter(node => node.getClientRects().length).map(node => {
    const {content, fontFamily, fontWeight} = getComputedStyle(node, "::before");
    return {name: node.className, content, hidden: node.ariaHidden,
      font: document.fonts.check(`${fontWeight} 20px ${fontFamily}`, content),
      width: node.getBoundingClientRect().width};
  })"""


@pytest.fixture
def restless(reading):
    """A chapter of which nothing but the equations in view is set."""
    seen = reading("search")  # a page of this reader without equations
    seen.page.add_init_script(NO_PAUSE)
    seen.page.goto(seen.page.url.replace("search", CHAPTER))
    seen.page.wait_for_function(IN_VIEW)
    return seen


def test_equations_in_view_are_set_first(restless):
    height = restless.page.viewport_size["height"]
    unset = restless.page.evaluate(UNSET)
    assert len(unset) > 100
    assert not [u for u in unset if u[0] and u[1] < height and u[2] > 0]


def test_paper_has_all_equations(restless):
    restless.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert restless.page.evaluate(UNSET) == []
    assert restless.is_silent(), restless


def test_a_page_that_rests_sets_all_equations(reading):
    seen = reading(CHAPTER)
    assert seen.page.evaluate(UNSET) == []
    marked = "performance.getEntriesByName('equations in view')[0].startTime / 1000"
    assert 0 < seen.page.evaluate(marked) < seen.ready


@pytest.mark.parametrize("name", ["attacked", "prop-kappa-is-not-enough"])
def test_a_link_leads_to_its_place_although_equations_are_set_later(reading, name):
    seen = reading(CHAPTER, query=f"#{name}")
    height = seen.page.viewport_size["height"]
    assert seen.page.evaluate("window.scrollY") > 2 * height
    assert 0 <= seen.page.evaluate(TOP, name) < height / 4
    assert seen.page.evaluate(UNSET) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_icons_are_drawn_without_a_script(reading, scheme):
    seen = reading(SHORT, scheme=scheme)
    seen.page.evaluate("document.fonts.ready.then(() => null)")
    icons = seen.page.evaluate(ICONS)
    assert len(icons) > 5
    for icon in icons:
        assert icon["content"] not in ("none", "normal", '""'), icon
        assert icon["font"], icon
        assert icon["width"] >= 8, icon
        assert icon["hidden"] == "true", icon
    assert seen.is_silent(), seen


def test_the_search_of_a_chapter_leads_to_what_is_found(reading):
    seen = reading(SHORT)
    seen.page.keyboard.press("Control+k")
    seen.page.locator("#pst-search-dialog input").fill("curvature")
    seen.page.keyboard.press("Enter")
    seen.page.wait_for_url("**/search.html?q=curvature")
    seen.page.locator("#search-results li a").first.wait_for()
    assert seen.is_silent(), seen
