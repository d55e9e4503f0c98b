r"""MyST as plain Markdown, for notebooks that leave the book.

Jupyter and Colab show roles, labels of equations and the book's own macros as they
are typed. `plain` turns them into links to the published pages and into LaTeX that
every MathJax knows; `links` finds what there is to link to.
"""

import re
from pathlib import Path

import yaml

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


def macros(root: Path = ROOT) -> dict[str, str]:
    r"""The book's LaTeX macros: name -> its text, with #1 for an argument."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf8"))
    known = config["sphinx"]["config"]["mathjax3_config"]["tex"]["macros"]
    return {name: v if isinstance(v, str) else v[0] for name, v in known.items()}


def plain(text: str, known: dict[str, str], shorthand: dict[str, str]) -> str:
    r"""Markdown without MyST.

    Args:
        text: MyST source, without block directives.
        known: from `links`; an unknown label raises `KeyError`.
        shorthand: from `macros`.

    >>> plain(r"$\E x$, see {prf:ref}`a` {cite:p}`who1935x`", {"a": "[b](c)"},
    ...       {"E": r"\mathbb{E}"})
    '$\\mathbb{E} x$, see [b](c) (Who 1935)'
    """
    text = re.sub(r"\{prf:ref\}`([\w-]+)`", lambda m: known[m[1]], text)
    text = re.sub(r"\[\]\(#([\w-]+)\)", lambda m: known[m[1]], text)
    text = CITATION.sub(
        lambda m: f"({', '.join(map(_who, m['keys'].split(',')))})", text
    )
    text = re.sub(r"\{glue:text\}`[^`]*`", "(a number of that page)", text)
    text = EQUATION.sub("$$", text)
    for name, meaning in shorthand.items():
        text = _expand(text, name, meaning)
    return text


def _who(keys: str) -> str:
    """Names and years out of keys of the bibliography."""
    found = [KEY.fullmatch(key.strip()) or key.strip() for key in keys.split(",")]
    return ", ".join(
        k if isinstance(k, str) else f"{k['name'].capitalize()} {k['year']}"
        for k in found
    )


def _expand(text: str, name: str, meaning: str) -> str:
    r"""Write out a macro; its argument is what stands in braces after it."""
    if "#1" not in meaning:
        return re.sub(rf"\\{name}(?![A-Za-z])", lambda _: meaning, text)
    while (start := text.rfind(f"\\{name}{{")) >= 0:  # the last one has none inside
        inner = start + len(name) + 2
        depth, end = 1, inner
        while depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        text = text[:start] + meaning.replace("#1", text[inner : end - 1]) + text[end:]
    return text
