"""Checkers accept the solutions and name the typical mistakes."""

import math
import re

import pytest
import sympy as sp
import torch

from flatbook.exercises import check

LOG3 = math.log(3)
RIGHT = [3 / 16 * LOG3**2, 3 / 16, 3 / 16 * LOG3 + 3 / 4]
q, D = sp.symbols("q D")


def rows_of(model, x):
    x = x.clone().requires_grad_()
    z = model(x[None])[0]
    rows = [torch.autograd.grad(v, x, retain_graph=True)[0] for v in z]
    return torch.stack(rows), z.detach().softmax(0)


def trace(model, x):
    rows, p = rows_of(model, x)
    squares = (rows[:, None] - rows).square().sum(2)
    return (torch.outer(p, p) * squares).sum() / 2


def twice(model, x):
    return 2 * trace(model, x)


def uncentred(model, x):
    rows, p = rows_of(model, x)
    return (p * rows.square().sum(1)).sum()


def diagonal(model, x):
    rows, p = rows_of(model, x)
    return (p * (1 - p) * rows.square().sum(1)).sum()


def subtracted(model, x):
    rows, p = rows_of(model, x)
    return (p * rows.square().sum(1)).sum() - (p @ rows).square().sum()


def all_gradients(model, x):
    return rows_of(model, x)[0].square().sum(1)


def test_right_answers():
    assert check("curvature_backwards.blocks", RIGHT).ok
    assert check("curvature_backwards.blocks", torch.tensor(RIGHT).double()).ok
    assert check(
        "curvature_backwards.variance", D**2 * (q - q**2) * (2 * q - 1) ** 2
    ).ok
    assert check("curvature_backwards.trace", trace).ok


@pytest.mark.parametrize(
    ("topic", "answer", "message"),
    [
        ("blocks", RIGHT[:2], "three numbers are asked, you gave 2"),
        ("blocks", [RIGHT[1], RIGHT[0], RIGHT[2]], "exchanged"),
        ("blocks", [0.1, *RIGHT[1:]], "first number is wrong"),
        ("blocks", [RIGHT[0], 0.1, RIGHT[2]], "second number is wrong"),
        ("blocks", [*RIGHT[:2], 3 / 16 * LOG3], r"that of J\^T P J"),
        ("blocks", [*RIGHT[:2], 3 / 16 * LOG3 - 1 / 4], "other label"),
        ("blocks", [*RIGHT[:2], 1.0], "product rule"),
        ("variance", D**2 * q * (1 - q) * (1 - 3 * q + 3 * q**2), "not equal"),
        ("variance", -(D**2) * q * (1 - q) * (1 - 2 * q) ** 2, "wrong sign"),
        ("trace", uncentred, "seen from 0"),
        ("trace", diagonal, "off its diagonal"),
        ("trace", twice, "counted twice"),
        ("trace", subtracted, "confident.*large numbers|what it should be"),
        ("trace", all_gradients, "one number is expected"),
        ("trace", lambda model, x: 3 * trace(model, x), "3 times what"),
    ],
)
def test_wrong_answers(topic, answer, message):
    verdict = check(f"curvature_backwards.{topic}", answer)
    assert not verdict.ok
    assert re.search(message, verdict.message)
