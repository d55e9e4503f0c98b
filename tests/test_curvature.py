"""Curvature against dense Hessians, brute force and 60-digit arithmetic."""

import itertools
import math

import mpmath as mp
import pytest
import torch

from flatbook import curvature, softmax
from tests.cases import generator, head, head_ids, heads


def dense(weight, features, label):
    """Hessian of cross-entropy in the row-major weight, by autograd."""
    k, d = weight.shape

    def loss(w):
        z = w.reshape(k, d) @ features
        return z.logsumexp(0) - z[label]

    return torch.func.hessian(loss)(weight.reshape(-1))


@pytest.mark.parametrize("case", heads(), ids=head_ids())
def test_head_measures_against_the_dense_hessian(case):
    weight, features, logits, labels = case
    k, d = weight.shape
    trace = curvature.hessian_trace(features, logits)
    flat = curvature.relative_flatness(weight, features, logits)
    for i in range(len(features)):
        h = dense(weight, features[i], labels[i])
        torch.testing.assert_close(trace[i], h.trace(), rtol=1e-10, atol=1e-13)
        blocks = h.reshape(k, d, k, d).diagonal(dim1=1, dim2=3).sum(-1)
        wanted = (blocks * (weight @ weight.T)).sum()
        rounding = 1e-15 * (weight.square().sum() * features[i].square().sum()).item()
        torch.testing.assert_close(flat[i], wanted, rtol=1e-10, atol=rounding)


@pytest.mark.parametrize("case", heads(), ids=head_ids())
def test_lambda_max_against_the_feature_hessian(case):
    weight, features, logits, labels = case
    got = curvature.lambda_max(weight, logits)
    for phi, label, value in zip(features, labels, got, strict=True):

        def loss(v, y=label):
            z = weight @ v
            return z.logsumexp(0) - z[y]

        wanted = torch.linalg.eigvalsh(torch.func.hessian(loss)(phi))[-1]
        rounding = 1e-15 * weight.square().sum().item()  # of the dense matrix
        torch.testing.assert_close(value, wanted, rtol=1e-10, atol=rounding)


@pytest.mark.parametrize("seed", [18, 22, 34, 78])
def test_lambda_max_of_many_confident_classes_in_float32(seed):
    """Graded matrices on which the eigenvalue solver of LAPACK may not converge."""
    g, k = generator(seed), 2 + seed % 40
    weight = torch.randn(k, 1 + seed % 2, generator=g)
    logits = torch.randn(64, k, generator=g) * 10 ** (seed % 4)
    exact = curvature.lambda_max(weight.double(), logits.double())
    found = curvature.lambda_max(weight, logits).double()
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-36)


def test_lambda_max_of_saturated_predictions():
    weight = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 1.0]], dtype=torch.float64)
    logits = torch.tensor([[700.0, 0.0, 20.0]], dtype=torch.float64)
    with mp.workdps(800):
        e = [mp.exp(v) for v in (700, 0, 20)]
        p = [v / mp.fsum(e) for v in e]
        w = mp.matrix(weight.tolist())
        cov = mp.diag(p) - mp.matrix(p) * mp.matrix(p).T
        wanted = max(mp.eigsy(w.T * cov * w, eigvals_only=True))
        got = curvature.lambda_max(weight, logits).item()
        assert abs(got - wanted) < 1e-11 * wanted
        small = curvature.lambda_max(weight.float(), logits.float() / 12).item()
    assert small > 0


def test_log_trace_reaches_where_the_trace_underflows():
    features = torch.ones(1, 4, dtype=torch.float64)
    logits = torch.tensor([[2000.0, 0.0]], dtype=torch.float64)
    assert curvature.hessian_trace(features, logits).item() == 0.0
    got = curvature.log_hessian_trace(features, logits).item()
    assert got == pytest.approx(math.log(4 * 2) - 2000, rel=1e-13)


def test_layerwise_rescaling_leaves_the_squared_measures_alone():
    weight, features, logits, _ = head(50, 6, 4, seed=3)
    kappa = curvature.relative_sharpness(weight, features, logits)
    moved = curvature.relative_sharpness(3 * weight, features / 3, logits)
    torch.testing.assert_close(moved, kappa, rtol=1e-12, atol=0)
    printed = curvature.relative_sharpness(weight, features, logits, power=1)
    moved = curvature.relative_sharpness(3 * weight, features / 3, logits, power=1)
    torch.testing.assert_close(moved, printed / 3, rtol=1e-12, atol=0)
    kappa = curvature.relative_flatness(weight, features, logits)
    shifted = weight + torch.randn(4, generator=generator(1), dtype=torch.float64)
    moved = curvature.relative_flatness(shifted, features, logits)
    torch.testing.assert_close(moved, kappa, rtol=1e-10, atol=1e-14)


def test_the_chain_of_measures():
    for seed in range(40):
        k, d = 2 + seed % 9, 1 + seed % 7
        weight, features, logits, _ = head(50, k, d, seed=seed)
        worst = features.square().sum(1) * curvature.lambda_max(weight, logits)
        mean = curvature.relative_flatness(weight, features, logits)
        spectral = curvature.relative_sharpness(
            weight, features, logits, norm="spectral"
        )
        full = curvature.relative_sharpness(weight, features, logits)
        chain = [mean / min(d, k - 1), worst, mean, spectral, full]
        for low, high in itertools.pairwise(chain):
            assert (low <= high * (1 + 1e-9) + 1e-15).all()


def test_bad_input_is_named():
    weight, features, logits, _ = head(4, 3, 2)
    with pytest.raises(ValueError, match="power must be 1 or 2, got 3"):
        curvature.relative_sharpness(weight, features, logits, power=3)
    with pytest.raises(ValueError, match="'max'"):
        curvature.relative_sharpness(weight, features, logits, norm="max")
    with pytest.raises(ValueError, match="share d"):
        curvature.relative_flatness(weight[:, :1], features, logits)


def test_float32_agrees_with_float64():
    _, features, logits, _ = head(200, 10, 8, scale=2.0, seed=5)
    exact = curvature.hessian_trace(features, logits)
    single = curvature.hessian_trace(features.float(), logits.float())
    torch.testing.assert_close(single.double(), exact, rtol=3e-5, atol=0)
    assert softmax.trace_p(logits.float()).min() > 0
