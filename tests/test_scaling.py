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
