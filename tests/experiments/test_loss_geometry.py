"""Paths known by hand, a small network, and what a card keeps."""

import dataclasses
import json
import math

import pytest
import torch

from flatbook import attacks, curvature, models, profiles, softmax
from flatbook.experiments import loss_geometry as lg
from flatbook.experiments import summarise
from tests.trained import trained

SMALL = lg.Sizes(
    weak_eps=0.2,
    strong_eps=1.5,
    weak_steps=4,
    strong_steps=8,
    scales=(0.5, 1.0, 50.0),
    again=(1.0, 50.0),
    images=30,
    again_images=12,
    copies=2,
    noise=0.1,
    points=3,
    batch=13,
)


@pytest.fixture(scope="module")
def network(digits):
    return trained(digits)


@pytest.fixture(scope="module")
def result(network, digits):
    return lg.run(network, digits, SMALL)


def two_classes(margins, scales=(1.0,)):
    """A path of one image: logits (m, 0), class 0 true."""
    m = torch.as_tensor(margins, dtype=torch.float64)
    z = torch.stack([m, 0 * m], -1)[:, None]
    zeros = torch.zeros(len(m) - 1, 1, dtype=torch.bool)
    return lg.follow(z, torch.tensor([0]), zeros, scales)


def test_the_two_images_of_the_page():
    """Margin 4 to 2 and 4 to -1: one rise vanishes, one grows like the scale."""
    scales = (1.0, 10.0, 50.0)
    inside = two_classes([4, 2], scales).rise[:, 0]
    across = two_classes([4, -1], scales).rise[:, 0]
    for i, s in enumerate(scales):
        start = math.log1p(math.exp(-4 * s))
        wanted = math.log1p(math.exp(-2 * s)) - start
        assert inside[i].item() == pytest.approx(wanted, rel=1e-9)
        wanted = s + math.log1p(math.exp(-s)) - start
        assert across[i].item() == pytest.approx(wanted, rel=1e-12)
    assert inside[2] < 1e-40
    assert [round(v, 1) for v in across.tolist()] == [1.3, 10.0, 50.0]


def test_widths_by_hand():
    path = two_classes([4, 2, -2, -6], (1.0, 50.0))
    start = math.log1p(math.exp(-4))
    for name, losses in {
        "rise of 0.1": start + 0.1,
        "ten times start": 10 * start,
        "tenth of rise": start + (6 + math.log1p(math.exp(-6)) - start) / 10,
    }.items():
        margin = -math.log(math.expm1(losses))
        step = (4 - margin) / 2 if margin > 2 else 1 + (2 - margin) / 4
        assert path.width(name)[0, 0].item() == pytest.approx(step)
    assert path.width("label flip")[:, 0].tolist() == [1.5, 1.5]
    assert path.width("rise of 0.1")[1, 0].item() == pytest.approx(1.5, abs=0.02)
    with pytest.raises(ValueError, match=r"width must be one of rise .*, got 'knee'"):
        path.width("knee")


def test_a_path_that_stays_inside():
    path = two_classes([4, 3, 2], (1.0, 50.0))
    assert path.width("label flip")[0].isinf()
    assert path.width("rise of 0.1")[1].isinf()
    assert path.width("tenth of rise")[1].item() > 1.9
    assert path.robust.tolist() == [True]
    assert not two_classes([4, 0]).robust


def test_normalised_losses():
    path = two_classes([4, 1, -3, -2], (1.0, 10.0))
    assert path.normalised[:, 0].tolist() == [[0.0], [0.0]]
    assert path.normalised.amax(1).tolist() == [[1.0], [1.0]]
    flat = two_classes([4, 4, 5])
    assert (flat.normalised <= 0).all()


def test_stuck_means_at_every_step():
    zeros = torch.tensor([[True, True, False], [True, False, False]])
    z = torch.zeros(3, 3, 2)
    path = lg.follow(z, torch.tensor([0, 1, 0]), zeros, [1.0])
    assert path.stuck.tolist() == [True, False, False]


def test_against_scaled_networks(network, digits, result):
    """One path gives what the scaled networks say at the same points."""
    x, y = digits.x_test, digits.y_test
    right = network(x).argmax(1) == y
    x, y = x[right][:30], y[right][:30]
    path = attacks.pgd(network, x, y, **SMALL.ball("strong"))
    for i, s in enumerate(SMALL.scales):
        scaled = models.scale_head(network, s).double()
        for t in (0, 3, 8):
            with torch.no_grad():
                loss = softmax.cross_entropy(scaled(path.points[t].double()), y)
            found = result.paths["strong"].losses[i, t]
            torch.testing.assert_close(found, loss, rtol=1e-3, atol=1e-3 * s)
    assert (result.paths["strong"].losses[1] - path.losses).abs().max() < 1e-4
    assert torch.equal(result.paths["strong"].robust, path.robust)
    phi, weight = network.features(x).double(), network.head.weight.double()
    kappa = curvature.relative_sharpness(weight, phi, network(x).double())
    torch.testing.assert_close(result.kappa, kappa.detach(), rtol=1e-4, atol=0)


def test_reading_b_at_scale_one_is_reading_a(result):
    readings = result.readings
    assert set(readings) == {"one path", *lg.LOSSES}
    assert {tuple(r.shape) for r in readings.values()} == {(2, 12)}
    one = readings["one path"][0]
    torch.testing.assert_close(readings["log_odds"][0], one, rtol=1e-4, atol=1e-5)
    assert torch.equal(one, result.paths["strong"].rise[1, :12])


def test_float32_stands_still(result):
    assert result.stuck("log_odds").tolist() == [0.0, 0.0]
    at_one, at_fifty = result.stuck("cross_entropy")
    assert at_one == 0
    assert at_fifty > 0.5
    kept = result.robust("cross_entropy")[1]
    assert kept >= at_fifty
    assert result.robust("log_odds").max() < 0.5


def test_the_plateau_counts_every_test_image(network, digits):
    plain = dataclasses.replace(SMALL, copies=1, noise=0.0)
    found = lg.plateau(network, digits, plain)
    with torch.no_grad():
        phi = network.features(digits.x_test).double()
        z = network(digits.x_test).double()
    weight = network.head.weight.detach().double()
    for i, s in enumerate((1.0, 10.0, 100.0)):
        kappa = curvature.relative_sharpness(s * weight, phi, s * z, power=1)
        assert found.scales[i].item() == pytest.approx(s)
        assert found.mean[i].item() == pytest.approx(kappa.mean().item(), rel=1e-3)
        middle = kappa.median().item()
        assert found.median[i].item() == pytest.approx(middle, rel=1e-2, abs=1e-30)
    assert found.at(11) == found.mean[1].item()
    first, second = z.topk(2).values.T
    near = (first - second <= 1).double() * phi.square().sum(1)
    assert found.predicted == pytest.approx((weight.norm() * near.mean()).item())


def test_copies_have_noise_and_repeat_themselves(network, digits, result):
    again = lg.plateau(network, digits, SMALL)
    assert torch.equal(again.mean, result.plateau.mean)
    other = lg.plateau(network, digits, dataclasses.replace(SMALL, noise=0.2))
    assert not torch.equal(again.mean, other.mean)


def test_correlations(result):
    for kind in ("weak", "strong"):
        found = result.correlation(kind, "label flip")
        assert found.low <= found.value <= found.high
        assert found.count == 30
    assert result.correlation("strong", "rise of 0.1").value < -0.5
    given = result.given_margin("strong", "rise of 0.1")
    assert abs(given.value) < abs(result.correlation("strong", "rise of 0.1").value)


def test_numbers_are_finite_and_alike(result, network, digits):
    with torch.no_grad():
        stubborn = models.scale_head(network, 2.0)
    other = lg.run(stubborn, digits, dataclasses.replace(SMALL, weak_eps=0.001))
    first, second = lg.numbers(result), lg.numbers(other)
    assert list(first) == list(second)
    assert all(math.isfinite(v) for v in (*first.values(), *second.values()))
    assert all(type(v) is float for v in first.values())
    assert second["weak: censored, label flip"] == 1.0
    assert second["weak: correlation, label flip"] == 0.0
    assert second["weak: median label flip[0]"] == 4.0
    summarise([first, second])
    for name in first:
        if "robust accuracy" in name:
            assert name.replace("robust accuracy", "zero gradients") in first
    assert first["cross_entropy: zero gradients[1]"] > 0.5
    assert first["strong: mean rise[2]"] == result.paths["strong"].rise[2].mean()


@pytest.mark.parametrize("profile", profiles.NAMES)
@pytest.mark.parametrize("data", ["digits", "cifar10"])
def test_sizes(profile, data):
    found = lg.sizes(profile, data)
    assert json.loads(json.dumps(dataclasses.asdict(found)))
    assert found.scales == (0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 50.0)
    weak = found.ball("weak")
    assert weak["step_size"] * weak["steps"] == pytest.approx(weak["eps"])
    if data == "cifar10":
        assert (weak["eps"], weak["steps"]) == (0.025, 25)
        assert found.copies == 1
        assert found.noise == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weak_eps": 2.0}, "weak_eps must be below strong_eps, got 2.0 and 1.5"),
        ({"strong_eps": -1.0}, "strong_eps must be positive"),
        ({"scales": (1.0, 0.5)}, "rising, with 1 among them"),
        ({"scales": (0.5, 50.0)}, "1 among them"),
        ({"again": (3.0,)}, "again must be one of 0.5, 1.0, 50.0, got 3.0"),
        ({"images": 0}, "images must be an integer of at least 1"),
        ({"points": 2}, "points must be an integer of at least 3"),
        ({"noise": -0.1}, "noise must lie in"),
    ],
)
def test_bad_sizes_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **change)


def test_bad_names():
    with pytest.raises(ValueError, match="profile must be one of"):
        lg.sizes("tpu", "digits")
    with pytest.raises(KeyError, match="medium"):
        SMALL.ball("medium")
