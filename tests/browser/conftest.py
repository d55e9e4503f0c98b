"""One real browser for all tests; every page is opened once, with the network off.

Tests that take ``seen`` or ``phone`` run for each page of the site. With xdist all
tests of a page run in one worker.
"""

from statistics import median

import pytest
from playwright.sync_api import sync_playwright

from tests.browser.site import DESKTOP, HTML, MODE, PHONE, Seen, names
from tools import browser

SET = "window.MathJax?.startup?.promise?.then(() => null)"


def pytest_terminal_summary(terminalreporter):
    """How soon pages from disk could be used, measured while other tests ran too."""
    passed = terminalreporter.stats.get("passed", [])
    known = [dict(r.user_properties)["usable"] for r in passed if r.user_properties]
    if not known:
        return
    for number, what in enumerate(("sliders answer", "equations are in view")):
        times = sorted(seconds[number] for seconds in known)
        terminalreporter.write_line(
            f"from disk, beside other work, {what} after {median(times):.1f} s "
            f"(median page), {times[-1]:.1f} s (slowest)"
        )


@pytest.fixture(scope="session")
def chromium():
    program = browser.find()
    assert program, f"python -m tools.browser: {browser.MISSING}"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=program,
            env=browser.environment(program),
            args=["--disable-gpu"],
        )
        yield started
        started.close()


@pytest.fixture(scope="session")
def reading(chromium):
    """Open a page as one reader does, whose screen and scheme stay as they are."""
    contexts = []

    def read(name, size=DESKTOP, scheme="light", *, javascript=True, **place):
        context = chromium.new_context(
            viewport=size,
            offline=True,
            java_script_enabled=javascript,
            reduced_motion="reduce",
            color_scheme=scheme,
        )
        contexts.append(context)
        seen = Seen(name, context.new_page())
        seen.listen()
        path = HTML / f"{name}.html"
        assert path.is_file(), f"{path} is not built: run make book"
        seen.page.goto(path.as_uri() + place.get("query", ""))
        seen.page.wait_for_url(place.get("arrives", "**/*"))
        if javascript:
            assert seen.page.evaluate(MODE) == scheme
            seen.page.evaluate(SET)
            seen.ready = seen.page.evaluate("performance.now() / 1000")
        return seen

    yield read
    for context in contexts:
        context.close()


EACH = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in names()]


@pytest.fixture(scope="session", params=EACH)
def seen(request, reading):
    """A page, opened on a desktop in the light; tests leave it as they found it."""
    opened = reading(request.param)
    yield opened
    opened.page.context.close()


@pytest.fixture(scope="session", params=EACH)
def phone(request, reading):
    """A page, opened on a phone in the dark; tests leave it as they found it."""
    opened = reading(request.param, size=PHONE, scheme="dark")
    yield opened
    opened.page.context.close()
