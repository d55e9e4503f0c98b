"""Sheets to hand out, as a browser prints them."""

import re

import pytest

from tests.browser.site import names

SHEETS = [name for name in names() if name.startswith("book/handouts/")]


def test_there_are_sheets():
    assert len(SHEETS) >= 4


@pytest.mark.parametrize(
    "paper", [{"prefer_css_page_size": True}, {"format": "Letter"}]
)
@pytest.mark.parametrize("name", SHEETS)
def test_a_handout_prints_on_one_page(name, paper, reading):
    """On the paper that it asks for, and on the American one."""
    sheet = reading(name).page.pdf(**paper)
    assert len(re.findall(rb"/Type ?/Page\b", sheet)) == 1
