"""The addresses that the pages link to outside of the book, and whether they answer.

    python -m tools.links            print each address with the pages that name it
    python -m tools.links --write    write that list to _build/links.txt
    python -m tools.links --open     ask each address for its head; 1 if one is gone

Links inside the book are checked by the tests at every build. These need a network,
so they are listed by the build and opened by the weekly workflow alone. Buttons that
lead into the book's own repository are listed and not opened: they ask for a login,
and the tests look for their files.
"""

import sys
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from tools import address
from tools.pages import BUILD, HTML

LIST = BUILD / "links.txt"
PATIENCE = 20  # seconds
GONE = (404, 410)
HEAD_REFUSED = (403, 405, 501)
NAME = {"User-Agent": "Mozilla/5.0 (flatbook link check)"}


class Anchors(HTMLParser):
    """Collects the addresses outside of the site that a page links to."""

    def __init__(self) -> None:
        """An empty collection, to be fed with a page."""
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the address of a link that names another machine."""
        target = dict(attrs).get("href") or ""
        if tag == "a" and urlsplit(target).netloc:
            self.found.add(target)


def external(html: Path = HTML) -> dict[str, list[str]]:
    """Every address outside of the site, with the names of the pages that link to it.

    Raises:
        FileNotFoundError: there are no pages in this folder.
    """
    found: dict[str, list[str]] = {}
    pages = sorted(p for p in html.rglob("*.html") if "_static" not in p.parts)
    if not pages:
        raise FileNotFoundError(f"no pages in {html}: run make book")
    for page in pages:
        anchors = Anchors()
        anchors.feed(page.read_text(encoding="utf8"))
        name = page.relative_to(html).with_suffix("").as_posix()
        for target in anchors.found:
            found.setdefault(target, []).append(name)
    return dict(sorted(found.items()))


def listing(found: dict[str, list[str]]) -> str:
    """The addresses as text: each on a line, its pages indented below."""
    lines = (f"{target}\n    {' '.join(names)}\n" for target, names in found.items())
    return "".join(lines)


def answer(target: str, method: str = "HEAD") -> int | str:
    """The HTTP status of an address, or why there is none.

    Some machines refuse to be asked for the head alone: these are asked for the page.
    """
    try:
        request = Request(target, headers=NAME, method=method)
        with urlopen(request, timeout=PATIENCE) as response:
            return response.status
    except HTTPError as error:
        if method == "HEAD" and error.code in HEAD_REFUSED:
            return answer(target, "GET")
        return error.code
    except (OSError, ValueError) as error:
        return str(error)


def open_all(targets: Iterable[str]) -> int:
    """Print what each address answers; 1 if one is gone, else 0.

    A machine that refuses (403), is slow or away is reported, and no failure: it may
    answer a reader.
    """
    gone = 0
    for target in targets:
        status = answer(target)
        print(f"{status}  {target}", flush=True)
        gone += status in GONE
    return int(gone > 0)


def main(argv: list[str]) -> int:
    """Print, write or open the addresses."""
    found = external()
    if "--open" in argv:
        own = address.address()
        return open_all(target for target in found if not target.startswith(own))
    if "--write" in argv:
        LIST.write_text(listing(found), encoding="utf8")
        print(f"{len(found)} addresses outside of the book: {LIST}")
        return 0
    print(listing(found), end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
