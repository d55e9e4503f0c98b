"""Checkers accept the solutions and name the typical mistakes."""

import pytest
import torch

from flatbook.exercises import check


def direction(logits, labels):
    index = labels[:, None]
    rivals = logits.scatter(1, index, -torch.inf).softmax(1)
    return rivals.scatter(1, index, -1.0)


def audit(robust, stuck):
    moved = (robust & ~stuck).double().mean().item()
    return [moved, robust.double().mean().item()]


def naive(logits, labels):
    p = logits.softmax(1)
    rest = 1 - p.gather(1, labels[:, None])
    return (p - torch.eye(logits.shape[1])[labels]) / rest


def test_right_answers():
    assert check("gradient_masking.scales", [3, 13]).ok
    assert check("gradient_masking.batch", "2**150 / exp(m)").ok
    assert check("gradient_masking.direction", direction).ok
    assert check("gradient_masking.audit", audit).ok


@pytest.mark.parametrize(
    ("topic", "answer", "message"),
    [
        ("scales", [2, 13], "first scale the margin is still below"),
        ("scales", [3, 12], "second scale the margin is still below"),
        ("scales", [3, 14], "a smaller whole number than your second"),
        ("scales", [2.08, 13], "whole numbers"),
        ("scales", [3], r"have shape \(1,\)"),
        ("batch", "2**149 * exp(-m)", "constant factor 1/2"),
        ("batch", "exp(-m)", "constant factor"),
        ("batch", "2**150 * exp(m)", "not equal"),
        ("direction", naive, "logits of about 40.*not finite"),
        ("direction", lambda z, y: -direction(z, y), "wrong sign"),
        ("direction", lambda z, y: z.softmax(1), "is wrong|wrong sign"),
        ("audit", lambda r, s: audit(r, s)[::-1], "the lower share comes first"),
        ("audit", lambda r, s: [r.double().mean()] * 2, r"entry \(0\)"),
    ],
)
def test_wrong_answers(topic, answer, message):
    verdict = check(f"gradient_masking.{topic}", answer)
    assert not verdict.ok
    with pytest.raises(ValueError, match=message):
        raise ValueError(verdict.message)
