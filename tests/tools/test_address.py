"""The repository's address: one place, and everything else agrees."""

import json
import subprocess

import pytest

from tools import address
from tools.contents import ROOT

OLD = "https://github.com/old/flatbook"
NEW = "https://github.com/new-owner/flatbook"


@pytest.mark.parametrize(
    ("remote", "expected"),
    [
        ("https://github.com/a/flatbook.git\n", "https://github.com/a/flatbook"),
        ("https://github.com/a/flatbook/", "https://github.com/a/flatbook"),
        ("https://user:secret@github.com/a/b.git", "https://github.com/a/b"),
        ("git@github.com:a/b.git", "https://github.com/a/b"),
        ("ssh://git@gitlab.com:2222/g/sub/b.git", "https://gitlab.com/g/sub/b"),
        ("git@gitlab.example.org:a/b", "https://gitlab.example.org/a/b"),
        ("/srv/git/flatbook.git", None),
        ("../flatbook", None),
        ("file:///srv/git/flatbook.git", None),
        ("http://localhost:3000/a/b.git", None),
        ("https://localhost/a/b", None),
        ("git@10.0.0.3:a/b.git", None),
        ("", None),
    ],
)
def test_normalise(remote, expected):
    assert address.normalise(remote) == expected


@pytest.fixture
def root(tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        f'[project.urls]\nRepository = "{OLD}"\n'.replace("[", "[project]\n[", 1)
    )
    (tmp_path / "README.md").write_text(
        f"{OLD} {OLD}.git https://old.github.io/flatbook/ {OLD}-extras\n"
        "https://colab.research.google.com/github/old/flatbook/blob/main/a.ipynb\n"
    )
    (tmp_path / "CITATION.cff").write_text(f"repository-code: {OLD}\n")
    (tmp_path / "_config.yml").write_text(f"url: {OLD}\n")
    (tmp_path / "book").mkdir()
    cell = {"cell_type": "code", "source": f"pip install git+{OLD}.git"}
    (tmp_path / "book" / "a.ipynb").write_text(json.dumps({"cells": [cell]}))
    return tmp_path


def test_fix_changes_every_form_and_nothing_else(root):
    assert list(address.differences(root, OLD)) == []
    assert list(address.differences(root, NEW))
    assert len(address.fix(root, NEW)) == 5
    assert address.stored(root) == NEW
    assert list(address.differences(root, NEW)) == []
    text = (root / "README.md").read_text()
    assert f"{NEW} {NEW}.git https://new-owner.github.io/flatbook/ {OLD}-extras" in text
    assert "/github/new-owner/flatbook/blob/main/a.ipynb" in text
    assert f"git+{NEW}.git" in (root / "book" / "a.ipynb").read_text()


def test_a_difference_names_file_and_line(root):
    (root / "CITATION.cff").write_text(
        "\nrepository-code: https://github.com/x/flatbook\n"
    )
    found = list(address.differences(root, OLD))
    assert found[0] == "CITATION.cff:2: https://github.com/x/flatbook"


def test_a_public_remote_comes_first(root):
    git = ["git", "-C", str(root)]
    subprocess.run([*git, "init", "-q"], check=True)
    assert address.address(root) == OLD
    subprocess.run([*git, "remote", "add", "origin", "/srv/x.git"], check=True)
    assert address.address(root) == OLD
    remote = "git@github.com:new-owner/flatbook.git"
    subprocess.run([*git, "remote", "set-url", "origin", remote], check=True)
    assert address.address(root) == NEW


def test_this_repository_says_the_same_everywhere():
    assert list(address.differences(ROOT, address.stored(ROOT))) == []
