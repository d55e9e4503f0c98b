"""Checkers accept the solutions and name the typical mistakes."""

import pytest
import torch

from flatbook import curvature
from flatbook.exercises import check


def columns(weight, logits):
    rows = curvature.centred_rows(weight, logits)
    return torch.einsum("nj,nja->na", logits.softmax(1), rows.square())


def signs(weight, features, logits):
    return (features.square() * columns(weight, logits)).sum(1)


def typed_signs(weight, features, logits):
    p = logits.softmax(1)
    covariance = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    form = weight.T @ covariance @ weight
    return (features.square() * form.diagonal(dim1=1, dim2=2)).sum(1)


def entrywise(weight, features, logits):
    p = logits.softmax(1)
    return ((p * (1 - p)) * (features.square() @ weight.square().T)).sum(1)


def least(weight, features, logits):
    root = columns(weight, logits).sqrt()
    return (features.abs() * root).sum(1).square()


def test_right_answers():
    assert check("relative_flatness.chain", [12.5, 18.75, 31.25, 46.875]).ok
    assert check("relative_flatness.signs", signs).ok
    assert check("relative_flatness.least", least).ok


@pytest.mark.parametrize(
    ("topic", "answer", "message"),
    [
        ("chain", [12.5, 18.75, 46.875], "four numbers"),
        ("chain", [18.75, 12.5, 31.25, 46.875], "lambda cannot be larger than kappa_P"),
        ("chain", [12.5, 18.75, 31.25, 46.0], "kappa is too small"),
        ("chain", [12.5, 18.75, 46.875, 46.875], "centred head is too large"),
        ("signs", entrywise, "another one for W . 1 v.T"),
        ("signs", curvature.relative_flatness, "another one for W D"),
        ("signs", typed_signs, "a gap of about 40.*times what it should be"),
        ("signs", lambda w, f, z: signs(w, f, z) / 2, "is too .* factor 0.5"),
        ("signs", lambda w, f, z: signs(w, f, z).sum(), "one number for each of 3"),
        ("least", curvature.relative_flatness, "goes below your value"),
        ("least", signs, "gets as low as your value"),
        ("least", lambda w, f, z: least(w, f, z) / 0, "not finite"),
    ],
)
def test_wrong_answers(topic, answer, message):
    verdict = check(f"relative_flatness.{topic}", answer)
    assert not verdict.ok
    with pytest.raises(ValueError, match=message):
        raise ValueError(verdict.message)
