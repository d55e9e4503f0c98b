"""Glue: numbers reach the page as plain numbers."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import sympy
import torch

from flatbook import notebook


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
