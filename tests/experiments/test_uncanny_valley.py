"""Walks known by hand, a small network, and what a card keeps."""

import dataclasses
import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from flatbook import attacks, losses, models, profiles, softmax
from flatbook.experiments import summarise
from flatbook.experiments import uncanny_valley as uv
from flatbook.training import LOSSES, Recipe
from tests.flops import passes
from tests.panels import check_small_and_alike, few_images
from tests.trained import trained

SMALL = uv.Sizes(
    eps=(0.1, 0.3),
    main=0.3,
    steps=4,
    images=30,
    line_images=12,
    line_steps=20,
    free_images=8,
    free_steps=5,
    batch=13,
)


@pytest.fixture(scope="module")
def networks(digits):
    """Two networks of one seed, trained for a moment."""
    return {"standard": trained(digits), "Brier": trained(digits, loss="brier")}


@pytest.fixture(scope="module")
def result(networks, digits):
    return uv.run(networks, digits, SMALL)


def walk(kappa, wrong):
    """A walk of which only the sharpness and the labels matter."""
    kappa = torch.as_tensor(kappa, dtype=torch.float64).T
    names = ("trace", "size", "loss", "slope", "doubt", "own")
    rest = dict.fromkeys(names, kappa)
    wrong = torch.as_tensor(wrong).bool().T
    pull, stuck = kappa[:2], wrong[0]
    return uv.Walk(kappa=kappa, wrong=wrong, pull=pull, stuck=stuck, **rest)


def test_valleys_and_peaks_by_hand():
    """Over the ridge; ends on it; never wrong; sharpest before it turns."""
    kappa = [[1, 50, 20, 4], [1, 10, 40, 40], [9, 8, 7, 0.8], [1, 8, 7, 7]]
    wrong = [[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 1]]
    made = walk(kappa, wrong)
    assert made.fallen.tolist() == [True, False, True, False]
    assert made.flip.tolist() == [1, 2, 4, 3]
    assert made.peak_minus_flip.tolist() == [0, 0, -2]
    around = made.around_flip("kappa", 1)
    assert around.T.tolist() == [[1, 50, 20], [10, 40, 40], [7, 7, 7]]


def test_a_tenth_is_not_below_a_tenth():
    assert not walk([[10, 1]], [[0, 1]]).fallen.item()


def test_two_classes_by_hand():
    """A head on a line: logits 0 and g, features (1, g), known to the last digit."""
    model = torch.nn.Module()
    model.features = lambda x: torch.cat([torch.ones_like(x), x], 1)
    model.head = torch.nn.Linear(2, 2, bias=False)
    model.forward = lambda x: model.head(model.features(x))
    model.head.weight.data = torch.tensor([[0.0, 0.0], [0.0, 12.0]])
    x, y = torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64)
    path = attacks.line(model, x, torch.full_like(x, 0.5), y, steps=2)
    seen = uv.look(model, path)
    for step, gap in enumerate((0.0, 3.0, 6.0)):
        q = 1 / (1 + math.exp(-gap))
        size = 1 + (gap / 12) ** 2
        assert seen.trace[step, 0].item() == pytest.approx(2 * q * (1 - q))
        assert seen.size[step, 0].item() == pytest.approx(size)
        kappa = 144 * size * 2 * q * (1 - q)
        assert seen.kappa[step, 1].item() == pytest.approx(kappa)
        assert seen.loss[step, 2].item() == pytest.approx(math.log1p(math.exp(gap)))
        assert seen.slope[step, 0].item() == pytest.approx(math.sqrt(2) * q)
        assert seen.doubt[step, 0].item() == pytest.approx(1 - q)
        assert seen.own[step, 0].item() == pytest.approx(2 * q * (1 - q))
    torch.testing.assert_close(seen.confidence, 1 - seen.doubt)
    ends = torch.tensor([6.0, 12 / (1 + math.exp(-6))], dtype=torch.float64)
    torch.testing.assert_close(seen.pull, ends[:, None].expand(2, 3))
    assert seen.wrong.tolist() == [[False] * 3, [True] * 3, [True] * 3]


@pytest.mark.parametrize("loss", list(LOSSES))
def test_own_trace_against_automatic_differentiation(loss):
    source = torch.Generator().manual_seed(3)
    z = 3 * torch.randn(7, 5, generator=source, dtype=torch.float64)
    y = torch.randint(5, (7,), generator=source)
    found = uv.own_trace(loss, z, y)
    for i in range(7):
        hessian = torch.autograd.functional.hessian(
            lambda v, i=i: LOSSES[loss](v[None], y[i : i + 1]).sum(), z[i]
        )
        torch.testing.assert_close(found[i], hessian.trace())


def test_own_trace_in_pieces():
    z = torch.randn(1201, 3, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(1201, dtype=torch.int64)
    torch.testing.assert_close(uv.own_trace("cross_entropy", z, y), softmax.trace_p(z))
    with pytest.raises(ValueError, match="loss must be one of cross_entropy, .*hinge"):
        uv.own_trace("hinge", z, y)


def test_the_brier_score_curves_downwards_at_every_confident_mistake():
    z = torch.tensor([[0.0, 9.0, 1.0]], dtype=torch.float64)
    assert uv.own_trace("brier", z, torch.tensor([1])) > 0
    assert uv.own_trace("brier", z, torch.tensor([0])) < 0


def test_the_input_gradient_against_that_of_the_loss(networks, digits):
    model, x, y = networks["standard"], digits.x_test[:9], digits.y_test[:9]
    leaf = x.clone().requires_grad_()
    loss = softmax.cross_entropy(model(leaf), y).sum()
    (slope,) = torch.autograd.grad(loss, leaf)
    expected = slope.flatten(1).norm(dim=1).double()
    found = uv.input_slope(model, x, y)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def test_the_input_gradient_does_not_underflow(networks, digits):
    """Where 1 - p is 0 in float32: with a head made twenty times larger."""
    model = models.scale_head(networks["standard"], 20.0)
    x, y = digits.x_test[:40], digits.y_test[:40]
    found = uv.input_slope(model, x, y)
    assert (found > 0).all()
    assert found.min() < 1e-46


def test_a_climb_in_the_open_is_the_attack_while_both_agree(networks, digits):
    """Until a wall is met, each step is that of the attack; then it goes on."""
    model, y = networks["standard"], digits.y_test[:6]
    x = 0.25 + digits.x_test[:6] / 2
    free = uv.climb(model, x, y, step_size=0.05, steps=3)
    bound = attacks.pgd(model, x, y, norm="linf", eps=1.0, step_size=0.05, steps=3)
    torch.testing.assert_close(free.points, bound.points)
    torch.testing.assert_close(free.logits, bound.logits)
    torch.testing.assert_close(free.losses, bound.losses)
    assert free.zero_gradients.shape == (3, 6)
    far = uv.climb(model, x, y, step_size=0.3, steps=4)
    assert far.points.max() > 1
    assert far.losses[-1].min() > bound.losses[-1].max()


def test_shapes(result):
    assert list(result.walks) == ["standard", "Brier"]
    for each in result.walks.values():
        assert list(each) == [0.1, 0.3]
        for walk in each.values():
            count = walk.kappa.shape[1]
            assert walk.kappa.shape == walk.own.shape == (5, count)
            assert walk.pull.shape == (2, count)
            assert walk.stuck.shape == (count,)
            assert 20 <= count <= 30
            assert not walk.wrong[0].any()
    assert result.line.kappa.shape == (21, 12)
    assert result.held.kappa.shape == result.free.kappa.shape == (6, 8)
    assert set(result.accuracy) == {"standard", "Brier"}
    assert result.main is result.walks["standard"][0.3]


def test_the_line_joins_the_ends_of_the_attack(result):
    for name in ("kappa", "loss", "size"):
        line, attack = getattr(result.line, name), getattr(result.main, name)[:, :12]
        torch.testing.assert_close(line[0], attack[0], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(line[-1], attack[-1], rtol=1e-3, atol=1e-5)


def test_batches_make_no_difference(networks, digits, result):
    whole = uv.run(networks, digits, dataclasses.replace(SMALL, batch=100))
    torch.testing.assert_close(whole.main.loss, result.main.loss, rtol=1e-3, atol=1e-5)


def test_the_smallest_radius_that_suffices(result):
    shares = result.valley_share
    assert list(shares) == [0.1, 0.3]
    up, down = walk([[1, 9, 9]], [[0, 1, 1]]), walk([[1, 9, 0.1]], [[0, 1, 1]])
    for walks, expected in (((up, down), 0.3), ((down, down), 0.1), ((up, up), 1.0)):
        made = {"standard": dict(zip((0.1, 0.3), walks, strict=True))}
        changed = dataclasses.replace(result, walks=made)
        assert changed.valley_strength == expected


def test_a_card_keeps_finite_numbers(result, networks, digits):
    values = uv.numbers(result)
    assert all(math.isfinite(value) for value in values.values())
    assert "median sharpness[4]" in values
    assert "valley share[1]" in values
    assert "median sharpness[5]" not in values
    for name in values:
        if "robust accuracy" in name:
            assert name.replace("robust accuracy", "zero gradients") in values
    again = uv.numbers(uv.run(networks, digits, SMALL))
    assert set(summarise([values, again])) == set(values)
    cut = uv.numbers(uv.run({"standard": networks["standard"]}, digits, SMALL))
    assert not {name for name in cut if name.startswith("Brier")}
    assert cut["median sharpness[4]"] == pytest.approx(values["median sharpness[4]"])


def test_numbers_of_an_attack_without_strength(networks, digits):
    """Nobody flips: shares of nothing are 0, not NaN."""
    tiny = dataclasses.replace(SMALL, eps=(1e-6, 2e-6), main=2e-6, images=8)
    one = {"standard": networks["standard"]}
    values = uv.numbers(uv.run(one, digits, tiny))
    assert values["robust accuracy[1]"] == 1
    assert values["valley strength"] == 1
    assert all(math.isfinite(value) for value in values.values())


def test_panels_against_the_result(result):
    shown, walk = uv.panels(result), result.main
    assert shown["eps"] == 0.3
    assert shown["steps"].tolist() == [0, 1, 2, 3, 4]
    for step in range(5):
        kappa = walk.kappa[step].tolist()
        mean = sum(kappa) / len(kappa)
        spread = math.sqrt(sum((k - mean) ** 2 for k in kappa) / len(kappa))
        assert shown["mean_sharpness"][step].item() == pytest.approx(mean)
        assert shown["spread_of_sharpness"][step].item() == pytest.approx(spread)
        assert shown["mean_loss"][step] == walk.loss[step].mean()
        right = [not wrong for wrong in walk.wrong[step].tolist()]
        assert shown["right"][step].item() == pytest.approx(sum(right) / len(right))
        for name, values in {
            "sharpness": walk.kappa,
            "loss": walk.loss,
            "confidence": walk.confidence,
        }.items():
            expected = np.quantile(values[step], [0.25, 0.5, 0.75])
            found = shown[f"quartiles_of_{name}"][:, step]
            np.testing.assert_allclose(found, expected)


def test_panels_have_the_same_shapes_for_every_seed(result, networks, digits):
    few = few_images(digits, 5)
    one = {"standard": networks["standard"]}
    other, first = uv.panels(uv.run(one, few, SMALL)), uv.panels(result)
    check_small_and_alike(first, other)


@pytest.mark.parametrize("names", [["standard"], ["standard", "Brier", "focal"]])
def test_passes_are_those_that_are_made(digits, names):
    net = models.build("mlp", 10, in_channels=1, image_size=8).eval()
    with torch.no_grad():
        labels = net(digits.x_test).argmax(1)
    own = dataclasses.replace(digits, y_test=labels)
    nets = dict.fromkeys(names, net)
    made = passes(lambda: uv.run(nets, own, SMALL), net, digits.x_test[:1])
    count = {"test_images": len(labels), "networks": len(names)}
    assert uv.passes(SMALL, classes=10, **count) == pytest.approx(made, rel=0.01)


def test_passes_of_few_images():
    few = dataclasses.replace(SMALL, images=5, line_images=5, free_images=5)
    told = uv.passes(SMALL, classes=10, test_images=5)
    assert told == uv.passes(few, classes=10, test_images=5)


@pytest.mark.parametrize("profile", profiles.NAMES)
@pytest.mark.parametrize("data", ["digits", "cifar10", "folder"])
def test_sizes(profile, data):
    size = uv.sizes(profile, data)
    stored = json.loads(json.dumps(dataclasses.asdict(size)))
    assert uv.Sizes(**(stored | {"eps": tuple(stored["eps"])})) == size
    assert size.main in size.eps[-2:]
    assert all(low < high for low, high in pairwise(size.eps))
    if data != "digits":
        assert size.main == 8 / 255


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eps": (0.3,)}, "two or more rising radii"),
        ({"eps": (0.3, 0.1)}, "two or more rising radii"),
        ({"eps": (0.0, 0.3)}, "eps must be positive"),
        ({"main": 0.2}, r"main must be one of 0.1, 0.3, got 0.2"),
        ({"images": 0}, "images must be an integer of at least 1, got 0"),
        ({"line_steps": 1.5}, "line_steps must be an integer"),
    ],
)
def test_bad_sizes(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **changes)


def test_bad_arguments(networks, digits):
    with pytest.raises(ValueError, match="profile must be one of cpu, t4, fast, full"):
        uv.sizes("gpu", "digits")
    with pytest.raises(ValueError, match=r'"standard" among them, got \[\'Brier\'\]'):
        uv.run({"Brier": networks["Brier"]}, digits, SMALL)
    with pytest.raises(ValueError, match="expected a dictionary .* got Model"):
        uv.run(networks["standard"], digits, SMALL)
    odd = {"standard": networks["standard"], "hinge": networks["Brier"]}
    with pytest.raises(ValueError, match=r"variants must be of .*got \['hinge'\]"):
        uv.run(odd, digits, SMALL)


def test_variants_are_recipes():
    assert uv.VARIANTS["standard"] == {}
    for changes in uv.VARIANTS.values():
        recipe = dataclasses.replace(Recipe(2), **changes)
        assert recipe.loss in LOSSES
    assert uv.variants("cpu", "digits") == uv.variants("t4", "cifar10") == uv.VARIANTS
    assert list(uv.variants("cpu", "folder")) == ["standard"]
    x = torch.linspace(0.1, 8, 7, dtype=torch.float64)
    z = torch.stack([0 * x, torch.expm1(x).log()], 1)
    y = torch.zeros(7, dtype=torch.int64)
    torch.testing.assert_close(softmax.cross_entropy(z, y), x)
    torch.testing.assert_close(uv._focal(x), losses.focal(z, y, gamma=2.0))


def test_nothing_is_left_behind_in_the_network(networks, digits):
    """Weights, gradients and mode are as before."""
    model = networks["standard"].train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x, y = digits.x_test[:4], digits.y_test[:4]
    uv.look(model, uv.climb(model, x, y, step_size=0.1, steps=2))
    assert model.training
    model.eval()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
