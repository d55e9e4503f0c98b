"""thm-softmax-hessian: gradient p - e_y, Hessian P, and P (x) phi phi^T in the head."""

import pytest
import sympy as sp
import torch
from torch.func import grad, hessian, vmap
from torch.nn.functional import cross_entropy

from flatbook import softmax, symbolic
from tests.cases import generator, head

SIZES = [(2, 1), (2, 4), (3, 2), (4, 3), (5, 6), (7, 2)]


@pytest.mark.random
@pytest.mark.parametrize(("k", "d"), SIZES)
def test_100_random_heads(k, d):
    """600 random heads against automatic differentiation."""
    weight, features, _, labels = head(100, k, d, seed=10 * k + d)
    bias = torch.randn(k, generator=generator(k), dtype=torch.float64)
    logits = features @ weight.T + bias
    p, slope = logits.softmax(1), vmap(grad(cross_entropy))(logits, labels)
    one_hot = torch.eye(k, dtype=torch.float64)[labels]
    torch.testing.assert_close(slope, p - one_hot, rtol=1e-12, atol=1e-14)
    covariance = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    curvature = vmap(hessian(cross_entropy))(logits, labels)
    torch.testing.assert_close(curvature, covariance, rtol=1e-12, atol=1e-14)

    def loss(flat, phi, label):
        return cross_entropy(flat.reshape(k, d) @ phi + bias, label)

    blocks = vmap(hessian(loss), (None, 0, 0))(weight.flatten(), features, labels)
    for block, matrix, phi in zip(blocks, covariance, features, strict=True):
        wanted = torch.kron(matrix, torch.outer(phi, phi))
        torch.testing.assert_close(block, wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.random
def test_the_quadratic_form_is_a_variance_and_its_kernel_the_constants():
    """The quadratic form is a variance, and its kernel the constants."""
    for seed in range(600):
        k = 2 + seed % 6
        g = generator(seed)
        logits = torch.randn(1, k, generator=g, dtype=torch.float64) * 2
        v = torch.randn(k, generator=g, dtype=torch.float64)
        p, matrix = logits.softmax(1)[0], softmax.covariance(logits)[0]
        variance = (p * (v - p @ v).square()).sum()
        assert (v @ matrix @ v).item() == pytest.approx(variance.item(), rel=1e-9)
        values = torch.linalg.eigvalsh(matrix)
        assert abs(values[0]) < 1e-15
        assert values[1] >= p.min() * (1 - 1e-9)  # v^T P v >= min p |v - mean|^2
        assert (matrix @ torch.ones(k, dtype=torch.float64)).abs().max() < 1e-15


@pytest.mark.symbolic
@pytest.mark.parametrize("k", [2, 3, 4])
def test_symbolic_for_every_label(k):
    """Two, three and four classes and every label in sympy."""
    z, p = symbolic.logits(k), symbolic.probabilities(k)
    covariance = sp.diag(*p) - p * p.T
    for label in range(k):
        one_hot = sp.Matrix([sp.KroneckerDelta(j, label) for j in range(k)])
        difference = symbolic.gradient(k, label) - (p - one_hot)
        assert difference.applyfunc(sp.simplify).is_zero_matrix
        curvature = sp.hessian(symbolic.cross_entropy(k, label), z)
        assert (curvature - covariance).applyfunc(sp.simplify).is_zero_matrix
        assert curvature == sp.hessian(symbolic.cross_entropy(k, 0), z)
    assert (symbolic.hessian(k) - covariance).applyfunc(sp.simplify).is_zero_matrix


@pytest.mark.symbolic
def test_symbolic_cumulants_of_the_proof():
    """The derivatives of the generating function in the proof."""
    t, *v = sp.symbols("t v:3", real=True)
    p = symbolic.probabilities(3)
    generating = sp.log(sum(q * sp.exp(t * x) for q, x in zip(p, v, strict=True)))
    first, second = (sp.diff(generating, t, n).subs(t, 0) for n in (1, 2))
    mean = sum(q * x for q, x in zip(p, v, strict=True))
    square = sum(q * x**2 for q, x in zip(p, v, strict=True))
    assert sp.simplify(first - mean) == 0
    assert sp.simplify(second - (square - mean**2)) == 0


@pytest.mark.boundary
def test_boundary_equal_and_saturated_logits():
    """Equal and saturated logits."""
    equal = softmax.covariance(torch.zeros(1, 4, dtype=torch.float64))[0]
    wanted = torch.eye(4, dtype=torch.float64) / 4 - 1 / 16
    torch.testing.assert_close(equal, wanted, rtol=0, atol=1e-16)
    saturated = softmax.covariance(torch.tensor([[700.0, 0.0]]).double())[0]
    assert (saturated.diagonal() > 0).all()
    assert saturated.sum().item() == 0


@pytest.mark.needed
def test_without_finite_logits_the_kernel_is_larger():
    """At an infinite logit the kernel is larger."""
    p = torch.tensor([[0.0, 0.0, -torch.inf]], dtype=torch.float64).softmax(1)[0]
    matrix = torch.diag(p) - torch.outer(p, p)
    values = torch.linalg.eigvalsh(matrix)
    torch.testing.assert_close(
        values, torch.tensor([0, 0, 0.5]).double(), rtol=0, atol=1e-15
    )
    assert (matrix @ torch.tensor([0.0, 0.0, 1.0]).double()).abs().max() == 0


@pytest.mark.needed
@pytest.mark.parametrize("case", ["normalised head", "Brier loss"])
def test_other_heads_and_losses_feel_the_label(case):
    """Normalised heads and the Brier loss feel the label."""
    weight, features, _, _ = head(1, 3, 2, seed=5)

    def loss(flat, label):
        w = flat.reshape(3, 2)
        if case == "Brier loss":
            p = (w @ features[0]).softmax(0)
            return (p - torch.eye(3, dtype=torch.float64)[label]).square().sum()
        return cross_entropy(w @ features[0] / w.norm(), torch.tensor(label))

    one, other = (hessian(loss)(weight.flatten(), label) for label in (0, 1))
    assert (one - other).norm() > 0.1 * one.norm()
