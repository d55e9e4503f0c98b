"""Checkers accept the solutions and name the typical mistakes."""

import pytest
import torch

from flatbook.exercises import check


def rank_one(weight, x, v):
    return torch.outer(weight @ v, x) / (x @ x)


def with_bias(weight, x, v):
    one = torch.cat([x, x.new_ones(1)])
    both = torch.outer(weight @ v, one) / (one @ one)
    return both[:, :-1], both[:, -1]


def batch(weight, x, v):
    return torch.linalg.lstsq(x.mT, (weight @ v).mT, driver="gelsd").solution.mT


def test_right_changes_of_weights():
    assert check("linear_model.with_bias", with_bias).ok
    assert check("linear_model.batch", batch).ok


@pytest.mark.parametrize(
    ("topic", "answer", "message"),
    [
        ("with_bias", rank_one, "two tensors"),
        ("with_bias", lambda w, x, v: (w, v.new_ones(9)), "have shapes"),
        ("with_bias", lambda w, x, v: (0 * w, w @ v), "case 1 .*smaller change"),
        ("with_bias", lambda w, x, v: (rank_one(w, x, v), w @ v), "differ"),
        (
            "with_bias",
            lambda w, x, v: (
                with_bias(w, x, v) if x.any() else (rank_one(w, x, v), 0 * w @ v)
            ),
            "x = 0.*not finite",
        ),
        ("batch", lambda w, x, v: w @ v, "D has shape"),
        ("batch", lambda w, x, v: w @ v @ x.T, "moving the input differ"),
        ("batch", lambda w, x, v: batch(w, x, v) / 0, "not finite"),
    ],
)
def test_wrong_changes_of_weights(topic, answer, message):
    verdict = check(f"linear_model.{topic}", answer)
    assert not verdict.ok
    with pytest.raises(ValueError, match=message):
        raise ValueError(verdict.message)


def test_a_batch_change_with_a_needless_part_is_too_large():
    def answer(weight, x, v):
        rest = torch.eye(len(x), dtype=x.dtype) - x @ torch.linalg.pinv(x)
        return batch(weight, x, v) + weight @ rest

    assert "smaller change" in check("linear_model.batch", answer).message


def others(weight, x, v, more):
    """The slow twin: the weights moved, sample by sample."""
    moved = weight + rank_one(weight, x, v)
    return torch.stack([moved @ row - weight @ row for row in more])


def test_right_change_of_others():
    assert check("linear_model.others", others).ok


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda w, x, v, m: others(w, x, v, m).T, "shape"),
        (lambda w, x, v, m: -others(w, x, v, m), "wrong sign"),
        (lambda w, x, v, m: others(w, x, v, m) * (x @ x), "constant factor"),
        (lambda w, x, v, m: m @ w.T, "wrong"),
        (lambda w, x, v, m: (m - x) @ rank_one(w, x, v).T, "wrong|move by W v"),
    ],
)
def test_wrong_change_of_others(answer, message):
    verdict = check("linear_model.others", answer)
    assert not verdict.ok
    with pytest.raises(ValueError, match=message):
        raise ValueError(verdict.message)
