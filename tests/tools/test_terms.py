"""Words of the glossary: found once, as words, outside links and formulas."""

import pytest
from docutils import nodes

from tools import terms

IDS = {"margin": "term-margin", "flip": "term-flip", "flip radius": "term-flip-radius"}


def linked(text, seen=None):
    pieces = terms.split(text, IDS, set() if seen is None else seen)
    assert "".join(words for words, _ in pieces) == text
    return [piece for piece in pieces if piece[1]]


def test_the_first_use_only():
    seen = set()
    assert linked("A margin, and a margin.", seen) == [("margin", "term-margin")]
    assert linked("One more margin.", seen) == []


def test_the_longest_term_wins():
    assert linked("the flip radius") == [("flip radius", "term-flip-radius")]
    assert linked("the flip\nradius") == [("flip\nradius", "term-flip-radius")]


def test_capitals_and_plurals():
    assert linked("Margins decide.") == [("Margins", "term-margin")]
    assert linked("two flips") == [("flips", "term-flip")]


@pytest.mark.parametrize("text", ["marginal", "non-margin", "margin-based", "flipped"])
def test_parts_of_words_are_left_alone(text):
    assert linked(text) == []


def test_no_terms_no_links():
    assert terms.split("a margin", {}, set()) == [("a margin", "")]


def test_only_running_text_is_searched():
    document = nodes.document(None, None)
    plain = nodes.paragraph("", "", nodes.Text("one"), nodes.emphasis("", "two"))
    plain += [nodes.reference("", "three"), nodes.literal("", "four")]
    strip = nodes.container("", nodes.paragraph("", "five"), classes=["glance"])
    document += [nodes.title("", "six"), plain, strip]
    assert [str(text) for text in terms.places(document)] == ["one", "two"]


PAGE = """<dl class="glossary">
<dt id="term-a">a<a class="headerlink" href="#term-a">#</a></dt><dd><p>First
<a href="x.html"><span>link</span></a>.</p><p>Second.</p></dd>
<dt id="term-b">b</dt>
<dt id="term-c">c</dt><dd><p><span class="math">\\(x\\)</span></p></dd></dl>"""


def test_definitions_are_first_paragraphs_without_links():
    assert terms.definitions(PAGE) == {
        "term-a": "First <span>link</span>.",
        "term-b": '<span class="math">\\(x\\)</span>',
        "term-c": '<span class="math">\\(x\\)</span>',
    }
