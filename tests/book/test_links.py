"""Addresses outside of the book: listed, well-formed, and opened by readers only."""

import re
from urllib.parse import urlsplit

from tools import links

NAME = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")


def outside(page):
    """What a page links to on other machines, read without the tool."""
    return {href for href in page.links if re.match(r"([a-z]+:)?//", href)}


def test_the_list_is_complete(pages, html):
    listed = links.external(html)
    for path, page in pages.items():
        name = path.relative_to(html).with_suffix("").as_posix()
        assert outside(page) == {to for to, where in listed.items() if name in where}
    assert links.LIST.read_text(encoding="utf8") == links.listing(listed)
    assert "https://arxiv.org/abs/2510.14231" in listed


def test_addresses_are_well_formed(html):
    for target, names in links.external(html).items():
        url = urlsplit(target)
        assert url.scheme == "https", (target, names)
        assert NAME.fullmatch(url.netloc), (target, names)
        assert not re.search(r"[\s<>\"{}|\\^`]", target), (target, names)
        assert not url.path.endswith((".", ",", ")", ";")), (target, names)


def test_pages_load_nothing_from_them(pages, html):
    listed = set(links.external(html))
    for path, page in pages.items():
        assert not listed & set(page.requests), path
