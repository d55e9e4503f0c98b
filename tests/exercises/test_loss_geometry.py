"""Checkers accept the solutions and name the typical mistakes."""

import math

import pytest
import torch

from flatbook import scaling
from flatbook.exercises import check


def take_off(margins, s, rise):
    start = torch.log1p((-s * margins[0]).exp())
    level = -torch.log(torch.expm1(rise + start)) / s
    for t in range(1, len(margins)):
        before, after = margins[t - 1], margins[t]
        if after <= level:
            return t - 1 + (before - level) / (before - after)
    return torch.inf


def of_losses(margins, s, rise):
    """The library's function, which needs losses that do not underflow."""
    z = torch.stack([margins, 0 * margins], 1)
    labels = torch.zeros(len(margins), dtype=torch.int64)
    return scaling.take_off(scaling.losses(z, labels, [s])[0], rise)


def straight_in_the_loss(margins, s, rise):
    loss = torch.nn.functional.softplus(-s * margins)
    return scaling.crossing(loss, loss[0] + rise)


def whole_steps(margins, s, rise):
    step = take_off(margins, s, rise)
    return step if step == torch.inf else math.ceil(step)


def test_right_answers():
    assert check("loss_geometry.rises", [math.exp(-10), 20]).ok
    assert check("loss_geometry.rises", torch.tensor([1 / 22_000, 20.0]).double()).ok
    answer = "(s*m + log(exp(epsilon) + exp(epsilon - m*s) - 1))/s"
    assert check("loss_geometry.radius", answer).ok
    assert check("loss_geometry.take_off", take_off).ok


@pytest.mark.parametrize(
    ("topic", "answer", "message"),
    [
        ("rises", [math.exp(-10), 30], "the second rise, 30, is too large"),
        ("rises", [0.0, 20], "the first rise, 0, is too small"),
        ("rises", [math.exp(-1), 20], "the first rise, 0.368, is too large"),
        ("rises", 20, "two numbers are asked for"),
        ("radius", "m", "does not depend on epsilon, s"),
        ("radius", "m - log(exp(epsilon)*(1 + exp(-m*s)) - 1)/s", "not equal"),
        ("take_off", straight_in_the_loss, "case 1"),
        ("take_off", whole_steps, "case 1"),
        ("take_off", of_losses, "s = 10000"),
        ("take_off", lambda m, s, r: torch.inf, "the loss rises that much at step"),
        ("take_off", lambda m, s, r: m, "should be one number"),
        ("take_off", 3, "should be a function"),
    ],
)
def test_wrong_answers(topic, answer, message):
    verdict = check(f"loss_geometry.{topic}", answer)
    assert not verdict.ok
    assert message in verdict.message
