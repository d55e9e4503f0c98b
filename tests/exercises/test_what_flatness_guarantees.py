"""Checkers accept the solutions and name the typical mistakes."""

import math

import pytest
import torch

from flatbook import curvature
from flatbook.exercises import check


def peak(weight, features, logits, low=1.0, high=10.0):
    gaps = logits.max() - logits
    far = gaps[gaps > 0]
    ends = math.log10(low / far.max()), math.log10(high / far.min())
    s = torch.logspace(*ends, 400, dtype=torch.float64)
    p = (-s[:, None] * gaps).softmax(1)
    squares = torch.cdist(weight, weight).square()
    scatter = ((p @ squares) * p).sum(1) / 2
    return features.square().sum() * (s * s * scatter).max()


def near_one(weight, features, logits):
    scales = torch.logspace(-1, 1, 50, dtype=torch.float64)
    return max(
        curvature.relative_flatness(s * weight, features[None], s * logits[None])
        for s in scales
    )


RATIO = "sqrt(2*(exp(x) + k - 1) / (k*(exp(x) + 1)))"


def test_right_guarantees():
    assert check("what_flatness_guarantees.pencil", [0.3 * math.log(9), 900 / 1681]).ok
    assert check("what_flatness_guarantees.ratio", RATIO).ok
    other = "sqrt(2/k) * sqrt(1 + (k - 2)/(1 + exp(x)))"
    assert check("what_flatness_guarantees.ratio", other).ok
    assert check("what_flatness_guarantees.peak", peak).ok


@pytest.mark.parametrize(
    ("topic", "answer", "message"),
    [
        ("pencil", [0.6 * math.log(9), 900 / 1681], "the same decision boundary"),
        ("pencil", [0.3, 900 / 1681], "the first number is not"),
        ("pencil", [0.3 * math.log(9), 4.0], "not 9/10 and 1/10"),
        ("pencil", [0.3 * math.log(9), 225 / 1681], "twice as far apart"),
        ("pencil", [0.3 * math.log(9), 1.0], "the second number is not"),
        ("pencil", [1.0], r"have shape \(1,\)"),
        ("ratio", RATIO + " / sqrt(2)", "constant factor"),
        ("ratio", "sqrt(2/k)", "does not depend on x"),
        ("ratio", [1, 2], "should be an expression"),
        (
            "peak",
            lambda w, f, z: curvature.relative_flatness(w, f[None], z[None]),
            "at the scale s = 1",
        ),
        ("peak", near_one, "at another scale the head is .* times as sharp"),
        ("peak", lambda w, f, z: peak(w, f, z) / (f @ f), "factor of the features"),
        ("peak", lambda w, f, z: 2 * peak(w, f, z), "above the sharpness"),
        ("peak", lambda w, f, z: f, "one number"),
    ],
)
def test_wrong_guarantees(topic, answer, message):
    verdict = check(f"what_flatness_guarantees.{topic}", answer)
    assert not verdict.ok
    with pytest.raises(ValueError, match=message):
        raise ValueError(verdict.message)
