"""What `tools.pdf` made, read as a stranger reads it: ``problems`` lists what is wrong.

It knows the file and the sources of the book, and nothing of how one became the other:
every page of ``_toc.yml`` begins on a page of its own and is a bookmark, the contents
tell where, every solution of the notebooks is there, every link within leads somewhere,
typefaces are embedded, no character is an empty box, and no page is empty.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pypdf import PageObject, PdfReader
from pypdf.generic import DictionaryObject

from tools import contents, exercises
from tools.contents import ROOT

SHOWN = re.compile(rb"/(?P<font>\w+) [\d.]+ Tf|<(?P<codes>[0-9A-Fa-f]+)> Tj")
SOLUTION = re.compile(r"--sol-[\w-]+$")


@dataclass(frozen=True)
class Book:
    """What the file should hold: titles in their order, and how many solutions."""

    titles: tuple[str, ...]
    solutions: int


def expected(root: Path = ROOT) -> Book:
    """Titles and solutions of the sources."""
    titles, solutions = [], 0
    for page in contents.toc(root):
        path = root / f"{page}.ipynb"
        if path.exists():
            cells = contents.cells(path)
            text = "\n".join(contents.text(c) for c in cells)
            solutions += len(exercises.read(cells))
        else:
            text = (root / f"{page}.md").read_text(encoding="utf8")
        titles.append(re.search(r"^# +(.+?) *$", text, re.M)[1])
    return Book(tuple(titles), solutions)


def bookmarks(reader: PdfReader) -> list[tuple[str, int]]:
    """Title and page, from 1, of all bookmarks in reading order."""
    found: list[tuple[str, int]] = []

    def walk(items: list) -> None:
        for item in items:
            if isinstance(item, list):
                walk(item)
            else:
                page = reader.get_destination_page_number(item)
                found.append((item.title, page + 1))

    walk(reader.outline)
    return found


def starts(reader: PdfReader, titles: tuple[str, ...]) -> dict[str, int]:
    """The page on which each title begins, as far as the bookmarks have it in order."""
    found, rest = {}, iter(bookmarks(reader))
    for title in titles:
        page = next((page for name, page in rest if name == title), None)
        if page is None:
            break
        found[title] = page
    return found


def chapters(reader: PdfReader, book: Book) -> Iterator[str]:
    """Titles without a bookmark or a page of their own; wrong printed numbers."""
    found = starts(reader, book.titles)
    for title in book.titles:
        if title not in found:
            yield f"no bookmark, or not in its place: {title}"
    pages = list(found.values())
    for title, page, last in zip(found, pages, [0, *pages], strict=False):
        if page <= last:
            yield f"does not begin on a page of its own: {title}"
        if str(page) not in reader.pages[page - 1].extract_text().split():
            yield f"page {page} does not print its number"
    before = reader.pages[: min(pages, default=1) - 1]
    front = " ".join(page.extract_text() for page in before)
    told = [int(word) for word in front.split() if word.isdecimal()]
    if [n for n in told if n in pages][: len(pages)] != pages:
        yield f"the contents tell other pages than {pages}"


def links(reader: PdfReader) -> Iterator[str]:
    """Links within the file that lead nowhere."""
    known = set(reader.named_destinations)
    for number, page in enumerate(reader.pages, start=1):
        for entry in page.get("/Annots", []):
            link = entry.get_object()
            action = link.get("/A", DictionaryObject()).get_object()
            target = link.get("/Dest", action.get("/D"))
            if isinstance(target, str) and target not in known:
                yield f"a link on page {number} leads nowhere: {target}"


def solutions(reader: PdfReader, book: Book) -> Iterator[str]:
    """Whether there are as many solutions as exercises in the notebooks."""
    found = sum(bool(SOLUTION.search(name)) for name in reader.named_destinations)
    if found != book.solutions:
        yield f"{found} solutions, and the notebooks have {book.solutions}"


def fonts(page: PageObject) -> dict[str, DictionaryObject]:
    """Name within the page -> font; for a composite font the one that it is made of."""
    found = {}
    given = page.get("/Resources", DictionaryObject()).get_object()
    for name, entry in given.get("/Font", {}).items():
        font = entry.get_object()
        parts = font.get("/DescendantFonts")
        found[name] = parts[0].get_object() if parts else font
    return found


def embedded(font: DictionaryObject) -> bool:
    """Whether the file brings the shapes; a Type 3 font is made of nothing else."""
    described = font.get("/FontDescriptor", DictionaryObject()).get_object()
    return font["/Subtype"] == "/Type3" or any("/FontFile" in key for key in described)


def boxes(code: bytes, known: dict[str, DictionaryObject]) -> int:
    """How often the content of a page shows glyph 0, which stands for none."""
    width, found = 4, 0
    for match in SHOWN.finditer(code):
        if match["font"]:
            simple = known["/" + match["font"].decode()]["/Subtype"] == "/Type3"
            width = 2 if simple else 4  # digits for each glyph
        else:
            codes = match["codes"].decode()
            glyphs = [codes[i : i + width] for i in range(0, len(codes), width)]
            found += glyphs.count("0" * width)
    return found


def letters(reader: PdfReader) -> Iterator[str]:
    """Fonts that are not in the file, characters without a shape, empty pages."""
    away = set()
    for number, page in enumerate(reader.pages, start=1):
        written, known = page.get_contents(), fonts(page)
        code = b"" if written is None else written.get_data()
        away |= {str(f.get("/BaseFont")) for f in known.values() if not embedded(f)}
        missing = boxes(code, known)
        if missing:
            yield f"page {number} has {missing} characters that no typeface has"
        if b"Tj" not in code and b" Do" not in code:
            yield f"page {number} is empty"
    if away:
        yield f"not embedded: {', '.join(sorted(away))}"


def problems(path: Path, book: Book) -> list[str]:
    """Everything that is wrong with the file, as sentences; empty if all is well."""
    reader = PdfReader(path)
    return [
        *chapters(reader, book),
        *links(reader),
        *solutions(reader, book),
        *letters(reader),
    ]
