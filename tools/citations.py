"""Sphinx extension: BibTeX for the book and its paper, made from ``CITATION.cff``.

    ```{citations}
    ```

shows one entry for each work that the file names, the book first.
"""

from pathlib import Path
from typing import Any, ClassVar

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from tools import address
from tools.contents import ROOT

Fields = dict[str, str]


def load(root: Path = ROOT) -> dict[str, Any]:
    """The citation file."""
    return yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf8"))


def people(authors: list[dict[str, str]]) -> str:
    """Authors as BibTeX wants them; a group in braces, so that it stays one name."""
    names = [
        f"{a['family-names']}, {a['given-names']}"
        if "family-names" in a
        else f"{{{a['name']}}}"
        for a in authors
    ]
    return " and ".join(names)


def entry(kind: str, key: str, fields: Fields) -> str:
    """One BibTeX entry; titles keep their capitals."""
    rows = [f"  {name} = {{{value}}}" for name, value in fields.items()]
    return "\n".join([f"@{kind}{{{key},", ",\n".join(rows), "}"])


def book(cff: dict[str, Any], url: str) -> str:
    """The entry of the book."""
    fields = {
        "author": people(cff["authors"]),
        "title": f"{{{cff['title']}}}",
        "year": str(cff["date-released"])[:4],
        "version": str(cff["version"]),
        "url": url,
    }
    return entry("misc", "flatbook", fields)


def paper(reference: dict[str, Any]) -> str:
    """The entry of a referenced preprint."""
    number = reference["identifiers"][0]["value"]
    first = reference["authors"][0]["family-names"].lower()
    fields = {
        "author": people(reference["authors"]),
        "title": f"{{{reference['title']}}}",
        "year": str(reference["year"]),
        "eprint": number.removeprefix("arXiv:"),
        "archiveprefix": "arXiv",
        "url": reference["url"],
    }
    return entry("misc", f"{first}{reference['year']}", fields)


def entries(root: Path = ROOT) -> list[str]:
    """All entries, the book first, with the address that the pages are built for."""
    cff = load(root)
    return [book(cff, address.address(root)), *map(paper, cff["references"])]


class Citations(SphinxDirective):
    """The entries as blocks that can be copied."""

    has_content: ClassVar[bool] = False

    def run(self) -> list[nodes.Node]:
        """One literal block for each entry."""
        root = Path(self.env.srcdir)
        self.env.note_dependency(str(root / "CITATION.cff"))
        found = entries(root)
        return [nodes.literal_block(text, text, language="bibtex") for text in found]


def setup(app: Sphinx) -> dict:
    """Register the directive."""
    app.add_directive("citations", Citations)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
