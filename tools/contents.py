"""What the book consists of: the pages of ``_toc.yml`` and the notebooks' cells."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
CHECKED = "nbval-check-output"


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
