"""Checkers of the chapter loss_bound: solutions pass, typical mistakes are named."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from flatbook.exercises import check


def worst_move(weight, z, y, rho, *, starts=None, steps=100):
    v = weight - weight[y] if starts is None else starts
    for _ in range(steps):
        v = rho * normalize(v)
        slope = (z + v @ weight.T).softmax(1) @ weight - weight[y]
        v = torch.where(slope.norm(dim=1, keepdim=True) > 0, slope, v)
    v = rho * normalize(v)
    rise = (z + v @ weight.T).logsumexp(1) - v @ weight[y]
    return v[rise.argmax()]


def from_the_gradient(weight, z, y, rho):
    slope = z.softmax(0) @ weight - weight[y]
    return worst_move(weight, z, y, rho, starts=slope[None])


def one_step(weight, z, y, rho):
    return rho * normalize(z.softmax(0) @ weight - weight[y], dim=0)


def test_right_answers():
    assert check("loss_bound.pencil", [math.log(2), math.log(1.5)]).ok
    assert check("loss_bound.threshold", 2.177319).ok
    assert check("loss_bound.worst_move", worst_move).ok


@pytest.mark.parametrize(
    ("topic", "answer", "message"),
    [
        ("pencil", [math.log(1.5), math.log(2)], "interchanged"),
        ("pencil", [math.log(2), -math.log(1.5)], "positive amounts"),
        ("pencil", [0.7002, math.log(1.5)], "quadratic bound"),
        ("pencil", math.log(2), "two numbers"),
        ("pencil", [math.log(2), math.log(2)], "fall: "),
        ("threshold", 2.0, "too small"),
        ("threshold", 2.3, "too large"),
        ("threshold", 0.0, "not 0"),
        ("threshold", [1.0, 2.0], "one number"),
        ("worst_move", one_step, "another by more"),
        ("worst_move", from_the_gradient, "another by more"),
        ("worst_move", lambda w, z, y, r: 2 * worst_move(w, z, y, r), "longer"),
        ("worst_move", lambda w, z, y, r: w, "your v has shape"),
        ("worst_move", 1.0, "should be a function"),
    ],
)
def test_wrong_answers(topic, answer, message):
    verdict = check(f"loss_bound.{topic}", answer)
    assert not verdict.ok
    assert message in verdict.message
