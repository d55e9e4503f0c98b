"""prop-sharp-third: range and variance bound the third central moment."""

import mpmath as mp
import pytest
import sympy as sp
import torch

from tests.cases import generator


def law(seed):
    """A random law on 2 to 9 points of an interval, of any shape and size."""
    g, n = generator(seed), 2 + seed % 8
    x = torch.rand(n, generator=g, dtype=torch.float64)
    if seed % 3 == 0:  # most of it at the two ends
        x = x.round() * (1 - 0.01 * x)
    p = torch.rand(n, generator=g, dtype=torch.float64) ** (1 + seed % 7)
    size = 10 ** (4 * torch.rand(2, generator=g, dtype=torch.float64) - 2)
    return size[0] * x - size[1], p / p.sum()


def moments(x, p):
    """Variance and third central moment in 50 digits."""
    with mp.workdps(50):
        x, p = [mp.mpf(v) for v in x.tolist()], [mp.mpf(v) for v in p.tolist()]
        total = mp.fsum(p)
        p = [v / total for v in p]
        mean = mp.fsum(a * b for a, b in zip(p, x, strict=True))
        return [
            mp.fsum(a * (b - mean) ** n for a, b in zip(p, x, strict=True))
            for n in (2, 3)
        ]


@pytest.mark.random
def test_laws_in_50_digits():
    """800 random laws with moments in 50 digits: no bound is exceeded."""
    closest = 0.0
    for seed in range(800):
        x, p = law(seed)
        variance, third = moments(x, p)
        with mp.workdps(50):
            width = mp.mpf(x.max().item()) - mp.mpf(x.min().item())
            slack = mp.mpf(10) ** -40
            room = width**2 - 4 * variance
            assert room >= -slack * width**2
            bound = variance * mp.sqrt(max(room, 0))
            assert abs(third) <= bound + slack * width**3
            if bound > 1e-6 * width**3:
                closest = max(closest, float(abs(third) / bound))
    assert closest > 0.9


@pytest.mark.random
def test_search_for_a_worse_law():
    """2,000 laws improved by gradient ascent come close to the bound, never past it."""
    g = generator(0)
    x = torch.rand(2000, 4, generator=g, dtype=torch.float64)
    x[:, 0], x[:, 1] = 0, 1
    z = torch.randn(2000, 4, generator=g, dtype=torch.float64).requires_grad_()
    places = torch.logit(x[:, 2:].clamp(0.01, 0.99)).requires_grad_()
    for _ in range(200):
        points = torch.cat([x[:, :2], places.sigmoid()], 1)
        p = z.softmax(1)
        centred = points - (p * points).sum(1, keepdim=True)
        variance, third = ((p * centred**n).sum(1) for n in (2, 3))
        ratio = third / (variance * (1 - 4 * variance).sqrt())
        assert ratio.max() <= 1 + 1e-9
        steps = torch.autograd.grad(ratio.sum(), (z, places))
        with torch.no_grad():
            z += 0.5 * steps[0]
            places += 0.5 * steps[1]
    assert ratio.median() > 0.99


@pytest.mark.symbolic
def test_symbolic_two_squares():
    """Both squares of the proof expand to what it says, and give the bound."""
    d, m, s, v, k3, width = sp.symbols("D m s V K R", positive=True)

    def mean(expression):
        poly = sp.Poly(sp.expand(expression), d)
        return (
            poly.coeff_monomial(1)
            + v * poly.coeff_monomial(d**2)
            + k3 * (poly.coeff_monomial(d**3))
        )

    below = mean((m + d) * (d - s) ** 2).subs(s, v / m)
    assert sp.expand(below - (k3 + m * v - v**2 / m)) == 0
    n = width - m
    above = mean((n - d) * (d - s) ** 2).subs(s, -v / n)
    assert sp.simplify(above - (-k3 + n * v - v**2 / n)) == 0
    root = sp.sqrt(width**2 - 4 * v)
    top = (width + root) / 2
    assert sp.simplify(top - v / top - root) == 0


@pytest.mark.boundary
def test_two_atoms_at_the_ends():
    """All mass at the two ends: equality, exactly; one atom inside: strictly less."""
    for tenth in range(11):
        q = sp.Rational(tenth, 10)
        variance, third = q * (1 - q), q * (1 - q) * (1 - 2 * q)
        assert sp.Abs(third) == variance * sp.sqrt(1 - 4 * variance)
    x = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    variance, third = moments(x, torch.tensor([0.6, 0.1, 0.3], dtype=torch.float64))
    assert abs(third) < 0.99 * variance * mp.sqrt(1 - 4 * variance)


@pytest.mark.boundary
def test_no_spread():
    """A single atom, and an even split between the ends: both sides are zero."""
    x = torch.tensor([0.25, 0.25], dtype=torch.float64)
    even = torch.tensor([0.5, 0.5], dtype=torch.float64)
    assert moments(x, even) == [0, 0]
    assert moments(torch.tensor([0.0, 1.0]).double(), even) == [mp.mpf(1) / 4, 0]


@pytest.mark.needed
def test_an_interval_for_nearly_all_of_the_mass():
    """An interval that holds all but a thousandth of the mass is not enough."""
    x = torch.tensor([0.0, 1.0, 30.0], dtype=torch.float64)
    p = torch.tensor([0.989, 0.010, 0.001], dtype=torch.float64)
    variance, third = moments(x, p)
    assert variance > 0.25  # not even the first claim holds for R = 1
    x[2], p[1], p[2] = 5.0, 0.009, 0.002
    variance, third = moments(x, p)
    assert variance < 0.25
    assert third > 2 * variance * mp.sqrt(1 - 4 * variance)
