"""Sphinx extension: words of the glossary are explained where they are first used.

In every chapter the first use of each term becomes a link to ``book/glossary``. The
notebooks stay as they are: on Colab and GitHub there is nothing to see. A small script
shows the definition when the pointer or the keyboard rests on the link; it comes from
``definitions.js``, written beside the pages, so nothing is fetched from elsewhere.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.builders import Builder

GLOSSARY = "book/glossary"
ENTRY = re.compile(
    r"(?P<terms>(?:<dt id=\"[^\"]+\">.*?</dt>\s*)+)<dd>\s*<p>(?P<text>.*?)</p>", re.S
)
PLAIN = (nodes.paragraph, nodes.emphasis, nodes.strong)
SILENT = {"glance", "solution", "fb-explorer"}


def pattern(terms: list[str]) -> re.Pattern[str]:
    """Any of the terms as a word, longest first, in the singular or with an s."""
    longest = sorted(terms, key=len, reverse=True)
    words = "|".join(re.escape(term).replace(r"\ ", r"\s+") for term in longest)
    return re.compile(rf"(?<![\w-])(?P<term>{words})(?:s|es)?(?![\w-])", re.I)


def places(doctree: nodes.document) -> Iterator[nodes.Text]:
    """The words of the running text: no links, code, formulas, strips, solutions."""
    for paragraph in doctree.findall(nodes.paragraph):
        above, outside = paragraph.parent, True
        while above is not None:
            outside &= not SILENT & set(getattr(above, "attributes", {})["classes"])
            above = above.parent
        if outside:
            for text in list(paragraph.findall(nodes.Text)):
                if isinstance(text.parent, PLAIN):
                    yield text


def split(text: str, ids: dict[str, str], seen: set[str]) -> list[tuple[str, str]]:
    """The text in pieces (words, id); the id is empty where nothing is to be linked."""
    pieces, start = [], 0
    if ids:
        for match in pattern(list(ids)).finditer(text):
            term = " ".join(match["term"].lower().split())
            if term not in seen:
                seen.add(term)
                pieces.append((text[start : match.start()], ""))
                pieces.append((match[0], ids[term]))
                start = match.end()
    return [(words, link) for words, link in [*pieces, (text[start:], "")] if words]


def link_first_uses(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Turn the first use of each term of a chapter into a link to its definition."""
    if app.builder.format != "html" or not app.env.doc2path(docname).endswith("ipynb"):
        return
    objects = app.env.get_domain("std").objects.items()  # type: ignore[attr-defined]
    ids = {name.lower(): place[1] for (kind, name), place in objects if kind == "term"}
    seen: set[str] = set()
    for text in places(doctree):
        pieces = split(str(text), ids, seen)
        if len(pieces) > 1 or (pieces and pieces[0][1]):
            new = [piece(app.builder, docname, *p) for p in pieces]
            text.parent.replace(text, new)


def piece(builder: Builder, docname: str, words: str, anchor: str) -> nodes.Node:
    """Plain words, or a link to the glossary."""
    if not anchor:
        return nodes.Text(words)
    uri = f"{builder.get_relative_uri(docname, GLOSSARY)}#{anchor}"
    return nodes.reference("", words, internal=True, refuri=uri, classes=["fb-term"])


def definitions(page: str) -> dict[str, str]:
    """Anchor -> first paragraph, as HTML without links, from the glossary's page."""
    found = {}
    for entry in ENTRY.finditer(page):
        text = re.sub(r"</?a\b[^>]*>", "", entry["text"])
        for anchor in re.findall(r"<dt id=\"([^\"]+)\"", entry["terms"]):
            found[anchor] = " ".join(text.split())
    return found


def write_definitions(app: Sphinx, exception: Exception | None) -> None:
    """Leave the definitions as a script beside the pages."""
    page = Path(app.outdir, f"{GLOSSARY}.html")
    if exception is None and app.builder.format == "html" and page.exists():
        found = json.dumps(definitions(page.read_text("utf8")), ensure_ascii=False)
        target = Path(app.outdir, "_static", "definitions.js")
        target.write_text(f"window.flatbookDefinitions = {found};\n", "utf8")


def setup(app: Sphinx) -> dict:
    """Register the handlers, the script and the styles."""
    app.connect("doctree-resolved", link_first_uses, priority=900)
    app.connect("build-finished", write_definitions)
    app.add_js_file("terms.js", loading_method="defer")
    app.add_css_file("backmatter.css")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
