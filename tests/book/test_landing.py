"""The first page: the figure comes first, and every chapter is on its map."""

import re

import pytest
import yaml

from tools import contents

CARD = re.compile(r'<div class="sd-card-title[^>]*>\s*(.*?)</div>(.*?)</ul>', re.S)
LINK = re.compile(r'<a class="reference internal" href="(\w+)\.html"')


@pytest.fixture(scope="module")
def article(chapter_pages, toc):
    return re.search(r"<article.*?</article>", chapter_pages[toc[0]].raw, re.S)[0]


def test_title_figure_steps_strip_and_code_in_this_order(article):
    marks = ("<h1", 'class="fb-explorer', "<ol", 'class="glance', 'class="cell_input')
    places = [article.find(mark) for mark in marks]
    assert -1 not in places
    assert places == sorted(places)
    assert article.count('class="fb-explorer') == 1


def test_two_sentences_before_the_figure(article):
    before = article[article.find("</h1>") : article.find('class="fb-explorer')]
    paragraphs = re.findall(r"<p\b[^>]*>(.*?)</p>", before, re.S)
    assert len(paragraphs) == 1
    assert len(re.findall(r"[.?!](?=\s|$)", paragraphs[0])) == 2


def test_all_code_of_the_figure_is_on_the_page(article):
    head = article[: article.find("<h2")]
    cells = contents.cells(contents.ROOT / f"{contents.toc()[0]}.ipynb", "code")
    tagged = [c for c in cells if "code-below" in contents.tags(c)]
    assert head.count('class="cell_input') == len(tagged) > 1


def test_the_map_shows_the_parts_and_chapters_of_the_book(article):
    """In their order; the back matter is no part of the way."""
    start = article.find('id="the-map"')
    drawn = {
        title.strip(): LINK.findall(chapters)
        for title, chapters in CARD.findall(article[start:])
    }
    toc = yaml.safe_load((contents.ROOT / "_toc.yml").read_text(encoding="utf8"))
    wanted = {
        part["caption"]: [c["file"].removeprefix("book/") for c in part["chapters"]]
        for part in toc["parts"]
        if part.get("numbered", True)
    }
    assert list(drawn.items()) == list(wanted.items())
