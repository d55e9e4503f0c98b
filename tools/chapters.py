"""Run the notebooks whose result is missing; nbval validates that same run.

A result is filed by ``book/conftest.py`` under ``_build/executed/`` with an
execution key: a digest of all that the outputs depend on. That is the notebook's
code cells, tags and stored checked outputs; the modules of the package that it
imports, with all that those import; the result cards where it reads them; the
versions of Python and of the numerical packages; and the way it is run. Prose is
not part of it, nor are the tags for slides, so a corrected sentence costs no execution.

    python -m tools.chapters            run what is missing
    python -m tools.chapters --accept   and store new outputs of checked cells
"""

import ast
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

from flatbook import _sources
from flatbook._sources import PACKAGE
from tools import contents
from tools.contents import ROOT

VERSIONS = (
    *("torch", "torchvision", "numpy", "sympy", "matplotlib", "scikit-learn"),
    *("ipython", "ipykernel", "ipywidgets", "myst-nb"),
)
RUN = {
    "FLATBOOK_CHECKPOINTS": "",  # a result is computed, not taken from an old run
    "FLATBOOK_PROFILE": "cpu",
    "FLATBOOK_STATIC": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
}


def environment(root: Path = ROOT) -> dict[str, str]:
    """Variables of every kernel: the same for each reader, with no start-up files.

    ``MPLBACKEND`` is taken out because a kernel that inherits it shows no figure.
    """
    inherited = {k: v for k, v in os.environ.items() if k != "MPLBACKEND"}
    return {**inherited, **RUN, "IPYTHONDIR": str(root / "_build" / "ipython")}


def closure(source: str, root: Path = ROOT) -> set[str]:
    """Names of the package's modules that a notebook's code depends on.

    ``from flatbook import a`` and ``import flatbook.a as a`` name what they need;
    plain ``import flatbook`` could reach anything and counts as everything.
    """
    lines = [
        "pass" if line.lstrip().startswith(("%", "!")) else line
        for line in source.splitlines()
    ]
    try:
        start = set(_sources.imports(ast.parse("\n".join(lines)), ()))
    except SyntaxError:
        start = {_sources.EVERYTHING}
    return _sources.closure({PACKAGE, *start}, root, whole=True)


def dependencies(source: str, root: Path = ROOT) -> list[Path]:
    """The files that decide what a notebook with this code puts out."""
    names = closure(source, root)
    files = {
        path for name, path in _sources.module_files(root).items() if name in names
    }
    data = (p for p in (root / PACKAGE).rglob("*") if p.is_file())
    files |= {p for p in data if p.suffix not in (".py", ".pyc")}
    if f"{PACKAGE}.results" in names:
        files |= {p for p in (root / "results").rglob("*") if p.is_file()}
    files |= {root / "book" / "conftest.py", root / "tests" / "nbval-sanitize.cfg"}
    return sorted(files)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that compute or draw."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def key(notebook: Path, root: Path = ROOT) -> str:
    """The execution key of a notebook: same key, same outputs."""
    code = contents.cells(notebook, "code")
    checked = (
        cell["outputs"] if contents.CHECKED in contents.tags(cell) else None
        for cell in code
    )
    files = dependencies("\n".join(contents.text(cell) for cell in code), root)
    parts = {
        "cells": [[contents.text(c), contents.run_tags(c)] for c in code],
        "checked": list(checked),
        "files": {
            path.relative_to(root).as_posix(): hashlib.sha256(
                path.read_bytes()
            ).hexdigest()
            for path in files
        },
        "versions": versions(),
        "run": RUN,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def executed(notebook: Path, root: Path = ROOT) -> Path:
    """Where the result of the notebook as it stands now is, or will be, filed."""
    name = "-".join(notebook.relative_to(root / "book").with_suffix("").parts)
    return root / "_build" / "executed" / f"{name}-{key(notebook, root)}.ipynb"


def seconds(result: Path) -> float:
    """Processor time of the run that left this result, with all its imports."""
    return json.loads(result.read_text(encoding="utf8"))["metadata"]["flatbook"][
        "seconds"
    ]


def pending(root: Path = ROOT) -> list[Path]:
    """The notebooks without a result for their current key."""
    return [p for p in contents.notebooks(root) if not executed(p, root).is_file()]


def run(paths: list[Path], *, accept: bool) -> int:
    """Validate notebooks with nbval, two at a time; the exit code of pytest."""
    variables = environment()
    variables.pop("FLATBOOK_ACCEPT", None)
    if accept:
        variables["FLATBOOK_ACCEPT"] = "1"
    command = (
        *(sys.executable, "-m", "pytest", "-q", "--nbval", "--nbval-current-env"),
        *("--nbval-cell-timeout=600", "--dist", "loadfile", "-n", "2"),
        *("--nbval-sanitize-with", str(ROOT / "tests" / "nbval-sanitize.cfg")),
        *map(str, paths),
    )
    return subprocess.run(command, cwd=ROOT, env=variables, check=False).returncode


def main(argv: list[str]) -> int:
    """Run what is missing and report the time of every chapter."""
    if set(argv) - {"--accept"}:
        print(__doc__)
        return 2
    accept = "--accept" in argv
    todo = pending()
    if accept:
        todo += [p for p in contents.notebooks() if contents.unstored(p)]
    todo = sorted(set(todo))
    names = ", ".join(path.stem for path in todo) or "none"
    done = len(contents.notebooks()) - len(todo)
    print(f"to run: {names}; up to date: {done}", flush=True)
    code = run(todo, accept=accept) if todo else 0
    for path in contents.notebooks():
        result = executed(path)
        if result.is_file():
            print(f"  {path.stem}: ran in {seconds(result):.1f} s")
        else:
            print(f"  {path.stem}: no accepted result")
            code = code or 1
    return code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
