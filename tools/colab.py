"""A rehearsal of Colab: the chapters in clean environments, installed by their cell.

    python -m tools.colab                          all environments, all chapters
    python -m tools.colab oldest                   one environment
    python -m tools.colab colab --only intro       one chapter
    python -m tools.colab --static                 as the built pages have it

There are three environments: ``oldest`` has the smallest version of every package
that ``pyproject.toml`` admits, ``newest`` what the package index has now, and
``colab`` the versions of Colab, read from its published list where that can be
reached and else from the copy below. In each, a kernel that looks like Colab's
(`tools.colab_kernel`) runs the first cell of the book as it stands; git is told to
find its address in this checkout, so what is installed is the last commit. Then it
must have added flatbook and nothing else, do nothing when it is run again, and the
chapters must run, with sliders that move their figures.

Environments stay under ``_build/colab`` and are made again when their versions change.
The first time needs a package index, minutes, and some GB for each of them.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tools import contents, rehearsal
from tools.contents import ROOT

FOLDER = ROOT / "_build" / "colab"
LIST = (
    "https://raw.githubusercontent.com/googlecolab/backend-info/main/pip-freeze.gpu.txt"
)
PYTHON = {"oldest": "3.11", "colab": "3.12", "newest": "3.13"}
# From Colab's list (LIST), 2026. Its torch and torchvision are CUDA builds of these.
COLAB = {
    "torch": "2.11.0",
    "torchvision": "0.26.0",
    "numpy": "2.0.2",
    "scikit-learn": "1.6.1",
    "matplotlib": "3.10.0",
    "sympy": "1.14.0",
    "tqdm": "4.67.3",
    "ipywidgets": "7.7.1",
    "dask": "2026.1.1",
    "distributed": "2026.1.1",
    "ipython": "7.34.0",
    "ipykernel": "6.17.1",
    "jupyter_client": "7.4.9",
    "traitlets": "5.7.1",
    "setuptools": "75.2.0",
    "pip": "24.1.2",
}
KERNEL = ("ipython", "ipykernel", "jupyter_client", "traitlets")  # not flatbook's own


@dataclass(frozen=True)
class Row:
    """One line of the report."""

    environment: str
    what: str
    seconds: float
    failure: str = ""

    def __str__(self) -> str:
        end = self.failure or "passed"
        return f"{self.environment:8} {self.what:24} {self.seconds:7.1f} s  {end}"


# --- versions ---------------------------------------------------------------


def ranges(root: Path = ROOT) -> dict[str, str]:
    """The smallest version of each package that the chapters need, by its name.

    Raises:
        ValueError: a requirement in pyproject.toml is not of the form ``name>=1.2``.
    """
    text = (root / "pyproject.toml").read_text(encoding="utf8")
    project = tomllib.loads(text)["project"]
    found = {}
    for line in project["dependencies"] + project["optional-dependencies"]["book"]:
        match = re.fullmatch(r"([\w-]+)>=([\d.]+)", line)
        if not match:
            raise ValueError(f"pyproject.toml: expected name>=version, got {line!r}")
        found[match[1]] = match[2]
    return found


def pins(listed: str, names: Iterable[str]) -> dict[str, str]:
    r"""The versions of these packages in a ``pip freeze``, without local labels.

    >>> pins("torch==2.11.0+cu128\nnumpy==2.0.2\n", ["torch"])
    {'torch': '2.11.0'}
    """
    lines = dict(re.findall(r"^([\w.-]+)==([^+\s]+)", listed, re.M))
    return {name: lines[name] for name in names if name in lines}


def published() -> dict[str, str]:
    """Colab's versions now, or where its list cannot be reached those of COLAB."""
    try:
        with urllib.request.urlopen(LIST, timeout=10) as answer:
            return COLAB | pins(answer.read().decode(), COLAB)
    except OSError:
        return COLAB


def wanted(name: str, colab: dict[str, str]) -> list[str]:
    """What pip installs into an environment before the cell runs."""
    if name == "colab":
        return [f"{package}=={version}" for package, version in colab.items()]
    smallest = ranges()
    if name == "newest":
        return ["pip", *smallest, *KERNEL]
    exact = smallest | {package: colab[package] for package in ("pip", *KERNEL)}
    return [f"{package}=={version}" for package, version in exact.items()]


# --- environments -----------------------------------------------------------


def interpreter(name: str) -> str:
    """The Python that an environment asks for, or this one where it is missing."""
    found = shutil.which(f"python{PYTHON[name]}")
    if found is None:
        return sys.executable
    ask = subprocess.run([found, "-c", "import venv"], capture_output=True, check=False)
    return sys.executable if ask.returncode else found


def make(name: str, requirements: list[str], folder: Path = FOLDER) -> Path:
    """A virtual environment with these packages, made where it is not complete.

    Returns:
        Its Python.
    """
    place = folder / name
    python, stamp = place / "bin" / "python", place / "complete.txt"
    want = "\n".join([interpreter(name), *requirements])
    if not stamp.is_file() or stamp.read_text() != want:
        command = [interpreter(name), "-m", "venv", "--clear", str(place)]
        subprocess.run(command, check=True)
        pip = (str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check")
        own = [line for line in requirements if line.startswith("pip")]
        subprocess.run([*pip, *own], check=True)
        subprocess.run([*pip, *requirements], check=True)
        stamp.write_text(want)
    pip = (str(python), "-m", "pip", "uninstall", "-q", "-y", "flatbook")
    subprocess.run(pip, check=True, capture_output=True)
    return python


# --- the rehearsal ----------------------------------------------------------


def installation(name: str, python: Path) -> Iterator[Row]:
    """The cell in a clean environment, and once more."""
    folder = python.parent.parent
    before = rehearsal.snapshot(python)
    for what in ("first cell", "first cell again"):
        nb = rehearsal.notebook(rehearsal.setup_cell())
        seconds, failure = rehearsal.run(nb, python, folder)
        said = rehearsal.printed(nb).strip()
        yield Row(name, what, seconds, failure or changed(before, python) or said)


def changed(before: dict, python: Path) -> str:
    """What else than flatbook differs from a snapshot; empty if nothing does."""
    after = rehearsal.snapshot(python)
    if after["torch"] != before["torch"]:
        return "the files of torch changed"
    if "flatbook" not in after["packages"]:
        return "flatbook was not installed"
    old, new = before["packages"], after["packages"]
    differ = {n for n in old.keys() | new.keys() if old.get(n) != new.get(n)}
    differ.discard("flatbook")
    return f"other packages changed: {', '.join(sorted(differ))}" if differ else ""


def play(name: str, python: Path, paths: list[Path], *, static: bool) -> Iterator[Row]:
    """The chapters, with every slider moved."""
    for path in paths:
        more = () if static else (rehearsal.MOVE,)
        nb = rehearsal.chapter(path, *more)
        folder = python.parent.parent
        seconds, failure = rehearsal.run(nb, python, folder, static=static)
        yield Row(name, path.stem, seconds, failure)


def rows(name: str, paths: list[Path], *, static: bool) -> Iterator[Row]:
    """Everything in one environment."""
    requirements = wanted(name, published())
    print(f"{name}: {interpreter(name)}, {', '.join(requirements)}", flush=True)
    python = make(name, requirements)
    yield from installation(name, python)
    yield from play(name, python, paths, static=static)


def main(argv: list[str]) -> int:
    """Rehearse; exit status 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m tools.colab")
    parser.add_argument("environments", nargs="*", choices=[*PYTHON, []])
    parser.add_argument("--only", nargs="+", metavar="CHAPTER", help="names of pages")
    parser.add_argument("--static", action="store_true", help="without widgets")
    chosen = parser.parse_args(argv)
    known = {path.stem: path for path in contents.notebooks()}
    unknown = sorted(set(chosen.only or ()) - set(known))
    if unknown:
        parser.error(f"no chapter {', '.join(unknown)}; there are {', '.join(known)}")
    paths = [known[name] for name in chosen.only or known]
    failed = 0
    for name in chosen.environments or PYTHON:
        for row in rows(name, paths, static=chosen.static):
            print(row, flush=True)
            failed += bool(row.failure)
    print(f"{failed} failed" if failed else "all passed")
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
