"""Sphinx extension: what the slides take from a page, and the way to them.

The blocks of a cell whose tags ask for a slide (`tools.contents.SLIDES`) get the class
``cell-of-<id>``, so that `tools.slides` finds them again in the built page, with every
number, reference and figure in its place. Chapters that have slides get a button for
them in the header, and

    ```{decks}
    ```

lists them all.
"""

from pathlib import Path
from typing import ClassVar

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from tools import contents

LINES_OF_A_CELL = 10_000  # myst-nb counts lines from here on in every cell


MARK = "cell-of-"


def mark(cell_id: str) -> str:
    """The class of the blocks that come from a cell."""
    return MARK + cell_id


def origin(block: nodes.Element) -> int | None:
    """The number of the cell that a block comes from, None if unknown."""
    inside = block.findall(nodes.Element)
    lines = (getattr(node, "line", None) for node in inside)
    line = next((line for line in lines if line), None)
    return line // LINES_OF_A_CELL - 1 if line else None


def add_marks(app: Sphinx, doctree: nodes.document) -> None:
    """Mark the blocks of every cell that is on a slide."""
    notebook = Path(app.srcdir, f"{app.env.docname}.ipynb")
    if not notebook.exists():
        return
    shown = {
        number: mark(cell["id"])
        for number, cell in enumerate(contents.cells(notebook))
        if contents.slide(cell)
    }
    todo: list[nodes.Element] = [doctree]
    while todo:
        for block in todo.pop().children:
            if isinstance(block, nodes.section):
                todo.append(block)
            elif isinstance(block, nodes.Element) and origin(block) in shown:
                block["classes"].append(shown[origin(block)])


def slides_of(pagename: str, root: Path) -> Path | None:
    """The notebook of a page, where some of its cells are slides."""
    notebook = root / f"{pagename}.ipynb"
    return notebook if notebook.exists() and contents.slides(notebook) else None


def add_button(
    app: Sphinx, pagename: str, templatename: str, context: dict, doctree: object
) -> None:
    """A button in the header of a chapter that has slides."""
    found = slides_of(pagename, Path(app.srcdir))
    if found and "header_buttons" in context:
        context["header_buttons"].append(
            {
                "type": "link",
                "url": f"../slides/{found.stem}.html",
                "tooltip": "Slides of this chapter",
                "icon": "fas fa-person-chalkboard",
                "label": "slides-button",
            }
        )


class Decks(SphinxDirective):
    """A list of all slides, in the order of the book."""

    has_content: ClassVar[bool] = False

    def run(self) -> list[nodes.Node]:
        """A list of links, each with the number of slides."""
        found = nodes.bullet_list(classes=["simple"])
        root = Path(self.env.srcdir)
        for page in contents.toc(root):
            notebook = slides_of(page, root)
            if notebook:
                self.env.note_dependency(str(notebook))
                link = nodes.reference(
                    "",
                    contents.title(notebook),
                    refuri=f"../slides/{notebook.stem}.html",
                )
                count = nodes.inline("", f" ({contents.slides(notebook)} slides)")
                found += nodes.list_item("", nodes.paragraph("", "", link, count))
        return [found]


def setup(app: Sphinx) -> dict:
    """Register everything."""
    app.connect("doctree-read", add_marks)
    app.connect("html-page-context", add_button, priority=800)
    app.add_directive("decks", Decks)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
