"""Which modules of the package a piece of code depends on, read from its imports.

Notebooks and finished parts of long runs are filed under a digest of the source that
made them: an edited figure then costs no training, and an edited attack does not go
unnoticed. Nothing is imported here; the source is parsed.

>>> "flatbook.softmax" in closure(["flatbook.attacks"])
True
>>> "flatbook.figures" in closure(["flatbook.attacks"])
False
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

__all__ = ["EVERYTHING", "closure", "digest", "imports", "module_files"]

PACKAGE = "flatbook"
EVERYTHING = "*"
_ROOT = Path(__file__).parents[1]


def imports(tree: ast.AST, package: tuple[str, ...]) -> Iterator[str]:
    """Names of our modules that a source imports, or EVERYTHING if unclear.

    Args:
        tree: the parsed source.
        package: the package it lies in, part by part; relative imports start there.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == PACKAGE:
                    yield alias.name if alias.asname else EVERYTHING
        elif isinstance(node, ast.ImportFrom):
            base = node.module.split(".") if node.module else []
            if node.level:
                base = [*package[: len(package) - node.level + 1], *base]
            if base[:1] == [PACKAGE]:
                yield ".".join(base)
                yield from (".".join([*base, alias.name]) for alias in node.names)
                if any(alias.name == "*" for alias in node.names):
                    yield EVERYTHING
        elif isinstance(node, ast.Attribute) and node.attr == "import_module":
            yield EVERYTHING


def module_files(root: Path = _ROOT) -> dict[str, Path]:
    """Module name -> file, for every module of the package in a folder."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def closure(start: Iterable[str], root: Path = _ROOT) -> set[str]:
    """These modules and all modules of the package that they import, at any depth.

    What the ``__init__`` of a package around them imports does not count: it cannot
    change what they compute. Modules that are chosen by name at run time have to be
    among the first ones. Names that are no modules are left out.
    """
    files = module_files(root)
    todo, seen = set(start) & set(files), set()
    while todo:
        name = todo.pop()
        seen.add(name)
        if name == PACKAGE:  # loads its modules lazily: importing it imports nothing
            continue
        path, parts = files[name], tuple(name.split("."))
        package = parts if path.name == "__init__.py" else parts[:-1]
        todo |= (_parsed(path.read_bytes(), package) & set(files)) - seen
    return seen


@lru_cache(maxsize=256)
def _parsed(source: bytes, package: tuple[str, ...]) -> frozenset[str]:
    return frozenset(imports(ast.parse(source), package))


def digest(*modules: str) -> str:
    """SHA-256 of the source of modules and of all that they import."""
    files, result = module_files(), hashlib.sha256()
    for name in sorted(closure(modules)):
        result.update(name.encode())
        result.update(files[name].read_bytes())
    return result.hexdigest()
