"""A network that is known by hand, a small one, and what a card keeps."""

import dataclasses
import json
import math

import pytest
import torch
from torch import nn

from flatbook import attacks, curvature, models, profiles
from flatbook.data import Dataset
from flatbook.experiments import _common, summarise
from flatbook.experiments import earlier_layers as el
from tests import flops
from tests.panels import check_small_and_alike, shapes
from tests.trained import trained

SMALL = el.Sizes(eps=0.3, steps=4, images=9, deep=2, repeats=3, chunk=4, batch=13)


@pytest.fixture(scope="module")
def network(digits):
    """A network trained for a moment."""
    return trained(digits, 4, width=0.1)


@pytest.fixture(scope="module")
def result(network, digits):
    return el.run(network, digits, SMALL)


class Two(nn.Module):
    """z = 2 relu(10 x): the network of the page, for images in [0, 1]."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(2, 2, bias=False)
        self.head = nn.Linear(2, 2, bias=False)
        self.body.weight.data = 10 * torch.eye(2)
        self.head.weight.data = 2 * torch.eye(2)
        self.double()

    def features(self, x):
        return self.body(x).relu()

    def forward(self, x):
        return self.head(self.features(x))


def made(trace):
    """A walk of which only the traces (T + 1, N, 1 + L) matter."""
    trace = torch.as_tensor(trace, dtype=torch.float64)
    steps, images, columns = trace.shape
    names = ("input", *(f"layer {i}" for i in range(1, columns)))
    wrong = torch.zeros(steps, images, dtype=torch.bool)
    square = torch.arange(1.0, columns, dtype=torch.float64) ** 2
    return el.Walk(names, trace, square, wrong, wrong[0])


def test_the_network_of_the_page_by_hand():
    """From (0.3, 0.1) over the tie at (0.2, 0.2) to (0.1, 0.3)."""
    x = torch.tensor([[0.3, 0.1]], dtype=torch.float64)
    y, model = torch.tensor([0]), Two()
    path = attacks.line(model, x, x.flip(1), y, steps=2)
    seen = el.look(model, path, SMALL)
    assert seen.names == ("input", "body.weight", "head.weight")
    assert seen.titles == ("input", "l − 1", "l")
    torch.testing.assert_close(seen.square, torch.tensor([200.0, 8.0]).double())
    for step, gap, size in ((0, 4, 0.1), (1, 0, 0.08), (2, 4, 0.1)):
        q = 1 / (1 + math.exp(-gap))
        tr_p = 2 * q * (1 - q)
        by_hand = [400 * tr_p, 4 * size * tr_p, 100 * size * tr_p]
        assert seen.trace[step, 0].tolist() == pytest.approx(by_hand)
        ratios = [seen.over_last(power)[step, 0, 0].item() for power in el.POWERS]
        assert ratios == pytest.approx([0.04, 0.2, 1.0])
    assert seen.wrong[:, 0].tolist() == [False, False, True]


def test_valley_peak_and_order_by_hand():
    """Input, a layer, the head: two images, four steps."""
    first = [[1, 2, 1], [30, 20, 9], [10, 40, 10], [2, 4, 2]]
    second = [[1, 2, 9], [3, 3, 9], [4, 5, 7], [9, 9, 8]]
    walk = made(list(zip(first, second, strict=True)))
    assert walk.fallen.tolist() == [[True, False, False], [False] * 3]
    assert walk.from_last_peak.tolist() == [[-1, 0, 0], [3, 3, 0]]
    assert walk.last_leads()[:, 0].tolist() == [False, False, False, False]
    assert walk.last_leads()[:, 1].tolist() == [True, True, True, False]
    assert walk.last_leads(2).tolist()[1:3] == [[True, True], [False, True]]
    assert walk.over_last(1)[2, 0].tolist() == [2.0, 1.0]


def test_a_tie_is_no_lead():
    walk = made([[[1, 3, 3]]])
    assert not walk.last_leads().any()
    assert walk.last_leads(1).all()


def test_agreement_is_a_rank_correlation():
    rising = torch.arange(1.0, 7.0).view(3, 2, 1)
    walk = made(torch.cat([rising**3, 1 / rising, rising], 2))
    assert walk.agreement.tolist() == pytest.approx([1, -1, 1])


def test_powers_are_0_1_2():
    with pytest.raises(ValueError, match="power must be one of 0, 1, 2, got 3"):
        made([[[1, 3, 3]]]).sharpness(3)


def test_the_last_layer_has_its_closed_form(network, digits, result):
    path = el.attack(network, digits, SMALL)
    assert path.points.shape[:2] == (5, 9)
    kappa = _common.sharpness(network, path)
    torch.testing.assert_close(
        result.walk.sharpness()[:, :, -1], kappa, rtol=1e-4, atol=0
    )
    wrong = path.logits.argmax(2) != path.labels
    assert torch.equal(result.walk.wrong, wrong)


def test_columns_are_the_exact_traces(network, digits, result):
    points = el.attack(network, digits, SMALL).points[2]
    inside = curvature.input_hessian_trace(network, points).double()
    torch.testing.assert_close(result.walk.trace[2, :, 0], inside, rtol=1e-4, atol=0)
    layers = curvature.layer_hessian_traces(
        network, points, layers=result.walk.names[1:]
    )
    for column, trace in enumerate(layers.values(), 1):
        found = result.walk.trace[2, :, column]
        torch.testing.assert_close(found, trace.double(), rtol=1e-4, atol=0)


def test_pieces_make_no_difference(network, digits, result):
    whole = el.walk(network, digits, dataclasses.replace(SMALL, batch=100, chunk=50))
    torch.testing.assert_close(whole.trace, result.walk.trace, rtol=1e-3, atol=0)


def test_a_very_confident_network_has_traces_above_zero(network, digits):
    """With logits hundreds apart tr P is below the smallest float32."""
    sure = models.scale_head(network, 40.0)
    walk = el.walk(sure, digits, dataclasses.replace(SMALL, steps=1))
    assert (walk.trace > 0).all()
    assert walk.trace.min() < 1e-46


def test_shapes(result):
    assert result.walk.trace.shape == (5, 9, 4)
    assert result.walk.square.shape == (3,)
    assert result.walk.stuck.shape == (9,)
    assert result.probes == 4
    for estimates in (result.shared, result.alone):
        assert estimates.mean.shape == estimates.error.shape == (3, 5, 2)
    assert result.input.shape == (3, 5, 9)
    assert result.truth.shape == (5, 2)


def test_estimates_agree_within_their_errors(network, digits):
    """With 10 x 4 probes, and batches of different sizes."""
    many = dataclasses.replace(SMALL, steps=1, images=6, repeats=10, batch=4)
    result = el.run(network, digits, many)
    for estimates in (result.shared, result.alone):
        error = estimates.error.square().mean(0).sqrt() / math.sqrt(10)
        off = (estimates.mean.mean(0) - result.truth).abs()
        assert (off < 5 * error).all()
        assert (error > 0).all()
    spread = result.input.std(0) / math.sqrt(10)
    off = (result.input.mean(0) - result.walk.trace[:, :, 0]).abs()
    assert (off < 6 * spread).double().mean() > 0.9


def test_a_batch_is_weighted_by_its_images():
    """Estimates 1 and 4 with errors 3 and 4, from batches of two and one."""
    x, y = torch.zeros(3, 1), torch.zeros(3)

    def estimate(images, _):
        first = len(images) == 2
        values = (1.0, 3.0) if first else (4.0, 4.0)
        return tuple(torch.tensor([[v]], dtype=torch.float64) for v in values)

    mean, error = el._of_the_mean(estimate, x, y, 2)
    assert mean.tolist() == pytest.approx([2.0])
    assert error.tolist() == pytest.approx([math.hypot(3 * 2 / 3, 4 / 3)])


@pytest.mark.parametrize(("classes", "probes"), [(2, 2), (6, 2), (10, 4), (100, 49)])
def test_equal_probes(classes, probes):
    """One gradient and two passes a probe, against k - 1 passes."""
    assert el.equal_probes(classes) == probes
    if classes >= 6:
        assert classes - 2 <= 1 + 2 * probes <= classes - 1


def test_a_card_keeps_finite_numbers(result, network, digits):
    values = el.numbers(result)
    assert all(math.isfinite(value) for value in values.values())
    assert {"valley share[3]", "median trace l − 1[4]", "zero gradients"} <= set(values)
    assert "valley share[4]" not in values
    assert values["rank correlation: last"] == 1
    assert values["peak within a step: last"] == 1
    last = result.walk.sharpness()[1, :, -1].mean().item()
    assert values["mean sharpness l[1]"] == pytest.approx(last)
    again = el.numbers(el.run(network, digits, SMALL))
    assert again == values
    assert set(summarise([values, again])) == set(values)


def test_panels_are_small_and_of_one_shape(network, digits, result):
    """Six images or nine, the same shapes."""
    shown = el.panels(result)
    few = dataclasses.replace(SMALL, images=6)
    other = el.panels(el.run(network, digits, few))
    check_small_and_alike(shown, other)
    found = shapes(shown)
    assert found["quartiles_of_sharpness"] == (3, 5, 2)
    assert found["shared"] == found["alone_error"] == (3, 5, 2)
    assert found["median_trace"] == (5, 4)


def test_panels_by_hand(result):
    shown, walk = el.panels(result), result.walk
    assert shown["steps"].tolist() == [0, 1, 2, 3, 4]
    for step in range(5):
        for column in range(2):
            layer = column + 1
            size = walk.square[layer].item()
            kappa = sorted((size * walk.trace[step, :, 1 + layer]).tolist())
            quartiles = shown["quartiles_of_sharpness"][:, step, column]
            assert quartiles.tolist() == pytest.approx([kappa[i] for i in (2, 4, 6)])
            mean = shown["mean_sharpness"][step, column].item()
            assert mean == pytest.approx(sum(kappa) / 9)
            for name in ("shared", "alone"):
                found = getattr(result, name)
                assert torch.equal(
                    shown[name][:, step, column], size * found.mean[:, step, column]
                )
                assert torch.equal(
                    shown[f"{name}_error"][:, step, column],
                    size * found.error[:, step, column],
                )
        off = [
            math.sqrt(((found / true - 1) ** 2).mean())
            for found, true in zip(
                result.input[:, step].T, walk.trace[step, :, 0], strict=True
            )
        ]
        assert shown["input_off"][step].item() == pytest.approx(sorted(off)[4])
    assert torch.equal(shown["median_trace"], walk.trace.median(1).values)
    assert torch.equal(shown["wrong"], walk.wrong.double().mean(1))


@pytest.mark.parametrize(("classes", "images"), [(10, 3), (20, 2)])
def test_passes_are_those_that_are_made(classes, images):
    """Chunks of one: for more, PyTorch counts the slopes in weights many times."""
    net = models.build("resnet18", classes, width=1 / 16, in_channels=1)
    net = models.reinitialise(net, 0).eval()
    x = torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    y = net(x).argmax(1)
    few = Dataset("few", x, y, x, y, tuple(map(str, range(classes))))
    size = el.Sizes(eps=0.1, steps=1, images=images, repeats=1, chunk=1)
    made = flops.passes(lambda: el.run(net, few, size), net, x[:1])
    told = el.passes(size, classes=classes, test_images=4)
    assert told == pytest.approx(made, rel=0.1)
    assert el.passes(size, classes=classes, test_images=4, networks=3) == 3 * told
    more = dataclasses.replace(size, images=99)
    fewer = dataclasses.replace(size, images=4)
    both = [el.passes(s, classes=classes, test_images=4) for s in (more, fewer)]
    assert both[0] == both[1]


def test_relative_error():
    estimates = torch.tensor([[1.0, 2.0], [3.0, 2.0]])
    found = el.relative_error(estimates, torch.tensor([2.0, 2.0]))
    assert found.tolist() == [0.5, 0.0]


@pytest.mark.parametrize("profile", profiles.NAMES)
@pytest.mark.parametrize("data", ["digits", "cifar10", "folder"])
def test_sizes(profile, data):
    size = el.sizes(profile, data)
    stored = json.loads(json.dumps(dataclasses.asdict(size)))
    assert el.Sizes(**stored) == size
    assert size.eps == (0.3 if data == "digits" else 8 / 255)
    if (profile, data) == ("full", "cifar10"):
        assert size.images == 500
        assert size.deep == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eps": 0.0}, "eps must be positive"),
        ({"images": 0}, "images must be an integer of at least 1, got 0"),
        ({"chunk": 1.5}, "chunk must be an integer"),
    ],
)
def test_bad_sizes(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **changes)


def test_bad_profile():
    with pytest.raises(ValueError, match="profile must be one of cpu, t4, fast, full"):
        el.sizes("gpu", "digits")


def test_the_head_has_to_be_the_last_layer():
    odd = nn.Module()
    odd.head, odd.features = nn.Linear(2, 2), nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"the last layer, features.weight is"):
        el.weights(odd)


def test_weights_are_those_of_convolutions_and_linear_layers():
    net = models.build("resnet18", 10, width=0.05)
    found = el.weights(net)
    assert len(found) == 21
    assert [*found][0::20] == ["body.0.weight", "head.weight"]
    square = net.head.weight.detach().square().sum().item()
    assert found["head.weight"] == pytest.approx(square)


def test_curved_networks_are_refused(digits):
    model = models.build("mlp", 10, width=0.1, in_channels=1, image_size=8).eval()
    model.body[2] = nn.GELU()
    with pytest.raises(ValueError, match=r"not locally affine.*GELU"):
        el.walk(model, digits, SMALL)


def test_nothing_is_left_behind_in_the_network(network, digits, result):
    """Weights, gradients and mode are as before."""
    model = network.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    el.walk(model, digits, dataclasses.replace(SMALL, steps=1))
    assert model.training
    model.eval()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
