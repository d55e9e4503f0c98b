"""Every page in a browser: silent, whole, readable, and alone with its files."""

from tests.browser.site import HTML, MODE
from tools import browser

PATIENCE = 60  # seconds: on an idle machine a page takes well under one
USABLE = """() => {
  const parsed = performance.getEntriesByType("navigation")[0].domInteractive;
  const shown = performance.getEntriesByName("equations in view")[0];
  return [parsed / 1000, (shown?.startTime ?? parsed) / 1000];
}"""
STYLED = ("color-contrast", "link-in-text-block", "scrollable-region-focusable")
# exception: axe-core reads no MathML, and calls a header cell with an equation empty
AXE = """options => axe.run(document, {...options, resultTypes: ["violations"]})
  .then(found => found.violations
    .map(({nodes, ...rest}) => ({...rest, nodes: nodes.filter(({target}) =>
      rest.id !== "empty-table-header" ||
      !document.querySelector(target[0]).querySelector("mjx-container"))}))
    .filter(({nodes}) => nodes.length)
    .map(({id, impact, help, nodes}) => `${impact}: ${id}: ${help}: ` +
      nodes.slice(0, 3).map(({html}) => html.slice(0, 200)).join(" | ")))"""
# What sticks out on its own account: not inside a box that scrolls or stands fixed
WIDE = """() => {
  const width = document.documentElement.clientWidth;
  const all = document.scrollingElement.scrollWidth;
  const kept = node => {
    for (let box = node; box !== document.body; box = box.parentElement) {
      const {overflowX, position} = getComputedStyle(box);
      const scrolls = box !== node && overflowX !== "visible";
      if (scrolls || position === "fixed") return true;
    }
  };
  const out = node => node.getBoundingClientRect().right > width + 1 && !kept(node);
  return all <= width ? [] : [all, ...[...document.querySelectorAll("body *")]
    .filter(out).slice(-5).map(node => node.outerHTML.slice(0, 200))];
}"""
# formulas whose end is outside of their box and cannot be reached, in folds too
CUT = """() => {
  const folds = [...document.querySelectorAll("details:not([open])")];
  folds.forEach(fold => { fold.open = true; });
  const cut = [...document.querySelectorAll("article span.math")].filter(node =>
    node.scrollWidth > node.clientWidth + 1 &&
    getComputedStyle(node).overflowX !== "auto");
  folds.forEach(fold => { fold.open = false; });
  return cut.map(node => node.textContent.slice(0, 80));
}"""
PICTURES = """() => [...document.querySelectorAll(
  "article img, article svg[role=img], article canvas")].map(node => ({
    alt: (node.alt || node.getAttribute("aria-label") || "").trim(),
    whole: node.tagName !== "IMG" || (node.complete && node.naturalWidth > 0),
    what: node.outerHTML.slice(0, 120)}))"""
# MathJax shows an unknown command in red; other errors have an element of their own
MATHEMATICS = """() => ({
  asked: document.querySelectorAll("article .math").length,
  set: document.querySelectorAll("article .math mjx-container").length,
  wrong: [...document.querySelectorAll(
    "mjx-merror, [data-mjx-error], mjx-math [style*='color: red']")]
    .map(node => node.outerHTML.slice(0, 200)),
  fonts: [...document.fonts].filter(font => font.status === "error")
    .map(font => font.family),
})"""


def test_pages_are_usable_soon(seen, record_property):
    """The parser starts the sliders; equations in view are the first to be set."""
    parsed, shown = seen.page.evaluate(USABLE)
    record_property("usable", (parsed, shown))
    assert 0 < parsed <= shown <= seen.ready < PATIENCE


def test_mathematics_is_set(seen):
    found = seen.page.evaluate(MATHEMATICS)
    assert found["wrong"] == []
    assert found["fonts"] == []
    assert found["set"] >= found["asked"]


def test_pictures_are_whole_and_described(seen):
    for picture in seen.page.evaluate(PICTURES):
        assert picture["whole"], picture["what"]
        assert picture["alt"], picture["what"]


def barriers(seen, **options):
    """All findings of axe-core, minor ones too."""
    if not seen.page.evaluate("'axe' in window"):
        seen.page.evaluate(browser.axe().read_text(encoding="utf8"))
    return seen.page.evaluate(AXE, {"preload": False, **options})


def test_no_barrier(seen):
    assert barriers(seen) == []


def test_no_barrier_in_the_dark_on_a_phone(phone):
    """The rules that colours and the size of the screen decide."""
    assert barriers(phone, runOnly=STYLED) == []


def test_nothing_is_wider_than_the_screen(seen):
    assert seen.page.evaluate(WIDE) == []


def test_nothing_is_wider_than_a_phone(phone):
    assert phone.page.evaluate(WIDE) == []


def test_no_formula_is_cut_on_a_phone(phone):
    assert phone.page.evaluate(CUT) == []


def test_last_no_error_and_no_request(seen):
    """After all the others: of the page and of all that was done on it."""
    assert seen.is_silent(), seen


def test_last_no_error_and_no_request_on_a_phone(phone):
    assert phone.is_silent(), phone


def test_the_first_page_leads_to_the_book(reading):
    seen = reading("index", arrives="**/intro.html")
    assert seen.is_silent(), seen


def test_the_mode_can_be_switched(reading):
    seen = reading("book/intro")
    button = seen.page.locator(".theme-switch-button:visible").first
    modes = set()
    for _ in range(3):
        button.focus()
        seen.page.keyboard.press("Enter")
        modes.add(seen.page.evaluate(MODE))
    assert modes == {"light", "dark"}
    assert not seen.errors


def test_search_finds_pages_without_a_network(reading):
    seen = reading("search", query="?q=curvature")
    found = seen.page.locator("#search-results li a")
    found.first.wait_for()
    seen.page.locator("#search-results .search-summary").wait_for()
    links = [link.get_attribute("href").split("?")[0] for link in found.all()]
    assert len(links) > 5
    assert all((HTML / link.split("#")[0]).is_file() for link in links)
    assert seen.is_silent(), seen
