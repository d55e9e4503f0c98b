"""Chapters become a book: solutions, contents, heads, links that all lead somewhere."""

import json

import pytest
import yaml

from tools import binding, contents, paper

TOC = {
    "root": "book/intro",
    "parts": [
        {"caption": "First", "chapters": [{"file": "book/one"}]},
        {"caption": "Last", "chapters": [{"file": "book/end"}]},
    ],
}
EXERCISE = """<h1>{title}</h1><div class="exercise" id="ex-{n}">
<p class="admonition-title">Exercise {n}</p><p>What is it?</p></div>
<div class="solution" id="sol-{n}"><p class="admonition-title">Solution to
<a href="#ex-{n}">Exercise {n}</a></p><p>It is {n}.</p></div><p>After.</p>"""
CFF = {
    "title": "Flat: a book",
    "version": "0.1.0",
    "date-released": "2026-11-21",
    "authors": [{"name": "A group"}, {"given-names": "Ada", "family-names": "L"}],
}
SETTINGS = "<script>window.MathJax = {}</script>"
LOADED = '<script src="../_static/vendor/mathjax/tex.js"></script>'


def page(inside):
    return f'{SETTINGS}{LOADED}<article class="bd-article">{inside}</article>'


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A book of three pages with two exercises, and its build."""
    monkeypatch.setattr(
        binding.address, "address", lambda root: "https://github.com/a/b"
    )
    (tmp_path / "_toc.yml").write_text(yaml.safe_dump(TOC))
    (tmp_path / "CITATION.cff").write_text(json.dumps(CFF))
    config = {"html": {"extra_footer": "<p>Text CC BY 4.0</p>"}}
    (tmp_path / "_config.yml").write_text(yaml.safe_dump(config))
    build = tmp_path / "_build" / "html"
    (build / "book").mkdir(parents=True)
    style = "<style>.x { color: red }</style>"
    texts = {
        "intro": f'<h1>Why "flat"?</h1>{style}<a href="one.html#ex-1">one</a>',
        "one": EXERCISE.format(title="What is \\(L\\)?", n=1) + style,
        "end": EXERCISE.format(title="The end", n=2),
    }
    for name, text in texts.items():
        (build / "book" / f"{name}.html").write_text(page(text))
    return tmp_path


@pytest.fixture
def soup(book):
    return binding.document(book / "_build" / "html", book)


def test_order_of_the_book(soup):
    ids = [s["id"] for s in soup.select("section.chapter")]
    assert ids == ["intro", "one", "solutions", "end"]


def test_solutions_stand_in_the_appendix_under_their_chapter(soup):
    appendix = soup.find(id="solutions")
    assert [s["id"] for s in appendix.select(".solution")] == [
        "one--sol-1",
        "end--sol-2",
    ]
    assert len(soup.select(".solution")) == 2
    assert [h.get_text() for h in appendix.find_all("h2")] == [
        "What is \\(L\\)?",
        "The end",
    ]
    assert soup.find(id="one").get_text().strip().endswith("After.")


def test_exercise_and_solution_name_the_page_of_each_other(soup):
    there = soup.find(id="one--ex-1").select_one("p.where")
    assert there.a["href"] == "#one--sol-1"
    assert there.select_one(".page")["data-of"] == "one--sol-1"
    back = soup.find(id="one--sol-1").select_one("span.where .page")
    assert back["data-of"] == "one--ex-1"


def test_a_solution_without_its_exercise_is_refused():
    title = '<p class="admonition-title">Alone</p>'
    html = page(f'<h1>A</h1><div class="solution" id="sol-9">{title}</div>')
    chapter = paper.prepare(html, "book/one", ["book/one"], "https://x/")
    with pytest.raises(ValueError, match="one--sol-9 answers no exercise"):
        binding.collect([chapter])


def test_contents_list_every_chapter_with_a_place_for_its_page(soup):
    rows = soup.select("nav.toc li")
    words = [row.a.span.get_text() for row in rows]
    assert words == ['Why "flat"?', "What is \\(L\\)?", "Solutions", "The end"]
    assert [row.a["href"][1:] for row in rows] == [
        row.select_one(".page")["data-of"] for row in rows
    ]
    assert [p.get_text() for p in soup.select("nav.toc .part-caption")] == [
        "First",
        "Last",
    ]


def test_heads_repeat_the_titles(soup):
    rules = soup.head.style.string
    assert '@page chapter-0 { @top-left { content: "Why \\"flat\\"?" } }' in rules
    assert 'content: "What is L?"' in rules
    assert soup.find(id="one")["style"] == "page: chapter-1"
    assert rules.count(".x { color: red }") == 1
    assert not soup.body.find("style")


def test_headings_in_their_order_without_signs_of_formulas(soup):
    assert binding.headings(soup) == [
        *("Contents", 'Why "flat"?', "First", "What is L?"),
        *("Solutions", r"What is L?", "The end", "Last", "The end"),
    ]


def test_title_page(soup):
    words = soup.select_one(".cover").get_text(" ", strip=True)
    for part in (
        "Flat",
        "A book",
        "A group, Ada L",
        "0.1.0",
        "2026-11-21",
        "CC BY 4.0",
    ):
        assert part in words
    assert soup.select_one(".cover a")["href"] == "https://a.github.io/b/"


def test_mathjax_is_that_of_the_pages(soup):
    scripts = soup.head.find_all("script")
    assert "window.MathJax" in scripts[0].string
    assert scripts[1]["src"] == "../html/_static/vendor/mathjax/tex.js"


def test_a_link_to_nowhere_is_refused(book):
    intro = book / "_build" / "html" / "book" / "intro.html"
    intro.write_text(page('<h1>A</h1><a href="one.html#gone">gone</a>'))
    with pytest.raises(ValueError, match="one--gone"):
        binding.document(book / "_build" / "html", book)


def test_parts_hold_all_pages_in_their_order():
    listed = [page for part in contents.parts() for page in part.pages]
    assert listed == contents.toc()
    assert contents.parts()[0].caption == ""
