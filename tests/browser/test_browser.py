"""Without a browser this is the only test here, and it says what was not checked."""

import pytest

from tools import browser


def test_there_is_a_browser():
    if browser.complete():
        return
    assert not browser.needed(), browser.MISSING
    pytest.skip(
        f"not checked: scripts, sliders, equations, accessibility and layout of the "
        f"pages ({browser.MISSING})"
    )
