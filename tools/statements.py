"""Sphinx extension: a statement of a chapter, shown again where it is needed.

    ```{statement} thm-valley
    ```

shows the words of the block with that label, taken from the chapter's source, with
its number as a link. Nothing is typed twice, so nothing can drift: a label that no
chapter has, or has twice, ends the build.
"""

import re
from pathlib import Path
from typing import ClassVar, NamedTuple

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from tools import contents

BLOCK = re.compile(
    r"^(?P<fence>:{3,})\{prf:(?P<kind>\w+)\} *(?P<title>[^\n]*)\n"
    r"(?P<options>(?::[^\n]*\n)*)(?P<body>.*?)^(?P=fence)[ \t]*$",
    re.M | re.S,
)
EQUATION_LABEL = re.compile(r"(?<=\$\$) *\(eq-[\w-]+\)")


class Statement(NamedTuple):
    """A numbered block: its notebook, its title and its Markdown."""

    source: Path
    title: str
    body: str


def statements(root: Path = contents.ROOT) -> dict[str, Statement]:
    """Label -> statement, over all chapters.

    Raises:
        ValueError: two blocks have the same label.
    """
    found: dict[str, Statement] = {}
    for path in contents.notebooks(root):
        prose = "\n\n".join(contents.text(c) for c in contents.cells(path, "markdown"))
        for match in BLOCK.finditer(prose):
            label = re.search(r":label: *([\w-]+)", match["options"])
            if label is None:
                continue
            if label[1] in found:
                raise ValueError(f"two blocks have the label {label[1]}")
            body = EQUATION_LABEL.sub("", match["body"]).strip()
            found[label[1]] = Statement(path, match["title"].strip(), body)
    return found


class Repeat(SphinxDirective):
    """A statement by its label, in a box of its own."""

    required_arguments = 1
    has_content: ClassVar[bool] = False

    def run(self) -> list[nodes.Node]:
        """A ``div.statement`` with number, title and words of the block."""
        label, root = self.arguments[0], Path(self.env.srcdir)
        known = statements(root)
        if label not in known:
            raise self.error(f"no chapter has a statement with the label {label}")
        found = known[label]
        self.env.note_dependency(str(found.source))
        head = f"**{{prf:ref}}`{label}`** ({found.title})"
        lines = [*head.splitlines(), "", *found.body.splitlines()]
        box = nodes.container(classes=["statement"])
        text = StringList(lines, source=str(found.source))
        self.state.nested_parse(text, self.content_offset, box)
        return [box]


def setup(app: Sphinx) -> dict:
    """Register the directive."""
    app.add_directive("statement", Repeat)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
