import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from flatbook import attacks, curvature, data, models, profiles
from flatbook.experiments import detection, subject
from flatbook.experiments.detection import FEATURES, Sizes, Stump
from tests.flops import passes
from tests.panels import LIMIT, check_small_and_alike, few_images

SMALL = Sizes((0.1, 0.5), (0.5,), steps=8, images=60, pieces=10, halvings=6, batch=25)
CLEAN = torch.tensor([2.0, 5.0, 8.0])


@pytest.fixture(scope="module")
def network(digits):
    return subject("mlp").train(digits, 0)


@pytest.fixture(scope="module")
def result(network, digits):
    return detection.run(network, digits, SMALL)


class Plane(nn.Module):
    """Two classes, one feature more than it needs: the gap is 40 (x - 1/2)."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(2, 2, bias=False)
        self.head.weight.data = torch.tensor([[20.0, 0.0], [-20.0, 0.0]])

    def features(self, x):
        return torch.stack([x.flatten(1)[:, 0] - 0.5, torch.ones(len(x))], 1)

    def forward(self, x):
        return self.head(self.features(x))


# --- stumps -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attacked", "expected"),
    [
        ([2.0, 1.0, 4.0], Stump(4.5, False, 5 / 6)),
        ([8.0, 5.0, 2.0], Stump(3.5, False, 1 / 2)),
        ([15.0, 12.0, 9.0], Stump(8.5, True, 1.0)),
    ],
)
def test_the_example_of_the_page(attacked, expected):
    found = detection.best_stump(CLEAN, torch.tensor(attacked))
    assert dataclasses.astuple(found) == pytest.approx(dataclasses.astuple(expected))
    assert found.score(CLEAN, torch.tensor(attacked)) == pytest.approx(found.accuracy)


def test_a_stump_of_a_weak_attack_is_below_chance_on_a_strong_one():
    stump = detection.best_stump(CLEAN, torch.tensor([2.0, 1.0, 4.0]))
    assert stump.score(CLEAN, torch.tensor([15.0, 12.0, 9.0])) == pytest.approx(1 / 3)


def test_populations_of_one_value():
    stump = detection.best_stump(torch.ones(3), torch.ones(2))
    assert stump.accuracy == 0.5
    assert stump.score(torch.ones(3), torch.ones(2)) == 0.5


@pytest.mark.parametrize("seed", range(5))
def test_no_other_stump_is_better(seed):
    source = torch.Generator().manual_seed(seed)
    clean = torch.randint(0, 20, (13,), generator=source).double()
    attacked = torch.randint(5, 25, (8,), generator=source).double()
    best = detection.best_stump(clean, attacked)
    every = [
        Stump(t, side, 0.0).score(clean, attacked)
        for t in torch.arange(-0.5, 26).tolist()
        for side in (True, False)
    ]
    assert best.accuracy == pytest.approx(max(every))
    assert best.score(clean, attacked) == pytest.approx(best.accuracy)
    assert 1 - best.accuracy == pytest.approx(min(every))


@pytest.mark.parametrize("seed", range(3))
def test_auc_counts_pairs(seed):
    source = torch.Generator().manual_seed(seed)
    clean = torch.randint(0, 9, (11,), generator=source).double()
    attacked = torch.randint(0, 9, (7,), generator=source).double()
    pairs = clean[:, None] - attacked
    expected = ((pairs > 0).double() + 0.5 * (pairs == 0).double()).mean()
    assert detection.auc(clean, attacked) == pytest.approx(expected.item())
    assert detection.auc(attacked, clean) == pytest.approx(1 - expected.item())


@pytest.mark.parametrize("values", [torch.ones(0), torch.ones(2, 2), torch.tensor(1.0)])
def test_no_population(values):
    with pytest.raises(ValueError, match="attacked must be a vector of numbers"):
        detection.best_stump(CLEAN, values)
    with pytest.raises(ValueError, match="clean must be a vector of numbers"):
        detection.auc(values, CLEAN)
    with pytest.raises(ValueError, match="vector of numbers"):
        detection.auc(CLEAN, torch.tensor([1.0, math.nan]))


# --- cross-validation ---------------------------------------------------------


def test_what_is_separated_is_found():
    clean, attacked = torch.arange(20.0), torch.arange(100.0, 120.0)
    assert detection.cross_validate(clean, attacked).tolist() == [[1.0] * 5]
    used_on = [attacked, -attacked]
    scores = detection.cross_validate(clean, attacked, used_on=used_on, folds=4)
    assert scores.tolist() == [[1.0] * 4, [0.5] * 4]


def test_used_where_the_sign_is_wrong():
    clean = torch.arange(20.0)
    used_on = [-1 - clean]
    scores = detection.cross_validate(clean, clean + 10, used_on=used_on)
    assert (scores < 0.5).all()


def test_versions_of_an_image_stay_together():
    """A deep tree that met the other version of an image answers with its label."""
    source = torch.Generator().manual_seed(0)
    clean = torch.rand(200, generator=source).double()
    twin = clean + 1e-5
    split = {"depth": 60, "folds": 5}
    together = detection.cross_validate(clean, twin, **split).mean()
    apart = detection.cross_validate(clean, twin, grouped=False, **split).mean()
    assert abs(together - 0.5) < 0.15
    assert apart < together - 0.15


def test_a_deeper_tree_finds_an_interval():
    clean = torch.linspace(-1, 1, 50).double()
    attacked = 2 * torch.sign(clean) + clean
    stump, tree = (
        detection.cross_validate(clean, attacked, depth=depth).mean()
        for depth in (1, 2)
    )
    assert stump < 0.8
    assert tree > 0.95


def test_the_best_of_several_features():
    source = torch.Generator().manual_seed(0)
    noise, clean = torch.randn(2, 100, generator=source)
    table = torch.stack([noise, clean], 1)
    other = torch.stack([noise, clean + 20], 1)
    assert detection.cross_validate(table, other).tolist() == [[1.0] * 5]


def test_shapes_differ():
    with pytest.raises(ValueError, match=r"one shape, got \[\(3,\), \(4,\), \(4,\)\]"):
        detection.cross_validate(torch.ones(3), torch.ones(4))


# --- features and the adaptive attack -----------------------------------------


def test_features_by_hand():
    phi = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    z = torch.tensor([[800.0, 0.0], [0.0, 0.0]])
    net = Plane()
    sharp, unsure, margin, size = detection.observe(net, phi, z)
    weight = 2 * net.head.weight.detach().norm().log().item()
    assert sharp[0].item() == pytest.approx(weight + math.log(25 * 2) - 800)
    assert unsure.tolist() == pytest.approx([-800, -math.log(2)])
    assert margin.tolist() == [800, 0]
    assert size.tolist() == pytest.approx([math.log(25), -1e6])
    assert sharp[1].item() == -1e6


def test_sharpness_is_that_of_the_book(network, digits):
    x = digits.x_test[:20]
    with torch.no_grad():
        phi, z = network.features(x), network(x)
    expected = curvature.relative_sharpness(
        network.head.weight.detach().double(), phi.double(), z.double()
    )
    torch.testing.assert_close(detection.observe(network, phi, z)[0].exp(), expected)


def test_targets_pair_the_ranks():
    source = torch.Generator().manual_seed(0)
    clean, ends = torch.rand(2, 50, generator=source)
    goal = detection.targets(clean, ends)
    assert torch.equal(goal.sort().values, clean.sort().values)
    assert torch.equal(goal.argsort(), ends.argsort())


@pytest.mark.parametrize(
    ("excess", "wrong", "place"),
    [
        ([-1, 2, 1, -1, -2], [0, 0, 1, 1, 1], (2, 3)),
        ([-1, 2, -1, 1, -2], [0, 1, 1, 1, 1], (3, 4)),  # the last crossing
        ([-1, 2, -1, 3, 2], [0, 0, 1, 1, 1], (2, 2)),  # too sharp at the end
        ([-9, -5, -3, -4, -6], [0, 0, 1, 1, 1], (2, 2)),  # never sharp enough
        ([-1, 2, 1, -1, -2], [0, 0, 0, 0, 0], (4, 4)),  # never wrong
        ([3, 1, -1, -2, -3], [1, 0, 0, 1, 1], (3, 3)),  # crossed while right
    ],
)
def test_where_to_look(excess, wrong, place):
    found = detection.bracket(
        torch.tensor(excess)[:, None].double(), torch.tensor(wrong)[:, None].bool()
    )
    assert tuple(t.item() for t in found) == place


def test_the_adaptive_attack_on_a_plane():
    """Behind the flip sharpness is that of the mirror image."""
    net, x = Plane(), torch.tensor([[0.7], [0.9]])
    end, y = torch.tensor([[0.0], [0.0]]), torch.tensor([0, 0])
    with torch.no_grad():
        goal = detection.observe(net, net.features(x), net(x))[0]
    found = detection.match(
        net, (x, end), y, goal, sizes=dataclasses.replace(SMALL, halvings=20)
    )
    torch.testing.assert_close(found, torch.tensor([[0.3], [0.1]]), rtol=0, atol=1e-4)


def test_the_adaptive_attack_is_wrong_and_near_its_goal(result):
    found = result.matched[0.5]
    plain = result.wrong[2]
    assert (found.wrong[plain]).all()
    assert (found.size <= 0.5 + 1e-6).all()
    assert found.gap.abs().median() < 0.05
    assert found.retrained.shape == (5, 5)
    assert found.same.shape == (5,)


# --- the whole ----------------------------------------------------------------


def test_shapes(result):
    assert result.features.shape == (4, 3, 60)
    assert result.wrong.shape == (3, 60)
    assert result.stuck.shape == (2, 60)
    assert result.accuracy.shape == (4, 2, 5)
    assert result.leaky.shape == (2, 5)
    assert result.across.shape == (2, 2)
    assert list(result.matched) == [0.5]
    own = result.accuracy[0].mean(1)
    torch.testing.assert_close(result.across.diagonal(), own)


def test_batches_make_no_difference(result, network, digits):
    whole = detection.run(network, digits, dataclasses.replace(SMALL, batch=60))
    torch.testing.assert_close(result.features, whole.features, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(result.accuracy, whole.accuracy, rtol=0, atol=0.1)


def test_attacked_images_are_those_of_pgd(result, network, digits):
    x, y = digits.x_test[:60], digits.y_test[:60]
    path = attacks.pgd(network, x, y, norm="linf", eps=0.1, step_size=0.025, steps=8)
    expected = detection.observe(network, path.features[-1], path.logits[-1])
    torch.testing.assert_close(result.features[:, 1], expected, rtol=1e-4, atol=1e-4)
    assert result.robust[0] == path.robust.double().mean()


def test_nobody_watches_gradients(network, digits):
    before = [p.grad for p in network.parameters()]
    detection.run(network, digits, dataclasses.replace(SMALL, images=10))
    assert before == [p.grad for p in network.parameters()]
    assert not network.training


def test_likeness(result):
    assert (result.likeness("confidence") > 0.9).all()
    assert (result.likeness("sharpness") == 1).all()
    with pytest.raises(ValueError, match="feature must be one of"):
        result.likeness("size")


def test_numbers_are_finite_and_named_alike(result, digits):
    first = detection.numbers(result)
    net = models.build("mlp", 10, in_channels=1, image_size=8).eval()
    other = detection.numbers(detection.run(net, digits, SMALL))
    assert list(first) == list(other)
    assert all(math.isfinite(value) for value in (*first.values(), *other.values()))
    assert {f"accuracy of {name}[1]" for name in FEATURES} <= set(first)
    assert {"robust accuracy[0]", "zero gradients[0]", "clean is sharper[1]"} <= set(
        first
    )
    assert {"adaptive: misclassified[0]", "adaptive: accuracy of all features[0]"} <= (
        set(first)
    )
    assert "robust accuracy[2]" not in first
    last = first["accuracy of sharpness at the largest radius"]
    assert last == first["accuracy of sharpness[1]"]
    assert first["lowest accuracy"] <= last <= first["best accuracy"]


def test_panels_are_small_and_of_one_shape(result, digits):
    first = detection.panels(result)
    net = models.build("mlp", 10, in_channels=1, image_size=8).eval()
    few = few_images(digits, 9)
    other = detection.panels(detection.run(net, few, SMALL))
    check_small_and_alike(first, other)
    assert first["log10_sharpness"].shape == (3, len(first["levels"]))
    assert first["adaptive_log10_sharpness"].shape == (1, len(first["levels"]))
    assert first["retrained"].shape == (1, 5, 5)


@pytest.mark.parametrize("data", ["digits", "cifar10"])
def test_panels_stay_small(result, data):
    """All sizes that there are, with as many radii and adaptive attacks."""
    size = detection.sizes("full", data)
    radii, adaptive, seen = len(size.eps), len(size.adaptive), detection.panels(result)
    levels = len(seen["levels"])
    entries = levels * (1 + radii + adaptive) + radii * (25 + 6 + radii)
    assert 4 * (entries + adaptive * 33 + levels) < LIMIT


def test_panels_of_distributions(result):
    seen = detection.panels(result)
    levels = seen["levels"].numpy()
    for place in range(3):
        logs = result.features[0, place].numpy() / math.log(10)
        expected = np.quantile(logs, levels)
        np.testing.assert_allclose(seen["log10_sharpness"][place], expected)
        assert seen["log10_sharpness"][place].mean() == pytest.approx(
            logs.mean(), abs=0.1
        )
    logs = result.matched[0.5].features[0].numpy() / math.log(10)
    expected = np.quantile(logs, levels)
    np.testing.assert_allclose(seen["adaptive_log10_sharpness"][0], expected)


def test_panels_of_detectors(result):
    seen, values = detection.panels(result), detection.numbers(result)
    for i in range(2):
        stump = Stump(seen["threshold"][i].item(), bool(seen["attacked_above"][i]), 0.0)
        clean, attacked = (result.features[0, j] / math.log(10) for j in (0, i + 1))
        best = detection.best_stump(clean, attacked).accuracy
        assert stump.score(clean, attacked) == pytest.approx(best)
        for f, name in enumerate(FEATURES):
            mean = seen["accuracy"][f, i].mean()
            assert mean == pytest.approx(values[f"accuracy of {name}[{i}]"])
        assert seen["clean_sharper"][i].item() == values[f"clean is sharper[{i}]"]
        assert seen["robust"][i] == values[f"robust accuracy[{i}]"]
        assert seen["never_moved"][i] == values[f"zero gradients[{i}]"]
    assert seen["adaptive_wrong"][0] == values["adaptive: misclassified[0]"]
    size = values["adaptive: median size over radius[0]"]
    assert seen["adaptive_size"][0] == pytest.approx(size)
    assert torch.equal(seen["same_stump"][0], result.matched[0.5].same)
    assert torch.equal(seen["retrained"][0], result.matched[0.5].retrained)


@pytest.mark.parametrize("radii", [(0.5,), (0.1, 0.3, 0.5)])
@pytest.mark.parametrize("name", ["mlp", "resnet18"])
def test_passes_are_those_that_are_made(digits, name, radii):
    size = dataclasses.replace(SMALL, eps=radii, images=6, batch=4, folds=2)
    net = models.build(name, 10, width=0.125, in_channels=1, image_size=8).eval()
    made = passes(lambda: detection.run(net, digits, size), net, digits.x_test[:1])
    told = detection.passes(size, classes=10, test_images=360)
    assert told == pytest.approx(made, rel=0.05)
    assert detection.passes(size, classes=10, test_images=3, networks=4) == 2 * told


@pytest.mark.parametrize("wrong", [True, False])
def test_mistakes_that_are_all_or_none(result, wrong):
    same = dataclasses.replace(result, wrong=torch.full_like(result.wrong, wrong))
    assert detection.numbers(same)["mistakes are sharper"] == 0.5


def test_the_sharpest_are_wrong(result):
    kappa = result.features[0, 0]
    wrong = result.wrong.clone()
    wrong[0] = kappa > kappa.median()
    same = dataclasses.replace(result, wrong=wrong)
    assert detection.numbers(same)["mistakes are sharper"] == 1


@pytest.mark.parametrize("profile", profiles.NAMES)
@pytest.mark.parametrize("data", ["digits", "cifar10", "cifar100", "folder"])
def test_sizes_are_json(profile, data):
    found = detection.sizes(profile, data)
    assert json.loads(json.dumps(dataclasses.asdict(found)))
    assert set(found.adaptive) <= set(found.eps)
    assert (max(found.eps) < 0.1) == (data != "digits")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eps": ()}, "eps must be rising"),
        ({"eps": (0.3, 0.1)}, "eps must be rising"),
        ({"eps": (0.0, 0.3)}, "eps must be positive"),
        ({"adaptive": (0.2,)}, "adaptive must be some of"),
        ({"adaptive": ()}, "adaptive must be some of"),
        ({"folds": 1}, "folds must be an integer of at least 2"),
        ({"images": 4}, "images must be an integer of at least 5"),
        ({"pieces": 0}, "pieces must be an integer of at least 1"),
    ],
)
def test_bad_sizes(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **change)


def test_no_such_profile():
    with pytest.raises(ValueError, match="profile must be one of"):
        detection.sizes("gpu", "digits")


def test_too_few_images(network, digits):
    few = few_images(digits, 3)
    with pytest.raises(ValueError, match="3 test images for 5 folds"):
        detection.run(network, few, SMALL)


def test_colour_images():
    source = torch.Generator().manual_seed(0)
    x = torch.rand(12, 3, 32, 32, generator=source)
    y = torch.randint(0, 4, (12,), generator=source)
    photos = data.Dataset("photos", x, y, x, y, tuple("abcd"))
    net = models.build("vgg11_bn", 4, width=0.125).eval()
    size = detection.sizes("cpu", "folder")
    size = dataclasses.replace(size, steps=2, folds=3, batch=5, pieces=4, halvings=2)
    found = detection.numbers(detection.run(net, photos, size))
    assert all(math.isfinite(value) for value in found.values())
