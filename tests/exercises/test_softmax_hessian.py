"""Checkers accept the solutions and name the typical mistakes."""

import pytest

from flatbook.exercises import check


def typed_trace(features, logits):
    p = logits.softmax(1)
    return features.square().sum(1) * (p * (1 - p)).sum(1)


def pair_trace(features, logits):
    p = logits.softmax(1)
    pairs = p[:, :, None] * p[:, None, :]
    pairs.diagonal(dim1=1, dim2=2).zero_()
    return features.square().sum(1) * pairs.sum((1, 2))


def test_right_eigenvalues_and_trace():
    assert check("softmax_hessian.eigenvalues", [3 / 8, 0, 1 / 4]).ok
    assert check("softmax_hessian.trace", pair_trace).ok


@pytest.mark.parametrize(
    ("topic", "answer", "message"),
    [
        ("eigenvalues", [0, 5 / 8], "3 eigenvalues, you gave 2"),
        ("eigenvalues", [1 / 8, 1 / 4, 1 / 4], "one vector to zero"),
        ("eigenvalues", [0, 1 / 4, 1 / 2], "sum of yours is too large"),
        ("eigenvalues", [0, 5 / 16, 5 / 16], "use a symmetry"),
        ("trace", typed_trace, "gap 20.*0.5 times"),
        ("trace", lambda f, z: pair_trace(f, z).sum(), r"shape \(3,\)"),
        ("trace", lambda f, z: pair_trace(f, z) / 0, "inf times"),
    ],
)
def test_wrong_eigenvalues_and_trace(topic, answer, message):
    verdict = check(f"softmax_hessian.{topic}", answer)
    assert not verdict.ok
    with pytest.raises(ValueError, match=message):
        raise ValueError(verdict.message)
