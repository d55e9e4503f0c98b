"""prop-scaling: scaling the head moves sharpness and leaves the flip radius alone."""

import math

import pytest
import sympy as sp
import torch

from flatbook import curvature, radius, softmax, symbolic
from tests.cases import generator, head

SCALES = [0.01, 0.1, 0.5, 1.0, 2.0, 5.0]


@pytest.mark.random
def test_500_random_heads():
    """500 random heads: predictions and distances stay, the loss and its trace move."""
    for seed in range(10):
        weight, _, logits, _ = head(60, 2 + seed % 7, 4, seed=seed)
        labels = logits.argmax(1)
        base = radius.flip_radius(weight, logits, labels)
        for s in SCALES:
            scaled = radius.flip_radius(s * weight, s * logits, labels)
            torch.testing.assert_close(scaled, base, rtol=1e-12, atol=0)
        traces = torch.stack([softmax.log_trace_p(s * logits) for s in SCALES])
        assert (traces.diff(dim=0) < 0).all()


@pytest.mark.random
def test_trace_falls_because_of_a_covariance():
    """The trace falls because a covariance is positive."""
    s = sp.Symbol("s", positive=True)
    for k in (2, 3):
        z = symbolic.logits(k)
        scaled = {v: s * v for v in z}
        p = symbolic.probabilities(k).subs(scaled, simultaneous=True)
        mean_p = sum(q * q for q in p)
        mean_z = sum(q * v for q, v in zip(p, z, strict=True))
        covariance = sum(
            q * (q - mean_p) * (v - mean_z) for q, v in zip(p, z, strict=True)
        )
        assert sp.simplify(sp.diff(mean_p, s) - 2 * covariance) == 0


@pytest.mark.boundary
def test_limits_of_the_trace_and_of_sharpness():
    """The limits of the trace and of the sharpness."""
    weight, features, logits, _ = head(50, 5, 4, seed=3)
    tiny = softmax.trace_p(1e-9 * logits)
    torch.testing.assert_close(tiny, torch.full_like(tiny, 0.8), rtol=1e-8, atol=0)

    def kappa(s):
        return curvature.relative_sharpness(s * weight, features, s * logits)

    middle = torch.stack([kappa(s) for s in (0.1, 0.3, 1.0, 3.0)]).amax(0)
    assert (kappa(1e-4) < 1e-3 * middle).all()
    gap = softmax.margin(logits, logits.argmax(1)).min().item()
    assert (kappa(60 / gap) < 1e-3 * middle).all()


@pytest.mark.boundary
def test_boundary_equal_logits_never_change():
    """Equal logits never change."""
    logits = torch.zeros(1, 4, dtype=torch.float64)
    assert softmax.trace_p(logits) == softmax.trace_p(100 * logits)
    assert (
        radius.flip_radius(torch.eye(4, dtype=torch.float64), logits, torch.tensor([0]))
        == 0
    )


@pytest.mark.needed
def test_without_a_unique_largest_logit_sharpness_grows_without_bound():
    """Without a unique largest logit the sharpness grows without bound."""
    weight = torch.randn(3, 2, generator=generator(0), dtype=torch.float64)
    features = torch.ones(1, 2, dtype=torch.float64)
    tied = torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64)
    near, far = (
        curvature.relative_sharpness(s * weight, features, s * tied).item()
        for s in (50.0, 500.0)
    )
    assert far == pytest.approx(100 * near, rel=1e-9)


@pytest.mark.needed
def test_scaling_the_weight_alone_moves_the_flip():
    """Scaling the weight without its bias moves the flip."""
    weight = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    bias = torch.tensor([[0.0, 0.5]], dtype=torch.float64)
    phi = torch.tensor([[1.0]], dtype=torch.float64)
    label = torch.tensor([0])
    both = radius.flip_radius(2 * weight, 2 * (phi @ weight.T + bias), label)
    alone = radius.flip_radius(2 * weight, 2 * phi @ weight.T + bias, label)
    assert both.item() == pytest.approx(0.5)
    assert alone.item() == pytest.approx(0.75)
    assert math.isclose(both.item(), (1 - 0.5) / 1)
