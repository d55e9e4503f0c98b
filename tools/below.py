"""Sphinx extension: code that a figure needs may stand below it on the page.

A notebook has to compute before it can draw. On the first page the figure comes first:
code cells tagged ``code-below`` are shown at the end of their section's own text, after
what the notebook has between them and the next heading. They run where they stand.
"""

from docutils import nodes
from sphinx.application import Sphinx

TAG = "tag_code-below"  # the class that myst-nb gives to such a cell


def code_below(_app: Sphinx, doctree: nodes.document) -> None:
    """Move the tagged cells of every section before its first subsection."""
    for section in list(doctree.findall(nodes.section)):
        cells = [node for node in section if TAG in node.get("classes", [])]
        rest = [node for node in section if node not in cells]
        inner = (n for n, node in enumerate(rest) if isinstance(node, nodes.section))
        end = next(inner, len(rest))
        section.children = [*rest[:end], *cells, *rest[end:]]


def setup(app: Sphinx) -> dict:
    """Register the move."""
    app.connect("doctree-read", code_below)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
