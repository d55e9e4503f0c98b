"""Softmax pieces against autograd, brute force and 60-digit arithmetic."""

import itertools
import math

import mpmath as mp
import pytest
import torch

from flatbook import softmax
from tests.cases import generator, head, head_ids, heads

LOGITS = [case[2] for case in heads()]


def probabilities(row: list[float]) -> list[mp.mpf]:
    with mp.workdps(800):
        weights = [mp.exp(mp.mpf(v)) for v in row]
        total = mp.fsum(weights)
        return [w / total for w in weights]


SATURATED = {
    torch.float64: [[700.0, 0.0, -700.0], [0.0, 700.0, 0.0], [350.0, 349.0, -300.0]],
    torch.float32: [[60.0, 0.0, -20.0], [0.0, 60.0, 0.0], [30.0, 29.0, -30.0]],
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ["one_minus", "trace_p", "log_trace_p"])
def test_saturated_values_keep_their_digits(dtype, name):
    rows = SATURATED[dtype]
    got = getattr(softmax, name)(torch.tensor(rows, dtype=dtype))
    with mp.workdps(800):
        for row, value in zip(rows, got, strict=True):
            p = probabilities(row)
            trace = mp.fsum(q * (1 - q) for q in p)
            wanted = {
                "one_minus": [1 - q for q in p],
                "trace_p": [trace],
                "log_trace_p": [mp.log(trace)],
            }[name]
            tolerance = 1e-12 if dtype == torch.float64 else 2e-5
            for w, v in zip(wanted, value.reshape(-1).tolist(), strict=True):
                assert w != 0
                assert v != 0
                assert abs(v - w) <= tolerance * abs(w)


@pytest.mark.parametrize("logits", LOGITS, ids=head_ids())
def test_log_one_minus_is_the_logarithm(logits):
    direct = softmax.one_minus(logits).log()
    torch.testing.assert_close(softmax.log_one_minus(logits), direct)


@pytest.mark.parametrize("case", heads(), ids=head_ids())
def test_cross_entropy_is_torchs_where_torch_is_exact(case):
    _, _, logits, labels = case
    wanted = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    got = softmax.cross_entropy(logits, labels)
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-13)


def test_cross_entropy_beyond_torch():
    got = softmax.cross_entropy(torch.tensor([[60.0, 0.0]]), torch.tensor([0]))
    assert got.item() == pytest.approx(math.exp(-60), rel=1e-5)
    far = torch.tensor([[-700.0, 700.0]], dtype=torch.float64)
    assert softmax.cross_entropy(far, torch.tensor([0])).item() == 1400.0
    tiny = softmax.cross_entropy(far, torch.tensor([1]))
    assert tiny.item() == 0.0  # e^-1400 is below the smallest float64
    assert softmax.log_odds(far, torch.tensor([1])).item() == -1400.0


@pytest.mark.parametrize("case", heads(), ids=head_ids())
def test_covariance_is_the_hessian_for_every_label(case):
    _, _, logits, _ = case
    got = softmax.covariance(logits)
    for row, matrix in zip(logits, got, strict=True):
        for label in range(len(row)):
            hessian = torch.func.hessian(lambda z, y=label: z.logsumexp(0) - z[y])(row)
            torch.testing.assert_close(matrix, hessian, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(
        got.diagonal(dim1=1, dim2=2).sum(1), softmax.trace_p(logits), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("k", [2, 3, 4])
def test_third_derivative_against_autograd(k):
    logits = torch.randn(3, k, generator=generator(k), dtype=torch.float64) * 2
    got = softmax.third_derivative(logits)
    for row, tensor in zip(logits, got, strict=True):
        jac = torch.func.jacrev(torch.func.hessian(lambda z: z.logsumexp(0)))(row)
        torch.testing.assert_close(tensor, jac, rtol=1e-10, atol=1e-15)


def test_third_derivative_is_symmetric_sums_to_zero_and_is_bounded():
    logits = torch.randn(500, 5, generator=generator(0), dtype=torch.float64) * 4
    t = softmax.third_derivative(logits)
    for order in itertools.permutations((1, 2, 3)):
        torch.testing.assert_close(t, t.permute(0, *order), rtol=0, atol=1e-16)
    assert t.sum(1).abs().max() < 1e-15
    assert t.abs().max() <= 1 / (6 * math.sqrt(3)) + 1e-15


def test_third_derivative_of_a_confident_class():
    t = softmax.third_derivative(torch.tensor([[600.0, 0.0]], dtype=torch.float64))
    q = math.exp(-600)  # p(1-p)(1-2p) with p = 1 - q
    assert t[0, 0, 0, 0].item() == pytest.approx(-q, rel=1e-12)


@pytest.mark.parametrize("case", heads(), ids=head_ids())
def test_margin_and_log_odds_by_hand(case):
    _, _, logits, labels = case
    for i, y in enumerate(labels.tolist()):
        others = [v for j, v in enumerate(logits[i].tolist()) if j != y]
        true = logits[i, y].item()
        odds = math.log(math.fsum(math.exp(v - true) for v in others))
        assert softmax.margin(logits, labels)[i].item() == true - max(others)
        assert softmax.log_odds(logits, labels)[i].item() == pytest.approx(
            odds, rel=1e-12, abs=1e-13
        )


@pytest.mark.parametrize(
    ("logits", "labels", "error", "message"),
    [
        ([[1.0, 2.0]], [0], TypeError, "list"),
        (torch.zeros(3), torch.zeros(3).long(), ValueError, r"\(3,\)"),
        (torch.zeros(1, 1), torch.zeros(1).long(), ValueError, "k = 1"),
        (torch.zeros(1, 2).int(), torch.zeros(1).long(), TypeError, "int32"),
        (torch.tensor([[0.0, math.nan]]), torch.zeros(1).long(), ValueError, "NaN"),
        (torch.tensor([[0.0, math.inf]]), torch.zeros(1).long(), ValueError, "infin"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), ValueError, "got 3"),
        (torch.zeros(2, 3), torch.tensor([-1, 0]), ValueError, "got -1"),
        (torch.zeros(2, 3), torch.tensor([0]), ValueError, r"\(1,\)"),
        (torch.zeros(2, 3), torch.tensor([0.0, 1.0]), TypeError, "float32"),
    ],
)
def test_bad_input_is_named(logits, labels, error, message):
    with pytest.raises(error, match=message):
        softmax.cross_entropy(logits, labels)


def test_head_checks_name_both_sides():
    weight, features, logits, _ = head(4, 3, 2)
    with pytest.raises(ValueError, match="got 3 and 4"):
        softmax.check_features(features[:3], logits)
    with pytest.raises(ValueError, match="2 rows"):
        softmax.check_weight(weight[:2], logits)
    with pytest.raises(TypeError, match="float32"):
        softmax.check_weight(weight.float(), logits)


@pytest.mark.parametrize("gap", [-1480.0, -720.0, -38.0, 0.0, 38.0, 720.0, 1480.0])
def test_cross_entropy_bends_without_nan(gap):
    rows = torch.tensor([[gap, 0.0]], dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(
        lambda z: softmax.cross_entropy(z, torch.tensor([0])).sum(), rows
    )
    torch.testing.assert_close(
        hessian[0, :, 0], softmax.covariance(rows)[0], rtol=1e-12, atol=1e-15
    )
