"""The losses against 60-digit arithmetic, torch's own, and each other."""

from functools import partial

import mpmath as mp
import pytest
import torch

from flatbook import losses, softmax
from tests.cases import generator, head, head_ids, heads

SOFT = (0.7, 0.2, 0.1)
HARD = {
    "label_smoothing": {"smoothing": 0.1},
    "temperature_scaled": {"temperature": 2.5},
    "focal": {"gamma": 2.0},
    "absolute_error": {},
    "generalised_cross_entropy": {"q": 0.3},
    "brier": {},
    "squared_hinge": {},
    "squared_error": {},
}
CURVES = {
    "focal": lambda x: (-torch.expm1(-x)) ** 2 * x,
    "absolute_error": lambda x: -2 * torch.expm1(-x),
    "generalised_cross_entropy": lambda x: -torch.expm1(-0.3 * x) / 0.3,
}


def bound(name):
    return partial(getattr(losses, name), **HARD[name])


def targets(logits, seed=0):
    q = torch.rand(logits.shape, generator=generator(seed), dtype=torch.float64) + 0.01
    return (q / q.sum(1, keepdim=True)).to(logits)


def definition(name, row, y):
    """Each loss as its definition says, in arithmetic that does not round."""
    k, row = len(row), [mp.mpf(v) for v in row]
    p = mp.matrix([mp.exp(v) for v in row])
    p /= mp.fsum(p)
    q = [mp.mpf(v) for v in SOFT]
    hit = [mp.mpf(j == y) for j in range(k)]
    warm = [mp.exp(v / mp.mpf("2.5")) for v in row]
    smooth = [mp.mpf("0.9") * h + mp.mpf("0.1") / k for h in hit]
    return {
        "label_smoothing": lambda: (
            -mp.fsum(s * mp.log(v) for s, v in zip(smooth, p, strict=True))
        ),
        "temperature_scaled": lambda: -mp.log(warm[y] / mp.fsum(warm)),
        "focal": lambda: -((1 - p[y]) ** 2) * mp.log(p[y]),
        "absolute_error": lambda: mp.fsum(abs(p[j] - hit[j]) for j in range(k)),
        "generalised_cross_entropy": lambda: (1 - p[y] ** mp.mpf("0.3")) / mp.mpf(0.3),
        "brier": lambda: mp.fsum((p[j] - hit[j]) ** 2 for j in range(k)),
        "squared_hinge": lambda: mp.fsum(
            max(0, 1 + row[j] - row[y]) ** 2 for j in range(k) if j != y
        ),
        "squared_error": lambda: (
            mp.fsum((v - h) ** 2 for v, h in zip(row, hit, strict=True)) / 2
        ),
        "kl_divergence": lambda: mp.fsum(
            a * mp.log(a / v) for a, v in zip(q, p, strict=True)
        ),
        "reverse_kl": lambda: mp.fsum(
            v * mp.log(v / a) for a, v in zip(q, p, strict=True)
        ),
    }[name]()


def rows(size):
    return [
        [size, -size, 0.0],
        [-size, size, 0.0],
        [0.0, size, size],
        [size / 20, 0.0, -1.0],
        [0.5, 0.25, -1.0],
        [0.0, 0.0, 0.0],
    ]


@pytest.mark.parametrize("name", [*HARD, "kl_divergence", "reverse_kl"])
@pytest.mark.parametrize(("dtype", "size"), [(torch.float64, 700), (torch.float32, 80)])
def test_values_at_every_confidence(name, dtype, size):
    z = torch.tensor(rows(float(size)), dtype=dtype)
    if name in HARD:
        got = bound(name)(z, torch.zeros(len(z), dtype=torch.int64))
    else:
        got = getattr(losses, name)(z, torch.tensor(SOFT, dtype=dtype).expand_as(z))
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5
    tiny = torch.finfo(dtype).tiny
    with mp.workdps(700):
        for row, value in zip(z.tolist(), got.tolist(), strict=True):
            want = definition(name, row, 0)
            assert abs(value - want) <= tolerance * abs(want) + tiny


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize(("dtype", "size"), [(torch.float64, 700), (torch.float32, 80)])
def test_derivatives_are_finite_at_every_confidence(name, dtype, size):
    z = torch.tensor(rows(float(size)), dtype=dtype)
    labels = torch.zeros(len(z), dtype=torch.int64)
    assert losses.logit_gradient(bound(name), z, labels).isfinite().all()
    assert losses.logit_hessian(bound(name), z, labels).isfinite().all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_loss_stays_smooth_where_p_is_one(gamma):
    z, y = torch.tensor([[740.0, -740.0]], dtype=torch.float64), torch.tensor([0])
    loss = partial(losses.focal, gamma=gamma)
    assert losses.logit_hessian(loss, z, y).abs().max() < 1e-15


@pytest.mark.parametrize("case", heads(), ids=head_ids())
def test_special_cases_are_cross_entropy(case):
    _, _, z, y = case
    plain = softmax.cross_entropy(z, y)
    one_hot = torch.nn.functional.one_hot(y, z.shape[1]).to(z)
    torch.testing.assert_close(losses.kl_divergence(z, one_hot), plain)
    torch.testing.assert_close(losses.label_smoothing(z, y, smoothing=0.0), plain)
    torch.testing.assert_close(losses.focal(z, y, gamma=0.0), plain)
    torch.testing.assert_close(losses.temperature_scaled(z, y, temperature=1.0), plain)
    small = losses.generalised_cross_entropy(z, y, q=1e-9)
    torch.testing.assert_close(small, plain, rtol=1e-6, atol=1e-15)
    half = 2 * losses.generalised_cross_entropy(z, y, q=1.0)
    torch.testing.assert_close(half, losses.absolute_error(z, y))


@pytest.mark.parametrize("case", heads(), ids=head_ids())
def test_label_smoothing_is_torchs(case):
    _, _, z, y = case
    wanted = torch.nn.functional.cross_entropy(
        z, y, reduction="none", label_smoothing=0.2
    )
    got = losses.label_smoothing(z, y, smoothing=0.2)
    torch.testing.assert_close(got, wanted)
    k = z.shape[1]
    target = 0.8 * torch.nn.functional.one_hot(y, k).to(z) + 0.2 / k
    entropy = torch.special.entr(target).sum(1)
    torch.testing.assert_close(losses.kl_divergence(z, target) + entropy, wanted)


@pytest.mark.parametrize("case", heads(), ids=head_ids())
def test_divergences_vanish_at_the_target_only(case):
    z = case[2]
    own = z.softmax(1)
    own = own / own.sum(1, keepdim=True)
    for divergence in (losses.kl_divergence, losses.reverse_kl):
        if (own > 0).all():
            assert divergence(z, own).abs().max() < 1e-12
        assert (divergence(z, targets(z)) >= -1e-12).all()


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("seed", range(5))
def test_closed_form_is_the_automatic_hessian(name, seed):
    _, _, z, y = head(100, 2 + seed, 4, seed=seed)
    got = losses.hessian_through(CURVES[name], z, y)
    automatic = losses.logit_hessian(bound(name), z, y)
    torch.testing.assert_close(got, automatic, rtol=1e-9, atol=1e-13)


def test_closed_form_keeps_digits_where_automatic_differentiation_has_none():
    z, y = torch.tensor([[0.0, 60.0]], dtype=torch.float64), torch.tensor([0])
    got = losses.hessian_through(lambda x: -2 * torch.exp(-x), z, y)[0, 0, 0]
    with mp.workdps(80):
        p = 1 / (1 + mp.exp(60))
        want = -2 * p * (1 - p) * (1 - 2 * p)  # second derivative of 2 (1 - p)
        assert abs(got.item() - want) < 1e-13 * abs(want)


@pytest.mark.parametrize("name", HARD)
def test_hessian_against_differences_of_the_gradient(name):
    _, _, z, y = head(20, 3, 4, seed=7)
    found, h = losses.logit_hessian(bound(name), z, y), 1e-5
    for j in range(3):
        step = torch.zeros_like(z)
        step[:, j] = h
        ends = [losses.logit_gradient(bound(name), z + s * step, y) for s in (1, -1)]
        torch.testing.assert_close(
            found[:, j], (ends[0] - ends[1]) / (2 * h), rtol=1e-6, atol=1e-8
        )


def test_soft_targets_give_the_covariance_too():
    _, _, z, _ = head(50, 4, 3, seed=1)
    q = targets(z)
    torch.testing.assert_close(
        losses.logit_hessian(losses.kl_divergence, z, q), softmax.covariance(z)
    )
    torch.testing.assert_close(
        losses.logit_gradient(losses.kl_divergence, z, q), z.softmax(1) - q
    )


def test_losses_without_curvature_or_slope():
    z, y = torch.randn(3, 2, generator=generator(0)), torch.tensor([0, 1, 0])

    def straight(logits, labels):
        return logits.sum(1) + 0 * labels

    def level(logits, labels):
        return 0.0 * labels + torch.ones(len(logits))

    assert (losses.logit_gradient(straight, z, y) == 1).all()
    assert (losses.logit_hessian(straight, z, y) == 0).all()
    assert (losses.logit_gradient(level, z, y) == 0).all()
    assert (losses.logit_hessian(level, z, y) == 0).all()
    assert (losses.hessian_through(torch.ones_like, z, y) == 0).all()
    same = losses.hessian_through(lambda x: 3 * x, z, y)
    torch.testing.assert_close(same, 3 * softmax.covariance(z))


def test_derivatives_leave_the_logits_alone():
    z, y = torch.randn(3, 2, generator=generator(0)).requires_grad_(), torch.zeros(3)
    with torch.no_grad():
        hessian = losses.logit_hessian(softmax.cross_entropy, z, y.long())
    assert z.grad is None
    assert not hessian.requires_grad


Z, Y = torch.zeros(2, 3, dtype=torch.float64), torch.tensor([0, 2])
Q = torch.full((2, 3), 1 / 3, dtype=torch.float64)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: losses.focal(Z, Y, gamma=-1.0), ValueError, "gamma.*-1.0"),
        (lambda: losses.label_smoothing(Z, Y, smoothing=1.0), ValueError, "smoothing"),
        (
            lambda: losses.temperature_scaled(Z, Y, temperature=0.0),
            ValueError,
            "temperature.*0.0",
        ),
        (lambda: losses.generalised_cross_entropy(Z, Y, q=0), ValueError, "q must"),
        (lambda: losses.brier(Z, torch.tensor([0, 3])), ValueError, "0 .. 2, got 3"),
        (lambda: losses.absolute_error(Z, Q), TypeError, "integer tensor"),
        (lambda: losses.squared_hinge(Z[0], Y), ValueError, "shape"),
        (lambda: losses.squared_error(Z, Y[:1]), ValueError, r"\(1,\)"),
        (lambda: losses.kl_divergence(Z, Y), TypeError, "target.*int64"),
        (lambda: losses.kl_divergence(Z, [1.0]), TypeError, "target.*list"),
        (lambda: losses.kl_divergence(Z, Q[:, :2]), ValueError, r"\(2, 2\)"),
        (lambda: losses.kl_divergence(Z, 2 * Q), ValueError, "sum to 1, got 2"),
        (lambda: losses.kl_divergence(Z, Q - 0.5), ValueError, ">= 0, got -0.16"),
        (lambda: losses.kl_divergence(Z, Q * torch.nan), ValueError, "nan"),
        (
            lambda: losses.reverse_kl(Z, torch.eye(3, dtype=torch.float64)[:2]),
            ValueError,
            "> 0 in every class",
        ),
        (lambda: losses.logit_hessian(torch.sub, Z, Q), ValueError, "per sample"),
        (
            lambda: losses.hessian_through(torch.sum, Z, Y),
            ValueError,
            r"keep the shape \(2,\)",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
