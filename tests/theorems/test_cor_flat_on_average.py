"""cor-flat-on-average: what the mean sharpness of a data set says, and what not."""

import math

import pytest
import torch

from flatbook import curvature, radius, scaling
from tests.cases import generator, head


def data_set(seed, n=50):
    """Relative flip radii and peaks of n predictions of one random head, and k."""
    k = 2 + seed % 9
    weight, phi, _, _ = head(n, k, 1 + seed % 6, scale=2.0, seed=seed)
    bias = torch.randn(k, generator=generator(seed), dtype=torch.float64)
    logits = phi @ weight.T + bias
    flip = radius.flip_radius(weight, logits, logits.argmax(1))
    return flip / phi.norm(dim=1), scaling.peak_sharpness(weight, phi, logits), k


def line(gap, rest, n):
    """One point at a logit gap and n - 1 at another, on the head ((1), (0))."""
    phi = torch.full((n, 1), float(rest), dtype=torch.float64)
    phi[0] = gap
    weight = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    return weight, torch.ones_like(phi), phi @ weight.T


@pytest.mark.random
def test_3000_predictions_in_60_data_sets():
    """60 data sets of 50: the worst radius, and the share beyond every threshold."""
    for seed in range(60):
        relative, peak, k = data_set(seed)
        mean, n = peak.mean().item(), len(peak)
        floor = 2 / (math.e * math.sqrt(k))
        assert relative.min() >= floor / math.sqrt(n * mean)
        assert relative.min() >= floor / peak.max().sqrt()
        for t in (1.0, 2.0, 5.0, 10.0, 49.0):
            below = relative < floor / math.sqrt(t * mean)
            assert below.sum().item() < n / t


@pytest.mark.boundary
def test_one_sample_can_have_all_of_the_mean():
    """One sample near the boundary has nearly n times the mean of 1,000."""
    weight, phi, logits = line(1e-4, 10.0, 1000)
    peak = scaling.peak_sharpness(weight, phi, logits)
    assert peak[0] > 999.9 * peak.mean()


@pytest.mark.boundary
def test_equal_samples_attain_the_mean():
    """With equal samples the mean is the largest, and nothing is lost."""
    weight, phi, logits = line(2.0, 2.0, 10)
    peak = scaling.peak_sharpness(weight, phi, logits)
    torch.testing.assert_close(peak.max(), peak.mean())


@pytest.mark.needed
def test_the_largest_or_the_share_is_needed():
    """The mean alone bounds no single sample: one lies below the radius it gives."""
    weight, phi, logits = line(1e-4, 10.0, 1000)
    peak = scaling.peak_sharpness(weight, phi, logits).mean().item()
    flip = radius.flip_radius(weight, logits, logits.argmax(1))
    claim = 2 / (math.e * math.sqrt(2 * peak))
    assert flip[0] < claim / 20
    assert (flip[1:] >= claim).all()


@pytest.mark.needed
@pytest.mark.parametrize("n", [10**2, 10**4])
def test_the_peak_is_needed(n):
    """At one temperature the mean falls to nothing with a sample at the boundary."""
    weight, phi, logits = line(1e-9, 60.0, n)
    flat = curvature.relative_flatness(weight, phi, logits)
    flip = radius.flip_radius(weight, logits, logits.argmax(1))
    assert flat.mean().item() == pytest.approx(1 / (4 * n), rel=1e-6)
    assert flip.min() == pytest.approx(1e-9)
