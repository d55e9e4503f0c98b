"""A built page as a chapter on paper. `tools.binding` makes a book of them.

Every change is one small function that edits a parsed page in place:

* `strip`: what only a screen needs goes: folded code, scripts, the cell for Colab;
* `still`: a figure with sliders stays at its first values, which are written above it;
* `unfold`: proofs and hints are open;
* `lead`: links between pages lead within the document, ids get the name of their page.

Page numbers are not known here: `page_of` holds a place for one.

    chapter = paper.prepare(html, "book/intro", contents.toc(), "https://.../")
"""

import posixpath
from collections.abc import Iterable

from bs4 import BeautifulSoup, SoupStrainer, Tag

SCREEN_ONLY = (
    *(".headerlink", "script", "noscript", ".toctree-wrapper", "button"),
    *(".tag_colab-setup", "details.hide", ".sd-summary-state-marker", ".screen-only"),
)
POINTING = ("for", "aria-labelledby", "aria-describedby", "headers")
UNCOLOURED = ["n", "nn", "o", "p", "w"]  # names, signs and blanks in code
PLACE = "000"  # as wide as a page number


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


def beside(page: str, path: str) -> str:
    """What a relative path on a page means, from the folder of all pages."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), path))


def lead(article: Tag, page: str, pages: Iterable[str], site: str) -> None:
    """Make ids unique in the document, and links and pictures find their target."""
    known = set(pages)
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
        there = beside(page, path) if path else page
        target = there.removesuffix(".html")
        if target in known:
            link["href"] = f"#{slug(target)}" + (f"--{anchor}" if anchor else "")
        else:
            link["href"] = site + there + (f"#{anchor}" if anchor else "")
    for picture in article.find_all("img", src=True):
        if not picture["src"].startswith("data:"):
            picture["src"] = f"../html/{beside(page, picture['src'])}"


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
