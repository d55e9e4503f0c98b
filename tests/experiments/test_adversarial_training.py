"""Distances and factors known by hand, small networks, and what a card keeps."""

import dataclasses
import json
import math
from itertools import pairwise

import pytest
import torch

from flatbook import attacks, curvature, models, profiles, softmax, training
from flatbook.experiments import adversarial_training as at
from flatbook.experiments import summarise
from flatbook.experiments.uncanny_valley import VARIANTS
from flatbook.training import Recipe
from tests import flops
from tests.panels import LIMIT, check_alike, few_images, size_of

SMALL = at.Sizes(
    eps=(0.1, 0.2),
    main=0.2,
    steps=3,
    step_size=0.1,
    walk_steps=12,
    tolerances=(0.01, 0.1, 1.0),
    images=40,
    batch=17,
)


@pytest.fixture(scope="module")
def networks(digits):
    """Two networks of one seed, trained for a moment."""
    nets = {}
    for name in ("standard", "adversarial"):
        net = models.build("mlp", 10, in_channels=1, image_size=8)
        net = models.reinitialise(net, 0)
        recipe = Recipe(3, lr=0.05, **at.variants("cpu", "digits")[name])
        training.train(net, digits, recipe, progress=False)
        nets[name] = net.eval()
    return nets


@pytest.fixture(scope="module")
def result(networks, digits):
    return at.run(networks, digits, SMALL)


def seen(logits, flip, *, size=1.0, reach=0.0, right=True):
    """A network of which only this matters."""
    z = torch.as_tensor(logits, dtype=torch.float64)
    count, some = len(z), torch.ones(1, len(z))
    fill = torch.full((count,), 0.0, dtype=torch.float64)
    return at.Seen(
        logits=z,
        size=fill + torch.as_tensor(size),
        features=fill + 1,
        right=(fill == 0) & torch.as_tensor(right),
        flip=fill + torch.as_tensor(flip),
        reach=fill + torch.as_tensor(reach),
        path=some,
        robust=some > 0,
        stuck=some < 0,
        margin=some[0] > 0,
        margin_stuck=some[0] < 0,
    )


def test_first_reach_by_hand():
    """Between two points, on a point, at once, never, and on the way up again."""
    rise = torch.tensor(
        [
            [0.0, 0.0, 5.0, 0.0, 0.0],
            [1.0, 2.0, 0.0, 1.0, 4.0],
            [3.0, 0.0, 0.0, 0.0, 8.0],
        ]
    )
    away = torch.tensor([[0.0], [1.0], [3.0]]).expand(3, 5)
    found = at.first_reach(rise, away, torch.tensor(2.0))
    assert found.tolist() == [2.0, 1.0, 0.0, math.inf, 0.5]


def test_first_reach_of_a_step_upwards_ends_at_its_foot_or_top():
    rise, away = torch.tensor([[-1.0], [1.0]]), torch.tensor([[2.0], [4.0]])
    assert at.first_reach(rise, away, torch.tensor(1.0)).item() == 4
    assert at.first_reach(rise, away, torch.tensor(-1.0)).item() == 2
    assert at.first_reach(rise, away, torch.tensor(0.5)).item() == 3.5


def line(weight, bias):
    """A linear classifier of two classes that are told apart by two features."""
    model = torch.nn.Module()
    model.features = lambda x: x.flatten(1)
    model.head = torch.nn.Linear(2, 2)
    model.head.weight.data = torch.tensor([weight, [0.0, 0.0]])
    model.head.bias.data = torch.tensor([bias, 0.0])
    model.forward = lambda x: model.head(model.features(x))
    return model


@pytest.fixture
def corner():
    """Thirty images of two pixels, all (3/4, 3/4), all of class 0."""
    from flatbook.data import Dataset

    x, y = torch.full((30, 2, 1, 1), 0.75), torch.zeros(30, dtype=torch.int64)
    return Dataset("corner", x, y, x, y, ("first", "second"))


def test_a_linear_network_by_hand(corner):
    """The gap falls by |w| per unit of length, straight to the boundary."""
    one = at.measure(line([8.0, 0.0], -3.0), corner, SMALL)  # a gap of 3
    torch.testing.assert_close(one.flip, torch.full((30,), 3 / 8).double())
    p = 1 / (1 + math.exp(-3))
    for tolerance, found in zip(SMALL.tolerances, one.reach[:, 0], strict=True):
        q = p * math.exp(-tolerance)
        exact = (3 - math.log(q / (1 - q))) / 8
        assert found.item() == pytest.approx(exact, rel=1e-4)
    assert one.trace[0].item() == pytest.approx(2 * p * (1 - p))
    assert one.size[0].item() == pytest.approx(64 * 9 / 8)
    assert one.kappa[0].item() == pytest.approx(72 * 2 * p * (1 - p))
    assert one.confidence[0].item() == pytest.approx(p)
    assert one.robust.tolist() == [[True] * 30] * 2  # 0.2 < 3/8
    assert not one.stuck.any()
    assert one.margin.all()


def test_what_was_measured_against_slow_ways(networks, digits, result):
    net, x, y = networks["standard"], digits.x_test[:40], digits.y_test[:40]
    one = result.networks["standard"]
    with torch.no_grad():
        phi = net.features(x).double()
        z = net.head(phi.float()).double()
    weight = net.head.weight.detach().double()
    torch.testing.assert_close(
        one.kappa, curvature.relative_sharpness(weight, phi, z), rtol=1e-3, atol=1e-9
    )
    assert one.right.tolist() == (z.argmax(1) == y).tolist()
    path = attacks.pgd(
        net, x, y, norm="l2", eps=100.0, step_size=SMALL.step_size, steps=12
    )
    away = (path.points - x).flatten(2).norm(dim=2)
    for i in range(40):
        wrong = (path.logits[:, i].argmax(1) != y[i]).nonzero()[:, 0].tolist()
        if not wrong:
            assert one.flip[i] == math.inf
        elif wrong[0] == 0:
            assert one.flip[i] == 0
        else:
            low, high = away[wrong[0] - 1, i], away[wrong[0], i]
            assert min(low, high) - 1e-5 <= one.flip[i] <= max(low, high) + 1e-5
        risen = (path.losses[:, i] - path.losses[0, i] >= 0.1).nonzero()[0, 0]
        low, high = sorted((away[risen - 1, i].item(), away[risen, i].item()))
        assert low - 1e-5 <= one.reach[1, i] <= high + 1e-5


def test_larger_tolerances_are_reached_later(result):
    for one in result.networks.values():
        assert one.reach.shape == (3, 40)
        assert (one.reach.diff(dim=0) >= 0).all()


def test_a_wrong_image_is_no_robust_image(networks, digits):
    shuffled = dataclasses.replace(digits, y_test=(digits.y_test + 1) % 10)
    one = at.measure(networks["standard"], shuffled, SMALL)
    wrong = ~one.right
    assert wrong.sum() > 30
    assert not one.robust[:, wrong].any()
    assert not one.margin[wrong].any()
    assert (one.flip[wrong] == 0).all()


def test_batches_make_no_difference(networks, digits, result):
    whole = dataclasses.replace(SMALL, batch=100)
    one = at.measure(networks["adversarial"], digits, whole)
    other = result.networks["adversarial"]
    for name in ("logits", "size", "flip", "path"):
        first, second = getattr(one, name), getattr(other, name)
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-4)


def test_the_cooled_network_is_the_standard_one_with_another_head(result):
    """Same decisions, the confidence of the other network."""
    standard, adversarial, cooled = (
        result.networks[name] for name in ("standard", "adversarial", at.COOLED)
    )
    assert cooled.right.tolist() == standard.right.tolist()
    torch.testing.assert_close(
        cooled.confidence.mean(), adversarial.confidence.mean(), rtol=1e-5, atol=0
    )
    assert result.scale < 1
    torch.testing.assert_close(
        cooled.size, result.scale**2 * standard.size, rtol=1e-4, atol=0
    )
    assert result.accuracy[at.COOLED] == result.accuracy["standard"]


def test_matching_scale():
    z = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.0, 0.0]])
    for scale in (0.05, 1.0, 7.0):
        goal = (scale * z).double().softmax(1).amax(1).mean().item()
        assert at.matching_scale(z, goal) == pytest.approx(scale, rel=1e-6)
    for goal in (0.3, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"must lie in \[0.333\d, 1\]"):
            at.matching_scale(z, goal)


def test_cooling_by_hand():
    """Confident: sharpness ranks like doubt. Unsure: like the norms."""
    logits = [[gap, 0.0] for gap in (4.0, 5.0, 6.0, 7.0, 8.0)]
    one = seen(logits, flip=[0.1, 0.2, 0.3, 0.4, 0.5], size=[1.0, 1.2, 1.4, 1.6, 1.8])
    (sure, down), (unsure, up) = at.cooling(one, (1.0, 0.01))
    assert sure > 0.98
    assert unsure < 0.52
    assert (down, up) == (-1, 1)
    assert one.within().value == -1


def test_wrong_images_have_no_say_within():
    logits = [[gap, 0.0] for gap in (4.0, 5.0, 6.0, 7.0, -1.0)]
    flip = [0.1, 0.2, 0.3, 0.4, 0.0]
    one = seen(logits, flip, right=[True, True, True, True, False])
    assert one.within().count == 4
    assert one.within().value == -1


def test_across_by_hand():
    nets = [
        seen([[gap, 0.0]] * 3, flip)
        for gap, flip in zip((1, 2, 3, 4), (2, 3, 1, 4), strict=True)
    ]
    found = at.across(nets)
    assert found.count == 4
    assert found.value == pytest.approx(-0.4)  # sharpness falls with the gap
    assert found.low < -0.4 < found.high


def test_crossings_by_hand():
    def of(reach, flip=1.0):
        return seen([[1.0, 0.0]] * 3, flip, reach=torch.tensor(reach)[:, None].double())

    nets = {"standard": of([0.3, 0.4, 0.5]), "adversarial": of([0.1, 0.3, 0.8])}
    made = at.Result(SMALL, {}, nets, 1.0)
    assert made.crossing() == 0.1
    assert made.width("adversarial") == pytest.approx(0.3)
    turned = at.Result(
        SMALL, {}, dict(zip(nets, reversed(nets.values()), strict=True)), 1.0
    )
    assert turned.crossing() == 1.0
    same = at.Result(SMALL, {}, nets | {"adversarial": nets["standard"]}, 1.0)
    assert same.crossing() == 0
    far = at.Result(
        SMALL, {}, {"standard": of([1.0, math.inf, math.inf], math.inf)}, 1.0
    )
    assert far.flip("standard") == far.width("standard") == SMALL.longest


def test_shapes(result):
    assert list(result.networks) == ["standard", "adversarial", at.COOLED]
    for one in result.networks.values():
        assert one.logits.shape == (40, 10)
        assert one.path.shape == (4, 40)
        assert one.robust.shape == one.stuck.shape == (2, 40)
        assert one.margin.shape == one.margin_stuck.shape == (40,)
        for field in dataclasses.fields(one):
            assert getattr(one, field.name).device.type == "cpu"


def test_a_card_keeps_finite_numbers(result, networks, digits):
    values = at.numbers(result)
    assert all(math.isfinite(value) for value in values.values())
    for name in values:
        if "robust accuracy" in name:
            assert name.replace("robust accuracy", "zero gradients") in values
    again = at.numbers(at.run(networks, digits, SMALL))
    assert set(summarise([values, again])) == set(values)
    assert "rank correlation across" not in values
    more = networks | {"Brier": networks["standard"], "focal": networks["adversarial"]}
    assert "rank correlation across" in at.numbers(at.run(more, digits, SMALL))


def test_numbers_of_networks_that_learned_nothing(digits):
    """No image right, or no flip found: numbers all the same."""
    nets = {}
    for name in ("standard", "adversarial"):
        net = models.build("mlp", 10, in_channels=1, image_size=8)
        net.head.bias.data[3] = 100.0
        nets[name] = net.eval()
    values = at.numbers(at.run(nets, digits, SMALL))
    assert all(math.isfinite(value) for value in values.values())
    assert values["standard: accuracy"] < 0.2


def test_panels_are_small_and_of_one_shape(networks, digits, result):
    """Forty images or nine, the same shapes."""
    shown = at.panels(result)
    few = few_images(digits, 9)
    other = at.panels(at.run(networks, few, SMALL))
    check_alike(shown, other)
    assert set(shown) >= {"standard: flip", f"{at.COOLED}: flip"}
    assert shown["adversarial: points"].shape == (2, 100)
    axes = size_of({name: a for name, a in shown.items() if ": " not in name})
    assert axes + 8 * (size_of(shown) - axes) / 3 < LIMIT
    nan = {name for name, array in shown.items() if array.isnan().any()}
    assert nan == {f"{name}: points" for name in result.networks}
    assert not any(array.isinf().any() for array in shown.values())


def test_panels_by_hand(networks, digits, result):
    shown = at.panels(result)
    assert shown["eps"].tolist() == [0, 0.1, 0.2]
    assert shown["tolerance"].tolist() == [0.01, 0.1, 1.0]
    assert shown["main"] == 0.2
    assert shown["share"].tolist() == pytest.approx([i / 40 for i in range(41)])
    for name, seen in result.networks.items():
        one = {what: shown[f"{name}: {what}"] for what in ("flip", "width")}
        flip = sorted(min(d, SMALL.longest) for d in seen.flip.tolist())
        assert one["flip"][0] == flip[0]
        assert one["flip"][20].item() == pytest.approx((flip[19] + flip[20]) / 2)
        assert one["flip"][40] == flip[39]
        assert shown[f"{name}: mean flip"].item() == pytest.approx(sum(flip) / 40)
        assert torch.equal(one["width"], result.widths(name))
        robust = shown[f"{name}: robust accuracy"].tolist()
        assert robust[0] == seen.right.sum().item() / 40
        assert robust[1:] == [row.sum().item() / 40 for row in seen.robust]
        margin = shown[f"{name}: robust accuracy, margin"]
        assert margin == seen.margin.sum().item() / 40
        points = shown[f"{name}: points"]
        assert torch.equal(points[0, :40].isnan(), ~seen.right)
        assert points[:, 40:].isnan().all()
        assert torch.equal(points[0, :40][seen.right], seen.kappa[seen.right])
        confidence = seen.logits.softmax(1).amax(1)
        middle = shown[f"{name}: confidence"][20].item()
        assert middle == pytest.approx(confidence.quantile(0.5).item())


def test_the_hessian_is_that_of_the_last_layer(networks, digits, result):
    """Its trace, and kappa is the squared norm of the weight times it."""
    net, seen = networks["adversarial"], result.networks["adversarial"]
    phi = net.features(digits.x_test[:40]).detach().double()
    exact = curvature.hessian_trace(phi, seen.logits)
    torch.testing.assert_close(seen.hessian, exact)
    kappa = net.head.weight.detach().double().square().sum() * exact
    torch.testing.assert_close(seen.kappa, kappa)
    shown = at.panels(result)
    assert shown["adversarial: trace H"][40] == seen.hessian.max()
    assert shown["adversarial: sharpness"][40] == seen.kappa.max()


@pytest.mark.parametrize(("images", "taken"), [(6, 6), (99, 9)])
def test_passes_are_those_that_are_made(networks, digits, images, taken):
    few = few_images(digits, 9)
    size = dataclasses.replace(SMALL, images=images, batch=4)
    work = flops.passes(
        lambda: at.run(networks, few, size), networks["standard"], few.x_test[:1]
    )
    told = at.passes(size, classes=10, test_images=9, networks=2)
    assert told == pytest.approx(work, rel=0.01)
    each = 1 + 3 * 7 + 25
    assert at.passes(size, classes=10, test_images=9) == 9 + 2 * taken * each


@pytest.mark.parametrize("profile", profiles.NAMES)
@pytest.mark.parametrize("data", ["digits", "cifar10", "folder"])
def test_sizes_and_variants(profile, data):
    size = at.sizes(profile, data)
    stored = json.loads(json.dumps(dataclasses.asdict(size)))
    for name in ("eps", "tolerances"):
        stored[name] = tuple(stored[name])
    assert at.Sizes(**stored) == size
    assert all(low < high for low, high in pairwise(size.tolerances))
    chosen = at.variants(profile, data)
    assert chosen["adversarial"]["adversary"].eps == size.main
    assert chosen["half radius"]["adversary"].eps == size.main / 2
    for changes in chosen.values():
        json.dumps(dataclasses.asdict(dataclasses.replace(Recipe(2), **changes)))


def test_the_adversary_of_the_paper():
    found = at.variants("full", "cifar10")["adversarial"]["adversary"]
    assert (found.eps, found.steps, found.norm) == (8 / 255, 10, "linf")
    assert found.step_size == pytest.approx(2 / 255)


def test_networks_without_an_adversary_are_those_of_the_valley():
    """Recipes that are equal have checkpoints that are shared."""
    chosen = at.variants("full", "cifar10").values()
    assert [changes for changes in VARIANTS.values() if changes not in chosen] == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eps": (0.2, 0.1)}, "eps must be rising"),
        ({"eps": (0.0, 0.2)}, "eps must be positive"),
        ({"tolerances": (0.1, 0.1)}, "tolerances must be rising"),
        ({"tolerances": (0.2, 0.3)}, "one tolerance must be 0.1"),
        ({"main": 0.3}, "main must be one of 0.1, 0.2, got 0.3"),
        ({"step_size": 0.0}, "step_size must be positive"),
        ({"walk_steps": 1.5}, "walk_steps must be an integer"),
    ],
)
def test_bad_sizes(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **changes)


def test_bad_arguments(networks, digits):
    for call in (at.sizes, at.variants):
        with pytest.raises(ValueError, match="one of cpu, t4, fast, full"):
            call("gpu", "digits")
    with pytest.raises(ValueError, match=r"got \['standard'\]"):
        at.run({"standard": networks["standard"]}, digits, SMALL)
    with pytest.raises(ValueError, match="expected a dictionary .* got Model"):
        at.run(networks["standard"], digits, SMALL)


def test_softmax_agrees_on_confidence(result):
    one = result.networks["standard"]
    torch.testing.assert_close(one.confidence, one.logits.softmax(1).amax(1))
    torch.testing.assert_close(one.trace, softmax.trace_p(one.logits))
