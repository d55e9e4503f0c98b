"""prop-remainder-needs-weights: the circle refutes any remainder without the head."""

import math

import pytest
import sympy as sp
import torch
from torch.func import grad, jacrev, vmap

from tests.cases import generator

X = torch.tensor([1.0, 0.0], dtype=torch.float64)


def loss(weight, x, target):
    z = weight @ x
    return z.logsumexp(0) - target @ z


def one(s):
    """Gradient, relative sharpness, rise at -x and the same with the label."""
    weight = torch.stack([s, 0 * s, 0 * s, 0 * s]).reshape(2, 2)
    target = (weight @ X).softmax(0)
    slope = grad(loss)(weight, X, target).abs().max()
    trace = jacrev(grad(loss))(weight, X, target).reshape(4, 4).trace()
    rises = [loss(weight, -X, q) - loss(weight, X, q) for q in (target, X)]
    return torch.stack([slope, weight.square().sum() * trace, *rises])


def by_automatic_differentiation(scales):
    """Four rows, without any closed form."""
    return vmap(one)(torch.as_tensor(scales, dtype=torch.float64)).T


def scales(n, seed, decades=3.0):
    g = generator(seed)
    return 10 ** (decades * (torch.rand(n, generator=g, dtype=torch.float64) - 0.5))


@pytest.mark.random
def test_circle():
    """600 random scales against automatic differentiation: zero gradient, sharpness
    and rise as stated; with the label the rise is the scale itself."""
    s = scales(600, 0)
    slope, kappa, rise, hard = by_automatic_differentiation(s)
    assert slope.max() < 1e-14
    torch.testing.assert_close(rise, s * (s / 2).tanh(), rtol=1e-8, atol=0)
    wanted = s**2 / (2 * (s / 2).cosh() ** 2)
    torch.testing.assert_close(kappa, wanted, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(hard, s, rtol=1e-9, atol=1e-15)


@pytest.mark.symbolic
def test_rise_and_sharpness_with_a_symbol():
    """Rise and sharpness of the circle in sympy; a rescaling by t keeps the first term
    of the printed bound and divides the second by the cube of t."""
    s, t = sp.symbols("s t", positive=True)
    p = 1 / (1 + sp.exp(-s))
    rise = sp.log((1 + sp.exp(-s)) / (1 + sp.exp(s))) + 2 * p * s
    rise = rise.subs(sp.log((1 + sp.exp(-s)) / (1 + sp.exp(s))), -s)
    tanh = s * sp.tanh(s / 2).rewrite(sp.exp)
    assert sp.simplify(rise - tanh) == 0
    assert sp.simplify((1 + sp.exp(-s)) / (1 + sp.exp(s)) - sp.exp(-s)) == 0
    kappa = s**2 * 2 * p * (1 - p)
    wanted = s**2 / (2 * sp.cosh(s / 2) ** 2)
    assert sp.simplify((kappa - wanted).rewrite(sp.exp)) == 0
    k, m, L, r, d = sp.symbols("k m L r delta", positive=True)
    first, second = d**2 * L**2 / (2 * r**2), d**3 * k * m * L**6 / (24 * r**3)
    scaled = {L: L / t, r: r / t}
    assert sp.simplify(first.subs(scaled, simultaneous=True) / first) == 1
    assert sp.simplify(second.subs(scaled, simultaneous=True) / second) == t**-3


@pytest.mark.boundary
def test_where_the_curvature_term_alone_begins_to_fail():
    """Without a remainder the bound fails from the root of sinh s = 2 s on, and not
    before."""
    threshold = float(sp.nsolve(sp.sinh(sp.Symbol("s")) - 2 * sp.Symbol("s"), 2))
    below = [1e-3, 0.5, 2.0, 0.999 * threshold]
    _, kappa, rise, _ = by_automatic_differentiation(below)
    assert (rise < 2 * kappa).all()
    _, kappa, rise, _ = by_automatic_differentiation([1.001 * threshold, 3.0, 10.0])
    assert (rise > 2 * kappa).all()


@pytest.mark.needed
def test_a_remainder_that_knows_the_weights_is_not_refuted():
    """With the cube of the spectral norm in the remainder the circle is no
    counterexample at any of 200 scales."""
    s = scales(200, 1, decades=4.0)
    _, kappa, rise, _ = by_automatic_differentiation(s)
    assert (rise <= 2 * kappa + math.sqrt(6) / 54 * (2 * s) ** 3).all()
    assert (rise > 2 * kappa + 4 / 3).any()
