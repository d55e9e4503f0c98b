"""What a source imports is read from its text, and followed at any depth."""

import ast
import hashlib

import pytest

from flatbook import _sources
from tests.trees import plant

TREE = {
    "__init__.py": "",
    "a.py": "from flatbook import _low\n",
    "_low.py": "",
    "run/__init__.py": "from flatbook.run import _load\n",
    "run/_load.py": "import importlib\n"
    "def load(n): return importlib.import_module(f'flatbook.run.{n}')\n",
    "run/one.py": "from flatbook import a\n",
    "run/two.py": "",
    "far.py": "",
}


@pytest.fixture
def root(tmp_path):
    return plant(tmp_path, TREE)


def names(source, package=()):
    return set(_sources.imports(ast.parse(source), package))


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("'flatbook.run.one'", {"flatbook.run.one"}),
        ("'torch'", set()),
        ("f'flatbook.run.{n}'", {"flatbook.run.*"}),
        ("f'flatbook.run.{n}.{m}'", {"flatbook.run.*"}),
        ("f'flatbook.run{n}'", {"*"}),
        ("f'flatbook.{n}'", {"*"}),
        ("f'{n}.run.one'", {"*"}),
        ("f''", {"*"}),
        ("f'torch.{n}'", {"*"}),
        ("'.one', 'flatbook.run'", {"*"}),
        ("f'.{n}', 'flatbook.run'", {"*"}),
        ("n", {"*"}),
        ("'flatbook.' + n", {"*"}),
        ("name='flatbook.run.one'", {"*"}),
        ("*n", {"*"}),
    ],
)
def test_modules_that_are_chosen_by_name(argument, expected):
    assert names(f"importlib.import_module({argument})") == expected


@pytest.mark.parametrize(
    "source",
    [
        "load = importlib.import_module",
        "map(importlib.import_module, names)",
        "from importlib import import_module",
        "importlib.import_module(importlib.import_module)",
    ],
)
def test_a_loader_that_is_passed_on_could_load_anything(source):
    assert "*" in names(source)


def test_relative_imports_start_at_their_package():
    found = names("from . import one\nfrom ..a import x", ("flatbook", "run"))
    assert found >= {"flatbook.run", "flatbook.run.one", "flatbook.a"}


def test_what_decides_numbers_leaves_out_packages_and_choices(root):
    assert _sources.closure(["flatbook.run.one", "flatbook.run._load"], root) == {
        *("flatbook.run.one", "flatbook.run._load"),
        *("flatbook", "flatbook.a", "flatbook._low"),
    }


def test_the_whole_has_packages_and_all_that_can_be_chosen(root):
    found = _sources.closure(["flatbook.run.two"], root, whole=True)
    assert found == set(_sources.module_files(root)) - {"flatbook.far"}


def test_anything_is_everything(root):
    found = _sources.closure([_sources.EVERYTHING], root, whole=True)
    assert found == set(_sources.module_files(root))
    assert _sources.closure([_sources.EVERYTHING], root) == set()


def test_names_that_are_no_modules_are_left_out(root):
    found = _sources.closure(["flatbook.a.x", "numpy", "flatbook.far"], root)
    assert found == {"flatbook.far"}


def test_a_digest_is_of_all_that_is_imported():
    content = hashlib.sha256()
    for name in sorted(_sources.closure(["flatbook.losses"])):
        content.update(name.encode())
        content.update(_sources.module_files()[name].read_bytes())
    assert _sources.digest("flatbook.losses") == content.hexdigest()
    assert _sources.digest("flatbook.radius") != content.hexdigest()
