"""The sympy derivations against the tensor code and against each other."""

import pytest
import sympy as sp
import torch

from flatbook import radius, softmax, symbolic
from tests.cases import generator


@pytest.mark.parametrize("k", [2, 3, 4])
def test_derivatives_have_the_closed_forms(k):
    p = symbolic.probabilities(k)
    for label in range(k):
        one_hot = sp.Matrix([int(j == label) for j in range(k)])
        assert sp.simplify(symbolic.gradient(k, label) - (p - one_hot)).is_zero_matrix
    wanted = sp.diag(*p) - p * p.T
    assert sp.simplify(symbolic.hessian(k) - wanted).is_zero_matrix
    third = symbolic.third_derivative(k)
    for j in range(k):
        for i in range(j + 1):
            for o in range(i + 1):
                entry = third[j, i, o] - symbolic.cumulant(p, j, i, o)
                assert sp.simplify(entry) == 0


@pytest.mark.parametrize("k", [2, 3, 4])
def test_bridge_to_the_tensor_code(k):
    rows = torch.randn(20, k, generator=generator(k), dtype=torch.float64) * 3
    hessian = symbolic.to_torch(symbolic.hessian(k), symbolic.logits(k))
    torch.testing.assert_close(
        hessian(*rows.unbind(1)), softmax.covariance(rows), rtol=1e-10, atol=1e-15
    )
    loss = symbolic.to_torch(symbolic.cross_entropy(k, 1), symbolic.logits(k))
    labels = torch.ones(20, dtype=torch.int64)
    torch.testing.assert_close(
        loss(*rows.unbind(1)),
        softmax.cross_entropy(rows, labels),
        rtol=1e-9,
        atol=1e-14,
    )


x, pi = symbolic.x, symbolic.pi
THREE = sp.symbols("p:3", positive=True)


def in_logits(expression):
    """Derivatives of a function of p in the logits, by dp_i/dz_j = p_i (d_ij - p_j)."""
    return [
        sum(
            sp.diff(expression, p) * p * (sp.Integer(p == other) - other) for p in THREE
        )
        for other in THREE
    ]


def at_vertex(expression, vertex):
    """Limit along p_v = 1 - 2 u, the other two u."""
    u = sp.Symbol("u", positive=True)
    path = {p: (1 - 2 * u if j == vertex else u) for j, p in enumerate(THREE)}
    return sp.limit(expression.subs(path, simultaneous=True), u, 0)


CURVES = {
    "cross-entropy": (x, 0),
    "soft": (4 * x / 5, x / 10),
    "Brier": ((1 - sp.exp(-x)) ** 2, sp.exp(-2 * x)),
    "absolute": (1 - sp.exp(-x), sp.exp(-x)),
    "logarithm squared": (x**2, 0),
    "inverse": (sp.exp(x), 0),
}


@pytest.mark.parametrize("name", CURVES)
def test_vertex_limits_are_those_of_the_chain_rule(name):
    true, other = map(sp.sympify, CURVES[name])
    curves = zip([true, other, other], THREE, strict=True)
    loss = sum(f.subs(x, -sp.log(p)) for f, p in curves)
    slope = in_logits(loss)
    limits = symbolic.vertex_limits(true, other)
    for vertex, side in enumerate(("right", "wrong")):
        square = sum(at_vertex(v, vertex) ** 2 for v in slope)
        assert limits[f"slope {side}"] == sp.sqrt(square)
        bend = [at_vertex(w, vertex) for v in slope for w in in_logits(v)]
        assert limits[side] == sp.sqrt(sum(v**2 for v in bend))


def test_vertex_limits_that_do_not_exist():
    limits = symbolic.vertex_limits(x + sp.sin(x))
    assert limits["wrong"] == sp.AccumBounds(0, 2)
    assert limits["slope wrong"] == sp.AccumBounds(0, 2 * sp.sqrt(2))
    with pytest.raises(ValueError, match="not regular at 0"):
        symbolic.vertex_limits(sp.log(x))


def test_two_curves_that_stay_bent():
    """Hinge-like curves: x^2 for every class leaves a matrix of rank two."""
    limits = symbolic.vertex_limits(x**2, x**2)
    bend = sp.Matrix([[4, -2, -2], [-2, 2, 0], [-2, 0, 2]])
    assert limits["wrong"] == sp.sqrt(sum(v**2 for v in bend))


@pytest.mark.parametrize("curve", [x, x**2, x * (1 - sp.exp(-x)), sp.exp(x)])
def test_curvature_terms_by_differentiation(curve):
    h, none = symbolic.curvature_terms(curve)
    wanted = sp.diff(curve.subs(x, -sp.log(pi)), pi, 2)
    assert sp.simplify(h - wanted) == 0
    assert none == 0


@pytest.mark.parametrize(
    ("curves", "verdict"),
    [
        ((x,), True),
        ((4 * x / 5, x / 10), False),
        ((x * (1 - sp.exp(-x)),), True),
        ((x * sp.sqrt(1 - sp.exp(-x)),), False),
        (((1 - sp.exp(-x)) ** 2, sp.exp(-2 * x)), True),
        ((0, -x * sp.exp(-x)), False),
        ((x + sp.sin(x),), True),
        ((-(x**2),), True),
        ((x**2,), False),
    ],
)
def test_assumption_a(curves, verdict):
    assert symbolic.satisfies_a(*curves) is verdict


def test_depressed_cubic():
    p, q = symbolic.depressed()
    al, be = symbolic.alpha, symbolic.beta
    assert sp.simplify(p + al**2 / 3) == 0
    assert sp.simplify(q - (2 * al**3 / 27 - be)) == 0
    inside = sp.factor(q**2 / 4 + p**3 / 27)
    assert sp.simplify(inside - be * (27 * be - 4 * al**3) / 108) == 0


def test_discriminant_and_threshold():
    a, b, c, eps = symbolic.a, symbolic.b, symbolic.c, symbolic.eps
    wanted = (
        b**2 * c**2
        - 4 * a * c**3
        + 4 * b**3 * eps
        - 27 * a**2 * eps**2
        - 18 * a * b * c * eps
    )
    assert sp.expand(symbolic.discriminant() - wanted) == 0
    at_threshold = symbolic.discriminant().subs({c: 0, a: symbolic.branch_threshold()})
    assert sp.simplify(at_threshold) == 0


def test_reciprocal_roots_solve_the_cubic():
    one_real, three_real = symbolic.reciprocal_root()
    symbols = (symbolic.eps, symbolic.c, symbolic.b, symbolic.a)
    g = generator(0)
    values = torch.rand(500, 4, generator=g, dtype=torch.float64) + 0.01
    where = symbolic.to_torch(symbolic.discriminant(), symbols)(*values.unbind(1))
    for root, rows in ((one_real, values[where < 0]), (three_real, values[where > 0])):
        assert len(rows) > 20
        got = symbolic.to_torch(root, symbols)(*rows.unbind(1))
        wanted = radius.cubic_radius(*rows.unbind(1))
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=0)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="got 1"):
        symbolic.logits(1)
    with pytest.raises(ValueError, match="0 .. 2, got 3"):
        symbolic.cross_entropy(3, 3)
    x, y = sp.symbols("x y")
    with pytest.raises(ValueError, match="y"):
        symbolic.to_torch(x * y, [x])
