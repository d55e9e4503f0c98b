"""Radii and bounds against mpmath, closed two-class forms and an exact maximiser."""

import math

import mpmath as mp
import pytest
import torch
from torch import Tensor

from flatbook import radius, softmax
from tests.cases import generator, head, head_ids, heads
from tests.maximum import exact_increase


def root(eps: float, c: float, b: float, a: float) -> mp.mpf:
    """The positive root with 80 digits: bisection on the logarithm, then Newton."""
    with mp.workdps(80):
        eps, c, b, a = (mp.mpf(v) for v in (eps, c, b, a))
        sizes = [(eps / v) ** (mp.mpf(1) / n) for n, v in ((1, c), (2, b), (3, a)) if v]
        x = min(sizes)  # P(x) >= eps, and P is convex and increasing: Newton descends
        for _ in range(200):
            step = (((a * x + b) * x + c) * x - eps) / ((3 * a * x + 2 * b) * x + c)
            x -= step
            if abs(step) < mp.mpf(10) ** -60 * x:
                break
        return x


def relative_error(values: Tensor) -> float:
    got = radius.cubic_radius(*values.unbind(1))
    worst = 0.0
    for row, value in zip(values.tolist(), got.tolist(), strict=True):
        wanted = root(*row)
        worst = max(worst, float(abs((mp.mpf(value) - wanted) / wanted)))
    return worst


def coefficients(n: int, seed: int) -> Tensor:
    """(n, 4) values eps, c, b, a, log-uniform over 60 decades."""
    g = generator(seed)
    return 10 ** (60 * torch.rand(n, 4, generator=g, dtype=torch.float64) - 30)


def test_cubic_radius_over_sixty_decades():
    assert relative_error(coefficients(1500, 0)) < 1e-14


@pytest.mark.parametrize("zero", [[1], [2], [3], [1, 2], [1, 3], [2, 3]])
def test_cubic_radius_with_absent_terms(zero):
    values = coefficients(200, 1)
    values[:, zero] = 0
    assert relative_error(values) < 1e-14


def test_cubic_radius_in_both_branches_and_where_they_meet():
    g = generator(2)
    b, eps = torch.rand(2, 400, generator=g, dtype=torch.float64) + 0.1
    meet = (4 * b**3 / (27 * eps)).sqrt()  # c = 0: the branches meet at this a
    for factor in (1e-12, 1e-3, 0.5, 1 - 1e-9, 1.0, 1 + 1e-9, 2.0, 1e3, 1e12):
        values = torch.stack([eps, torch.zeros_like(b), b, factor * meet], 1)
        assert relative_error(values) < 1e-14


def test_cubic_radius_at_the_edges_of_the_range():
    tiny, huge = 1e-300, 1e300
    rows = [
        [tiny, huge, 0, 0],  # 1e-600: below the range, rounds to 0
        [huge, 0, 0, tiny],
        [huge, 0, tiny, 0],
        [tiny, 0, 0, huge],
        [1.0, tiny, tiny, tiny],
        [5e-324, 0.0, 1.0, 0.0],
    ]
    got = radius.cubic_radius(*torch.tensor(rows, dtype=torch.float64).unbind(1))
    assert got[0] == 0
    for row, value in zip(rows[1:], got[1:].tolist(), strict=True):
        assert value == pytest.approx(float(root(*row)), rel=1e-13)


def test_cubic_radius_float32():
    values = coefficients(500, 3).log10().div(2)
    single = (10**values).float()
    got = radius.cubic_radius(*single.unbind(1))
    assert got.dtype == torch.float32
    for row, value in zip(single.tolist(), got.tolist(), strict=True):
        assert value == pytest.approx(float(root(*row)), rel=1e-6)


def test_cubic_radius_special_values():
    assert radius.cubic_radius(0.0, 1.0, 1.0, 1.0) == 0.0
    assert radius.cubic_radius(1.0, 0.0, 0.0, 0.0) == math.inf
    assert radius.cubic_radius(0.0, 0.0, 0.0, 0.0) == math.inf
    assert isinstance(radius.cubic_radius(1, 2, 3, 4), float)
    grid = radius.cubic_radius(torch.ones(3, 1), 1.0, torch.ones(4), 0.0)
    assert grid.shape == (3, 4)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ((-1.0, 1.0, 1.0, 1.0), ValueError, "eps .* -1.0"),
        ((1.0, -2.0, 1.0, 1.0), ValueError, "c .* -2.0"),
        ((1.0, 1.0, math.nan, 1.0), ValueError, "b .* nan"),
        ((1.0, 1.0, 1.0, math.inf), ValueError, "a .* inf"),
        (("1", 1.0, 1.0, 1.0), TypeError, "eps .* '1'"),
        ((torch.tensor(1), 1.0, 1.0, 1.0), TypeError, "int64"),
        ((True, 1.0, 1.0, 1.0), TypeError, "True"),
    ],
)
def test_cubic_radius_names_bad_input(values, error, message):
    with pytest.raises(error, match=message):
        radius.cubic_radius(*values)


@pytest.mark.parametrize("case", heads(), ids=head_ids())
@pytest.mark.parametrize("distance", [1e-6, 0.3, 5.0])
def test_bounds_hold_against_the_exact_increase(case, distance):
    weight, _, logits, labels = case
    rho = torch.full((len(logits),), distance, dtype=weight.dtype)
    bounds = radius.loss_increase_bounds(weight, logits, labels, rho)
    exact = exact_increase(weight, logits, labels, rho)
    for name, bound in bounds.items():
        assert bound.shape == labels.shape
        assert (exact <= bound * (1 + 1e-9) + 1e-13).all(), name
    smallest = torch.stack([bounds[n] for n in radius.BOUNDS]).amin(0)
    torch.testing.assert_close(bounds["best"], smallest, rtol=0, atol=0)


def test_union_is_exact_for_two_classes_and_close_for_more():
    for k in (2, 3, 10):
        weight, _, logits, labels = head(60, k, 5, seed=k)
        rho = torch.rand(60, generator=generator(k), dtype=torch.float64) * 3
        union = radius.loss_increase_bounds(weight, logits, labels, rho)["union"]
        gap = union - exact_increase(weight, logits, labels, rho)
        assert gap.max() <= math.log(k - 1) + 1e-10


def test_bennett_is_attained_by_two_points():
    for variance, reach in [(1e-12, 1e-3), (0.1, 0.5), (0.3, 2.0), (1e-8, 40.0)]:
        q = mp.mpf(variance) / (mp.mpf(reach) ** 2 + mp.mpf(variance))
        with mp.workdps(60):
            low = -mp.mpf(variance) / reach
            wanted = mp.log((1 - q) * mp.exp(low) + q * mp.exp(reach))
        got = radius._bennett(
            torch.tensor(variance, dtype=torch.float64),
            torch.tensor(reach, dtype=torch.float64),
        )
        assert got.item() == pytest.approx(float(wanted), rel=1e-11)


@pytest.mark.parametrize("bound", [*radius.BOUNDS, "best"])
@pytest.mark.parametrize("case", heads(), ids=head_ids())
def test_loss_radius_inverts_its_bound(case, bound):
    weight, _, logits, labels = case
    for eps in (1e-9, 0.05, 1.0):
        rho = radius.loss_radius(weight, logits, labels, eps, bound=bound)
        if weight.abs().max() == 0:
            assert torch.isinf(rho).all()
            continue
        bounds = radius.loss_increase_bounds(weight, logits, labels, rho)
        torch.testing.assert_close(
            bounds[bound], torch.full_like(rho, eps), rtol=1e-8, atol=0
        )


def test_loss_radius_of_saturated_predictions():
    weight = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    for dtype, gap in ((torch.float64, 700.0), (torch.float32, 60.0)):
        logits = torch.tensor([[gap, 0.0]], dtype=dtype)
        label, eps = torch.tensor([0]), 0.25
        got = radius.loss_radius(weight.to(dtype), logits, label, eps, bound="union")
        with mp.workdps(400):
            q = mp.exp(-gap)
            wanted = mp.log(mp.exp(eps) * (1 + 1 / q) - 1 / q) / mp.sqrt(5)
        rel = 1e-12 if dtype == torch.float64 else 2e-6
        assert got.item() == pytest.approx(float(wanted), rel=rel)
        best = radius.loss_radius(weight.to(dtype), logits, label, eps)
        assert torch.isfinite(best).all()
        assert best >= got


@pytest.mark.parametrize("case", heads(), ids=head_ids())
def test_flip_radius_is_where_the_prediction_flips(case):
    weight, _, logits, _ = case
    labels = logits.argmax(1)
    rho = radius.flip_radius(weight, logits, labels)
    g = generator(1)
    for _ in range(20):
        v = torch.randn(len(logits), weight.shape[1], generator=g, dtype=rho.dtype)
        v = v / torch.linalg.vector_norm(v, dim=1, keepdim=True)
        inside = logits + (0.999 * rho.clamp_max(1e6))[:, None] * v @ weight.T
        kept = softmax.margin(inside, labels)
        assert (kept[rho > 0] >= -1e-9 * (1 + kept.abs())[rho > 0]).all()
    for i in torch.nonzero(torch.isfinite(rho) & weight.any())[:, 0]:
        steps = weight - weight[labels[i]]
        gaps = (logits[i, labels[i]] - logits[i]) / steps.norm(dim=1)
        j = gaps.nan_to_num(torch.inf).argmin()
        move = 1.001 * rho[i] * steps[j] / steps[j].norm()
        assert softmax.margin((logits[i] + weight @ move)[None], labels[i][None]) <= 0


def test_bennett_radius_of_a_head_that_is_scaled_up():
    """Past s = 100 some curvatures leave float64; a certificate must not."""
    weight, _, logits, _ = head(50, 5, 4, seed=11, scale=2)
    labels = logits.argmax(1)
    flip = radius.flip_radius(weight, logits, labels)
    for s in (5.0, 50.0, 500.0):
        z, eps = s * logits, 0.3
        rho = radius.loss_radius(s * weight, z, labels, eps, bound="bennett")
        bounds = radius.loss_increase_bounds(s * weight, z, labels, rho)
        torch.testing.assert_close(
            bounds["bennett"], torch.full_like(rho, eps), rtol=1e-6, atol=0
        )
        assert (rho > 0.05 * flip).all()
        best = radius.certified_radius(s * weight, z, labels, lipschitz=1.0)
        assert (best < radius.flip_radius(s * weight, z, labels)).all()


@pytest.mark.parametrize(
    ("dtype", "gap"), [(torch.float32, 200.0), (torch.float64, 800.0)]
)
def test_no_false_certificate_where_the_curvature_underflows(dtype, gap):
    weight = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=dtype)
    logits, label = torch.tensor([[gap, 0.0]], dtype=dtype), torch.tensor([0])
    flip = radius.flip_radius(weight, logits, label)
    for bound in (*radius.BOUNDS, "best"):
        rho = radius.loss_radius(weight, logits, label, 0.25, bound=bound)
        assert 0 < rho < flip
    far = radius.loss_increase_bounds(weight, logits, label, 2 * flip.item())
    exact = softmax.cross_entropy(-logits, label)
    assert all((bound >= exact * (1 - 1e-6)).all() for bound in far.values())


def test_flip_radius_special_values_and_scaling():
    weight, _, logits, _ = head(30, 4, 3, seed=7)
    right = logits.argmax(1)
    rho = radius.flip_radius(weight, logits, right)
    scaled = radius.flip_radius(50 * weight, 50 * logits, right)
    torch.testing.assert_close(scaled, rho, rtol=1e-12, atol=0)
    assert (radius.flip_radius(weight, logits, (right + 1) % 4) == 0).all()
    equal = torch.ones(4, 3, dtype=torch.float64)
    biased = torch.tensor([[3.0, 1.0, 0.0, 2.0]], dtype=torch.float64)
    assert radius.flip_radius(equal, biased, torch.tensor([0])).item() == math.inf
    assert radius.flip_radius(equal, biased, torch.tensor([1])).item() == 0


@pytest.mark.parametrize("measure", ["lambda", "trace"])
def test_flatness_bounds_the_flip_radius(measure):
    for k in (2, 3, 10):
        weight, _, logits, _ = head(200, k, 6, seed=20 + k, scale=1.5)
        labels = logits.argmax(1)
        bound = radius.flip_radius_from_flatness(
            weight, logits, labels, measure=measure
        )
        exact = radius.flip_radius(weight, logits, labels)
        assert (bound <= exact * (1 + 1e-10)).all()
        if k == 2:
            torch.testing.assert_close(bound, exact, rtol=1e-10, atol=0)


@pytest.mark.parametrize("d", [1, 64, 512])
def test_certificates_hold_in_float32_next_to_a_tie(d):
    """The truth is taken in float64, of the very same float32 head and logits."""
    for seed in range(10):
        g, k = generator(seed), 2 + seed % 20
        weight = torch.randn(k, d, generator=g)
        logits = torch.randn(64, k, generator=g) * 10 ** (seed % 5 - 2)
        top = logits.topk(2, 1)
        below = top.values[:, :1] * (1 - 10 ** -torch.linspace(0.5, 7, 64)[:, None])
        logits = logits.scatter(1, top.indices[:, 1:], below)
        labels = logits.argmax(1)
        truth = radius.flip_radius(weight.double(), logits.double(), labels)
        for bound in (*radius.BOUNDS, "flip"):
            got = radius.certified_radius(
                weight, logits, labels, lipschitz=1.0, bound=bound
            )
            assert (got.double() <= truth).all()


def test_certified_radius():
    weight, _, logits, _ = head(100, 5, 4, seed=30, scale=2)
    labels = logits.argmax(1)
    eps = math.log(2) - softmax.cross_entropy(logits, labels)
    flip = radius.flip_radius(weight, logits, labels)
    for bound in (*radius.BOUNDS, "flip", "best"):
        got = radius.certified_radius(weight, logits, labels, lipschitz=3, bound=bound)
        assert (got * 3 <= flip).all()
        if bound in radius.BOUNDS:
            assert ((got > 0) == (eps > 0)).all()
    assert (
        radius.certified_radius(weight, logits, labels, lipschitz=3) < flip / 3
    ).all()
    wrong = (labels + 1) % 5
    assert (radius.certified_radius(weight, logits, wrong, lipschitz=3) == 0).all()


def test_bad_input_is_named():
    weight, _, logits, labels = head(4, 3, 2)
    with pytest.raises(ValueError, match="'taylor'"):
        radius.loss_radius(weight, logits, labels, 0.1, bound="taylor")
    with pytest.raises(ValueError, match="eps must be finite and >= 0, got -0.1"):
        radius.loss_radius(weight, logits, labels, -0.1)
    with pytest.raises(ValueError, match=r"rho .* \(4,\), got \(3,\)"):
        radius.loss_increase_bounds(weight, logits, labels, torch.ones(3))
    with pytest.raises(ValueError, match="lipschitz must be > 0"):
        radius.certified_radius(weight, logits, labels, lipschitz=0.0)
    with pytest.raises(ValueError, match="'kappa'"):
        radius.flip_radius_from_flatness(weight, logits, labels, measure="kappa")
    with pytest.raises(ValueError, match="got 3"):
        radius.flip_radius(weight, logits, labels * 0 + 3)
