"""lem-two-points: Bennett's bound on the mean of an exponential, and who attains it."""

import math

import mpmath as mp
import numpy as np
import pytest
import sympy as sp
import torch
from scipy.optimize import linprog

from tests.cases import generator


def bound(variance, top):
    """e^B, from the words of the lemma."""
    h2 = top**2
    return (h2 * math.exp(-variance / top) + variance * math.exp(top)) / (h2 + variance)


def centred_laws(n, atoms, seed):
    """Probabilities and values with mean zero: (n, atoms) each."""
    g = generator(seed)
    p = torch.rand(n, atoms, generator=g, dtype=torch.float64).pow(4)
    p = p / p.sum(1, keepdim=True)
    x = torch.randn(n, atoms, generator=g, dtype=torch.float64)
    x = x * 10 ** (3 * torch.rand(n, 1, generator=g, dtype=torch.float64) - 2)
    return p, x - (p * x).sum(1, keepdim=True)


@pytest.mark.random
def test_random_laws():
    """1,500 random laws with two to nine values, also with variance and top larger
    than need be."""
    for atoms in (2, 3, 5, 9):
        p, x = centred_laws(375, atoms, atoms)
        mean = (p * x.exp()).sum(1).tolist()
        variance, top = (p * x**2).sum(1).tolist(), x.amax(1).tolist()
        for got, v, h in zip(mean, variance, top, strict=True):
            for wider in (1.0, 1.3, 4.0):
                assert got <= bound(wider * v, h) * (1 + 1e-12)
                assert got <= bound(v, wider * h) * (1 + 1e-12)
                last = math.log1p(v / h**2 * (math.expm1(h) - h))
                assert math.log(bound(v, h)) <= last + 1e-12 <= last * 1.1 + 2e-12


@pytest.mark.random
def test_linear_programs():
    """For 25 pairs (V, h) a linear program over 1,500 possible values finds the same
    maximum, and never more."""
    g = generator(7)
    pairs = 10 ** (2 * torch.rand(25, 2, generator=g, dtype=torch.float64) - 1.5)
    for v, h in pairs.tolist():
        x = np.linspace(h - 6 * (h + v / h), h, 1500)
        found = linprog(
            -np.exp(x), A_ub=[x**2], b_ub=[v], A_eq=[np.ones_like(x), x], b_eq=[1, 0]
        )
        assert -found.fun <= bound(v, h) * (1 + 1e-9)
        assert -found.fun == pytest.approx(bound(v, h), rel=2e-3)


@pytest.mark.symbolic
def test_parabola_and_two_points():
    """The parabola through the two points has the stated mean, and the two-point law
    has mean zero and variance V."""
    v, h = sp.symbols("V h", positive=True)
    low, mass = -v / h, v / (h**2 + v)
    assert sp.simplify(mass * h + (1 - mass) * low) == 0
    assert sp.simplify(mass * h**2 + (1 - mass) * low**2 - v) == 0
    a, b, c, x = sp.symbols("a b c x")
    parabola = a + b * x + c * x**2
    exp = sp.exp(low)
    solved = sp.solve(
        [
            parabola.subs(x, low) - exp,
            parabola.diff(x).subs(x, low) - exp,
            parabola.subs(x, h) - sp.exp(h),
        ],
        [a, b, c],
    )
    mean = solved[a] + solved[c] * v
    wanted = (h**2 * exp + v * sp.exp(h)) / (h**2 + v)
    assert sp.simplify(mean - wanted) == 0


@pytest.mark.boundary
def test_two_points_attain_it():
    """The two-point law attains the bound to thirty digits; no variance, or no room
    above the mean, leaves one."""
    for v, h in [(1e-6, 1e-3), (0.1, 0.5), (2.0, 0.3), (1e-8, 40.0)]:
        with mp.workdps(40):
            V, H = mp.mpf(v), mp.mpf(h)
            mass = V / (H**2 + V)
            mean = mass * mp.exp(H) + (1 - mass) * mp.exp(-V / H)
            stated = (H**2 * mp.exp(-V / H) + V * mp.exp(H)) / (H**2 + V)
            assert abs(mean / stated - 1) < mp.mpf(10) ** -30
    assert bound(0.0, 3.0) == 1
    assert bound(1e-9, 1e-6) == pytest.approx(1, abs=1e-8)


@pytest.mark.needed
def test_without_a_top_or_without_mean_zero():
    """A rare value above h, or a mean that is not zero, breaks the bound."""
    v, h = 0.1, 0.5
    far = 4 * h
    mass = v / (far**2 + v)
    mean = mass * math.exp(far) + (1 - mass) * math.exp(-v / far)
    assert mean > bound(v, h) + 1e-3
    assert math.exp(0.4) > bound(v, h)  # X = 0.4: variance 0, below h
