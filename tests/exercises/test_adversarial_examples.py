"""Checkers accept the solutions and name the typical mistakes."""

import math

import pytest
import torch

from flatbook.exercises import check


def thresholds(loss, k):
    return math.log(2) - loss, math.log(k) - loss


def top_r(r, k):
    return math.log(r + 1), math.log(k) if r == 1 else math.inf


def quieter(p):
    if p[0] >= 0.5:
        return None
    true = (p[0] + 0.5) / 2
    crumb = (1 - 2 * true) / (2 * len(p))
    rest = crumb.expand(len(p) - 2)
    return torch.cat([true[None], (1 - true - rest.sum())[None], rest])


@pytest.mark.parametrize(
    ("topic", "answer"),
    [("thresholds", thresholds), ("top_r", top_r), ("quieter", quieter)],
)
def test_right_answers(topic, answer):
    verdict = check(f"adversarial_examples.{topic}", answer)
    assert verdict.ok, verdict


def missing_mass(p):
    return torch.full_like(p, 0.5)


def swap(p):
    return p[[1, 0, *range(2, len(p))]]


def greedy(p):
    """Flips also where class 0 has more than one half."""
    moved = torch.full_like(p, 1e-6)
    moved[:2] = torch.tensor([0.49, 0.51])
    return moved / moved.sum()


@pytest.mark.parametrize(
    ("topic", "answer", "message"),
    [
        ("thresholds", 3, "should be a function"),
        ("thresholds", lambda loss, k: 1.0, "two numbers"),
        ("thresholds", lambda loss, k: ("a", "b"), "two numbers"),
        ("thresholds", lambda loss, k: (math.nan, 1), "not a number"),
        ("thresholds", lambda loss, k: (math.log(2), math.log(k)), "increase from x"),
        ("thresholds", lambda loss, k: thresholds(loss, k)[::-1], "wrong order"),
        ("thresholds", lambda loss, k: (1 - loss, 9), "first .* promises too much"),
        ("thresholds", lambda loss, k: (-9, 9), "first .* valid, but a larger"),
        (
            "thresholds",
            lambda loss, k: (thresholds(loss, k)[0], math.log(k)),
            "second .* valid, but a smaller",
        ),
        (
            "thresholds",
            lambda loss, k: (thresholds(loss, k)[0], -9),
            "second .* promises too much: there is no flip above",
        ),
        ("top_r", lambda r, k: (math.log(2), math.log(k)), "r = 2.*a larger one"),
        ("top_r", lambda r, k: (math.log(r + 1), math.log(k)), "one rival take"),
        ("top_r", lambda r, k: (math.log(r + 1), math.inf), "r = 1.*a smaller one"),
        ("quieter", lambda p: None, "returns None"),
        ("quieter", lambda p: p[:2], "has shape"),
        ("quieter", missing_mass, "its sum is 2"),
        ("quieter", lambda p: p, "no flip"),
        ("quieter", swap, "the loss does not fall"),
        ("quieter", greedy, "the loss does not fall"),
    ],
)
def test_wrong_answers(topic, answer, message):
    verdict = check(f"adversarial_examples.{topic}", answer)
    assert not verdict.ok
    with pytest.raises(ValueError, match=message):
        raise ValueError(verdict.message)
