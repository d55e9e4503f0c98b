"""Checkers accept the solutions and name the typical mistakes."""

import math

import pytest
import sympy as sp
import torch

from flatbook import softmax
from flatbook.exercises import check

V, R = sp.symbols("V R", positive=True)
RISE = V * (sp.exp(R) - 1 - R) / R**2


def by_corollary(weight, logits):
    excess = -math.log(2) - softmax.log_trace_p(logits)
    return excess.clamp_min(0) / torch.cdist(weight, weight).max()


def sharp(weight, logits):
    x = (-(math.log(2) + softmax.log_trace_p(logits)) / 2).clamp_min(0)
    root = (1 - (-2 * x).exp()).sqrt()
    return 2 * (x + root.log1p()) / torch.cdist(weight, weight).max()


def by_trace(weight, logits):
    excess = -(2 * softmax.trace_p(logits)).log()
    return excess.clamp_min(0) / torch.cdist(weight, weight).max()


def no_clamp(weight, logits):
    excess = -math.log(2) - softmax.log_trace_p(logits)
    return excess / torch.cdist(weight, weight).max()


@pytest.mark.parametrize(
    ("topic", "answer"),
    [
        ("entries", [0, -1 / 16, 1 / 16, 3 / 32]),
        ("rise", RISE),
        ("rise", "V*(exp(R) - R - 1)/R**2"),
        ("no_flip_within", by_corollary),
        ("no_flip_within", sharp),
    ],
)
def test_right_answers(topic, answer):
    verdict = check(f"third_derivative.{topic}", answer)
    assert verdict.ok, verdict


@pytest.mark.parametrize(
    ("topic", "answer", "message"),
    [
        ("entries", [0, 1 / 16], "four entries are asked for, you gave 2"),
        ("entries", [-1 / 4, -1 / 16, 1 / 16, 3 / 32], "at its maximum"),
        ("entries", [0, 1 / 16, 1 / 16, 3 / 32], "T_011 has the wrong sign"),
        ("entries", [0, -1 / 16, 1 / 32, 3 / 32], "T_012 is wrong.*sum to zero"),
        ("entries", [0, -1 / 16, 1 / 16, 3 / 16], "T_111 is twice"),
        ("rise", V * (sp.exp(R) - 1) / R, "integrate once more"),
        ("rise", RISE / 2, "constant factor 1/2"),
        ("rise", V * (sp.exp(1) - 2), "does not depend on R"),
        ("rise", RISE * sp.Symbol("p"), "should not contain p"),
        ("no_flip_within", by_trace, "logits of size 2000.*underflowed"),
        ("no_flip_within", no_clamp, "negative"),
        ("no_flip_within", lambda w, z: 2 * sharp(w, z), "a flip nearer"),
        ("no_flip_within", lambda w, z: by_corollary(w, z) / 2, "guarantees more"),
        ("no_flip_within", lambda w, z: by_corollary(w, z).sum(), r"shape \(\)"),
    ],
)
def test_wrong_answers(topic, answer, message):
    verdict = check(f"third_derivative.{topic}", answer)
    assert not verdict.ok
    with pytest.raises(ValueError, match=message):
        raise ValueError(verdict.message)
