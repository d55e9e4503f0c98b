"""The house keeps its order: imports point downwards, and importing stays light.

Layers, from the ground up (see README.md): numerics; networks; experiments;
drawing. A module may import from its own layer's allowed set only.
"""

import ast
import re
import subprocess
import sys
import tomllib

import pytest

from flatbook import _sources
from tools.contents import ROOT

CORE = {"softmax", "losses", "curvature", "radius", "lipschitz"}
NUMERIC = CORE | {"paper", "scaling", "symbolic"}
SUPPORT = {"results", "profiles", "exercises", "notebook"}
NETWORKS = {"data", "models"}
RUNS = {"training", "attacks"}
DRAWING = {"figures", "explorer"}
ALLOWED = {
    **dict.fromkeys(CORE, CORE),
    **dict.fromkeys(NUMERIC - CORE, NUMERIC),
    **dict.fromkeys(SUPPORT, NUMERIC | SUPPORT),
    **dict.fromkeys(NETWORKS, NUMERIC | NETWORKS),
    **dict.fromkeys(RUNS, NUMERIC | NETWORKS | RUNS),
    "experiments": NUMERIC | NETWORKS | RUNS | SUPPORT | {"experiments"},
    **dict.fromkeys(DRAWING, NUMERIC | SUPPORT | DRAWING | {"experiments"}),
}
ALLOWED["reproduce"] = set.union(*ALLOWED.values()) | {"reproduce"}
HEAVY = (
    *("sklearn", "torchvision", "matplotlib", "sympy", "IPython", "ipywidgets"),
    *("tqdm", "PIL", "dask", "distributed"),
)
MODULES = sorted((ROOT / "flatbook").rglob("*.py"))


def area(name):
    """The part of the house a module belongs to: ``flatbook.data`` -> ``data``."""
    return name.split(".")[1] if "." in name else ""


def imported(path):
    """Our modules that a file imports, by area; helpers (``_name``) by themselves."""
    package = path.relative_to(ROOT).parts[:-1]
    names = _sources.imports(ast.parse(path.read_text(encoding="utf8")), package)
    known = _sources.module_files(ROOT)
    found = {name for name in names if name in known or name.endswith(".*")}
    return {area(name) for name in found} - {""}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_imports_point_downwards(path):
    own = path.relative_to(ROOT / "flatbook").with_suffix("").parts[0]
    if own == "__init__":
        return
    helpers = {name for name in imported(path) if name.startswith("_")}
    others = imported(path) - helpers - {own}
    if own.startswith("_"):  # a helper stands below whatever uses it
        users = {p.stem for p in MODULES if own in imported(p)}
        assert users, f"nothing uses {own}"
        allowed = set.intersection(
            *(ALLOWED.get(user, NUMERIC) for user in users if user[0] != "_"),
            set.union(*ALLOWED.values()),
        )
    else:
        assert own in ALLOWED, f"give flatbook.{own} its place in ALLOWED"
        allowed = ALLOWED[own]
    assert others <= allowed


def test_modules_are_found():
    assert {"softmax", "radius"} <= {path.stem for path in MODULES}
    assert imported(ROOT / "flatbook" / "curvature.py") >= {"softmax"}


def test_importing_flatbook_loads_nothing_heavy():
    code = (
        "import sys, torch; before = set(sys.modules)\n"
        "import flatbook, flatbook.softmax\n"
        f"print([m for m in {HEAVY!r} if m in set(sys.modules) - before])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


def test_no_machine_is_named_in_tracked_files():
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=False
    ).stdout.decode()
    names = [name for name in listed.split("\0") if name]
    if not names:  # an archive without git history: look at everything we own
        names = [str(p.relative_to(ROOT)) for p in MODULES]
    hosts = (
        "py" + "pi.org",
        "python" + "hosted",
        "registry.npm" + "js",
        "deb.deb" + "ian",
    )
    places = (
        "/wo" + "rk/",
        "/ro" + "ot/",
        "/ho" + "me/[a-z]",
        "/Us" + "ers/",
        "/opt/" + "py",
    )
    pattern = re.compile("|".join([*map(re.escape, hosts), *places]))
    text = {".png", ".jpg", ".npz", ".pt", ".woff2"}
    found = [
        f"{name}: {match[0]}"
        for name in names
        if (ROOT / name).is_file() and (ROOT / name).suffix not in text
        for match in [pattern.search((ROOT / name).read_text(encoding="utf8"))]
        if match
    ]
    assert found == []


def test_every_package_is_installed():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))
    listed = set(settings["tool"]["setuptools"]["packages"])
    folders = settings["tool"]["setuptools"]["package-dir"]
    ours = {path.parent for path in MODULES if path.name == "__init__.py"}
    names = {".".join(path.relative_to(ROOT).parts) for path in ours}
    assert listed == names | set(folders)
    assert all((ROOT / folder).is_dir() for folder in folders.values())
