"""One real browser for all tests; every page is opened once, with the network off.

Tests that take ``seen`` run for each page of the site. With xdist all tests of a page
run in one worker. Without a browser one test is left, which says so.
"""

from statistics import median

import pytest
from playwright.sync_api import sync_playwright

from tests.browser.site import DESKTOP, HTML, Seen, names
from tools import browser, contents

ALWAYS = "test_there_is_a_browser"
SET = "window.MathJax?.startup?.promise?.then(() => null)"


def pytest_collection_modifyitems(config, items):
    mine = [
        item for item in items if item.path.parent == contents.ROOT / "tests/browser"
    ]
    if not browser.complete():
        away = [item for item in mine if item.name != ALWAYS]
        items[:] = [item for item in items if item not in away]
        config.hook.pytest_deselected(items=away)


def pytest_terminal_summary(terminalreporter):
    """How soon pages from disk could be used, measured while other tests ran too."""
    passed = terminalreporter.stats.get("passed", [])
    known = [dict(r.user_properties)["usable"] for r in passed if r.user_properties]
    if not known:
        return
    for number, what in enumerate(("sliders answer", "equations are set")):
        times = sorted(seconds[number] for seconds in known)
        terminalreporter.write_line(
            f"from disk, beside other work, {what} after {median(times):.1f} s "
            f"(median page), {times[-1]:.1f} s (slowest)"
        )


@pytest.fixture(scope="session")
def chromium():
    program = browser.find()
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
    """Open a page as one reader: ``reading(name, javascript=..., size=...)``."""
    contexts = []

    def read(name, query="", size=DESKTOP, javascript=True, arrives="**/*"):
        context = chromium.new_context(
            viewport=size,
            offline=True,
            java_script_enabled=javascript,
            reduced_motion="reduce",
            color_scheme="light",
        )
        contexts.append(context)
        seen = Seen(name, context.new_page())
        seen.listen()
        path = HTML / f"{name}.html"
        assert path.is_file(), f"{path} is not built: run make book"
        seen.page.goto(path.as_uri() + query)
        seen.page.wait_for_url(arrives)
        if javascript:
            seen.page.evaluate(SET)
            seen.ready = seen.page.evaluate("performance.now() / 1000")
        return seen

    yield read
    for context in contexts:
        context.close()


@pytest.fixture(
    scope="session",
    params=[pytest.param(n, marks=pytest.mark.xdist_group(n)) for n in names()],
)
def seen(request, reading):
    """A page, opened on a desktop in the light; tests leave it as they found it."""
    opened = reading(request.param)
    yield opened
    opened.page.context.close()
