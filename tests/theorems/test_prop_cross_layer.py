"""prop-cross-layer: the Hessian in all weights is J^T P J plus a traceless rest."""

import math

import pytest
import sympy as sp
import torch
from torch.autograd.functional import hessian, jacobian

from flatbook import softmax
from tests.cases import generator
from tests.layered import close, logits, loss_hessian, network, square


def joint(weights, x, f=torch.relu):
    """Logits as a function of all weights in one vector, and that vector."""
    sizes = [w.numel() for w in weights]

    def function(flat):
        parts = flat.split(sizes)
        own = [part.reshape(w.shape) for part, w in zip(parts, weights, strict=True)]
        return logits(own, x, f)

    return function, torch.cat([w.flatten() for w in weights])


def parts(weights, x, y, f=torch.relu):
    """Hessian, J^T P J, and the second derivatives of the logits."""
    function, point = joint(weights, x, f)
    jac, z = jacobian(function, point), function(point)
    second = [
        square(hessian(lambda v, c=c: function(v)[c], point)) for c in range(len(z))
    ]
    gauss = jac.T @ softmax.covariance(z[None])[0] @ jac
    return loss_hessian(function, point, y), gauss, torch.stack(second)


@pytest.mark.random
def test_500_networks():
    """500 random networks: the identity, the trace, the signs, the bound."""
    g = generator(0)
    for case in range(500):
        weights, x = network(g, depth=1 + case % 3, width=2)
        z = logits(weights, x)
        y = case % len(z)
        h, gauss, second = parts(weights, x, y)
        off = z.softmax(0) - torch.eye(len(z)).double()[y]
        rest = torch.einsum("c,cij->ij", off, second)
        close(h, gauss + rest)
        close(h.trace(), gauss.trace())
        start = 0
        for weight in weights:
            own = slice(start, start := start + weight.numel())
            assert rest[own, own].abs().max() < 1e-12
        doubt = -torch.expm1(-torch.nn.functional.cross_entropy(z, torch.tensor(y)))
        for order in (2, "fro", "nuc"):
            largest = torch.linalg.matrix_norm(second, order).max()
            bound = 2 * doubt * largest
            assert torch.linalg.matrix_norm(rest, order) <= bound * (1 + 1e-9) + 1e-12
        if rest.norm() > 1e-6:
            values = torch.linalg.eigvalsh(rest)
            assert values[0] < -1e-9 < 1e-9 < values[-1]


@pytest.mark.symbolic
def test_two_weights():
    """The Hessian of log(1 + exp(w1 w2)) and its eigenvalues, in sympy."""
    w1, w2, g = sp.symbols("w1 w2 g", positive=True)
    h = sp.hessian(sp.log(1 + sp.exp(w1 * w2)), (w1, w2))
    h = h.subs({w1: sp.sqrt(g), w2: sp.sqrt(g)})
    q = 1 / (1 + sp.exp(-g))
    v = q * (1 - q)
    wanted = sp.Matrix([[g * v, g * v + q], [g * v + q, g * v]])
    assert (h - wanted).applyfunc(sp.simplify).is_zero_matrix
    for vector, value in (((1, -1), -q), ((1, 1), q + 2 * g * v)):
        off = wanted * sp.Matrix(vector) - value * sp.Matrix(vector)
        assert off.applyfunc(sp.simplify).is_zero_matrix


def two(gap, sign=1):
    """The Hessian of the network of part 3 at w1 = sqrt g, w2 = +-sqrt g."""

    def function(w):
        z = w[1] * w[0].relu()
        return torch.stack([z, 0 * z])

    point = torch.tensor([gap**0.5, sign * gap**0.5], dtype=torch.float64)
    return loss_hessian(function, point, 1)


@pytest.mark.boundary
def test_a_confident_mistake():
    """Gaps of 36, 100, 400: blocks and trace vanish, eigenvalues tend to -1 and 1."""
    flip = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    for gap in (36.0, 100.0, 400.0):
        h = two(gap)
        assert (h - flip).abs().max() <= 2 * gap * math.exp(-gap) + 1e-14
        values = torch.linalg.eigvalsh(h)
        assert values.tolist() == pytest.approx([-1, 1], abs=1e-10)


@pytest.mark.boundary
def test_a_confident_success():
    """The same network confidently right: everything vanishes."""
    for gap in (36.0, 100.0):
        assert two(gap, sign=-1).abs().max() < 3 * gap * math.exp(-gap)


@pytest.mark.boundary
def test_one_layer_has_no_rest():
    """One layer: the rest is zero and the Hessian positive semidefinite."""
    weights, x = network(generator(3), depth=1, k=3)
    h, gauss, second = parts(weights, x, 0)
    assert second.abs().max() == 0
    close(h, gauss)
    assert torch.linalg.eigvalsh(h)[0] > -1e-12


@pytest.mark.needed
def test_the_trace_needs_layers_that_do_not_bend():
    """With GELU the trace of the Hessian is not that of J^T P J."""
    g, off = generator(5), 0
    for case in range(40):
        weights, x = network(g, depth=2, k=3, width=2)
        h, gauss, _ = parts(weights, x, case % 3, torch.nn.functional.gelu)
        off += bool((h.trace() - gauss.trace()).abs() > 0.001 * gauss.trace())
    assert off > 30
