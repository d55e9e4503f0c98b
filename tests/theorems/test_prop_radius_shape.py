"""prop-radius-shape: how the radius moves with the tolerance and the coefficients."""

import math

import mpmath as mp
import numpy as np
import pytest
import sympy as sp
import torch

from flatbook import radius, symbolic
from tests.cases import generator


def coefficients(n, seed, decades=6.0):
    g = generator(seed)
    spread = torch.rand(n, 4, generator=g, dtype=torch.float64) - 0.5
    return 10 ** (decades * spread)


def shares(eps, c, b, a):
    x = radius.cubic_radius(eps, c, b, a)
    return torch.stack([c * x, b * x**2, a * x**3]) / eps


def exponent(values, which, step=1e-5):
    """d log D / d log of one of (eps, c, b, a), by a central difference."""
    up, down = values.clone(), values.clone()
    up[:, which] *= math.exp(step)
    down[:, which] *= math.exp(-step)
    ends = [radius.cubic_radius(*v.unbind(1)).log() for v in (up, down)]
    return (ends[0] - ends[1]) / (2 * step)


@pytest.mark.random
def test_800_cases_monotone_with_the_stated_exponents():
    """800 cases: monotone, with the stated exponents."""
    values = coefficients(800, 0)
    one, two, three = shares(*values.unbind(1))
    total = one + 2 * two + 3 * three
    torch.testing.assert_close(one + two + three, torch.ones_like(one))
    for which, wanted in enumerate((1 / total, -one / total, -two / total)):
        got = exponent(values, which)
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(
        exponent(values, 3), -three / total, rtol=1e-6, atol=1e-8
    )
    for which in range(4):
        more = values.clone()
        more[:, which] *= 1.5
        change = radius.cubic_radius(*more.unbind(1)) - radius.cubic_radius(
            *values.unbind(1)
        )
        assert ((change > 0) if which == 0 else (change <= 0)).all()


@pytest.mark.random
def test_600_cases_without_slope_lie_on_one_line():
    """600 cases without a slope term lie on one line."""
    values = coefficients(600, 1)
    values[:, 1] = 0
    in_eps, in_b = exponent(values, 0), exponent(values, 2)
    assert ((in_eps > 1 / 3 - 1e-9) & (in_eps < 1 / 2 + 1e-9)).all()
    assert ((in_b > -1 / 2 - 1e-9) & (in_b < 1e-9)).all()
    torch.testing.assert_close(in_b, 1 - 3 * in_eps, rtol=0, atol=1e-8)
    claimed = torch.stack([in_eps - 1 / 3, in_b + 1 / 3]).abs().amax(0)
    assert claimed.min() > 0.08  # the line passes the claim (1/3, -1/3) at 1/12


@pytest.mark.random
def test_800_pairs_lie_in_the_triangle_and_the_claim_outside():
    """800 pairs of exponents lie in the triangle, and the claimed pair outside."""
    values = coefficients(800, 2)
    x, y = exponent(values, 0), exponent(values, 2)
    edges = torch.stack([-y, y - (1 - 3 * x), y - (x - 1)])
    assert edges.min() > -1e-8
    assert (edges.amin(1) < 0.01).all()  # each edge is approached
    gap = torch.stack([x - 1 / 3, y + 1 / 3])
    assert gap.abs().amax(0).min() > 0.08


@pytest.mark.symbolic
def test_symbolic_implicit_derivatives():
    """The derivatives of the root, by implicit differentiation."""
    d = sp.Function("D")(symbolic.b)
    a, b, c, eps = symbolic.a, symbolic.b, symbolic.c, symbolic.eps
    equation = a * d**3 + b * d**2 + c * d - eps
    slope = sp.solve(sp.diff(equation, b), sp.diff(d, b))[0]
    x = sp.Symbol("x", positive=True)
    total = c * x + 2 * b * x**2 + 3 * a * x**3
    assert sp.simplify((slope.subs(d, x) * b / x) + b * x**2 / total) == 0


@pytest.mark.symbolic
@pytest.mark.parametrize(
    ("head", "scale"),
    [
        # D sqrt(b/eps) in eta = a sqrt(eps) b^(-3/2), D (a/eps)^(1/3) in eta^(-2/3)
        ([1, sp.Rational(-1, 2), sp.Rational(5, 8)], "square"),
        ([1, sp.Rational(-1, 3), sp.Rational(1, 9)], "cube"),
    ],
)
def test_symbolic_series_of_both_limits(head, scale):
    """The series of both limits."""
    x = sp.Symbol("x", positive=True)
    series = sum(coefficient * x**n for n, coefficient in enumerate(head))
    if scale == "square":  # y^2 + eta y^3 = 1
        left = series**2 + x * series**3 - 1
    else:  # mu y^2 + y^3 = 1
        left = x * series**2 + series**3 - 1
    left = sp.Poly(sp.expand(left), x)
    assert [left.coeff_monomial(x**n) for n in range(3)] == [0, 0, 0]
    with mp.workdps(40):
        for small in (1e-2, 1e-3):
            values = (1.0, 0.0, 1.0, small) if scale == "square" else (1, 0, small, 1.0)
            got = radius.cubic_radius(*map(float, values))
            assert got == pytest.approx(float(series.subs(x, small)), abs=3 * small**3)


@pytest.mark.boundary
def test_boundary_the_limits():
    """The limits themselves."""
    tiny, huge = 1e-12, 1e12
    assert radius.cubic_radius(tiny, 0.0, 2.0, 3.0) == pytest.approx(
        math.sqrt(tiny / 2), rel=1e-5
    )
    assert radius.cubic_radius(0.3, 0.0, huge, 3.0) == pytest.approx(
        math.sqrt(0.3 / huge), rel=1e-5
    )
    assert radius.cubic_radius(0.3, 0.0, tiny, 3.0) == pytest.approx(
        (0.3 / 3) ** (1 / 3), rel=1e-10
    )
    assert radius.cubic_radius(tiny, 0.5, 2.0, 3.0) == pytest.approx(
        tiny / 0.5, rel=1e-10
    )
    assert radius.cubic_radius(huge, 0.5, 2.0, 3.0) == pytest.approx(
        (huge / 3) ** (1 / 3), rel=1e-3
    )


@pytest.mark.needed
def test_a_slope_is_needed_for_the_last_limit_and_its_absence_for_the_first():
    """One limit needs a slope, the other its absence."""
    small = np.array([1e-6, 1e-10])
    with_slope = radius.cubic_radius(torch.tensor(small), 0.5, 2.0, 3.0)
    without = radius.cubic_radius(torch.tensor(small), 0.0, 2.0, 3.0)
    assert (with_slope[0] / with_slope[1]).item() == pytest.approx(1e4, rel=1e-3)
    assert (without[0] / without[1]).item() == pytest.approx(1e2, rel=1e-3)
