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


def slow_crossing(values, level):
    """Step by step, one sample."""
    for t, value in enumerate(values):
        if value >= level:
            before = values[t - 1] if t else value
            return t - (value - level) / (value - before) if t else 0.0
    return float("inf")


@pytest.mark.parametrize("seed", range(5))
def test_crossing_against_a_loop(seed):
    values = torch.randn(9, 40, generator=generator(seed), dtype=torch.float64)
    level = torch.randn(40, generator=generator(seed + 9), dtype=torch.float64)
    got = scaling.crossing(values, level)
    for i in range(40):
        wanted = slow_crossing(values[:, i].tolist(), level[i].item())
        assert got[i].item() == pytest.approx(wanted, abs=1e-12)
    assert got.isinf().any()
    assert (got == 0).any()


def test_crossing_at_infinities():
    values = torch.tensor([[-torch.inf, -torch.inf], [torch.inf, 2.0]])
    assert scaling.crossing(values, 1.0).tolist() == [1.0, 1.0]
    assert scaling.crossing(values[:1], 0.0).isinf().all()


def path_of(steps, n, k, seed):
    logits = 4 * torch.randn(steps, n, k, generator=generator(seed)).double()
    labels = logits[0].argmax(1)
    return logits.cumsum(0), labels


@pytest.mark.parametrize("scale", [0.3, 1.0, 40.0])
def test_take_off_solves_for_the_log_odds(scale):
    """On a finely cut line of two classes the loss there is the start plus the rise."""
    logits, labels = path_of(8, 50, 2, 1)
    losses = scaling.losses(logits.flatten(0, 1), labels.repeat(8), [scale])
    got = scaling.take_off(losses.view(8, 50), 0.1)
    for i in (got.isfinite() & (got > 0)).nonzero()[:, 0]:
        t = int(got[i].ceil()) - 1
        at = torch.lerp(logits[t, i], logits[t + 1, i], got[i] - t)
        start = scale * torch.stack([logits[0, i], at])
        first, there = torch.nn.functional.cross_entropy(
            start, labels[i].repeat(2), reduction="none"
        )
        assert (there - first).item() == pytest.approx(0.1, rel=1e-6)


def test_take_off_does_not_come_early_under_a_large_scale():
    """Straight in the loss it would be at the step before the flip, at 1."""
    z = torch.tensor([[4.0, 0.0], [3.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    losses = scaling.losses(z, torch.zeros(3, dtype=torch.int64), [1e2, 1e3, 1e6])
    got = scaling.take_off(losses.T, 0.1)
    assert got[0].item() == pytest.approx(1.75, abs=0.02)
    assert (got[1:] > 1).all()


def test_other_widths_are_take_offs():
    logits, labels = path_of(6, 30, 4, 2)
    losses = scaling.losses(logits.flatten(0, 1), labels.repeat(6), [1.0]).view(6, 30)
    half = scaling.share_of_rise(losses, 0.5)
    tenfold = scaling.multiple_of_start(losses, 10.0)
    for i in range(30):
        rise = losses[:, i].max() - losses[0, i]
        if rise > 0:
            wanted = scaling.take_off(losses[:, i], rise / 2)
            assert half[i].item() == pytest.approx(wanted.item())
        else:
            assert half[i].isinf()
        wanted = scaling.take_off(losses[:, i], 9 * losses[0, i])
        assert tenfold[i].item() == pytest.approx(wanted.item())
    assert scaling.share_of_rise(torch.ones(3, 2), 0.5).isinf().all()
    assert (scaling.multiple_of_start(losses, 1.0) == 0).all()


def test_bad_paths_are_named():
    losses = torch.ones(3, 2)
    with pytest.raises(ValueError, match=r"shape \(2,\), got \(3,\)"):
        scaling.take_off(losses, torch.ones(3))
    with pytest.raises(ValueError, match="losses and rise must be >= 0, got -1"):
        scaling.take_off(losses - 2, 0.1)
    with pytest.raises(ValueError, match="losses and rise must be >= 0, got -0.1"):
        scaling.take_off(losses, -0.1)
    with pytest.raises(ValueError, match="must not contain NaN"):
        scaling.crossing(losses * torch.nan, 0.1)
    with pytest.raises(ValueError, match="level must be finite, got inf"):
        scaling.crossing(losses, torch.inf)
    with pytest.raises(ValueError, match=r"\(T \+ 1, ...\), got \(0, 2\)"):
        scaling.crossing(losses[:0], 0.1)
    with pytest.raises(ValueError, match=r"share must lie in \(0, 1\), got 1"):
        scaling.share_of_rise(losses, 1)
    with pytest.raises(ValueError, match="factor must be finite and at least 1, got 0"):
        scaling.multiple_of_start(losses, 0.5)
