"""prop-stump: how well one threshold separates two populations, at best."""

import pytest
import sympy as sp
import torch
from scipy import stats

from flatbook.experiments.detection import Stump, auc, best_stump
from tests.cases import generator


def populations(seed):
    """A feature of clean and of attacked inputs, with ties in every second case."""
    g = generator(seed)
    clean = torch.randn(5 + 3 * seed, generator=g, dtype=torch.float64)
    attacked = torch.randn(4 + 2 * seed, generator=g, dtype=torch.float64)
    attacked = attacked * (0.3 + seed % 4) + (seed % 5 - 2) / 2
    return (clean.round(), attacked.round()) if seed % 2 else (clean, attacked)


def distance(clean, attacked):
    return float(stats.ks_2samp(clean, attacked, method="asymp").statistic)


def every_accuracy(clean, attacked):
    """Of all stumps that differ on these populations."""
    values = torch.cat([clean, attacked])
    thresholds = [float(values.min()) - 1, *values.tolist()]
    return [
        Stump(t, side, 0.0).score(clean, attacked)
        for t in thresholds
        for side in (True, False)
    ]


@pytest.mark.random
@pytest.mark.parametrize("seed", range(20))
def test_best_and_worst_of_all_stumps(seed):
    """Best and worst of all stumps against scipy's distance, with ties and without."""
    clean, attacked = populations(seed)
    d, scores = distance(clean, attacked), every_accuracy(clean, attacked)
    assert max(scores) == pytest.approx((1 + d) / 2)
    assert min(scores) == pytest.approx((1 - d) / 2)
    assert best_stump(clean, attacked).accuracy == pytest.approx((1 + d) / 2)


@pytest.mark.random
@pytest.mark.parametrize("seed", range(20))
def test_monotone_maps_change_nothing(seed):
    """Rising and falling functions of the feature have the same distance."""
    clean, attacked = populations(seed)
    d, a = distance(clean, attacked), auc(clean, attacked)
    for g, rises in ((torch.exp, 1), (torch.atan, 1), (lambda u: -(u**3), -1)):
        assert distance(g(clean), g(attacked)) == pytest.approx(d)
        moved = auc(g(clean), g(attacked))
        assert moved == pytest.approx(a if rises > 0 else 1 - a)


@pytest.mark.random
@pytest.mark.parametrize("seed", range(20))
def test_the_order_bounds_the_distance(seed):
    """The order of pairs stays within its bound, counted pair by pair."""
    clean, attacked = populations(seed)
    pairs = (clean[:, None] - attacked).sign()
    a, d = float((1 + pairs).mean() / 2), distance(clean, attacked)
    assert auc(clean, attacked) == pytest.approx(a)
    assert abs(2 * a - 1) <= d * (2 - d) + 1e-12


@pytest.mark.random
@pytest.mark.parametrize("seed", range(20))
def test_no_rule_on_equal_populations(seed):
    """Any rule on a feature with equal populations is right half the time."""
    clean, _ = populations(seed)
    attacked = clean[torch.randperm(len(clean), generator=generator(seed))]
    frequency, phase = 9 * torch.rand(2, generator=generator(seed + 99)).double()
    calls = [torch.sin(frequency * u + phase) > 0.2 for u in (clean, attacked)]
    alarms, hits = (call.double().mean() for call in calls)
    assert float(1 - alarms + hits) / 2 == pytest.approx(0.5)


@pytest.mark.symbolic
def test_symbolic():
    """The area under the lowest curve that the distance allows."""
    x, d = sp.symbols("x d", positive=True)
    below = sp.integrate(x - d, (x, d, 1))
    assert sp.simplify(1 - 2 * below - d * (2 - d)) == 0


@pytest.mark.boundary
@pytest.mark.parametrize("d", [0.0, 0.25, 0.5, 1.0])
def test_boundary_the_order_attains_its_bound(d):
    """Clean values spread evenly, attacked ones moved down and held at zero."""
    n = 4000
    clean = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    attacked = (clean - d).clamp_min(0)
    assert distance(clean, attacked) == pytest.approx(d, abs=2 / n)
    assert 2 * auc(clean, attacked) - 1 == pytest.approx(d * (2 - d), abs=4 / n)


@pytest.mark.boundary
def test_boundary_the_example_of_the_page():
    """The margins 2, 5 and 8 of the page under its three attacks."""
    margins = torch.tensor([2.0, 5.0, 8.0])
    for shift, right in ((4, 5 / 6), (10, 1 / 2), (17, 1.0)):
        attacked = (margins - shift).abs()
        assert best_stump(margins, attacked).accuracy == pytest.approx(right)
        assert distance(margins, attacked) == pytest.approx(2 * right - 1)


@pytest.mark.boundary
def test_boundary_one_value_each():
    """Two single values: alike or apart."""
    one, two = torch.ones(1).double(), 2 * torch.ones(1).double()
    assert best_stump(one, one).accuracy == 0.5
    assert best_stump(one, two).accuracy == best_stump(two, one).accuracy == 1


@pytest.mark.needed
def test_equal_weights_are_needed():
    """Nine clean for one attacked: calling all clean beats the bound."""
    clean, attacked = populations(4)
    d = distance(clean, attacked)
    assert (1 + d) / 2 < 0.9


@pytest.mark.needed
def test_monotone_is_needed():
    """The absolute value separates what no threshold does, and the reverse."""
    clean, attacked = torch.tensor([-2.0, 2.0]), torch.tensor([-1.0, 1.0])
    assert best_stump(clean, attacked).accuracy == 0.75
    assert best_stump(clean.abs(), attacked.abs()).accuracy == 1
    assert best_stump(clean.abs(), -clean.abs()).accuracy == 1
    assert best_stump(clean.abs(), (-clean).abs()).accuracy == 0.5


@pytest.mark.needed
def test_the_order_alone_does_not_bound_from_above():
    """Pairs in balance, and yet a stump is right three times of four."""
    clean, attacked = torch.tensor([2.0, 3.0]), torch.tensor([1.0, 4.0])
    assert auc(clean, attacked) == 0.5
    assert best_stump(clean, attacked).accuracy == 0.75


@pytest.mark.needed
def test_seeing_the_feature_alone_is_needed():
    """Equal populations of one feature; a second one separates them."""
    first = torch.tensor([1.0, 2.0, 3.0])
    assert best_stump(first, first.flip(0)).accuracy == 0.5
    assert best_stump(first * 0 + 1, first * 0 + 2).accuracy == 1
