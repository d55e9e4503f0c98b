"""Make slides of the built chapters, one reveal.js deck each, with nbconvert.

    python -m tools.slides      write _build/html/slides/ anew

Tags of cells decide (`tools.contents.SLIDES`): ``slide`` begins a slide,
``slide-below`` one under it, ``slide-more`` goes on the same slide, ``slide-step``
appears on it at the next key, and ``slide-output`` leaves the code of a cell away. A
cell with none of them is on no slide.

A slide shows its cells as the page shows them: every number, reference, equation and
figure is taken from the built page, where `tools.slidemarks` marked the cells. Nothing
is written twice. Notes for the speaker come from the page of notes on every chapter.
"""

import json
import re
import shutil
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urljoin

import nbformat
from bs4 import BeautifulSoup, Tag
from jinja2 import Environment, FileSystemLoader
from nbconvert import SlidesExporter

from tools import contents, vendor
from tools.contents import ROOT
from tools.slidemarks import MARK, mark, slides_of

TEMPLATES = ROOT / "tools"
HTML = ROOT / "_build" / "html"
CDN = "https://cdn.jsdelivr.net/npm/"
NOTES = "book/teaching/notes"
HEADINGS = ["h1", "h2", "h3"]
HIDDEN = ".headerlink, details.hide, .cell_input:empty"
PLACES = {"Explorer.": 'class="fb-explorer', "Hand out": 'class="exercise'}
MATHEMATICS = re.compile(r"mathjax", re.I)


class Deck(NamedTuple):
    """A chapter that has slides."""

    name: str
    title: str
    slides: int


def parse(path: Path) -> BeautifulSoup:
    """A built page.

    Raises:
        FileNotFoundError: the page is not built.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not built: run make book")
    return BeautifulSoup(path.read_text(encoding="utf8"), "html.parser")


def reveal() -> str:
    """The address of reveal.js: beside the pages, or on a CDN without npm."""
    if (vendor.TARGET / "reveal").is_dir():
        return "../_static/vendor/reveal"
    packages = json.loads(vendor.WANTED.read_text(encoding="utf8"))
    return CDN + next(name for name in packages if name.startswith("reveal.js@"))


def head(page: BeautifulSoup) -> dict[str, str]:
    """What a deck takes from the head of its page: styles, and what sets equations."""
    styles = page.head.find_all("link", rel="stylesheet")
    scripts = (s for s in page.head("script") if MATHEMATICS.search(str(s)))
    return {
        "styles": "\n".join(map(str, styles)),
        "mathematics": "\n".join(map(str, scripts)),
    }


def lead_out(block: Tag, page: str) -> None:
    """Let the links of a block lead into the book, beside the deck."""
    for link in block("a", href=True):
        link["href"] = "../" + urljoin(page, link["href"])
        if "://" in link["href"]:
            link["href"] = link["href"].removeprefix("../")
        link["target"] = "_blank"


def marked(article: Tag) -> dict[str, list[Tag]]:
    """The mark of a cell -> what the page shows of it, in one walk."""
    found: dict[str, list[Tag]] = {}
    for block in article.find_all(True):
        for name in block.get("class", ()):
            if name.startswith(MARK):
                found.setdefault(name, []).append(block)
    return found


def cleaned(found: list[Tag], cell: dict, page: str) -> list[Tag]:
    """The blocks of a cell without what a slide has no use for, and with open folds."""
    useless = HIDDEN
    if contents.OUTPUT_ONLY in contents.tags(cell):
        useless += ", .cell_input"
    for block in found:
        for part in block.select(useless):
            part.decompose()
        for part in block.select("section"):  # for reveal.js a section is a slide
            part.name = "div"
        if block.name == "details":  # a fold with a tag of its own is there to be seen
            block["open"] = ""
        lead_out(block, page)
    return found


def heading(block: Tag, told: set[str]) -> str:
    """The heading of the section that a block stands in; pale once it was told."""
    section = block.find_parent("section")
    title = section.find(HEADINGS, recursive=False)
    for link in title.select(".headerlink"):
        link.decompose()
    words = title.decode_contents()
    pale = ' class="again"' if words in told else ""
    told.add(words)
    return f"<h2{pale}>{words}</h2>"


def fragments(page: BeautifulSoup, notebook: Path) -> list[tuple[str, str]]:
    """(what it is for nbconvert, HTML) for each cell of a notebook on the slides.

    Raises:
        ValueError: the page shows nothing of such a cell.
    """
    name, found = f"book/{notebook.stem}.html", []
    known, told = marked(page.article), set[str]()
    for cell in contents.cells(notebook):
        kind = contents.slide(cell)
        if kind is None:
            continue
        if mark(cell["id"]) not in known:
            raise ValueError(f"{name} shows nothing of the cell {cell['id']}")
        shown = cleaned(known[mark(cell["id"])], cell, name)
        text = "\n".join(map(str, shown))
        if kind in ("slide", "subslide") and shown[0].name not in HEADINGS:
            text = heading(shown[0], told) + text
        told |= {block.decode_contents() for block in shown if block.name in HEADINGS}
        found.append((kind, text))
    return found


def notes(page: BeautifulSoup, name: str) -> list[Tag]:
    """The paragraphs for the speaker on a chapter, none where there is no note."""
    for section in page.article("section"):
        link = section.select_one(":scope > p > a")
        if link and link["href"] == f"../{name}.html":
            found = section.find_all("p", recursive=False)[1:]
            for block in found:
                lead_out(block, f"{NOTES}.html")
            return found
    return []


def with_notes(
    found: list[tuple[str, str]], remarks: list[Tag]
) -> list[tuple[str, str]]:
    """Each note behind the first cell that it speaks of, else behind the first."""
    after: dict[int, str] = {}
    for remark in remarks:
        start = remark.get_text()
        needle = next(
            (n for words, n in PLACES.items() if start.startswith(words)), None
        )
        place = next(
            (i for i, (_, text) in enumerate(found) if needle and needle in text), 0
        )
        after[place] = after.get(place, "") + str(remark)
    mixed = []
    for i, cell in enumerate(found):
        mixed.append(cell)
        if i in after:
            mixed.append(("notes", after[i]))
    return mixed


def exporter() -> SlidesExporter:
    """The slides of nbconvert in the look of the book."""
    return SlidesExporter(
        template_name="deck",
        extra_template_basedirs=[str(TEMPLATES)],
        reveal_url_prefix=reveal(),
    )


def deck(
    notebook: Path, html: Path, remarks: BeautifulSoup, make: SlidesExporter
) -> str:
    """The slides of a chapter, as the text of an HTML file."""
    page = parse(html / "book" / f"{notebook.stem}.html")
    cells = [
        nbformat.v4.new_raw_cell(
            text,
            metadata={"raw_mimetype": "text/html", "slideshow": {"slide_type": kind}},
        )
        for kind, text in with_notes(
            fragments(page, notebook), notes(remarks, notebook.stem)
        )
    ]
    shown = {"name": notebook.stem, "title": contents.title(notebook), **head(page)}
    return make.from_notebook_node(
        nbformat.v4.new_notebook(cells=cells), resources={"deck": shown}
    )[0]


def listing(decks: list[Deck], html: Path) -> str:
    """The page that leads to all decks."""
    page = parse(html / f"{contents.toc()[0]}.html")
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES / "deck"), autoescape=False
    )
    return templates.get_template("list.html.j2").render(decks=decks, **head(page))


def build(html: Path = HTML) -> list[Deck]:
    """Write the slides of all chapters that have some, and the list of them."""
    folder = html / "slides"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    remarks, make = parse(html / f"{NOTES}.html"), exporter()
    decks = []
    for page in contents.toc():
        notebook = slides_of(page, ROOT)
        if notebook is None:
            continue
        text = deck(notebook, html, remarks, make)
        (folder / f"{notebook.stem}.html").write_text(text, encoding="utf8")
        decks.append(
            Deck(notebook.stem, contents.title(notebook), contents.slides(notebook))
        )
    (folder / "index.html").write_text(listing(decks, html), encoding="utf8")
    return decks


def main() -> int:
    """Write all slides and say where."""
    decks = build()
    count = sum(deck.slides for deck in decks)
    print(f"{count} slides in {len(decks)} decks: {HTML / 'slides' / 'index.html'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
