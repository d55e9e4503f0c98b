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
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path

__all__ = ["EVERYTHING", "closure", "digest", "imports", "module_files"]

PACKAGE = "flatbook"
EVERYTHING = "*"
_LOADER = "import_module"
_ROOT = Path(__file__).parents[1]


def imports(tree: ast.AST, package: tuple[str, ...]) -> Iterator[str]:
    """Names of our modules that a source imports.

    What is chosen by name at run time ends with a star: "flatbook.experiments.*" is
    some module of that package, and EVERYTHING could be any.

    Args:
        tree: the parsed source.
        package: the package it lies in, part by part; relative imports start there.
    """
    called = set()
    for node in ast.walk(tree):  # a call comes before its function
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == PACKAGE:
                    yield alias.name if alias.asname else EVERYTHING
        elif isinstance(node, ast.ImportFrom):
            yield from _of_from(node, package)
        elif isinstance(node, ast.Call) and _is_loader(node.func):
            called.add(node.func)
            yield from _of_call(node)
        elif _is_loader(node) and node not in called:
            yield EVERYTHING


def _of_from(node: ast.ImportFrom, package: tuple[str, ...]) -> Iterator[str]:
    """Of ``from a import b``: a, and a.b, which may be a module."""
    base = node.module.split(".") if node.module else []
    if node.level:
        base = [*package[: len(package) - node.level + 1], *base]
    names = [alias.name for alias in node.names]
    if base[:1] == [PACKAGE]:
        yield ".".join(base)
        yield from (".".join([*base, name]) for name in names)
        if "*" in names:
            yield EVERYTHING
    elif base == ["importlib"] and _LOADER in names:
        yield EVERYTHING


def _is_loader(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == _LOADER


def _of_call(node: ast.Call) -> Iterator[str]:
    """Of ``import_module(name)``: as much as a text or the head of an f-string says."""
    name = node.args[0] if node.args else None
    if isinstance(name, ast.Constant) and not str(name.value).startswith("."):
        if str(name.value).split(".")[0] == PACKAGE:
            yield str(name.value)
        return
    head = name.values[0] if isinstance(name, ast.JoinedStr) and name.values else None
    text = str(head.value) if isinstance(head, ast.Constant) else ""
    package = text.rpartition(".")[0]
    inside = package.startswith(f"{PACKAGE}.")
    yield f"{package}.{EVERYTHING}" if inside else EVERYTHING


def module_files(root: Path = _ROOT) -> dict[str, Path]:
    """Module name -> file, for every module of the package in a folder."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def closure(
    start: Iterable[str], root: Path = _ROOT, *, whole: bool = False
) -> set[str]:
    """These modules and all modules of the package that they import, at any depth.

    Names that are no modules are left out.

    Args:
        start: names, as `imports` gives them.
        root: the folder with the package.
        whole: all that can run, with the ``__init__`` of every package around a module
            and what is chosen by name at run time. Without it, what decides the
            numbers: an ``__init__`` cannot change what a module computes, and what is
            chosen by name has to be among the first.
    """
    files = module_files(root)
    todo, seen = _known(start, files, whole), set[str]()
    while todo:
        name = todo.pop()
        seen.add(name)
        if name != PACKAGE:  # loads its modules lazily: importing it imports nothing
            todo |= _known(_reached(name, files[name]), files, whole) - seen
    return seen


def _known(names: Iterable[str], files: Mapping[str, Path], whole: bool) -> set[str]:
    """The modules among names; for the whole, those that stars and packages mean."""
    found = set(names)
    if whole:
        heads = tuple(n.removesuffix("*") for n in found if n.endswith("*"))
        found |= {name for name in files if name.startswith(heads)}
        split = [name.split(".") for name in found]
        found |= {".".join(parts[:n]) for parts in split for n in range(1, len(parts))}
    return found & set(files)


def _reached(name: str, path: Path) -> frozenset[str]:
    parts = tuple(name.split("."))
    package = parts if path.name == "__init__.py" else parts[:-1]
    return _parsed(path.read_bytes(), package)


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
