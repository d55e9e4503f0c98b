"""cor-input-trace: trace and spectrum of the input Hessian from k - 1 gradients."""

import pytest
import sympy as sp
import torch
from torch.autograd.functional import jacobian

from flatbook import curvature, softmax
from tests.cases import generator
from tests.layered import close, logits, loss_hessian, network


def gram(jac, t):
    """From k - 1 differences to class t."""
    rows = jac - jac[t]
    return rows @ rows.T


def trace(p, g):
    square = g.diagonal()
    distance = square[:, None] + square - 2 * g
    return (torch.outer(p, p) * distance).sum() / 2


def cases(number):
    g = generator(1)
    for case in range(number):
        weights, x = network(g, depth=2 + case % 2)
        yield case, weights, x


@pytest.mark.random
def test_500_networks():
    """500 random networks against the dense Hessian in the input: trace, both forms."""
    for case, weights, x in cases(500):

        def outputs(v, weights=weights):
            return logits(weights, v)

        k = len(weights[-1])
        h = loss_hessian(outputs, x, case % k)
        jac, p = jacobian(outputs, x), outputs(x).softmax(0)
        close(trace(p, gram(jac, case % k)), h.trace())
        slopes = p @ jac - jac  # gradients of the loss with each label
        close((p * slopes.square().sum(1)).sum(), h.trace())


@pytest.mark.random
def test_spectrum_and_scale():
    """100 random networks, three scales: all eigenvalues from one Gram matrix."""
    for case, weights, x in cases(100):
        k = len(weights[-1])
        jac = jacobian(lambda v, w=weights: logits(w, v), x)
        s = (0.3, 1.0, 5.0)[case % 3]
        scaled = [*weights[:-1], s * weights[-1]]
        h = loss_hessian(lambda v, w=scaled: logits(w, v), x)
        z = s * logits(weights, x)[None]
        g = s**2 * gram(jac, int(z.argmax()))[None]
        close(curvature.gram_trace(g, z)[0], h.trace())
        dense = torch.cat([torch.zeros(k).double(), torch.linalg.eigvalsh(h)])
        values = curvature.gram_eigenvalues(g, z)[0]
        close(values, dense.sort().values[-k:], rtol=1e-7)


@pytest.mark.symbolic
def test_two_forms_of_the_trace():
    """Pairs of classes and losses of all labels: the same polynomial, three classes."""
    p = [*sp.symbols("p0 p1"), 1 - sum(sp.symbols("p0 p1"))]
    rows = [sp.Matrix(sp.symbols(f"g{j}:2")) for j in "ab"] + [sp.zeros(2, 1)]
    mean = sum((q * r for q, r in zip(p, rows, strict=True)), sp.zeros(2, 1))
    losses = sum(q * (mean - r).dot(mean - r) for q, r in zip(p, rows, strict=True))
    pairs = sum(
        p[i] * p[j] * (rows[i] - rows[j]).dot(rows[i] - rows[j])
        for i in range(3)
        for j in range(i)
    )
    assert sp.expand(losses - pairs) == 0


@pytest.mark.boundary
def test_two_classes():
    """Two classes: one backward pass, and one eigenvalue that is the trace."""
    g = generator(3)
    for _ in range(50):
        weights, x = network(g, depth=2, k=2)
        jac = jacobian(lambda v, w=weights: logits(w, v), x)
        p = logits(weights, x).softmax(0)
        h = loss_hessian(lambda v, w=weights: logits(w, v), x)
        close(h.trace(), p[0] * p[1] * (jac[1] - jac[0]).square().sum())
        close(torch.linalg.eigvalsh(h)[-1], h.trace())


@pytest.mark.boundary
def test_a_confident_prediction_keeps_its_digits():
    """A gap of 600, where the dense Hessian is all rounding: the trace is exact."""
    jac = torch.tensor([[1.0, 2.0], [0.0, -1.0]], dtype=torch.float64)
    z = torch.tensor([[600.0, 0.0]], dtype=torch.float64)
    found = curvature.gram_trace(gram(jac, 0)[None], z).item()
    assert found == pytest.approx(10 * float(sp.exp(-600)), rel=1e-10)


@pytest.mark.needed
def test_a_smooth_activation():
    """With GELU between the layers it fails."""
    g, off = generator(4), 0
    f = torch.nn.functional.gelu
    for _ in range(40):
        weights, x = network(g, depth=2, k=3)
        jac = jacobian(lambda v, w=weights: logits(w, v, f), x)
        h = loss_hessian(lambda v, w=weights: logits(w, v, f), x)
        found = trace(logits(weights, x, f).softmax(0), gram(jac, 0))
        off += bool((found - h.trace()).abs() > 0.01 * found)
    assert off > 30


@pytest.mark.needed
def test_another_loss():
    """With the squared error of probabilities it fails and depends on the label."""
    jac = torch.tensor([[1.0, 2.0], [0.0, -1.0]], dtype=torch.float64)

    def brier(v, y):
        p = (jac @ v).softmax(0)
        return (p - torch.eye(2).double()[y]).square().sum()

    point = torch.tensor([0.3, 0.1], dtype=torch.float64)
    hessians = [
        torch.autograd.functional.hessian(lambda v, y=y: brier(v, y), point)
        for y in (0, 1)
    ]
    p = (jac @ point).softmax(0)
    cross = jac.T @ softmax.covariance((jac @ point)[None])[0] @ jac
    close(trace(p, gram(jac, 0)), cross.trace())
    assert all((h.trace() - cross.trace()).abs() > 0.1 for h in hessians)
    assert (hessians[0] - hessians[1]).norm() > 0.1
