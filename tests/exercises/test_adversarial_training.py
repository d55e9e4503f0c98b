"""Checkers accept the solutions and name the typical mistakes."""

import pytest

from flatbook.exercises import adversarial_training as checkers
from flatbook.exercises import check
from flatbook.experiments.adversarial_training import matching_scale


def by_bisection(logits, confidence):
    low, high = 0.0, 1000.0
    for _ in range(60):
        middle = (low + high) / 2
        mean = (middle * logits).softmax(1).amax(1).mean()
        low, high = (middle, high) if mean < confidence else (low, middle)
    return middle


def test_right_answers():
    assert check("adversarial_training.two_orders", [7.6, 2, 1.95, 3]).ok
    formula = "D * (m + log(exp(epsilon) * (1 + exp(-m)) - 1)) / m"
    assert check("adversarial_training.reach", formula).ok
    assert check("adversarial_training.scale", by_bisection).ok
    assert check("adversarial_training.scale", matching_scale).ok


def test_the_reach_by_hand():
    """From odds 7 to 1, a tolerance of 0.1; and the flip where it is log 2 - loss."""
    import math

    p = 7 / 8 * math.exp(-0.1)
    expected = 3 * (1 - math.log(p / (1 - p)) / math.log(7))
    assert checkers._reach(math.log(7), 3.0) == pytest.approx(expected)
    confidence = 0.5 * math.exp(0.1)
    margin = math.log(confidence / (1 - confidence))
    assert checkers._reach(margin, 3.0) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("topic", "answer", "message"),
    [
        ("two_orders", [2.0, 2.0, 2.0, 3.0], "the same order again"),
        ("two_orders", [8.0, 3.0, 2.0, 2.0], "flip at the larger distance"),
        ("two_orders", [8.0, 3.0], r"have shape \(2,\)"),
        ("two_orders", [8.0, 2.0, -1.0, 3.0], "should be positive"),
        ("two_orders", [800.0, 2.0, 2.0, 3.0], "below 500"),
        ("reach", "D * (1 + log(exp(epsilon) - 1) / m)", "not equal"),
        ("reach", "D * epsilon / m", "not equal"),
        ("scale", lambda z, goal: 1.0, "with your factor it is"),
        ("scale", lambda z, goal: z, "one positive number"),
        ("scale", lambda z, goal: -1.0, "one positive number"),
    ],
)
def test_wrong_answers(topic, answer, message):
    verdict = check(f"adversarial_training.{topic}", answer)
    assert not verdict.ok
    with pytest.raises(ValueError, match=message):
        raise ValueError(verdict.message)
