"""thm-relative-flatness: Petzka's sum over the blocks is |phi|^2 times a scatter."""

import mpmath
import pytest
import sympy as sp
import torch
from torch.func import hessian, vmap
from torch.nn.functional import cross_entropy

from flatbook import curvature
from tests.cases import generator, head, heads

SIZES = [(2, 1), (2, 4), (3, 2), (4, 3), (5, 6), (6, 2)]


def definition(loss, weight):
    """The sum over all pairs of rows, taken literally from a dense Hessian."""
    dense = hessian(loss)(weight)
    total = 0.0
    for s in range(len(weight)):
        for t in range(len(weight)):
            block = dense[s, :, t, :]
            total = total + (weight[s] @ weight[t]) * block.trace()
    return total


@pytest.mark.random
@pytest.mark.parametrize(("k", "d"), SIZES)
def test_100_random_heads(k, d):
    """600 random heads with biases: the definition, block by block, by autograd."""
    g = generator(10 * k + d)
    weight = torch.randn(100, k, d, generator=g, dtype=torch.float64)
    bias = torch.randn(100, k, generator=g, dtype=torch.float64)
    features = torch.randn(100, d, generator=g, dtype=torch.float64)
    labels = torch.randint(k, (100,), generator=g)

    def one(w, b, phi, label):
        return definition(lambda v: cross_entropy(v @ phi + b, label), w)

    wanted = vmap(one)(weight, bias, features, labels)
    ours = [
        curvature.relative_flatness(w, phi[None], (w @ phi + b)[None])
        for w, b, phi in zip(weight, bias, features, strict=True)
    ]
    torch.testing.assert_close(torch.cat(ours), wanted, rtol=1e-9, atol=1e-14)


@pytest.mark.random
def test_the_three_closed_forms():
    """600 heads: trace, scatter around the mean and scatter in pairs agree."""
    for seed in range(600):
        k, d = 2 + seed % 7, 1 + seed % 5
        weight, features, logits, _ = head(1, k, d, scale=1 + seed % 3, seed=seed)
        p, size = logits.softmax(1)[0], features.square().sum()
        matrix = torch.diag(p) - torch.outer(p, p)
        trace = (weight.T @ matrix @ weight).trace()
        mean = p @ weight
        scatter = (p * (weight - mean).square().sum(1)).sum()
        pairs = sum(
            p[i] * p[j] * (weight[i] - weight[j]).square().sum()
            for i in range(k)
            for j in range(i)
        )
        ours = curvature.relative_flatness(weight, features, logits)[0]
        for form in (trace, scatter, pairs):
            assert (size * form).item() == pytest.approx(ours.item(), rel=1e-9)


@pytest.mark.symbolic
def test_symbolic_two_classes_two_features():
    """Two classes, two features in sympy: from the definition to the distance."""
    w = sp.Matrix(2, 2, sp.symbols("w:4", real=True))
    phi = sp.Matrix(sp.symbols("phi:2", real=True))
    z = w * phi
    loss = sp.log(sp.exp(z[0]) + sp.exp(z[1])) - z[1]
    total = sum(
        (w[s, :] * w[t, :].T)[0] * sum(sp.diff(loss, w[s, a], w[t, a]) for a in (0, 1))
        for s in (0, 1)
        for t in (0, 1)
    )
    p = [sp.exp(v) / (sp.exp(z[0]) + sp.exp(z[1])) for v in z]
    gap = w[0, :] - w[1, :]
    wanted = (phi.T * phi)[0] * p[0] * p[1] * (gap * gap.T)[0]
    assert sp.simplify(total - wanted) == 0


@pytest.mark.symbolic
@pytest.mark.parametrize("k", [2, 3, 4])
def test_symbolic_scatter(k):
    """Two to four rows in sympy: trace, mean and pairs are one polynomial."""
    p = [*sp.symbols(f"p:{k - 1}", positive=True)]
    p.append(1 - sum(p))
    column = sp.Matrix(sp.symbols(f"w:{k}", real=True))
    covariance = sp.diag(*p) - sp.Matrix(p) * sp.Matrix(p).T
    trace = (column.T * covariance * column)[0]
    mean = sum(q * w for q, w in zip(p, column, strict=True))
    scatter = sum(q * (w - mean) ** 2 for q, w in zip(p, column, strict=True))
    pairs = sum(
        p[i] * p[j] * (column[i] - column[j]) ** 2 for i in range(k) for j in range(i)
    )
    assert sp.expand(trace - scatter) == 0
    assert sp.expand(trace - pairs) == 0


@pytest.mark.boundary
def test_boundary_equal_rows_and_no_features():
    """Zero for equal rows and for no features, and for nothing else."""
    weight, features, logits, _ = head(5, 4, 3, seed=1)
    same = weight[:1].expand(4, -1).contiguous()
    assert curvature.relative_flatness(same, features, logits).abs().max() == 0
    assert curvature.relative_flatness(weight, 0 * features, logits).max() == 0
    for weight, features, logits, _ in heads():
        if weight.abs().max() > 0:
            assert (curvature.relative_flatness(weight, features, logits) > 0).all()


@pytest.mark.boundary
def test_boundary_a_very_confident_prediction():
    """A gap of 500: all digits of the value in 400-digit arithmetic."""
    weight = torch.tensor([[500.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    phi = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    with mpmath.workdps(400):
        p = mpmath.sigmoid(mpmath.mpf(500))
        exact = float(p * (1 - p) * (500**2 + 1))
    ours = curvature.relative_flatness(weight, phi, phi @ weight.T).item()
    assert ours == pytest.approx(exact, rel=1e-12)


@pytest.mark.needed
@pytest.mark.parametrize("case", ["Brier loss", "squared error", "sigmoids"])
def test_other_losses_have_another_sum(case):
    """For Brier loss, squared error or one sigmoid a class the scatter is wrong."""
    weight, features, logits, _ = head(1, 3, 2, seed=5)
    target = torch.eye(3, dtype=torch.float64)[0]

    def loss(w):
        z = w @ features[0]
        if case == "Brier loss":
            return (z.softmax(0) - target).square().sum()
        if case == "squared error":
            return (z - target).square().sum()
        return torch.nn.functional.binary_cross_entropy_with_logits(
            z, target, reduction="sum"
        )

    scatter = curvature.relative_flatness(weight, features, logits).item()
    assert abs(definition(loss, weight).item() / scatter - 1) > 0.1


@pytest.mark.needed
def test_of_a_mean_over_samples_only_the_mean_remains():
    """For a mean loss it is the mean over samples, not that of the mean sample."""
    weight, features, logits, labels = head(20, 3, 4, seed=7)

    def loss(w):
        return cross_entropy(features @ w.T, labels)

    whole = definition(loss, weight).item()
    each = curvature.relative_flatness(weight, features, logits)
    assert whole == pytest.approx(each.mean().item(), rel=1e-10)
    middle = features.mean(0, keepdim=True)
    alone = curvature.relative_flatness(weight, middle, middle @ weight.T).item()
    assert alone < 0.5 * whole
