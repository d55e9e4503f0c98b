"""Checkers accept the solutions and name the typical mistakes."""

import math

import pytest
import sympy as sp
import torch

from flatbook.exercises import check

DELTA = sp.Symbol("delta")
TENT = {"weak": (1 + DELTA) / 2, "middle": 1 - DELTA / 2, "strong": DELTA / 2}


def stump(clean, attacked):
    values = torch.cat([clean, attacked])
    weights = torch.cat([clean * 0 + 1 / len(clean), attacked * 0 - 1 / len(attacked)])
    order = values.argsort()
    height = weights[order].cumsum(0)
    last = torch.ones(len(values), dtype=torch.bool)
    last[:-1] = values[order].diff() > 0
    return (1 + height[last].abs().max()) / 2


def untied(clean, attacked):
    values = torch.cat([clean, attacked])
    weights = torch.cat([clean * 0 + 1 / len(clean), attacked * 0 - 1 / len(attacked)])
    return (1 + weights[values.argsort(stable=True)].cumsum(0).abs().max()) / 2


def one_sided(clean, attacked):
    rules = [
        1 + (attacked > t).double().mean() - (clean > t).double().mean()
        for t in torch.cat([clean, attacked, torch.tensor([-99.0]).double()])
    ]
    return max(rules) / 2


def test_right_answers():
    assert check("detection.mirrored", [1, 3, 5]).ok
    assert check("detection.mirrored", torch.tensor([2.0, 2.5, 3.5, 4.0]).double()).ok
    assert check("detection.folds", math.sqrt(0.92 * 0.08 / 4000)).ok
    assert check("detection.folds", 0.0043).ok
    assert check("detection.uniform", TENT).ok
    assert check("detection.stump", stump).ok
    assert check("detection.stump", lambda c, a: float(stump(c, a))).ok


@pytest.mark.parametrize(
    ("topic", "answer", "message"),
    [
        ("mirrored", [1, 3, 6], "the attacked sizes are 0, 3, 5: 0 gives them away"),
        ("mirrored", [3, 3, 3], "should all differ"),
        ("mirrored", [-1, 3, 7], "wrong already"),
        ("mirrored", [1, 5], r"your answer has shape \(2,\)"),
        ("mirrored", "1, 3, 5", "should be numbers"),
        ("folds", 0.92 * 0.08 / 4000, "take its root"),
        ("folds", math.sqrt(0.92 * 0.08 / 2000), "4,000 decisions"),
        ("folds", 0.01, "factor 2.33"),
        ("uniform", TENT["weak"], "a dictionary with"),
        ("uniform", TENT | {"weak": DELTA}, r"weak: that is the distance D"),
        ("uniform", TENT | {"strong": DELTA}, "factor 2"),
        ("uniform", {"weak": 1}, "a dictionary with"),
        ("stump", one_sided, "a better stump; are both sides"),
        ("stump", untied, "equal values stay on one side"),
        ("stump", lambda c, a: 0.5, "a better stump"),
        ("stump", lambda c, a: c, "has shape"),
        ("stump", 0.5, "should be a function"),
    ],
)
def test_wrong_answers(topic, answer, message):
    verdict = check(f"detection.{topic}", answer)
    assert not verdict.ok
    with pytest.raises(ValueError, match=message):
        raise ValueError(verdict.message)
