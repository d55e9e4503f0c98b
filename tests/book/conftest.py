"""The built pages, read once. Without them these tests fail: make test builds first."""

from html.parser import HTMLParser

import pytest

from tools import contents

HTML = contents.ROOT / "_build" / "html"
VOID = {"img", "br", "hr", "input", "meta", "link", "source", "wbr", "col"}


class Page(HTMLParser):
    """What the tests ask of a page: links, ids, pictures, requests, texts."""

    def __init__(self, path):
        super().__init__()
        self.path, self.raw = path, path.read_text(encoding="utf8")
        self.links, self.ids, self.classes = [], set(), []
        self.pictures, self.requests, self.meta = [], [], {}
        self.words, self._silent = [], []
        self.feed(self.raw)
        self.text = " ".join(self.words)

    def handle_starttag(self, tag, attrs):
        a = {name: value or "" for name, value in attrs}
        if "id" in a:
            self.ids.add(a["id"])
        self.classes += a.get("class", "").split()
        if tag == "a" and a.get("href"):
            self.links.append(a["href"])
        if tag == "img":
            self.pictures.append((a.get("src", "")[:60], a.get("alt", "")))
        if a.get("role") == "img":
            self.pictures.append((f"<{tag} role=img>", a.get("aria-label", "")))
        if tag in ("script", "img", "iframe", "video", "source", "embed"):
            self.requests.append(a.get("src", ""))
        if tag == "link" and a.get("rel") != "canonical":
            self.requests.append(a.get("href", ""))
        if tag == "meta" and "name" in a:
            self.meta[a["name"]] = a.get("content", "")
        if tag in ("script", "style"):
            self._silent.append(tag)

    def handle_endtag(self, tag):
        if self._silent and tag == self._silent[-1]:
            self._silent.pop()

    def handle_data(self, data):
        if not self._silent:
            self.words.append(data)


@pytest.fixture(scope="session")
def toc():
    names = contents.toc()
    assert len(names) > 2
    return names


@pytest.fixture(scope="session")
def html():
    assert (HTML / "index.html").is_file(), "the book is not built: run make book"
    return HTML


@pytest.fixture(scope="session")
def pages(html):
    """Every HTML page of the site, by path."""
    found = sorted(p for p in html.rglob("*.html") if "_static" not in p.parts)
    assert found
    return {path: Page(path) for path in found}


@pytest.fixture(scope="session")
def chapter_pages(pages, toc, html):
    """The pages of the table of contents, by name."""
    return {name: pages[html / f"{name}.html"] for name in toc}
