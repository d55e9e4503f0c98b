"""Formulas keep their punctuation, and no text is lost or added."""

import pytest
from docutils import nodes

from tools import ties


def tied(before, after):
    """A paragraph with a formula between two texts, and what its box holds."""
    formula = nodes.math("", "x")
    around = [nodes.Text(before)] if before else []
    paragraph = nodes.paragraph("", "", *around, formula, nodes.Text(after))
    text = paragraph.astext()
    ties.tie(formula)
    assert paragraph.astext() == text
    return [box.astext() for box in paragraph.findall(nodes.inline)]


@pytest.mark.parametrize(
    ("before", "after", "box"),
    [
        ("For ", ". Then", "x."),
        ("the (", "), that", "(x),"),
        ("", ": a", "x:"),
        ("the “", "”", "“x”"),
        ("the ", "-th row", "x-th"),
        ("the ", "’s size", "x’s"),
    ],
)
def test_marks_that_touch_a_formula_are_tied_to_it(before, after, box):
    assert tied(before, after) == [box]


@pytest.mark.parametrize("after", [" and", " (so)", "", " ."])
def test_words_are_not(after):
    assert tied("for ", after) == []


def test_a_formula_beside_a_link_is_left_alone():
    formula = nodes.math("", "x")
    paragraph = nodes.paragraph("", "", nodes.reference("", "("), formula)
    ties.tie(formula)
    assert [type(child) for child in paragraph] == [nodes.reference, nodes.math]
