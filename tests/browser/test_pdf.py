"""A small document becomes a PDF in a real browser, and the checks find what is wrong.

The whole book takes minutes; ``make pdf`` makes the same checks on it.
"""

import pytest
from pypdf import PdfReader, PdfWriter
from pypdf.generic import NameObject, TextStringObject

from tools import pdf, pdf_check
from tools.pdf_check import Book

pytestmark = pytest.mark.xdist_group("pdf")
READY = "<script>window.MathJax = {startup: {promise: Promise.resolve()}}</script>"
TITLES = ("One", "What is L?")
BOOK = Book(TITLES, 1)
BODY = """<style>
@page { size: A4; margin: 20mm; @bottom-right { content: counter(page) } }
.chapter { break-before: page }</style>
<nav><h1>Contents</h1><ul><li><a href="#one">One</a> <span class="page"
data-of="one">000</span></li><li><a href="#two">Two</a> <span class="page"
data-of="two">000</span></li></ul></nav>
<section class="chapter" id="one"><h1>One</h1><p>First.</p>
<a href="#one--sol-a">Solution</a><p style="break-before: page">More.</p></section>
<section class="chapter" id="two"><h1>What is <b>L</b>?</h1>
<p id="one--sol-a">Two.</p><div><table style="min-width: 900px"><tr><td>Wide.</table>
</div>{more}</section>"""


def made(chromium, folder, more=""):
    """The document as a finished PDF."""
    document = folder / "small.html"
    html = f"<!DOCTYPE html><title>T</title>{READY}{BODY.replace('{more}', more)}"
    document.write_text(html, encoding="utf8")
    with pdf.opened(chromium, document) as page:
        whole = pdf.finished(pdf.numbered(page), ["Contents", *TITLES])
    path = folder / "small.pdf"
    path.write_bytes(whole)
    return path


@pytest.fixture(scope="module")
def small(chromium, tmp_path_factory):
    return made(chromium, tmp_path_factory.mktemp("pdf"))


def changed(path, change):
    """The PDF after a change, in another file."""
    writer = PdfWriter(clone_from=path)
    change(writer)
    target = path.with_name("changed.pdf")
    writer.write(target)
    return target


def test_pages_are_numbered_and_everything_is_in_its_place(small):
    """The wide table was made smaller, or there would be no PDF."""
    assert pdf_check.problems(small, BOOK) == []
    reader = PdfReader(small)
    assert len(reader.pages) == 4
    assert pdf_check.bookmarks(reader) == [
        ("Contents", 1),
        ("One", 2),
        ("What is L?", 4),
    ]
    words = reader.pages[0].extract_text().split()
    assert sorted(word for word in words if word.isdecimal()) == ["1", "2", "4"]
    assert pdf.places(small.read_bytes())["one--sol-a"] == 4
    assert "/Author" in reader.metadata
    assert reader.root_object["/MarkInfo"]["/Marked"]


@pytest.mark.parametrize(
    ("book", "problem"),
    [
        (Book(("One", "Three"), 1), "no bookmark, or not in its place: Three"),
        (Book(TITLES[::-1], 1), "no bookmark, or not in its place: One"),
        (Book(TITLES, 2), "1 solutions, and the notebooks have 2"),
    ],
)
def test_what_is_missing_is_named(small, book, problem):
    assert problem in pdf_check.problems(small, book)


def test_a_character_without_a_shape_is_found(chromium, tmp_path):
    found = pdf_check.problems(made(chromium, tmp_path, "<p>\U0010fffd</p>"), BOOK)
    assert found == ["page 4 has 1 characters that no typeface has"]


def test_a_page_that_is_cut_out_is_noticed(small):
    found = pdf_check.problems(changed(small, lambda w: w.remove_page(2)), BOOK)
    assert "page 3 does not print its number" in found
    assert "the contents tell other pages than [2, 3]" in found


def test_an_empty_page_is_noticed(small):
    found = pdf_check.problems(changed(small, lambda w: w.add_blank_page(9, 9)), BOOK)
    assert found == ["page 5 is empty"]


def test_a_link_to_nowhere_is_noticed(small):
    def misled(writer):
        links = (entry.get_object() for entry in writer.pages[0]["/Annots"])
        next(links)[NameObject("/Dest")] = TextStringObject("gone")

    found = pdf_check.problems(changed(small, misled), BOOK)
    assert found == ["a link on page 1 leads nowhere: gone"]


def test_a_typeface_that_is_not_in_the_file_is_named(small):
    def taken(writer):
        for font in pdf_check.fonts(writer.pages[0]).values():
            described = font["/FontDescriptor"].get_object()
            for key in [key for key in described if "/FontFile" in key]:
                del described[key]

    found = pdf_check.problems(changed(small, taken), BOOK)
    assert len(found) == 1
    assert found[0].startswith("not embedded: /")


def test_what_is_wider_than_the_paper_is_refused(chromium, tmp_path):
    wide = '<pre style="white-space: pre; width: 900px">long</pre>'
    with pytest.raises(pdf.NotSetError, match="two: pre long"):
        made(chromium, tmp_path, wide)


def test_without_formulas_nothing_is_printed(chromium, tmp_path):
    document = tmp_path / "bare.html"
    document.write_text("<!DOCTYPE html><p>no MathJax</p>")
    refused = pytest.raises(pdf.NotSetError, match="MathJax")
    with refused, pdf.opened(chromium, document):
        pytest.fail("opened")


def test_bookmarks_and_headings_must_be_as_many(small):
    with pytest.raises(pdf.NotSetError, match="3 bookmarks for 1 headings"):
        pdf.finished(small.read_bytes(), ["Contents"])


def test_what_the_sources_ask_for():
    book = pdf_check.expected()
    assert len(book.titles) == len(pdf_check.contents.toc())
    assert book.titles[0] == "Flat, and still fooled"
    assert book.solutions > len(pdf_check.contents.notebooks())
