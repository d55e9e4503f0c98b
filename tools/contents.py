"""What the book consists of: the pages of ``_toc.yml`` and the notebooks' cells."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
CHECKED = "nbval-check-output"
SLIDES = {  # tag of a cell -> what it is on the slides, in the words of nbconvert
    "slide": "slide",
    "slide-below": "subslide",
    "slide-step": "fragment",
    "slide-more": "-",
}
OUTPUT_ONLY = "slide-output"  # the slide shows what the cell puts out, not its code


def _files(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("root", "file"):
                yield value
            else:
                yield from _files(value)
    elif isinstance(node, list):
        for value in node:
            yield from _files(value)


def toc(root: Path = ROOT) -> list[str]:
    """Page names in reading order, such as ``book/intro``, without suffix."""
    return list(_files(yaml.safe_load((root / "_toc.yml").read_text())))


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


def sources(root: Path = ROOT) -> list[Path]:
    """Every page source under ``book/``, in the table of contents or not."""
    found = (root / "book").rglob("*")
    return sorted(
        p
        for p in found
        if p.suffix in (".md", ".ipynb")
        and not any(part.startswith(("_", ".")) for part in p.relative_to(root).parts)
    )


def notebooks(root: Path = ROOT) -> list[Path]:
    """Every notebook of the book."""
    return [p for p in sources(root) if p.suffix == ".ipynb"]


def text(cell: dict) -> str:
    """The source of a cell as one string."""
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def tags(cell: dict) -> list[str]:
    """The tags of a cell."""
    return cell["metadata"].get("tags", [])


def run_tags(cell: dict) -> list[str]:
    """The tags of a cell that say how it runs: those for slides say nothing of it."""
    return [t for t in tags(cell) if t not in SLIDES and t != OUTPUT_ONLY]


def cells(path: Path, kind: str | None = None) -> list[dict]:
    """The cells of a notebook, of one kind ("code", "markdown") or all."""
    found = json.loads(path.read_text(encoding="utf8"))["cells"]
    return [c for c in found if kind in (None, c["cell_type"])]


def unstored(path: Path) -> list[str]:
    """Ids of cells that are to be checked and have no output to check against."""
    return [
        cell["id"]
        for cell in cells(path, "code")
        if CHECKED in tags(cell)
        and not (cell["outputs"] and cell["execution_count"] is not None)
    ]


def slide(cell: dict) -> str | None:
    """What a cell is on the slides, in the words of nbconvert; None if not there.

    Raises:
        ValueError: two tags ask for different things.
    """
    found = [SLIDES[tag] for tag in tags(cell) if tag in SLIDES]
    if len(found) > 1:
        raise ValueError(f"cell {cell['id']} is on one slide only, tags: {tags(cell)}")
    return found[0] if found else None


def slides(path: Path) -> int:
    """How many slides the tags of a notebook ask for."""
    return sum(slide(cell) in ("slide", "subslide") for cell in cells(path))


def title(path: Path) -> str:
    """The title of a notebook, from its first cell."""
    return text(cells(path)[0]).splitlines()[0].removeprefix("# ")
