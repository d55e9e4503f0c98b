"""Checkers accept the solutions and name the typical mistakes."""

import pytest
import torch

from flatbook import softmax
from flatbook.exercises import check


def sharpest(features, logits):
    log_p = logits.log_softmax(1)
    pairs = log_p[:, :, None] + log_p[:, None, :]
    pairs.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
    size = features.square().sum(1).log()
    return (size + pairs.flatten(1).logsumexp(1)).argmax()


def test_right_walks():
    assert check("uncanny_valley.no_tie", [0.6, 0.2, 0.2]).ok
    assert check("uncanny_valley.slopes", "(1 + sqrt(1 - 2*tau))**2 / (2*tau)").ok
    assert check("uncanny_valley.sharpest", sharpest).ok
    assert check("uncanny_valley.sharpest", lambda f, z: int(sharpest(f, z))).ok


@pytest.mark.parametrize(
    ("topic", "answer", "message"),
    [
        ("no_tie", [0.5, 0.25, 0.25], "larger than one half"),
        ("no_tie", [0.9, 0.05, 0.05], "tr P is 0.185 there"),
        ("no_tie", [0.9, 0.2, -0.1], "not probabilities"),
        ("no_tie", [0.6, 0.4], r"have shape \(2,\)"),
        ("slopes", "2 / tau", "not equal to what is asked"),
        ("slopes", "(1 + sqrt(1 - 2*tau)) / (1 - sqrt(1 - 2*tau)) * 2", "factor 2"),
        ("sharpest", lambda f, z: (1 - z.softmax(1).amax(1)).argmax(), "is sharper"),
        (
            "sharpest",
            lambda f, z: (f.square().sum(1) * softmax.trace_p(z)).argmax(),
            "gaps from about 800 on.* is sharper",
        ),
        ("sharpest", lambda f, z: 12, "a step from 0 to 11"),
        ("sharpest", lambda f, z: f, "a step from 0 to 11"),
    ],
)
def test_wrong_walks(topic, answer, message):
    verdict = check(f"uncanny_valley.{topic}", answer)
    assert not verdict.ok
    with pytest.raises(ValueError, match=message):
        raise ValueError(verdict.message)
