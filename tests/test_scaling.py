"""All scales from one pass, against a network whose head is really scaled."""

import pytest
import torch

from flatbook import curvature, models, scaling
from tests.cases import generator, head

SCALES = [0.25, 1.0, 7.0]


def test_against_a_scaled_network():
    model = models.build("mlp", 5, in_channels=1, image_size=8).double().eval()
    model.requires_grad_(False)
    x = torch.rand(6, 1, 8, 8, generator=generator(0), dtype=torch.float64)
    labels = torch.arange(6) % 5
    features, logits = model.features(x), model(x)
    got_loss = scaling.losses(logits, labels, SCALES)
    got = scaling.log_sharpness(model.head.weight, features, logits, SCALES)
    for i, s in enumerate(SCALES):
        scaled = models.scale_head(model, s)
        z = scaled(x)
        loss = torch.nn.functional.cross_entropy(z, labels, reduction="none")
        torch.testing.assert_close(got_loss[i], loss, rtol=1e-10, atol=1e-12)
        kappa = curvature.relative_sharpness(scaled.head.weight, features, z)
        torch.testing.assert_close(got[i].exp(), kappa, rtol=1e-10, atol=0)


def test_log_sharpness_below_the_range():
    weight, features, logits, _ = head(4, 3, 2)
    got = scaling.log_sharpness(weight, features, logits, [1e4])
    assert torch.isfinite(got).all()
    assert (got < -745).any()


def test_bad_input_is_named():
    weight, features, logits, labels = head(4, 3, 2)
    with pytest.raises(ValueError, match=r"got -1"):
        scaling.losses(logits, labels, [1.0, -1.0])
    with pytest.raises(ValueError, match="got nan"):
        scaling.losses(logits, labels, [float("nan")])
    with pytest.raises(ValueError, match="> 0, got 0"):
        scaling.log_sharpness(weight, features, logits, [0.0])
    with pytest.raises(ValueError, match=r"shape \(\)"):
        scaling.losses(logits, labels, torch.tensor(1.0))


def brute_peak(weight, features, logits):
    """The peak of Petzka's measure over real scaled heads, on a fine grid."""
    gaps = (logits.max() - logits)[logits < logits.max()]
    ends = -3 - gaps.max().log10().item(), 2 - gaps.min().log10().item()
    scales = torch.logspace(*ends, 500, dtype=torch.float64)
    return max(
        curvature.relative_flatness(s * weight, features, s * logits).item()
        for s in scales
    )


@pytest.mark.parametrize("k", [2, 3, 10])
def test_peak_sharpness_against_scaled_heads(k):
    weight, features, logits, _ = head(3, k, 4, scale=3.0, seed=k)
    got = scaling.peak_sharpness(weight, features, logits)
    for i in range(3):
        one = slice(i, i + 1)
        brute = brute_peak(weight, features[one], logits[one])
        assert got[i].item() == pytest.approx(brute, rel=1e-3)
        assert got[i].item() >= brute * (1 - 1e-12)


def test_peak_sharpness_finds_the_higher_of_two_humps():
    logits = torch.full((1, 1002), -8.0, dtype=torch.float64)
    logits[0, 0], logits[0, 1] = 0.0, -0.01
    for near, far in ((1.0, 1.0), (1.0, 1e-3), (1e-3, 1.0)):
        weight = torch.zeros(1002, 2, dtype=torch.float64)
        weight[1, 0], weight[2:, 1] = near, far
        features = torch.ones(1, 2, dtype=torch.float64)
        got = scaling.peak_sharpness(weight, features, logits).item()
        assert got == pytest.approx(brute_peak(weight, features, logits), rel=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_peak_sharpness_does_not_change_under_scaling(dtype):
    weight, features, logits, _ = (t.to(dtype) for t in head(5, 4, 3, seed=2))
    peaks = [
        scaling.peak_sharpness(s * weight, features, s * logits)
        for s in (1.0, 1e-4, 1e4)
    ]
    for peak in peaks[1:]:
        torch.testing.assert_close(peak, peaks[0], rtol=1e-4, atol=0)


def test_peak_sharpness_at_the_edges():
    weight, features, logits, _ = head(2, 3, 2)
    same = scaling.peak_sharpness(torch.ones_like(weight), features, logits)
    assert (same == 0).all()
    logits[0] = 0.0
    assert scaling.peak_sharpness(weight, features, logits)[0] == torch.inf
    with pytest.raises(ValueError, match="at least 3, got 2"):
        scaling.peak_sharpness(weight, features, logits, points=2)
