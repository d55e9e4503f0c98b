"""Checkers accept the solutions and name the typical mistakes."""

import pytest

from flatbook import radius
from flatbook.exercises import check


@pytest.mark.parametrize("kind", [list, tuple, set])
def test_right_names(kind):
    assert check("intro.agree", kind(["rho_flip", "predictions"])).ok


def test_right_radius_and_peak():
    assert check("intro.flip_radius", radius.flip_radius).ok
    assert check("intro.peak", 2.3993572805).ok


@pytest.mark.parametrize(
    ("topic", "answer", "message"),
    [
        ("agree", "predictions", "should be a list"),
        ("agree", ["accuracy"], "'accuracy' is none of 'confidence'"),
        ("agree", ["predictions", "tr P", "rho_flip"], "smaller logits"),
        ("agree", ["predictions", "confidence"], "smaller logits"),
        ("agree", ["predictions", "rho_flip", "kappa"], "smaller logits"),
        ("agree", ["rho_flip", "rho_flip"], "not all"),
        ("agree", [], "not all"),
        ("peak", 2.39935, "too small"),
        ("peak", -2.3993572805, "positive"),
    ],
)
def test_wrong_names_and_peak(topic, answer, message):
    verdict = check(f"intro.{topic}", answer)
    assert not verdict.ok
    assert message in verdict.message
