"""prop-best-temperature: every scale of the head certifies the same flip radius."""

import math

import pytest
import sympy as sp
import torch

from flatbook import curvature, radius
from tests.cases import generator, head


def terms(weight, logits, labels, s):
    """Theorem thm-flip-from-flatness for the really scaled head, class by class."""
    log_p, index = (s * logits).log_softmax(1), labels[:, None]
    true = log_p.gather(1, index)
    share = log_p + true - torch.logaddexp(log_p, true)
    lam = curvature.lambda_max(s * weight, s * logits)
    found = (true - log_p) * ((share - lam.log()[:, None]) / 2).exp()
    return found.scatter(1, index, torch.inf)


def certificates(weight, logits, labels, scales):
    """Largest over s of the smallest over j, and smallest of the largest."""
    each = torch.stack([terms(weight, logits, labels, s) for s in scales])
    return each.amin(2).amax(0), each.amax(0).amin(1)


def biased(seed, n, k, d):
    weight, _, logits, _ = head(n, k, d, scale=1.0 + seed % 3, seed=seed)
    logits = logits + torch.randn(k, generator=generator(seed), dtype=torch.float64)
    return weight, logits, logits.argmax(1)


@pytest.mark.random
def test_2000_predictions_are_never_beyond_the_flip():
    """2,000 predictions at nine scales: never beyond the flip, in the stated order."""
    for seed in range(40):
        weight, logits, labels = biased(seed, 50, 2 + seed % 11, 1 + seed % 7)
        flip = radius.flip_radius(weight, logits, labels)
        scales = [2.0**i for i in range(-6, 3)]
        one, each = certificates(weight, logits, labels, scales)
        plain = radius.flip_radius_from_flatness(weight, logits, labels)
        assert (plain <= one * (1 + 1e-9)).all()
        assert (one <= each * (1 + 1e-12)).all()
        assert (each <= flip * (1 + 1e-9)).all()


@pytest.mark.random
def test_500_steps_within_the_certificate_do_not_flip():
    """500 heads: a step of the certified length in any of 300 directions is safe."""
    for seed in range(500):
        g = generator(seed)
        weight, logits, labels = biased(seed, 1, 2 + seed % 9, 1 + seed % 5)
        _, reach = certificates(weight, logits, labels, [0.05, 0.3, 1.0, 3.0])
        ways = torch.randn(300, weight.shape[1], generator=g, dtype=torch.float64)
        ways = torch.cat([ways, weight - weight[labels]])
        ways = torch.nn.functional.normalize(ways, dim=1)
        moved = logits + reach * (1 - 1e-9) * ways @ weight.T
        assert (moved.argmax(1) == labels).all()


@pytest.mark.random
def test_the_supremum_does_not_feel_the_scale():
    """The certificate of a head that is scaled by a thousand is the same."""
    weight, logits, labels = biased(4, 7, 6, 5)
    scales = [2.0 ** (i / 2) for i in range(-12, 7)]
    plain = certificates(weight, logits, labels, scales)
    for t in (1e-3, 1e3):
        found = certificates(t * weight, t * logits, labels, [s / t for s in scales])
        for a, b in zip(plain, found, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=0)


@pytest.mark.symbolic
def test_symbolic_orthonormal_rows():
    """Orthonormal rows, equal margins: the loss of the bound in closed form."""
    x, k = sp.symbols("x k", positive=True)
    top, rest = sp.exp(x) / (sp.exp(x) + k - 1), 1 / (sp.exp(x) + k - 1)
    lam = k * top * rest  # eigenvalue of P with the eigenvector k e_y - 1
    assert sp.simplify(top * (1 - top) + (k - 1) * top * rest / (k - 1) - lam) == 0
    ratio = sp.sqrt(2) * sp.sqrt(top * rest / ((top + rest) * lam))
    stated = sp.sqrt(2 * (sp.exp(x) + k - 1) / (k * (sp.exp(x) + 1)))
    assert sp.simplify(ratio**2 - stated**2) == 0
    assert sp.limit(stated, x, 0) == 1


@pytest.mark.boundary
def test_two_classes_are_exact_at_every_scale():
    """Two classes: exact at every temperature."""
    weight, logits, labels = biased(0, 20, 2, 4)
    flip = radius.flip_radius(weight, logits, labels)
    for s in (1e-6, 1e-2, 1.0, 50.0):
        found = terms(weight, logits, labels, s).amin(1)
        torch.testing.assert_close(found, flip, rtol=1e-8, atol=0)


@pytest.mark.boundary
def test_the_hottest_end_is_the_lipschitz_margin():
    """As s falls to 0 the bound becomes margin over sqrt(2) times the spectral norm."""
    for seed in range(50):
        weight, logits, labels = biased(seed, 5, 2 + seed % 7, 3)
        centred = weight - weight.mean(0)
        size = math.sqrt(2) * torch.linalg.matrix_norm(centred, 2)
        gaps = logits.gather(1, labels[:, None]) - logits
        wanted = (gaps / size).scatter(1, labels[:, None], torch.inf)
        found = terms(weight, logits, labels, 1e-7)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=0)


@pytest.mark.boundary
def test_the_coldest_end_is_exact_for_the_runner_up():
    """As s grows the term of the runner-up becomes its exact distance."""
    for seed in range(50):
        weight, logits, labels = biased(seed, 1, 3 + seed % 5, 4)
        top = logits[0].topk(3)
        second = top.indices[1]
        cold = 40 / (top.values[1] - top.values[2]).item()
        gap = (top.values[0] - top.values[1]).item()
        if cold * gap > 250:
            continue
        exact = gap / (weight[top.indices[0]] - weight[second]).norm().item()
        found = terms(weight, logits, labels, cold)[0, second].item()
        assert found == pytest.approx(exact, rel=1e-4)


@pytest.mark.needed
def test_the_bias_must_be_scaled_too():
    """If the bias is left alone, a scaled head may certify what is not true."""
    weight = torch.tensor([[10.0], [0.0]], dtype=torch.float64)
    phi, y = torch.ones(1, 1, dtype=torch.float64), torch.tensor([0])
    bias = torch.tensor([-9.0, 0.0], dtype=torch.float64)
    flip = radius.flip_radius(weight, phi @ weight.T + bias, y).item()
    wrong = terms(weight, phi @ weight.T + bias / 10, y, 1.0).min().item()
    assert flip == pytest.approx(0.1)
    assert wrong > 5 * flip


@pytest.mark.needed
def test_one_curvature_for_two_scales_is_not_enough():
    """With p of one scale and lambda of another the bound is false."""
    weight, logits, labels = biased(1, 20, 2, 3)
    flip = radius.flip_radius(weight, logits, labels)
    lam = curvature.lambda_max(weight, 5 * logits)
    p = logits.softmax(1)
    gap = logits.gather(1, labels[:, None]) - logits
    mixed = gap.amax(1) * (p.prod(1) / lam).sqrt()
    assert (mixed > 2 * flip).any()
