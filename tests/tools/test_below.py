"""Cells tagged code-below stand at the end of their section's own text."""

from docutils import nodes
from docutils.utils import new_document

from tools import below


def cell(text, *classes):
    return nodes.container("", nodes.paragraph("", text), classes=["cell", *classes])


def section(*children):
    return nodes.section("", *children)


def texts(node):
    """What stands directly in a section, in order; subsections in brackets."""
    return [
        texts(child) if isinstance(child, nodes.section) else child.astext()
        for child in node
    ]


def moved(*children):
    document = new_document("page")
    document += section(*children)
    below.code_below(None, document)
    return texts(document[0])


def test_cells_go_before_the_first_subsection_and_keep_their_order():
    code = [cell(text, "tag_code-below") for text in ("a", "b")]
    inner = section(cell("figure 2"), cell("c", "tag_code-below"), cell("after"))
    found = moved(*code, cell("figure"), nodes.paragraph("", "text"), inner, section())
    assert found == ["figure", "text", "a", "b", ["figure 2", "after", "c"], []]


def test_without_a_subsection_they_go_last():
    code = cell("a", "tag_code-below", "tag_hide-input")
    assert moved(code, cell("figure")) == ["figure", "a"]


def test_other_cells_stay():
    inner = section(cell("c"))
    assert moved(cell("a", "tag_hide-input"), cell("b"), inner) == ["a", "b", ["c"]]
