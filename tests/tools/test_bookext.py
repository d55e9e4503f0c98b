"""What the extension changes in a page for readers with screen readers."""

import pytest
from docutils import nodes

from tools import bookext


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ('<summary aria-label="Toggle hidden content">', "<summary>"),
        ('<div role="list" class="citation-list">', '<div class="citation-list">'),
        (
            '<div class="citation" id="id7" role="doc-biblioentry">',
            '<div class="citation" id="id7">',
        ),
        (
            '<div class="result-card">',
            '<div class="result-card" role="region" aria-label="Results" tabindex="0">',
        ),
        ('<th class="head"><p></p></th>', '<td class="head"></td>'),
        ("<th></th>", "<td></td>"),
        ("<th>x</th>", "<th>x</th>"),
        ('<th class="head"><p>x</p></th>', '<th class="head"><p>x</p></th>'),
    ],
)
def test_accessible(given, wanted):
    assert bookext.accessible(f"<p>{given}</p>") == f"<p>{wanted}</p>"


def test_folds_of_the_contents_say_what_they_open():
    item = '<li><a class="x" href="t.html">Teaching</a><details>{}<ul></ul></details>'

    def toctree(kind, depth=1):
        return item.format("<summary>") * depth

    listed = bookext.named_folds(toctree)("sidebar", depth=2)
    assert listed == item.format('<summary aria-label="Pages of: Teaching">') * 2
    assert bookext.named_folds(toctree)("raw") == item.format("<summary>")


def test_a_strip_has_one_row_for_each_label_and_no_empty_one():
    words = [nodes.Text(""), nodes.strong("", "Goal."), nodes.Text(" See.")]
    words += [nodes.strong("", "You need."), nodes.Text(" A "), nodes.strong("", "pen")]
    found = bookext.rows(nodes.paragraph("", "", *words))
    assert [row.astext() for row in found] == ["Goal. See.", "You need. A pen"]
