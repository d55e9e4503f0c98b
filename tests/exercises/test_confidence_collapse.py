"""Checkers accept the solutions and name the typical mistakes."""

import math

import pytest

from flatbook import scaling
from flatbook.exercises import check


def disguise(weight, features, logits, wanted, *, middle="median"):
    def above(s):
        log_kappa = scaling.log_sharpness(weight, features, logits, [s])
        return getattr(log_kappa, middle)() > math.log(wanted)

    low, high = 1.0, 2.0
    while above(high):
        low, high = high, 2 * high
    for _ in range(60):
        s = (low + high) / 2
        low, high = (s, high) if above(s) else (low, s)
    return s


def test_right_answers():
    assert check("confidence_collapse.curves", ["basin", "ramp", "curved"]).ok
    assert check("confidence_collapse.uniform", "tanh(a*s/2)/(a*s)").ok
    sigmoids = "(1/(1 + exp(-a*s)) - 1/(1 + exp(a*s)))/(a*s)"
    assert check("confidence_collapse.uniform", sigmoids).ok
    assert check("confidence_collapse.disguise", disguise).ok


@pytest.mark.parametrize(
    ("topic", "answer", "message"),
    [
        ("curves", ["ramp", "ramp", "curved"], r"log\(1 \+ x\) is not 'ramp': .*slope"),
        ("curves", ["basin", "basin", "curved"], "exp.* is not 'basin': .*slope"),
        ("curves", ["basin", "ramp", "ramp"], "second derivative"),
        ("curves", ["flat", "ramp", "curved"], "not 'flat'"),
        ("curves", "basin", "three words"),
        ("uniform", "2*tanh(a*s/2)/(a*s)", "constant factor 2"),
        ("uniform", "1/(a*s)", "not equal"),
        ("uniform", "tanh(s/2)/s", "does not depend on a"),
        ("disguise", lambda w, f, z, wanted: 1.0, "s is too small"),
        ("disguise", lambda w, f, z, wanted: 0.5, "one factor s >= 1"),
        (
            "disguise",
            lambda *arguments: disguise(*arguments, middle="mean"),
            "case 1 .*median of kappa is e",
        ),
    ],
)
def test_wrong_answers(topic, answer, message):
    verdict = check(f"confidence_collapse.{topic}", answer)
    assert not verdict.ok
    with pytest.raises(ValueError, match=message):
        raise ValueError(verdict.message)
