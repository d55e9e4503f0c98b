"""prop-minimiser-exists: open sets have no nearest point, closed ones have."""

import math
from fractions import Fraction
from itertools import pairwise

import pytest
import torch

from tests.cases import generator


def bumpy(seed, m):
    """A smooth random function on the box, of any number of points (N, m)."""
    g = generator(seed)
    waves = 6 * torch.randn(5, m, generator=g, dtype=torch.float64)
    phase = 6 * torch.rand(5, generator=g, dtype=torch.float64)
    height = torch.randn(5, generator=g, dtype=torch.float64)
    return lambda x: (x @ waves.T + phase).sin() @ height


def points(seed, n, m):
    return torch.rand(n, m, generator=generator(seed), dtype=torch.float64)


def polygon(seed):
    """A continuous, piecewise linear function on [0, 1] by its values at k / 16."""
    heights = torch.randint(-3, 4, (17,), generator=generator(seed)).tolist()
    return [(Fraction(k, 16), Fraction(v)) for k, v in enumerate(heights)]


def reached(vertices, c):
    """All points where the polygon equals c, and its vertices at or above c, exactly.

    The nearest point of {g >= c} to a point outside is one of them.
    """
    found = [t for t, v in vertices if v >= c]
    for (s, u), (t, v) in pairwise(vertices):
        if (u - c) * (v - c) < 0:
            found.append(s + (t - s) * (c - u) / (v - u))
    return found


def value(vertices, at):
    for (s, u), (t, v) in pairwise(vertices):
        if s <= at <= t:
            return u + (v - u) * (at - s) / (t - s)
    raise AssertionError


def refined(vertices, parts):
    """The polygon at all multiples of 1 / (16 parts)."""
    shares = [Fraction(j, parts) for j in range(parts)]
    inner = [
        (s + (t - s) * a, u + (v - u) * a)
        for (s, u), (t, v) in pairwise(vertices)
        for a in shares
    ]
    return [*inner, vertices[-1]]


@pytest.mark.random
def test_every_point_that_counts_has_a_nearer_one():
    """500 random functions in 1 to 6 dimensions: every point has a nearer one."""
    steps = 0.5 ** torch.arange(1, 40, dtype=torch.float64)[:, None, None]
    tried = 0
    for seed in range(500):
        m = 1 + seed % 6
        g, x = bumpy(seed, m), points(10_000 + seed, 1, m)
        c = g(x) + 0.1
        others = points(20_000 + seed, 40, m)
        counted = others[g(others) > c]
        nearer = counted + steps * (x - counted)  # (39, n, m)
        counts = g(nearer.flatten(0, 1)).view(nearer.shape[:2]) > c
        assert counts.any(0).all()
        closer = (nearer - x).norm(dim=2) < (counted - x).norm(dim=1)
        assert closer[counts].all()
        assert ((nearer >= 0) & (nearer <= 1)).all()
        tried += len(counted)
    assert tried > 5000


@pytest.mark.random
def test_the_closed_problem_has_a_minimiser_exactly_if_feasible():
    """300 random polygons in exact fractions: a nearest point where any counts."""
    empty = 0
    for seed in range(300):
        vertices = polygon(seed)
        x, c = Fraction(1 + seed % 15, 16), Fraction(5, 2)
        if value(vertices, x) >= c:
            continue
        feasible = [t for t, v in refined(vertices, 12) if v >= c]
        candidates = reached(vertices, c)
        assert bool(feasible) == bool(candidates)
        empty += not candidates
        if candidates:
            best = min(candidates, key=lambda t: abs(t - x))
            assert value(vertices, best) >= c
            assert all(abs(t - x) >= abs(best - x) for t in feasible)
    assert empty > 5


@pytest.mark.boundary
def test_a_bisection_approaches_a_point_that_does_not_count():
    """The limit of the feasible points is infeasible; with ties counted it is not."""
    low, high = Fraction(1, 4), Fraction(1)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if 4 * middle > 3 else (middle, high)
        assert 4 * high > 3
    limit = Fraction(3, 4)
    assert 0 < high - limit < Fraction(1, 2**199)
    assert not 4 * limit > 3
    assert 4 * limit >= 3


@pytest.mark.boundary
def test_the_two_distances_agree_at_a_crossing_and_differ_at_a_peak():
    """A loss that just touches the threshold, falls, and rises again later."""
    heights = [(0, 0), (1, 1), (2, 0), (4, 2)]
    peak = [(Fraction(t, 4), Fraction(v)) for t, v in heights]
    assert min(reached(peak, 1)) == Fraction(1, 4)
    above = [Fraction(i, 1200) for i in range(1201)]
    above = [t for t in above if value(peak, t) > 1]
    assert min(above) == Fraction(3, 4) + Fraction(1, 1200)  # the infimum is 3/4
    crossing = [(Fraction(0), Fraction(0)), (Fraction(1), Fraction(2))]
    assert reached(crossing, 1) == [1, Fraction(1, 2)]
    assert value(crossing, Fraction(501, 1000)) > 1


@pytest.mark.needed
def test_without_continuity_the_closed_problem_can_lack_a_minimiser():
    """A loss that jumps from 0 to 1: the first point after the jump does not exist."""

    def g(t):
        return int(t > Fraction(1, 2))

    feasible = [Fraction(1, 2) + Fraction(1, 2**n) for n in range(1, 60)]
    assert all(g(t) >= 1 for t in feasible)
    assert g(Fraction(1, 2)) == 0


@pytest.mark.needed
def test_without_a_convex_box_the_open_problem_can_have_a_minimiser():
    """Black or white pixels only: the nearest of finitely many images exists."""
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 3)
    g = corners.sum(1)
    counted = corners[g > 1.5]
    distances = counted.norm(dim=1)
    assert distances.min().item() == pytest.approx(math.sqrt(2))


@pytest.mark.needed
def test_a_rule_for_ties_decides_whether_the_minimiser_exists():
    """With argmax, which takes the first class, 0 -> 1 has none and 1 -> 0 has one."""
    tie = torch.zeros(1, 2)
    assert tie.argmax(1).item() == 0
    beyond = torch.tensor([[0.0, 1e-30]])
    assert beyond.argmax(1).item() == 1
