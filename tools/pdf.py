"""The book as a PDF: ``make pdf`` writes ``_build/flatbook.pdf``.

    python -m tools.pdf

`tools.paper` makes one document of the built pages. A browser sets its formulas and
prints it twice: the first print tells on which page everything is, these numbers are
filled in, and the second print is the book. Then `tools.pdf_check` reads the file as a
stranger would, and the command fails if anything is not as it should be.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from bs4 import BeautifulSoup
from playwright.sync_api import Page, sync_playwright
from pypdf import PdfReader, PdfWriter
from pypdf.generic import DictionaryObject, NameObject, TextStringObject

from tools import browser, citations, paper, pdf_check, vendor
from tools.pages import BUILD, HTML

FOLDER = BUILD / "pdf"
FONTS = BUILD / "fonts"
TARGET = BUILD / "flatbook.pdf"
OWN = Path(__file__).parent
WANTED = OWN / "vendor_fonts.json"
WIDTH = 627  # CSS pixels between the margins of A4 that paper.css sets
PRINTS = 4  # numbers stand after two, unless one of them moves a line
NUMBERS = """pages => { for (const span of document.querySelectorAll("span.page"))
    span.textContent = pages[span.dataset.of] ?? span.textContent }"""


class NotSetError(Exception):
    """The document cannot be printed as it is."""


@contextmanager
def opened(path: Path) -> Iterator[Page]:
    """The document in a browser, as wide as the paper, with its formulas set.

    Raises:
        NotSetError: MathJax did not load, or something is wider than the paper.
    """
    program = browser.find()
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=program, env=browser.environment(program)
        )
        page = started.new_page(viewport={"width": WIDTH, "height": 900})
        page.set_default_timeout(0)
        page.emulate_media(media="print", color_scheme="light")
        page.goto(path.as_uri())
        wide = page.evaluate((OWN / "paper.js").read_text(encoding="utf8"))
        if wide is None:
            raise NotSetError("MathJax did not load, so no formula can be set")
        if wide:
            raise NotSetError(f"wider than the paper: {'; '.join(wide)}")
        yield page
        started.close()


def printed(page: Page, *, final: bool = True) -> bytes:
    """The PDF; the bookmarks and the structure for screen readers only if final."""
    return page.pdf(
        prefer_css_page_size=True, print_background=True, outline=final, tagged=final
    )


def places(pdf: bytes) -> dict[str, int]:
    """On which page, from 1, each target of a link is."""
    reader = PdfReader(BytesIO(pdf))
    return {
        name.removeprefix("/"): reader.get_destination_page_number(target) + 1
        for name, target in reader.named_destinations.items()
    }


def numbered(page: Page) -> bytes:
    """Print until the numbers that are printed are those of the pages.

    Raises:
        NotSetError: they do not settle.
    """
    before: dict[str, int] = {}
    for _ in range(PRINTS):
        now = places(printed(page, final=False))
        if now == before:
            return printed(page)
        page.evaluate(NUMBERS, now)
        before = now
    raise NotSetError("the page numbers do not settle")


def entries(outline: DictionaryObject) -> Iterator[DictionaryObject]:
    """The bookmarks of an outline in reading order."""
    at = outline.get("/First")
    while at is not None:
        entry = at.get_object()
        yield entry
        yield from entries(entry)
        at = entry.get("/Next")


def finished(pdf: bytes, titles: list[str]) -> bytes:
    """The PDF with its authors and subject, and with headings as its bookmarks.

    The browser makes one for each heading, but loses blanks and formulas in them.

    Raises:
        NotSetError: there are not as many bookmarks as headings.
    """
    cff = citations.load()
    writer = PdfWriter(clone_from=BytesIO(pdf))
    found = list(entries(writer.root_object["/Outlines"].get_object()))
    if len(found) != len(titles):
        raise NotSetError(f"{len(found)} bookmarks for {len(titles)} headings")
    for entry, title in zip(found, titles, strict=True):
        entry[NameObject("/Title")] = TextStringObject(title)
    writer.add_metadata(
        {
            "/Title": cff["title"],
            "/Author": ", ".join(a.get("name", "") for a in cff["authors"]),
            "/Subject": " ".join(cff["abstract"].split()),
            "/Keywords": ", ".join(cff["keywords"]),
        }
    )
    whole = BytesIO()
    writer.write(whole)
    return whole.getvalue()


def typefaces() -> None:
    """Fetch the typefaces with npm; without it the book takes those of the machine.

    Raises:
        vendor.ChecksumError: a package is not the reviewed one.
    """
    if vendor.complete(FONTS, WANTED):
        return
    try:
        vendor.fill(WANTED, FONTS)
    except (OSError, subprocess.SubprocessError):
        print("npm did not bring the typefaces of the PDF: it takes installed ones")


def write(document: BeautifulSoup, folder: Path = FOLDER) -> Path:
    """Write a document and its style sheets where the browser will read them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(OWN / "paper.css", folder)
    names = [path.name for path in sorted(FONTS.glob("*.woff2"))]
    faces = paper.faces(names, f"../{FONTS.name}/")
    (folder / "fonts.css").write_text(faces, encoding="utf8")
    path = folder / "flatbook.html"
    path.write_text(str(document), encoding="utf8")
    return path


def main() -> int:
    """Make the PDF and check it."""
    try:
        typefaces()
        document = paper.document(HTML)
        with opened(write(document)) as page:
            pdf = finished(numbered(page), paper.headings(document))
    except (NotSetError, ValueError, vendor.ChecksumError) as error:
        print(error)
        return 1
    TARGET.write_bytes(pdf)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
