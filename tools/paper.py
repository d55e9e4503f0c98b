"""The built pages as one HTML document for paper: ``tools.pdf`` prints it.

The pages of ``_build/html`` are joined in the order of ``_toc.yml``, so numbers,
citations and glued values are those of the book on the screen. Every change on the way
is one small function that edits a parsed page in place:

* links between pages become links within the document, and ids get their page's name;
* what only a screen needs goes: folded code, buttons, scripts, the cell for Colab;
* a figure with sliders stays at its starting values, which are written above it;
* proofs and hints are open; solutions move to an appendix, and exercises point there.

Page numbers are not known here. Their places are ``<span class="page" data-of="ID">``.

    soup = paper.document(pages_of_the_book, build)
"""

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml
from bs4 import BeautifulSoup, SoupStrainer, Tag

from tools import address, citations
from tools.contents import ROOT, _files

SCREEN_ONLY = (
    *(".headerlink", "script", "noscript", ".toctree-wrapper", "button"),
    *(".tag_colab-setup", "details.hide", ".sd-summary-state-marker", ".screen-only"),
)
POINTING = ("for", "aria-labelledby", "aria-describedby", "headers")
UNCOLOURED = ["n", "p", "w"]  # names, brackets and blanks in code
SHEETS = ("pygments.css", "basic.css", "flatbook.css", "backmatter.css")
FACE = re.compile(
    r"(?P<family>.+?)-(?P<subset>latin-ext|latin|greek)-(?P<weight>\d+)"
    r"-(?P<style>normal|italic)\.woff2"
)
RANGES = {
    "latin": "U+0000-00FF, U+2000-206F, U+2212, U+2215, U+FEFF, U+FFFD",
    "latin-ext": "U+0100-02BA, U+1E00-1E9F, U+2070-209C, U+20A0-20AB",
    "greek": "U+0370-03FF",
}
PLACE = "000"  # as wide as a page number
APPENDIX = "solutions"
NOTE = (
    "Figures that move on the screen are shown here at the values written above them. "
    "Code that the pages fold away is left out. Both are at the address above, with "
    "every notebook. Solutions stand in an appendix."
)


@dataclass(frozen=True)
class Part:
    """A caption of the table of contents, empty for the root, and its pages."""

    caption: str
    pages: tuple[str, ...]


def parts(root: Path = ROOT) -> list[Part]:
    """The parts of ``_toc.yml``, the root page first."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf8"))
    listed = [Part(p["caption"], tuple(_files(p["chapters"]))) for p in toc["parts"]]
    return [Part("", (toc["root"],)), *listed]


def slug(page: str) -> str:
    """The name of a page within the document: ``book/teaching/notes`` is one word."""
    return page.removeprefix("book/").replace("/", "-")


def parse(html: str) -> Tag:
    """The article of a built page.

    Raises:
        ValueError: the page has none.
    """
    only = SoupStrainer("article", class_="bd-article")
    article = BeautifulSoup(html, "html.parser", parse_only=only).find("article")
    if not isinstance(article, Tag):
        raise ValueError("a page has no <article class='bd-article'>")
    return article


def new(name: str, text: str = "", **attributes: str) -> Tag:
    """An element; a trailing underscore of a keyword is dropped (``class_``)."""
    given = {key.rstrip("_").replace("_", "-"): v for key, v in attributes.items()}
    tag = Tag(name=name, attrs=given)
    if text:
        tag.string = text
    return tag


def page_of(anchor: str) -> Tag:
    """The place for the number of the page that an id is on."""
    return new("span", PLACE, class_="page", data_of=anchor)


# --- one page -----------------------------------------------------------------


def strip(article: Tag) -> None:
    """Remove what only a screen needs, and the cells that are empty then."""
    for found in article.select(", ".join(SCREEN_ONLY)):
        found.decompose()
    for link in article.select("a.image-reference"):
        link.unwrap()
    for token in article.find_all("span", class_=UNCOLOURED):
        token.unwrap()  # a PDF that is read aloud keeps a record of each of them
    for sheet in article.select(".handout"):  # on the screen it prints by itself
        sheet["class"].remove("handout")
    for cell in article.select("div.cell"):
        if not cell.get_text(strip=True) and not cell.find(["img", "svg"]):
            cell.decompose()


def still(article: Tag, url: str) -> None:
    """Replace the sliders of an explorer by their values, and say where it moves."""
    for box in article.select(".fb-explorer"):
        values = new("p", class_="fb-values")
        for slider in box.select(".fb-slider"):
            pair = new("span")
            pair.append(f"{slider.label.get_text()} ")
            pair.append(new("b", slider.output.get_text()))
            values.append(pair)
        values.append(new("a", "moves on the page", href=url))
        box.select_one(".fb-sliders").replace_with(values)
        box["aria-label"] = "Figure"
        for element in box.find_all(attrs={"aria-live": True}):
            del element["aria-live"]


def unfold(article: Tag) -> None:
    """Turn what opens and closes into plain boxes with a title."""
    for fold in article.find_all("details"):
        title = fold.find("summary")
        title.name, title["class"] = "div", "fold-title"
        words = title.get_text(" ", strip=True).lower()
        kind = words if words in ("hint", "proof") else ""
        fold.name = "div"
        fold["class"] = ["fold", *fold.get_attribute_list("class"), kind]
        fold["class"] = [name for name in fold["class"] if name]
        fold.attrs.pop("open", None)


def lead(article: Tag, page: str, pages: Iterable[str], site: str) -> None:
    """Make ids unique in the document, and links and pictures find their target."""
    known, folder = set(pages), posixpath.dirname(page)
    for element in article.find_all(id=True):
        element["id"] = f"{slug(page)}--{element['id']}"
    for name in POINTING:
        for element in article.find_all(attrs={name: True}):
            ids = str(element[name]).split()
            element[name] = " ".join(f"{slug(page)}--{one}" for one in ids)
    for link in article.find_all("a", href=True):
        path, _, anchor = link["href"].partition("#")
        if "://" in path or path.startswith("mailto:"):
            continue
        there = posixpath.normpath(posixpath.join(folder, path)) if path else page
        target = there.removesuffix(".html")
        if target in known:
            link["href"] = f"#{slug(target)}" + (f"--{anchor}" if anchor else "")
        else:
            link["href"] = site + there + (f"#{anchor}" if anchor else "")
    for picture in article.find_all("img", src=True):
        if not picture["src"].startswith("data:"):
            there = posixpath.normpath(posixpath.join(folder, picture["src"]))
            picture["src"] = f"../html/{there}"


def rank(article: Tag, by: int) -> None:
    """Lower all headings by some levels; their class keeps the level they had."""
    for level in range(6, 0, -1):
        for heading in article.find_all(f"h{level}"):
            heading.name = f"h{min(level + by, 6)}"
            heading["class"] = f"level-{level}"


def prepare(html: str, page: str, pages: Iterable[str], site: str) -> Tag:
    """The article of a page, ready for paper."""
    article = parse(html)
    strip(article)
    still(article, f"{site}{page}.html")
    unfold(article)
    lead(article, page, pages, site)
    article.name = "section"
    article["id"], article["class"] = slug(page), ["chapter", "bd-article"]
    return article


# --- the document ---------------------------------------------------------------


def title_of(chapter: Tag) -> str:
    """The words of a chapter's title."""
    heading = chapter.select_one(".level-1") or chapter.find("h1")
    return " ".join(heading.get_text().split())


def collect(chapters: list[Tag]) -> Tag:
    """Move all solutions into an appendix; what they answer points to them."""
    appendix = new("section", id=APPENDIX, class_="chapter bd-article")
    appendix.append(new("h1", "Solutions", class_="level-1"))
    for chapter in chapters:
        found = chapter.select("div.solution")
        if found:
            heading = new("h2", class_="level-2")
            link = new("a", title_of(chapter), href=f"#{chapter['id']}")
            heading.append(link)
            appendix.append(heading)
        for solution in found:
            _point(solution, chapter)
            appendix.append(solution.extract())
    return appendix


def _point(solution: Tag, chapter: Tag) -> None:
    """Link an exercise and its solution, each with the page of the other.

    Raises:
        ValueError: the solution answers no exercise of its chapter.
    """
    title = solution.select_one(".admonition-title")
    anchor = title.a["href"].removeprefix("#") if title.a else ""
    exercise = chapter.find(id=anchor) if anchor else None
    if exercise is None:
        raise ValueError(f"{solution.get('id')} answers no exercise of its chapter")
    back, there = new("span", class_="where"), new("p", class_="where")
    back.extend(["page ", page_of(anchor)])
    title.append(back)
    link = new("a", "Solution", href=f"#{solution['id']}")
    there.extend([link, " on page ", page_of(solution["id"])])
    exercise.append(there)


def sheets(chapters: list[Tag]) -> str:
    """Take the style sheets out of the chapters: each of them once."""
    found = [s.extract() for chapter in chapters for s in chapter.find_all("style")]
    return "\n".join(dict.fromkeys(str(sheet.string) for sheet in found))


def cover(root: Path = ROOT) -> Tag:
    """The title page, from ``CITATION.cff`` and the footer of the pages."""
    cff = citations.load(root)
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf8"))
    title, _, under = cff["title"].partition(": ")
    site = address.pages(address.address(root))
    page = new("section", class_="cover")
    page.append(new("p", title, class_="book-title"))
    page.append(new("p", under[:1].upper() + under[1:], class_="book-subtitle"))
    names = [a.get("name") or f"{a['given-names']} {a['family-names']}"
             for a in cff["authors"]]
    page.append(new("p", ", ".join(names), class_="book-authors"))
    foot = new("div", class_="book-foot")
    foot.append(new("p", f"Version {cff['version']}, {cff['date-released']}"))
    where = new("p")
    where.append(new("a", site, href=site))
    foot.append(where)
    foot.append(BeautifulSoup(config["html"]["extra_footer"], "html.parser"))
    foot.append(new("p", NOTE))
    page.append(foot)
    return page


def contents(listed: list[tuple[str, list[Tag]]]) -> Tag:
    """The table of contents: captions with their chapters, and places for pages."""
    box = new("nav", class_="toc", id="contents")
    box.append(new("h1", "Contents", class_="level-1"))
    for caption, chapters in listed:
        if caption:
            box.append(new("p", caption, class_="part-caption"))
        rows = new("ul")
        for chapter in chapters:
            row, link = new("li"), new("a", href=f"#{chapter['id']}")
            link.extend([new("span", title_of(chapter)), new("i"),
                         page_of(chapter["id"])])
            row.append(link)
            rows.append(row)
        box.append(rows)
    return box


def faces(names: Iterable[str], folder: str) -> str:
    """Rules for typefaces whose files are named FAMILY-SUBSET-WEIGHT-STYLE.woff2."""
    rules = []
    for name in names:
        found = FACE.fullmatch(name)
        if found:
            family = found["family"].replace("-", " ").title()
            rules.append(
                f'@font-face {{ font-family: "{family}"; font-style: {found["style"]}; '
                f'font-weight: {found["weight"]}; src: url("{folder}{name}"); '
                f"unicode-range: {RANGES[found['subset']]} }}"
            )
    return "\n".join(rules)


def running(chapters: list[Tag]) -> str:
    """Page rules that repeat a chapter's title at the head of its pages."""
    rules = []
    for number, chapter in enumerate(chapters):
        words = title_of(chapter).replace("\\", "\\\\").replace('"', '\\"')
        chapter["style"] = f"page: chapter-{number}"
        head = f'@top-left {{ content: "{words}" }}'
        rules.append(f"@page chapter-{number} {{ {head} }}")
    return "\n".join(rules)


def gather(listed: list[tuple[str, list[Tag]]]) -> list[tuple[str, list[Tag]]]:
    """Add the appendix before the last part, rank headings and name the parts."""
    listed = [*listed]
    appendix = collect([c for _, chapters in listed for c in chapters])
    listed.insert(max(len(listed) - 1, 1), ("", [appendix]))
    for caption, chapters in listed:
        for number, chapter in enumerate(chapters):
            if chapter is not appendix:
                rank(chapter, 1 if caption else 0)
            if caption and not number:
                chapter.insert(0, new("h1", caption, class_="part-caption"))
    return listed


def headings(document: Tag) -> list[str]:
    """The words of all headings in their order, formulas as they are written."""
    found = document.find_all([f"h{level}" for level in range(1, 7)])
    return [re.sub(r"\\[()]", "", " ".join(h.get_text().split())) for h in found]


def document(build: Path, root: Path = ROOT) -> BeautifulSoup:
    """The whole book for paper, from the pages of ``build``.

    Args:
        build: the folder of the built pages (``_build/html``). The document belongs
            into a folder beside it, for its paths lead there.
        root: the folder of ``_toc.yml``, ``CITATION.cff`` and ``_config.yml``.

    Raises:
        ValueError: a link leads nowhere, or a solution answers no exercise.
    """
    site = address.pages(address.address(root))
    pages = [page for part in parts(root) for page in part.pages]
    texts = {p: (build / f"{p}.html").read_text(encoding="utf8") for p in pages}
    ready = {p: prepare(text, p, pages, site) for p, text in texts.items()}
    listed = gather([(p.caption, [ready[q] for q in p.pages]) for p in parts(root)])
    chapters = [chapter for _, found in listed for chapter in found]
    rules = f"{sheets(chapters)}\n{running(chapters)}"
    body = [cover(root), contents(listed), *chapters]
    return _whole(body, rules, texts[pages[0]], citations.load(root))


def _whole(body: list[Tag], rules: str, page: str, cff: dict) -> BeautifulSoup:
    """The document around its sections, with the set-up of MathJax from a page."""
    soup = BeautifulSoup('<!DOCTYPE html><html lang="en" data-theme="light">'
                         "<head></head><body></body></html>", "html.parser")
    soup.head.append(new("meta", charset="utf-8"))
    soup.head.append(new("title", cff["title"]))
    for name in SHEETS:
        soup.head.append(new("link", rel="stylesheet", href=f"../html/_static/{name}"))
    for name in ("fonts.css", "paper.css"):
        soup.head.append(new("link", rel="stylesheet", href=name))
    soup.head.insert(1, new("style", rules))  # paper.css has the last word
    only = SoupStrainer("script")
    for script in list(BeautifulSoup(page, "html.parser", parse_only=only)):
        if "window.MathJax" in (script.string or "") or "mathjax" in script.get("src", ""):
            if script.get("src", "").startswith("../"):
                script["src"] = f"../html/{script['src'].removeprefix('../')}"
            soup.head.append(script)
    soup.body.extend(body)
    missing = dangling(soup)
    if missing:
        raise ValueError(f"links lead nowhere: {', '.join(missing)}")
    return soup


def dangling(soup: Tag) -> list[str]:
    """Targets of links and of page numbers that are no id of the document."""
    ids = {element["id"] for element in soup.find_all(id=True)}
    links = {a["href"][1:] for a in soup.find_all("a", href=True)
             if a["href"].startswith("#")}
    places = {span["data-of"] for span in soup.select("span.page")}
    return sorted((links | places) - ids)
