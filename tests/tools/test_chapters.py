"""Execution keys: what a result depends on changes its key, and nothing else does."""

import json

import pytest

from tests.trees import plant
from tools import chapters

MODULES = {
    "__init__.py": "",
    "low.py": "X = 1\n",
    "mid.py": "from .low import X\n",
    "top.py": "def f():\n    from flatbook import mid\n    return mid\n",
    "other.py": "Y = 2\n",
    "results.py": "Z = 3\n",
    "sub/__init__.py": "from . import inner\n",
    "sub/inner.py": "from ..low import X\n",
    "lazy.py": "import importlib\nm = importlib.import_module('flatbook.other')\n",
    "chooser.py": "import importlib\n"
    "def load(n):\n    return importlib.import_module(f'flatbook.sub.{n}')\n",
    "unclear.py": "import importlib\nm = importlib.import_module('flatbook.' + 'x')\n",
}


def code_cell(source, tags=(), outputs=()):
    return {
        "cell_type": "code",
        "id": "c-one",
        "metadata": {"tags": list(tags)},
        "source": source,
        "outputs": list(outputs),
        "execution_count": 1 if outputs else None,
    }


@pytest.fixture
def root(tmp_path):
    plant(tmp_path, MODULES)
    for name in ("book/conftest.py", "tests/nbval-sanitize.cfg", "results/a.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    return tmp_path


def notebook(root, *cells):
    path = root / "book" / "one.ipynb"
    text = {"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(text))
    return path


def key_of(root, source="from flatbook import top"):
    return chapters.key(notebook(root, code_cell(source)), root)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import math", ""),
        ("from flatbook import top", "top mid low"),
        ("from flatbook.mid import X", "mid low"),
        ("import flatbook.low as low", "low"),
        ("%matplotlib inline\nfrom flatbook import low", "low"),
        ("from flatbook import sub", "sub sub.inner low"),
        ("from flatbook.sub.inner import X", "sub sub.inner low"),
        ("from flatbook import lazy", "lazy other"),
        ("from flatbook import chooser", "chooser sub sub.inner low"),
    ],
)
def test_closure(root, source, expected):
    names = {"flatbook", *(f"flatbook.{name}" for name in expected.split())}
    assert chapters.closure(source, root) == names


@pytest.mark.parametrize(
    "source",
    [
        "import flatbook",
        "import flatbook.low",
        "from flatbook import *",
        "from flatbook import unclear",
        "from importlib import import_module",
        "this is no Python (",
    ],
)
def test_closure_is_everything_where_unclear(root, source):
    assert len(chapters.closure(source, root)) == len(MODULES)


@pytest.mark.parametrize("name", ["top", "mid", "low", "__init__"])
def test_key_changes_with_a_dependency(root, name):
    before = key_of(root)
    (root / "flatbook" / f"{name}.py").write_text(MODULES[f"{name}.py"] + "# new\n")
    assert key_of(root) != before


@pytest.mark.parametrize("name", ["flatbook/other.py", "results/a.json", "book/x.md"])
def test_key_stays_with_what_is_not_used(root, name):
    before = key_of(root)
    (root / name).write_text("# new\n")
    assert key_of(root) == before


def test_key_changes_with_a_card_where_cards_are_read(root):
    source = "from flatbook import results"
    before = key_of(root, source)
    (root / "results" / "a.json").write_text("[]")
    assert key_of(root, source) != before


def test_key_changes_with_how_notebooks_are_run(root, monkeypatch):
    before = key_of(root)
    (root / "book" / "conftest.py").write_text("# new\n")
    changed = key_of(root)
    assert changed != before
    monkeypatch.setattr(chapters, "versions", lambda: {"torch": "0"})
    assert key_of(root) != changed


def test_key_depends_on_code_tags_and_checked_outputs_only(root):
    out = {"output_type": "stream", "name": "stdout", "text": ["1\n"]}
    other = {**out, "text": ["2\n"]}
    check = "nbval-check-output"

    def key(*cells):
        return chapters.key(notebook(root, *cells), root)

    plain = key(code_cell("x = 1"))
    prose = {"cell_type": "markdown", "id": "m", "metadata": {}, "source": "new"}
    assert key(code_cell("x = 1"), prose) == plain
    assert key(code_cell("x = 1", outputs=[out])) == plain
    assert key(code_cell("x = 2")) != plain
    assert key(code_cell("x = 1", ["hide-input"])) != plain
    checked = key(code_cell("x = 1", [check], [out]))
    assert key(code_cell("x = 1", [check], [other])) != checked


def test_pending_until_filed(root):
    path = notebook(root, code_cell("x = 1"))
    assert chapters.pending(root) == [path]
    filed = chapters.executed(path, root)
    filed.parent.mkdir(parents=True)
    filed.write_text(json.dumps({"metadata": {"flatbook": {"seconds": 1.5}}}))
    assert chapters.pending(root) == []
    assert chapters.seconds(filed) == 1.5
    notebook(root, code_cell("x = 2"))
    assert chapters.pending(root) == [path]


def test_kernels_get_one_thread_and_no_backend(root, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    found = chapters.environment(root)
    assert "MPLBACKEND" not in found
    assert found["OMP_NUM_THREADS"] == "1"
    assert found["FLATBOOK_STATIC"] == "1"
    assert found["FLATBOOK_CHECKPOINTS"] == ""  # networks are trained, not read
