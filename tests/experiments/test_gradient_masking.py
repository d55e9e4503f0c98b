"""Thresholds known by hand, attacks beside those of the package, and a small run."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from flatbook import attacks, models, profiles, scaling, softmax
from flatbook.experiments import gradient_masking as gm
from flatbook.experiments import summarise
from tests.flops import passes
from tests.panels import check_small_and_alike, few_images
from tests.trained import trained

SMALL = gm.Sizes(
    eps=0.3,
    eps_l2=2.0,
    images=40,
    batch=16,
    scales=(1.0, 10.0, 200.0),
    steps=4,
    floor_batches=(1, 1000),
)


@pytest.fixture(scope="module")
def network(digits):
    return trained(digits, 8)


@pytest.fixture(scope="module")
def result(network, digits):
    return gm.run(network, digits, SMALL)


@pytest.fixture(scope="module")
def images(digits):
    return digits.x_test[:20], digits.y_test[:20]


@pytest.mark.parametrize(
    ("dtype", "wrong", "zero"),
    [
        (torch.float64, 53, 1075),
        (torch.float32, 24, 150),
        (torch.bfloat16, 8, 134),
        (torch.float16, 11, 25),
    ],
)
def test_thresholds_in_units_of_log_2(dtype, wrong, zero):
    found = gm.thresholds(dtype)
    assert found.wrong / math.log(2) == pytest.approx(wrong)
    assert found.zero / math.log(2) == pytest.approx(zero)
    flushed = gm.thresholds(dtype, subnormal=False)
    assert flushed.wrong == found.wrong
    assert (found.zero - flushed.zero) / math.log(2) == pytest.approx(wrong)
    many = gm.thresholds(dtype, count=1000)
    assert found.zero - many.zero == pytest.approx(math.log(1000))


def test_shares_that_margins_predict():
    margins = torch.tensor([-50.0, 1.0, 5.0, 10.4, 12.0], dtype=torch.float64)
    assert gm.zero_share(margins, 10.0, torch.float32) == 2 / 5
    assert gm.zero_share(margins, 10.0, torch.float32, count=50) == 2 / 5
    assert gm.zero_share(margins, 10.0, torch.float32, count=2) == 2 / 5
    assert gm.zero_share(margins, 9.9, torch.float32) == 1 / 5
    assert gm.zero_share(margins, 9.9, torch.float32, count=10) == 2 / 5
    assert gm.zero_share(margins, 10.0, torch.float64) == 0


@pytest.mark.parametrize("name", ["log_odds", "cross_entropy", "margin", "dlr"])
def test_the_climb_is_the_attack_of_the_package(name, network, images):
    x, y = images
    move, hold = gm.cube(0.2, 0.05)
    how = {"loss": attacks.LOSSES[name], "move": move, "hold": hold, "steps": 5}
    end = gm.climb(gm.frozen(network, torch.float32), x, y, **how)
    ball = {"norm": "linf", "eps": 0.2, "step_size": 0.05, "steps": 5}
    path = attacks.pgd(network, x, y, loss=name, **ball)
    torch.testing.assert_close(end.points, path.adversarial)
    assert torch.equal(end.robust, path.robust)
    assert torch.equal(end.stuck, path.stuck)


def test_without_a_floor_the_ball_is_that_of_the_package(network, images):
    x, y = images
    move, hold = gm.ball(0.8, 0.3, floor=0.0)
    loss = attacks.LOSSES["log_odds"]
    plain = gm.frozen(network, torch.float32)
    end = gm.climb(plain, x, y, loss=loss, move=move, hold=hold, steps=4)
    how = {"norm": "l2", "eps": 0.8, "step_size": 0.3, "steps": 4}
    path = attacks.pgd(network, x, y, **how)
    torch.testing.assert_close(end.points, path.adversarial, rtol=1e-3, atol=1e-4)
    lengths = (end.points - x).flatten(1).norm(dim=1)
    assert lengths.max() <= 0.8 + 1e-5


def test_the_mean_is_that_of_torch(network, images):
    """A batch of N through the mean of torch is N images through their N-th part."""
    x, y = images
    plain = gm.frozen(network, torch.float32)
    ours = gm.input_gradient(plain, x, y, gm._mean(gm._CROSS_ENTROPY, len(x)))
    torchs = gm.input_gradient(plain, x, y, F.cross_entropy)
    torch.testing.assert_close(ours, torchs)
    assert ours.abs().max() > 0


def test_a_batch_weakens_a_floor():
    """The step of a gradient of 1e-9 under a floor of 1e-10, alone and among 1000."""
    move, _ = gm.ball(1.0, 0.5, floor=1e-10)
    slope = torch.full((1, 1, 1, 1), 1e-9)
    assert move(slope).item() == pytest.approx(0.5 * 10 / 11, rel=1e-5)
    assert move(slope / 1000).item() == pytest.approx(0.5 / 101, rel=1e-5)


def test_scaled_heads_are_those_of_the_package(network, images):
    x, _ = images
    for s in (1.0, 7.0):
        for weight_only in (False, True):
            other = models.scale_head(network, s, weight_only=weight_only)
            top = gm.scaled(network.head, s, weight_only=weight_only)
            torch.testing.assert_close(top(network.features(x)), other(x))
        expected = models.scale_head(network, s)(x)
        torch.testing.assert_close(gm.at_scale(network, s)(x), expected)


def test_a_head_without_bias():
    head = nn.Linear(3, 2, bias=False)
    phi = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(gm.scaled(head, 3.0)(phi), 3 * head(phi))


def test_normalised_logits_know_no_scale():
    source = torch.Generator().manual_seed(1)
    z = torch.randn(9, 5, generator=source, dtype=torch.float64)
    y = torch.randint(5, (9,), generator=source)
    expected = gm.normalised(z, y)
    for s in (1e-3, 40.0, 1e5):
        torch.testing.assert_close(gm.normalised(s * z, y), expected)
    assert gm.normalised(torch.zeros(1, 5), y[:1]).item() == pytest.approx(math.log(5))


def test_cosines_of_tiny_gradients():
    a = torch.tensor([[[1.0, 0.0]], [[3.0, 4.0]], [[0.0, 0.0]]])
    b = torch.tensor([[[1.0, 1.0]], [[-3.0, -4.0]], [[1.0, 1.0]]])
    expected = torch.tensor([math.sqrt(0.5), -1.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(gm.cosine(a, b), expected)
    tiny = gm.cosine(1e-30 * a, 1e-300 * b.double())
    torch.testing.assert_close(tiny, expected)


def test_shapes(result):
    assert result.margin.shape == result.fooled.shape == result.unfloored.shape == (40,)
    for name in ("log_sharpness", "cosine", "zero"):
        assert getattr(result, name).shape == (3, 40)
    assert list(result.robust) == list(result.stuck) == list(gm.ATTACKS)
    groups = (result.robust, result.stuck, result.transferred, result.changed)
    for group in groups:
        assert all(value.shape == (3, 40) for value in group.values())
    assert result.floored.shape == result.floored_stuck.shape == (2, 40)
    assert result.accuracy == pytest.approx((result.margin > 0).double().mean().item())


def test_the_clean_images_against_the_modules_they_come_from(network, digits, result):
    net = gm.frozen(network, torch.float64)
    x, y = digits.x_test[:40].double(), digits.y_test[:40]
    z = net(x)
    torch.testing.assert_close(result.margin, softmax.margin(z, y))
    expected = scaling.log_sharpness(net.head.weight, net.features(x), z, SMALL.scales)
    torch.testing.assert_close(result.log_sharpness, expected)


def test_scaling_stops_cross_entropy_and_nothing_else(result):
    """What the chapter is about, on a network trained for a second."""
    plain = result.robust_accuracy("cross-entropy")
    assert plain[0] < 0.1
    assert plain[-1] > 0.8
    zeros = result.zero_gradients("cross-entropy")
    assert (plain - zeros)[-1] < 0.03
    for name in ("log-odds", "margin", "normalised logits"):
        honest = result.robust_accuracy(name)
        assert (honest <= plain[0] + 0.02).all()
        assert not result.stuck[name].any()
    late = result.robust_accuracy("cross-entropy, float64")
    assert late[1] < 0.2
    assert late[2] > 0.5


def test_zero_gradients_are_predicted_by_clean_margins(result):
    assert (result.predicted() - result.zero.double().mean(1)).abs().max() < 0.06
    zeros = result.zero_gradients("cross-entropy")
    assert (result.predicted() - zeros).abs().max() < 0.06
    late = result.zero_gradients("cross-entropy, float64")
    assert (result.predicted(torch.float64) - late).abs().max() < 0.06


def test_directions_are_right_while_the_margin_is_small(result):
    scales = torch.tensor(SMALL.scales, dtype=torch.float64)[:, None]
    margins = scales * result.margin
    small = margins < gm.thresholds(torch.float32).wrong - 3
    assert result.cosine[small].min() > 0.999
    middle = (margins > 20) & (margins < 90)
    assert result.cosine[middle].median() < 0.9
    assert result.cosine[middle].median() > 0.1
    assert (result.cosine[margins > 105] == 0).all()
    assert result.zero[margins > 105].all()


def test_predictions_do_not_change_when_the_bias_is_scaled(result):
    assert not result.changed["both"].any()
    assert not result.changed["weight only"][0].any()
    assert (result.transferred["both"] == result.fooled).all()


def test_weight_alone_changes_predictions(network, digits):
    net = models.scale_head(network, 1.0)
    with torch.no_grad():
        net.head.bias[3] += 20.0
    seen = gm.run(net, digits, dataclasses.replace(SMALL, images=16))
    assert not seen.changed["both"].any()
    assert seen.changed["weight only"][-1].double().mean() > 0.3


def test_batches_make_no_difference(network, digits, result):
    """As long as the mean is over equally many images."""
    few = dataclasses.replace(SMALL, images=16)
    seen = gm.run(network, digits, few)
    torch.testing.assert_close(seen.margin, result.margin[:16])
    for name in gm.ATTACKS:
        assert torch.equal(seen.robust[name], result.robust[name][:, :16])


def test_a_card_keeps_finite_numbers(result, digits):
    values = gm.numbers(result)
    assert all(math.isfinite(value) for value in values.values())
    for name in values:
        if "robust accuracy" in name:
            assert name.replace("robust accuracy", "zero gradients") in values
    assert "margin: robust accuracy[2]" in values
    assert "margin: robust accuracy[3]" not in values
    raw = models.build("mlp", 10, in_channels=1, image_size=8)
    again = gm.numbers(gm.run(raw, digits, SMALL))
    assert set(summarise([values, again])) == set(values)


def test_panels_are_small_and_of_one_shape(result, digits):
    first = gm.panels(result)
    raw = models.build("mlp", 10, in_channels=1, image_size=8)
    few = few_images(digits, 9)
    other = gm.panels(gm.run(raw, few, SMALL))
    check_small_and_alike(first, other)
    assert first["robust"].shape == first["never_moved"].shape == (6, 3)
    assert first["log10_sharpness"].shape == (5, 3)


def test_panels_of_sharpness(result):
    seen = gm.panels(result)
    for i in range(2):  # at the last scale kappa underflows, its logarithm does not
        kappa = result.log_sharpness[i].exp().numpy()
        mean = seen["log10_mean_sharpness"][i].item()
        assert mean == pytest.approx(math.log10(kappa.mean()))
        logs = np.log10(kappa)
        expected = np.quantile(logs, seen["levels"].numpy())
        np.testing.assert_allclose(seen["log10_sharpness"][:, i], expected)
    assert seen["log10_sharpness"][2, 2] < -300


def test_panels_count_images(result):
    seen = gm.panels(result)
    survivors = torch.zeros(3)
    for s in range(3):
        for image in range(40):
            survivors[s] += all(result.robust[name][s, image] for name in gm.ATTACKS)
    torch.testing.assert_close(seen["robust_to_all"], survivors.double() / 40)
    values = gm.numbers(result)
    for s in range(3):
        for row, name in enumerate(gm.ATTACKS):
            assert seen["robust"][row, s] == values[f"{name}: robust accuracy[{s}]"]
            assert seen["never_moved"][row, s] == values[f"{name}: zero gradients[{s}]"]
        for row, head in enumerate(gm.HEADS):
            share = values[f"transfer, {head}[{s}]"]
            assert seen["transferred"][row, s].item() == pytest.approx(share)
            assert seen["changed"][row, s] == values[f"changed, {head}[{s}]"]
        guess = values[f"predicted zero gradients, float64[{s}]"]
        assert seen["predicted"][1, s] == guess
    assert (seen["transferred"][0] == 1).all()
    assert seen["accuracy"] == result.accuracy
    assert seen["scales"].tolist() == list(SMALL.scales)


def test_panels_of_transfer_keep_the_order_of_heads(result):
    """Two examples; one of them is lost at the last scale with the weight alone."""
    fooled = torch.arange(40) < 2
    lost = torch.ones(3, 40, dtype=torch.bool)
    lost[2, 1:] = False
    heads = dict(zip(gm.HEADS, (torch.ones_like(lost), lost), strict=True))
    changed = dict(zip(gm.HEADS, (torch.zeros_like(lost), ~lost), strict=True))
    odd = dataclasses.replace(result, fooled=fooled, transferred=heads, changed=changed)
    seen = gm.panels(odd)
    assert seen["transferred"].tolist() == [[1, 1, 1], [1, 1, 0.5]]
    assert seen["changed"].tolist() == [[0, 0, 0], [0, 0, 39 / 40]]


def test_nothing_to_transfer(result):
    none = dataclasses.replace(result, fooled=torch.zeros(40, dtype=torch.bool))
    assert (gm.panels(none)["transferred"] == 0).all()


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 10.0, 100.0)])
@pytest.mark.parametrize("name", ["mlp", "resnet18"])
def test_passes_are_those_that_are_made(digits, name, scales):
    size = dataclasses.replace(SMALL, images=6, batch=3, scales=scales)
    net = models.build(name, 10, width=0.125, in_channels=1, image_size=8).eval()
    made = passes(lambda: gm.run(net, digits, size), net, digits.x_test[:1])
    told = gm.passes(size, classes=10, test_images=360)
    assert told == pytest.approx(made, rel=0.05)
    assert gm.passes(size, classes=10, test_images=3, networks=4) == 2 * told


@pytest.mark.parametrize("profile", profiles.NAMES)
@pytest.mark.parametrize("data", ["digits", "cifar10", "folder"])
def test_sizes(profile, data):
    size = gm.sizes(profile, data)
    stored = json.loads(json.dumps(dataclasses.asdict(size)))
    lists = {k: tuple(v) for k, v in stored.items() if isinstance(v, list)}
    assert gm.Sizes(**(stored | lists)) == size
    assert {1, 2.5, 5, 10, 20, 50, 100} <= set(size.scales)
    if data != "digits":
        assert size.eps == 8 / 255


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eps": 0.0}, "eps must be positive"),
        ({"eps_l2": -1.0}, "eps_l2 must be positive"),
        ({"images": 0}, "images must be an integer of at least 1, got 0"),
        ({"scales": (10.0, 1.0)}, "scales must be rising numbers"),
        ({"scales": ()}, "scales must be rising numbers"),
        ({"scales": (0.0, 1.0)}, "scales must be positive"),
        ({"floor_batches": (0,)}, "floor_batches must be an integer"),
    ],
)
def test_bad_sizes(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **changes)


def test_bad_arguments(network, digits):
    with pytest.raises(ValueError, match="profile must be one of cpu, t4, fast, full"):
        gm.sizes("gpu", "digits")
    with pytest.raises(ValueError, match="count must be an integer of at least 1"):
        gm.thresholds(torch.float32, count=0)
    with pytest.raises(TypeError, match=r"must be in float32, got torch\.float64"):
        gm.run(gm.frozen(network, torch.float64), digits, SMALL)
    with pytest.raises(TypeError, match="features"):
        gm.run(nn.Linear(3, 3), digits, SMALL)
    two = models.build("mlp", 2, in_channels=1, image_size=8)
    with pytest.raises(ValueError, match="three or more classes, got 2"):
        gm.run(two, digits, SMALL)


def test_nothing_is_left_behind_in_the_network(network, digits):
    model = models.scale_head(network, 1.0).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gm.run(model, digits, dataclasses.replace(SMALL, images=8, steps=1))
    assert model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
