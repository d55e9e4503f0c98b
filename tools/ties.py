"""Sphinx extension: a line never ends between a formula and its punctuation.

A browser may break a line on either side of a formula, since it is a box to it: a full
stop would open the next line, an opening parenthesis end this one. Formula and marks
are put into one box that does not break.
"""

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

OPENING = re.compile(r"(?<!\S)[(\[“‘]+$")
CLOSING = re.compile(r"^(?:’s|-\w+|[.,;:!?)\]”’])+")


def tie(formula: nodes.math) -> None:
    """Put a formula and the marks that touch it into one box."""
    box = nodes.inline("", "", classes=["fb-tied"])
    parent = formula.parent
    place = parent.index(formula)
    before = parent[place - 1] if place else None
    after = parent[place + 1] if place + 1 < len(parent) else None
    if isinstance(before, nodes.Text) and (mark := OPENING.search(before)):
        parent[place - 1] = nodes.Text(before[: mark.start()])
        box += nodes.Text(mark[0])
    box += formula.deepcopy()
    if isinstance(after, nodes.Text) and (mark := CLOSING.match(after)):
        parent[place + 1] = nodes.Text(after[mark.end() :])
        box += nodes.Text(mark[0])
    if len(box) > 1:
        parent[place] = box


class Tie(SphinxPostTransform):
    """Ties every formula of a page that stands in a line of text."""

    default_priority = 800
    formats = ("html",)

    def run(self, **_: object) -> None:
        """Replace the formulas that have a neighbour."""
        for formula in list(self.document.findall(nodes.math)):
            if isinstance(formula.parent, nodes.TextElement):
                tie(formula)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_post_transform(Tie)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
