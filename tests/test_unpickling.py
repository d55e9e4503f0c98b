"""Nothing in the package can unpickle a file that came from elsewhere."""

import ast

import pytest

from tools.contents import ROOT

FILES = sorted(
    path
    for folder in ("flatbook", "tools", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
)
UNSAFE = {"pickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal"}
SAFE = {"torch": ("weights_only", True), "np": ("allow_pickle", False)}


def unsafe(source):
    """Lines that import an unpickler, or load without saying that nothing may run."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            names = []
        if any(n.split(".")[0] in UNSAFE or n == "joblib.load" for n in names):
            yield node.lineno
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner, name = ast.unparse(node.func.value), node.func.attr
            given = {k.arg: ast.unparse(k.value) for k in node.keywords}
            key, value = SAFE.get(owner, (None, None))
            if name == "load" and key and given.get(key) != str(value):
                yield node.lineno
            if (owner, name) in {("joblib", "load"), ("torch.hub", "load")}:
                yield node.lineno


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_unpickling(path):
    assert list(unsafe(path.read_text(encoding="utf8"))) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "from joblib import load",
        "joblib.load(path)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "torch.hub.load(path, 'model')",
    ],
)
def test_the_check_sees(line):
    assert list(unsafe(line)) == [1]


def test_the_check_lets_pass():
    safe = "torch.load(p, weights_only=True)\nnp.load(p, allow_pickle=False)"
    assert list(unsafe(f"{safe}\njson.load(p)")) == []
