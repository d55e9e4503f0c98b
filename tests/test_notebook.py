"""Glue: numbers reach the page as plain numbers. Checkpoints: the folder is known."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import sympy
import torch

from flatbook import _checkpoint, notebook


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (3, 3),
        (0.5, 0.5),
        (torch.tensor(0.25, dtype=torch.float64), 0.25),
        (torch.tensor([4]), 4),
        (np.float32(0.5), 0.5),
        (np.array([2]), 2),
        (sympy.Rational(1, 4), 0.25),
        (sympy.Integer(7), 7),
        ("ResNet-18", "ResNet-18"),
        (np.bool_(True), "yes"),
    ],
)
def test_values_become_plain(value, plain):
    found = notebook.as_plain(value)
    assert found == plain
    assert type(found) is type(plain)


@pytest.mark.parametrize(
    "value", [torch.zeros(2), [1.0], None, sympy.Symbol("x"), 1 + 2j]
)
def test_anything_else_is_refused(value):
    with pytest.raises(TypeError, match="one number or a text"):
        notebook.glue("x", value)


@pytest.mark.parametrize("name", ["", "two words", "a/b"])
def test_odd_names_are_refused(name):
    with pytest.raises(ValueError, match="name must consist"):
        notebook.glue(name, 1)


def test_with_myst_nb_nothing_is_shown(monkeypatch, capsys):
    seen = []
    record = SimpleNamespace(glue=lambda *a, **k: seen.append((a, k)))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "myst_nb", record)
    notebook.glue("kappa", torch.tensor(1.5))
    assert seen == [(("kappa", 1.5), {"display": False})]
    assert capsys.readouterr().out == ""


def test_without_myst_nb_the_value_is_printed(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    notebook.glue("kappa", torch.tensor(1.5))
    assert capsys.readouterr().out == "kappa = 1.5\n"


@pytest.fixture
def drive(monkeypatch, tmp_path):
    """The place where a Drive would be mounted; nothing is there yet."""
    monkeypatch.delenv("FLATBOOK_CHECKPOINTS", raising=False)
    monkeypatch.setattr(notebook, "_DRIVE", tmp_path / "MyDrive")
    return tmp_path / "MyDrive"


def test_nothing_is_kept_by_default(drive):
    assert notebook.checkpoints() is None
    assert not drive.exists()


def test_a_mounted_drive_keeps_checkpoints(drive):
    drive.mkdir()
    assert notebook.checkpoints() == drive / "flatbook" / "checkpoints"
    assert list(drive.iterdir()) == []  # asking makes nothing


def test_the_variable_goes_first(drive, monkeypatch, tmp_path):
    drive.mkdir()
    monkeypatch.setenv("FLATBOOK_CHECKPOINTS", f" {tmp_path} ")
    assert notebook.checkpoints() == tmp_path
    monkeypatch.setenv("FLATBOOK_CHECKPOINTS", "~/here")
    assert notebook.checkpoints() == Path.home() / "here"
    monkeypatch.setenv("FLATBOOK_CHECKPOINTS", " ")
    assert notebook.checkpoints() == drive / "flatbook" / "checkpoints"


def test_asking_whether_it_is_installed_is_quiet_and_light():
    code = "import runpy, sys\n"
    code += "runpy.run_module('flatbook.notebook', run_name='__main__')\n"
    code += "print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("False\n", "")


# What a chapter does, in a process that can be killed as a notebook's kernel can.
CHAPTER = """
from test_notebook import train
train(40)
"""


def train(epochs):
    """The lines of a chapter."""
    from flatbook.experiments import subject

    mlp = subject("mlp")
    mlp = replace(mlp, recipe=replace(mlp.recipe, epochs=epochs))
    return mlp.train(mlp.load(), 0, folder=notebook.checkpoints())


def kernel(folder):
    """A process that begins to train, with its checkpoints in a folder."""
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    variables = {"FLATBOOK_CHECKPOINTS": str(folder), "PYTHONPATH": paths}
    variables |= {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    return subprocess.Popen([sys.executable, "-c", CHAPTER], env=os.environ | variables)


def test_a_killed_chapter_resumes_to_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("FLATBOOK_CHECKPOINTS", "")
    whole = train(40).state_dict()
    with kernel(tmp_path) as killed:
        finished = 0
        while finished < 3:
            assert killed.poll() is None, "it ended before it could be killed"
            for path in tmp_path.glob("*.pt"):
                finished = len(_checkpoint.read(path)["history"]["loss"])
        killed.kill()
    assert killed.returncode == -signal.SIGKILL
    (path,) = tmp_path.glob("*.pt")  # readable: written whole or not at all
    before = _checkpoint.read(path)["history"]["seconds"]
    assert 3 <= len(before) < 40
    monkeypatch.setenv("FLATBOOK_CHECKPOINTS", str(tmp_path))
    resumed = train(40).state_dict()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    after = _checkpoint.read(path)["history"]["seconds"]
    assert after[: len(before)] == before  # those epochs were not run again
