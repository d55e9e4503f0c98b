"""thm-cubic-radius: the one positive root in two branches of non-negative terms."""

import math

import mpmath as mp
import numpy as np
import pytest
import sympy as sp
import torch

from flatbook import radius, symbolic
from tests.cases import generator


def parts(eps, c, b, a):
    gamma = c / eps
    g = b / (3 * eps) + gamma**2 / 9
    h = a / (2 * eps) + b * c / (6 * eps**2) + gamma**3 / 27
    return gamma, g, h


def as_stated(eps, c, b, a):
    """The theorem's formula in mpmath, with the precision that is set."""
    gamma, g, h = parts(*(mp.mpf(v) for v in (eps, c, b, a)))
    if h**2 >= g**3:
        u = mp.cbrt(h + mp.sqrt(h**2 - g**3))
        return 1 / (gamma / 3 + u + g / u)
    return 1 / (gamma / 3 + 2 * mp.sqrt(g) * mp.cos(mp.acos(h / g**1.5) / 3))


def coefficients(n, seed, decades):
    g = generator(seed)
    spread = torch.rand(n, 4, generator=g, dtype=torch.float64) - 0.5
    return (10 ** (decades * spread)).tolist()


@pytest.mark.random
def test_700_cases_solve_the_cubic():
    """700 cases: the closed form solves the cubic."""
    with mp.workdps(60):
        for eps, c, b, a in coefficients(700, 0, 60):
            x = as_stated(eps, c, b, a)
            value = ((a * x + b) * x + c) * x
            assert abs(value / eps - 1) < mp.mpf(10) ** -35
            got = radius.cubic_radius(eps, c, b, a)
            assert abs(got / x - 1) < 1e-14


@pytest.mark.random
def test_600_cases_have_one_positive_root_and_the_branch_counts_the_real_ones():
    """600 cases have one positive root, and the branch counts the real ones."""
    seen = set()
    for eps, c, b, a in coefficients(600, 1, 3):
        roots = np.roots([a, b, c, -eps])
        real = roots[np.abs(roots.imag) < 1e-9 * np.abs(roots)].real
        assert (real > 0).sum() == 1
        _, g, h = parts(eps, c, b, a)
        if abs(h**2 / g**3 - 1) < 1e-6:
            continue
        cosine = h**2 < g**3
        assert len(real) == (3 if cosine else 1)
        values = {symbolic.c: c, symbolic.b: b, symbolic.a: a, symbolic.eps: eps}
        sign = float(symbolic.discriminant().subs(values))
        assert (sign > 0) == cosine
        assert float(as_stated(eps, c, b, a)) == pytest.approx(real.max(), rel=1e-9)
        seen.add(cosine)
    assert seen == {True, False}


@pytest.mark.symbolic
def test_symbolic_the_reciprocal_is_depressed_by_gamma_over_three():
    """The cubic for the reciprocal, depressed, in sympy."""
    eps, c, b, a = sp.symbols("epsilon c b a", positive=True)
    s, t, u, w = sp.symbols("s t u w", positive=True)
    gamma, g, h = (sp.expand(v) for v in parts(eps, c, b, a))
    cubic = (a * s**-3 + b * s**-2 + c / s - eps) * s**3 / -eps
    shifted = sp.expand(sp.expand(cubic).subs(s, gamma / 3 + t))
    assert sp.expand(shifted - (t**3 - 3 * g * t - 2 * h)) == 0
    sums = sp.expand((u + w / u) ** 3 - 3 * w * (u + w / u))  # u + g/u with g = w
    assert sp.simplify(sums - (u**3 + w**3 / u**3)) == 0
    cosine = sp.Symbol("x")
    assert sp.expand(8 * cosine**3 - 6 * cosine - 2 * sp.chebyshevt(3, cosine)) == 0
    values = {symbolic.c: c, symbolic.b: b, symbolic.a: a, symbolic.eps: eps}
    left = symbolic.discriminant().subs(values, simultaneous=True)
    assert sp.expand(left - 108 * eps**4 * (g**3 - h**2)) == 0


@pytest.mark.boundary
def test_boundary_where_the_branches_meet():
    """Where the two branches meet."""
    for b, eps in ((1.0, 0.1), (0.2, 3.0), (7.0, 0.01)):
        meet = math.sqrt(4 * b**3 / (27 * eps))
        root = radius.cubic_radius(eps, 0.0, b, meet)
        assert root == pytest.approx(math.sqrt(3 * eps / b) / 2, rel=1e-15)
        for factor, cosine in ((1 - 1e-9, True), (1 + 1e-9, False)):
            _, g, h = parts(eps, 0.0, b, factor * meet)
            assert (h**2 < g**3) == cosine
            near = radius.cubic_radius(eps, 0.0, b, factor * meet)
            assert near == pytest.approx(root, rel=1e-9)


@pytest.mark.boundary
@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ((0.3, 2.0, 0.0, 0.0), 0.15),
        ((0.3, 0.0, 2.0, 0.0), math.sqrt(0.15)),
        ((0.3, 0.0, 0.0, 2.0), 0.15 ** (1 / 3)),
        ((6.0, 1.0, 1.0, 0.0), 2.0),
        ((14.0, 1.0, 1.0, 1.0), 2.0),
    ],
)
def test_boundary_absent_coefficients(values, wanted):
    """Absent coefficients."""
    assert float(as_stated(*values)) == pytest.approx(wanted, rel=1e-14)
    assert radius.cubic_radius(*values) == pytest.approx(wanted, rel=1e-15)


@pytest.mark.needed
def test_a_negative_coefficient_may_leave_three_positive_roots_or_none():
    """A negative coefficient may leave three positive roots, or none."""
    three = np.roots([1.0, -6.0, 11.0, -6.0])  # b = -6: roots 1, 2, 3
    assert (three.real > 0).sum() == 3
    none = np.roots([-1.0, 0.0, 0.1, -1.0])  # a = -1: the cubic stays below eps
    positive = none[(np.abs(none.imag) < 1e-9) & (none.real > 0)]
    assert not len(positive)
    with pytest.raises(ValueError, match="b must be finite and >= 0"):
        radius.cubic_radius(6.0, 11.0, -6.0, 1.0)
