"""The book as a PDF: ``make pdf`` writes ``_build/flatbook.pdf``.

    python -m tools.pdf

`tools.binding` makes one document of the built pages. A browser sets its formulas and
prints it twice: the first print tells on which page everything is, these numbers are
filled in, and the second print is the book. Then `tools.pdf_check` reads the file as a
stranger would, and the command fails if anything is not as it should be. Chrome,
Chromium or Edge 131 or newer prints the heads and numbers of pages.
"""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from bs4 import BeautifulSoup
from playwright.sync_api import Browser, Error, Page, sync_playwright
from pypdf import PdfReader, PdfWriter
from pypdf.generic import DictionaryObject, NameObject, TextStringObject

from tools import binding, browser, citations, pdf_check, typefaces, vendor
from tools.pages import BUILD, HTML

FOLDER = BUILD / "pdf"
TARGET = BUILD / "flatbook.pdf"
OWN = Path(__file__).parent
WIDTH = 642  # CSS pixels between the margins of A4 that paper.css sets
PRINTS = 5  # one is enough, unless a number moves a line
ASKED = """() => [...document.querySelectorAll("span.page")].map(s => s.dataset.of)"""
NUMBERS = """pages => { for (const span of document.querySelectorAll("span.page"))
    span.textContent = pages[span.dataset.of] }"""


class NotSetError(Exception):
    """The document cannot be printed as it is."""


@contextmanager
def started() -> Iterator[Browser]:
    """The browser that prints."""
    program = browser.find()
    with sync_playwright() as playwright:
        printer = playwright.chromium.launch(
            executable_path=program, env=browser.environment(program)
        )
        try:
            yield printer
        finally:
            printer.close()


@contextmanager
def opened(printer: Browser, path: Path) -> Iterator[Page]:
    """The document in a browser, as wide as the paper, ready to print.

    Raises:
        NotSetError: it cannot be set.
    """
    page = printer.new_page(viewport={"width": WIDTH, "height": 900})
    try:
        page.set_default_timeout(0)  # a book takes longer than a page
        page.emulate_media(media="print", color_scheme="light")
        page.goto(path.as_uri())
        arrange(page)
        yield page
    finally:
        page.close()


def arrange(page: Page) -> None:
    """Wait for the formulas, and make what is too wide smaller.

    Raises:
        NotSetError: MathJax did not load, or something is wider than the paper.
    """
    wide = page.evaluate((OWN / "paper.js").read_text(encoding="utf8"))
    if wide is None:
        raise NotSetError("MathJax did not load, so no formula can be set")
    if wide:
        raise NotSetError(f"wider than the paper: {'; '.join(wide)}")


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

    The same document may break at another line the next time it is printed. So numbers
    that were tried before are not tried again: another print finds them right.

    Raises:
        NotSetError: they do not settle.
    """
    asked = page.evaluate(ASKED)

    def told(pdf: bytes) -> dict[str, int]:
        found = places(pdf)
        return {anchor: found[anchor] for anchor in asked}

    tried = [told(printed(page, final=False))]
    page.evaluate(NUMBERS, tried[-1])
    for _ in range(PRINTS):
        pdf = printed(page)
        now = told(pdf)
        if now == tried[-1]:
            return pdf
        if now not in tried:
            tried.append(now)
            page.evaluate(NUMBERS, now)
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
            "/Author": binding.authors(cff),
            "/Subject": " ".join(cff["abstract"].split()),
            "/Keywords": ", ".join(cff["keywords"]),
        }
    )
    whole = BytesIO()
    writer.write(whole)
    return whole.getvalue()


def write(document: BeautifulSoup, folder: Path = FOLDER) -> Path:
    """Write a document and its style sheets where the browser will read them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(OWN / "paper.css", folder)
    names = [path.name for path in sorted(typefaces.FOLDER.glob("*.woff2"))]
    faces = typefaces.faces(names, "../fonts/")
    (folder / "fonts.css").write_text(faces, encoding="utf8")
    path = folder / "flatbook.html"
    path.write_text(str(document), encoding="utf8")
    return path


def main() -> int:
    """Make the PDF and check it; says what is wrong, else where it is."""
    logging.getLogger("pypdf").setLevel(logging.ERROR)  # it counts objects aloud
    try:
        typefaces.fetch()
        document = binding.document(HTML)
        with started() as printer, opened(printer, write(document)) as page:
            pdf = finished(numbered(page), binding.headings(document))
    except (NotSetError, ValueError, Error, vendor.ChecksumError) as error:
        print(error)
        return 1
    TARGET.write_bytes(pdf)
    wrong = pdf_check.problems(TARGET, pdf_check.expected())
    for problem in wrong:
        print(problem)
    if wrong:
        return 1
    size = len(pdf) / 1e6
    print(f"{TARGET}: {len(PdfReader(TARGET).pages)} pages, {size:.0f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
