"""MyST as plain Markdown, for notebooks that leave the book.

Jupyter and Colab show roles and labels of equations as they are typed. `plain` turns
them into links to the published pages; `links` finds what there is to link to.
"""

import re
from pathlib import Path

from tools import address, contents
from tools.contents import ROOT

STATEMENT = re.compile(
    r"^:+\{prf:(?P<kind>\w+)\}(?P<title>[^\n]*)\n:label: (?P<label>[\w-]+)", re.M
)
EQUATION = re.compile(r"\$\$ \((?P<label>eq-[\w-]+)\)")
CITATION = re.compile(r"\{cite:\w+\}`(?P<keys>[^`]+)`")
KEY = re.compile(r"(?P<name>[a-z]+)(?P<year>\d{4})\w*")


def page(name: str, root: Path = ROOT) -> str:
    """The address of a chapter's published page."""
    return f"{address.pages(address.address(root))}book/{name}.html"


def links(root: Path = ROOT) -> dict[str, str]:
    """Label -> Markdown link, for every statement and numbered equation."""
    found = {}
    for path in contents.notebooks(root):
        text = "\n\n".join(map(contents.text, contents.cells(path, "markdown")))
        url = page(path.stem, root)
        for m in STATEMENT.finditer(text):
            name = " ".join(f"{m['kind']} {m['title']}".split())
            found[m["label"]] = f"[{name}]({url}#{m['label']})"
        for m in EQUATION.finditer(text):
            found[m["label"]] = f"[this equation]({url}#equation-{m['label']})"
    return found


def plain(text: str, known: dict[str, str]) -> str:
    r"""Markdown without MyST.

    Args:
        text: MyST source, without block directives.
        known: from `links`; an unknown label raises `KeyError`.

    >>> plain("See {prf:ref}`a` {cite:p}`who1935x`", {"a": "[b](c)"})
    'See [b](c) (Who 1935)'
    """
    text = re.sub(r"\{prf:ref\}`([\w-]+)`", lambda m: known[m[1]], text)
    text = re.sub(r"\[\]\(#([\w-]+)\)", lambda m: known[m[1]], text)
    text = CITATION.sub(
        lambda m: f"({', '.join(map(_who, m['keys'].split(',')))})", text
    )
    text = re.sub(r"\{glue:text\}`[^`]*`", "(a number of that page)", text)
    return EQUATION.sub("$$", text)


def _who(keys: str) -> str:
    """Names and years out of keys of the bibliography."""
    found = [KEY.fullmatch(key.strip()) or key.strip() for key in keys.split(",")]
    return ", ".join(
        k if isinstance(k, str) else f"{k['name'].capitalize()} {k['year']}"
        for k in found
    )
