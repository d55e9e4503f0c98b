"""The book as one HTML document for paper: `tools.pdf` prints it.

The built pages are joined in the order of ``_toc.yml``, so numbers, citations and glued
values are those of the book on the screen. Before them come a title page and the
contents; solutions move to an appendix, and each exercise names the page of its own.

    soup = binding.document(root / "_build" / "html")
"""

import re
from pathlib import Path

import yaml
from bs4 import BeautifulSoup, SoupStrainer, Tag

from tools import address, citations, paper
from tools.contents import ROOT, parts
from tools.paper import new, page_of

Listed = list[tuple[str, list[Tag]]]
STATIC = "../html/_static"
SHEETS = (
    *(f"{STATIC}/pygments.css", f"{STATIC}/basic.css"),
    *(f"{STATIC}/flatbook.css", f"{STATIC}/backmatter.css"),
    *("fonts.css", "paper.css"),
)
APPENDIX = "solutions"
NOTE = (
    "Figures that move on the screen are shown here at the values written above them. "
    "Code that the pages fold away is left out. Both are at the address above, with "
    "every notebook. Solutions stand in an appendix."
)


def title_of(chapter: Tag) -> str:
    """The words of a chapter's title."""
    heading = chapter.select_one(".level-1") or chapter.find("h1")
    return " ".join(heading.get_text().split())


def plain(words: str) -> str:
    """Words without the signs around a formula, where none can be set."""
    return re.sub(r"\\[()]", "", words)


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


def authors(cff: dict) -> str:
    """The names of the authors, people and groups."""
    names = (
        a.get("name") or f"{a['given-names']} {a['family-names']}"
        for a in cff["authors"]
    )
    return ", ".join(names)


def cover(root: Path = ROOT) -> Tag:
    """The title page, from ``CITATION.cff`` and the footer of the pages."""
    cff = citations.load(root)
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf8"))
    title, _, under = cff["title"].partition(": ")
    site = address.pages(address.address(root))
    page = new("section", class_="cover")
    page.append(new("p", title, class_="book-title"))
    page.append(new("p", under[:1].upper() + under[1:], class_="book-subtitle"))
    page.append(new("p", authors(cff), class_="book-authors"))
    foot = new("div", class_="book-foot")
    foot.append(new("p", f"Version {cff['version']}, {cff['date-released']}"))
    where = new("p")
    where.append(new("a", site, href=site))
    foot.append(where)
    foot.append(BeautifulSoup(config["html"]["extra_footer"], "html.parser"))
    foot.append(new("p", NOTE))
    page.append(foot)
    return page


def listing(listed: Listed) -> Tag:
    """The table of contents: captions with their chapters, and places for pages."""
    box = new("nav", class_="toc", id="contents")
    box.append(new("h1", "Contents", class_="level-1"))
    for caption, chapters in listed:
        if caption:
            box.append(new("p", caption, class_="part-caption"))
        rows = new("ul")
        for chapter in chapters:
            row, link = new("li"), new("a", href=f"#{chapter['id']}")
            link.extend(
                [new("span", title_of(chapter)), new("i"), page_of(chapter["id"])]
            )
            row.append(link)
            rows.append(row)
        box.append(rows)
    return box


def running(chapters: list[Tag]) -> str:
    """Page rules that repeat a chapter's title at the head of its pages."""
    rules = []
    for number, chapter in enumerate(chapters):
        words = plain(title_of(chapter)).replace("\\", "\\\\").replace('"', '\\"')
        chapter["style"] = f"page: chapter-{number}"
        head = f'@top-left {{ content: "{words}" }}'
        rules.append(f"@page chapter-{number} {{ {head} }}")
    return "\n".join(rules)


def gather(listed: Listed) -> Listed:
    """Add the appendix before the last part, rank headings and name the parts."""
    listed = [*listed]
    appendix = collect([c for _, chapters in listed for c in chapters])
    listed.insert(max(len(listed) - 1, 1), ("", [appendix]))
    for caption, chapters in listed:
        for number, chapter in enumerate(chapters):
            if chapter is not appendix:
                paper.rank(chapter, 1 if caption else 0)
            if caption and not number:
                chapter.insert(0, new("h1", caption, class_="part-caption"))
    return listed


def headings(document: Tag) -> list[str]:
    """The words of all headings in their order, formulas as they are written."""
    found = document.find_all([f"h{level}" for level in range(1, 7)])
    return [plain(" ".join(heading.get_text().split())) for heading in found]


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
    ready = {p: paper.prepare(text, p, pages, site) for p, text in texts.items()}
    listed = gather([(p.caption, [ready[q] for q in p.pages]) for p in parts(root)])
    chapters = [chapter for _, found in listed for chapter in found]
    rules = f"{sheets(chapters)}\n{running(chapters)}"
    body = [cover(root), listing(listed), *chapters]
    return _whole(body, rules, texts[pages[0]], citations.load(root))


def mathjax(page: str) -> list[Tag]:
    """The settings and the script of MathJax, as a built page has them."""
    found = []
    only = SoupStrainer("script")
    for script in list(BeautifulSoup(page, "html.parser", parse_only=only)):
        source = script.get("src", "")
        if "window.MathJax" in (script.string or "") or "mathjax" in source:
            if source.startswith("../"):
                script["src"] = f"../html/{source.removeprefix('../')}"
            found.append(script.extract())
    return found


def _whole(body: list[Tag], rules: str, page: str, cff: dict) -> BeautifulSoup:
    """The document around its sections, with the set-up of MathJax from a page."""
    soup = BeautifulSoup(
        '<!DOCTYPE html><html lang="en" data-theme="light">'
        "<head></head><body></body></html>",
        "html.parser",
    )
    soup.head.append(new("meta", charset="utf-8"))
    soup.head.append(new("title", cff["title"]))
    soup.head.append(new("style", rules))
    for name in SHEETS:  # those of this folder have the last word
        soup.head.append(new("link", rel="stylesheet", href=name))
    soup.head.extend(mathjax(page))
    soup.body.extend(body)
    missing = dangling(soup)
    if missing:
        raise ValueError(f"links lead nowhere: {', '.join(missing)}")
    return soup


def dangling(soup: Tag) -> list[str]:
    """Targets of links and of page numbers that are no id of the document."""
    ids = {element["id"] for element in soup.find_all(id=True)}
    links = {
        a["href"][1:]
        for a in soup.find_all("a", href=True)
        if a["href"].startswith("#")
    }
    places = {span["data-of"] for span in soup.select("span.page")}
    return sorted((links | places) - ids)
