"""Paths known by hand, a small network, and what a card keeps."""

import dataclasses
import json
import math
from itertools import pairwise

import pytest
import torch

from flatbook import attacks, curvature, models, profiles, softmax
from flatbook.experiments import loss_geometry as lg
from flatbook.experiments import summarise
from flatbook.experiments._adversary import adversary
from tests.flops import passes
from tests.panels import LIMIT, check_alike, few_images, size_of
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


def test_an_adversarially_trained_network_is_attacked_further():
    for data in ("digits", "cifar10"):
        usual, found = lg.sizes("cpu", data), lg.robust_sizes("cpu", data)
        assert found.weak_eps > usual.weak_eps
        assert found.strong_eps > usual.strong_eps
        changed = {"weak_eps", "strong_eps", "weak_steps", "strong_steps"}
        for field in set(dataclasses.asdict(usual)) - changed:
            assert getattr(found, field) == getattr(usual, field)
    natural = lg.robust_sizes("full", "cifar10")
    assert natural.ball("weak")["eps"] == 20 * lg.sizes("full", "cifar10").weak_eps
    assert natural.ball("weak")["step_size"] == pytest.approx(0.01)


def test_robust_sizes_fit_an_adversarially_trained_network(digits):
    """The weak attack leaves most labels, the strong one nearly none."""
    net = trained(digits, 8, adversary=adversary("cpu", "digits"))
    found = lg.robust_sizes("cpu", "digits")
    less = {"images": 100, "again_images": 1, "again": (1.0,), "copies": 1}
    result = lg.run(net, digits, dataclasses.replace(found, **less))
    weak, strong = (result.paths[kind].robust for kind in ("weak", "strong"))
    assert 0.8 < weak.double().mean() < 1
    assert strong.double().mean() < 0.02


def test_panels_have_the_same_shapes_for_every_seed(result, network, digits):
    few = few_images(digits, 5)
    other = lg.panels(lg.run(network, few, dataclasses.replace(SMALL, weak_eps=1e-3)))
    first = lg.panels(result)
    check_alike(first, other)
    assert other["kappa"][5:].isnan().all()
    assert other["weak_basins"].isnan().all()
    assert other["weak_flips"].isnan().all()
    assert other["weak_correlation"][1].isnan()
    assert other["weak_example_flip"].isinf()
    assert other["weak_widths"][1, :5].isinf().all()


@pytest.mark.parametrize("sizes", [lg.sizes, lg.robust_sizes])
def test_panels_are_small(sizes):
    """Of the largest experiment, with logits of no meaning."""
    size, source = sizes("full", "cifar10"), torch.Generator().manual_seed(0)

    def path(steps):
        z = torch.randn(steps + 1, 300, 3, generator=source)
        zeros = torch.zeros(steps, 300, dtype=torch.bool)
        labels = torch.zeros(300, dtype=torch.int64)
        return lg.follow(z, labels, zeros, size.scales)

    paths = {"weak": path(size.weak_steps), "strong": path(size.strong_steps)}
    kappa = torch.rand(300, generator=source)
    made = lg.panels(lg.Result(size, 1.0, kappa, paths, {}, None))
    assert size_of(made) < LIMIT


@pytest.mark.parametrize("kind", ["weak", "strong"])
def test_panels_against_the_result(result, kind):
    path, shown = result.paths[kind], lg.panels(result)
    found = {
        name.removeprefix(f"{kind}_"): values
        for name, values in shown.items()
        if name.startswith(kind)
    }
    edges, count = shown["edges"].tolist(), path.rise.shape[1]
    for i, rises in enumerate(path.rise.tolist()):
        bins = [sum(e <= rise for e in edges) for rise in rises]
        share = [bins.count(b) / count for b in range(len(edges) + 1)]
        assert found["rises"][i].tolist() == pytest.approx(share)
        assert found["mean_rise"][i].item() == pytest.approx(sum(rises) / count)
        middle = sorted(rises)[(count - 1) // 2]
        assert found["median_rise"][i].item() == middle
    assert found["robust"] == path.robust.double().mean()
    assert found["eps"] == SMALL.ball(kind)["eps"]
    assert found["steps"].tolist() == list(range(SMALL.ball(kind)["steps"] + 1))
    for w, name in enumerate(lg.WIDTHS):
        width = path.width(name)[1]
        torch.testing.assert_close(found["widths"][w], width.float())
        assert found["censored"][w] == pytest.approx(width.isinf().double().mean())
        if width.unique().numel() > 1:
            estimate = result.correlation(kind, name).value
            assert found["correlation"][w] == pytest.approx(estimate)
            given = result.given_margin(kind, name).value
            assert found["given_margin"][w] == pytest.approx(given)
    torch.testing.assert_close(shown["kappa"], result.kappa.float())
    torch.testing.assert_close(shown["margin"], path.margins[0].float())


@pytest.mark.parametrize("kind", ["weak", "strong"])
def test_examples_are_images_that_flip(result, kind):
    """The middle one, and some from narrow to wide, none of them twice."""
    path, shown = result.paths[kind], lg.panels(result)
    width = path.width("label flip")[0]
    steps = sorted(v for v in width.tolist() if v < math.inf)
    assert shown[f"{kind}_example_flip"] == steps[len(steps) // 2]
    at = width.tolist().index(steps[len(steps) // 2])
    example = path.normalised[:, :, at].float()
    torch.testing.assert_close(shown[f"{kind}_example"], example)
    flips = [v for v in shown[f"{kind}_flips"].tolist() if not math.isnan(v)]
    assert len(flips) == min(6, len(steps))
    assert flips == sorted(flips)
    for flip, basin in zip(flips, shown[f"{kind}_basins"], strict=False):
        at = int((width - flip).abs().argmin())
        torch.testing.assert_close(basin, path.normalised[2, :, at].float())
    if len(steps) >= 6:
        places = [steps.index(min(steps, key=lambda s: abs(s - f))) for f in flips]
        gaps = [b - a for a, b in pairwise(places)]
        assert max(gaps) - min(gaps) <= 1
        assert len(set(places)) == 6


@pytest.mark.parametrize("name", ["mlp", "resnet18"])
def test_passes_are_those_that_are_made(digits, name):
    net = models.build(name, 10, width=0.125, in_channels=1, image_size=8).eval()
    x = digits.x_test[:50]
    with torch.no_grad():
        labels = net(x).argmax(1)
    own = dataclasses.replace(digits, x_test=x, y_test=labels)
    made = passes(lambda: lg.run(net, own, SMALL), net, digits.x_test[:1])
    told = lg.passes(SMALL, classes=10, test_images=len(labels))
    assert told == pytest.approx(made, rel=0.01)
    twice = lg.passes(SMALL, classes=10, test_images=len(labels), networks=2)
    assert twice == 2 * told
    few = lg.passes(SMALL, classes=10, test_images=5)
    assert few == lg.passes(
        dataclasses.replace(SMALL, images=5, again_images=5), classes=10, test_images=5
    )


def test_bad_names():
    with pytest.raises(ValueError, match="profile must be one of"):
        lg.sizes("tpu", "digits")
    with pytest.raises(ValueError, match="profile must be one of"):
        lg.robust_sizes("tpu", "digits")
    with pytest.raises(KeyError, match="medium"):
        SMALL.ball("medium")
