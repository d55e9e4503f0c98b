"""cor-trace: Tr H = |phi|^2 (1 - |p|^2), and what scaling does to its three factors."""

import math

import mpmath
import pytest
import sympy as sp
import torch
from torch.func import hessian, vmap
from torch.nn.functional import cross_entropy

from flatbook import curvature, softmax, symbolic
from tests.cases import head


@pytest.mark.random
@pytest.mark.parametrize(("k", "d"), [(2, 1), (2, 5), (3, 2), (5, 3), (10, 2)])
def test_120_random_heads(k, d):
    """600 random heads against the trace of the dense Hessian by autograd."""
    weight, features, logits, labels = head(120, k, d, seed=k * d)

    def loss(flat, phi, label):
        return cross_entropy(flat.reshape(k, d) @ phi, label)

    dense = vmap(hessian(loss), (None, 0, 0))(weight.flatten(), features, labels)
    trace = dense.diagonal(dim1=1, dim2=2).sum(1)
    close = {"rtol": 1e-10, "atol": 1e-13}
    size, p = features.square().sum(1), logits.softmax(1)
    torch.testing.assert_close(trace, size * (1 - p.square().sum(1)), **close)
    torch.testing.assert_close(trace, size * (p * (1 - p)).sum(1), **close)
    ours = curvature.hessian_trace(features, logits)
    torch.testing.assert_close(trace, ours, **close)


@pytest.mark.random
def test_the_confidence_factor_lies_in_its_range():
    """The confidence factor lies in its range, with equality only for equal logits."""
    for seed in range(500):
        k = 2 + seed % 9
        _, _, logits, _ = head(1, k, 3, scale=1 + seed % 4, seed=seed)
        assert 0 < softmax.trace_p(logits).item() <= 1 - 1 / k


@pytest.mark.random
@pytest.mark.parametrize("norm", ["fro", "spectral"])
def test_500_heads_rescaled_layer_by_layer(norm):
    """500 heads rescaled by layers: the squared form stays, the printed one not."""
    for seed in range(10):
        weight, features, logits, _ = head(50, 3, 4, seed=seed)
        s = 10.0 ** (seed - 4)
        for power, factor in ((2, 1.0), (1, 1 / s)):
            before, after = (
                curvature.relative_sharpness(w, f, logits, power=power, norm=norm)
                for w, f in ((weight, features), (s * weight, features / s))
            )
            torch.testing.assert_close(after, factor * before, rtol=1e-12, atol=0)


@pytest.mark.symbolic
@pytest.mark.parametrize("k", [2, 3, 4])
def test_symbolic(k):
    """The three forms of the trace agree in sympy."""
    p, phi = symbolic.probabilities(k), sp.Matrix(sp.symbols("phi:2", real=True))
    trace = sp.kronecker_product(symbolic.hessian(k), phi * phi.T).trace()
    size = (phi.T * phi)[0]
    for wanted in (1 - sum(q**2 for q in p), sum(q * (1 - q) for q in p)):
        assert sp.simplify(trace - size * wanted) == 0


@pytest.mark.boundary
def test_boundary_equal_logits_no_features_and_great_confidence():
    """Equal logits, no features, and great confidence."""
    logits = torch.zeros(1, 5, dtype=torch.float64)
    phi = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    assert curvature.hessian_trace(phi, logits).item() == pytest.approx(20, rel=1e-15)
    assert curvature.hessian_trace(0 * phi, logits).item() == 0
    sure = torch.tensor([[700.0, 0.0]], dtype=torch.float64)
    with mpmath.workdps(400):
        p = mpmath.sigmoid(mpmath.mpf(700))
        exact = float(25 * 2 * p * (1 - p))
    assert curvature.hessian_trace(phi, sure).item() == pytest.approx(exact, rel=1e-12)


@pytest.mark.needed
def test_probabilities_that_sum_to_one_are_needed():
    """With one sigmoid per class the two forms of the trace differ."""
    p = torch.tensor([0.9, 0.8, 0.3], dtype=torch.float64)
    assert not math.isclose((p * (1 - p)).sum(), 1 - p.square().sum(), abs_tol=0.1)


@pytest.mark.needed
def test_both_layers_must_be_rescaled():
    """Both layers must be rescaled together."""
    weight, features, logits, _ = head(20, 3, 4, seed=3)
    alone = curvature.relative_sharpness(2 * weight, features, 2 * logits)
    before = curvature.relative_sharpness(weight, features, logits)
    assert ((alone / before - 1).abs() > 0.01).all()
