import pytest
import torch

from flatbook import attacks, curvature, data, models
from flatbook.experiments import _common

BALL = {"norm": "linf", "eps": 0.1, "step_size": 0.05, "steps": 3}


@pytest.fixture(scope="module")
def network():
    net = models.build("mlp", 10, in_channels=1, image_size=8)
    return net.eval()


def test_correct_images_are_the_first_ones_that_are_right(network, digits):
    x, y = _common.correct(network, digits, 20, batch=7)
    right = network(digits.x_test).argmax(1) == digits.y_test
    assert 0 < len(x) <= 20
    assert torch.equal(x, digits.x_test[right][:20])
    assert torch.equal(y, digits.y_test[right][:20])


def test_more_than_there_are(network, digits):
    right = (network(digits.x_test).argmax(1) == digits.y_test).sum()
    assert len(_common.correct(network, digits, 10_000)[0]) == right


def test_nothing_is_right(network):
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    wrong = (network(x).argmax(1) + 1) % 10
    odd = data.Dataset("odd", x, wrong, x, wrong, tuple("0123456789"))
    with pytest.raises(ValueError, match="no test image right"):
        _common.correct(network, odd, 3)


def test_batches_make_no_difference(network, digits):
    x, y = digits.x_test[:23], digits.y_test[:23]
    whole = attacks.pgd(network, x, y, **BALL)
    pieces = _common.attack(network, x, y, batch=5, **BALL)
    torch.testing.assert_close(pieces.points, whole.points, rtol=0, atol=1e-6)
    torch.testing.assert_close(pieces.losses, whole.losses, rtol=1e-4, atol=1e-5)
    assert torch.equal(pieces.labels, whole.labels)
    assert pieces.zero_gradients.shape == (3, 23)
    assert pieces.features.shape == whole.features.shape


def test_a_seed_repeats_the_random_start(network, digits):
    x, y = digits.x_test[:6], digits.y_test[:6]
    start = {"seed": 3, "random_start": True}
    first, again = (_common.attack(network, x, y, **start, **BALL) for _ in range(2))
    assert torch.equal(first.points, again.points)
    other = _common.attack(network, x, y, **(start | {"seed": 4}), **BALL)
    assert not torch.equal(first.points, other.points)


def test_an_autocast_around_measurements_changes_nothing(digits):
    """Images, whole paths and sharpness, for a network that autocast does change."""
    small = models.build("resnet18", 10, width=0.125, in_channels=1, image_size=8)
    network, seen, types = small.eval(), [], set()
    network.body[0].register_forward_hook(lambda *call: types.add(call[-1].dtype))
    for lowered in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=lowered):
            x, y = _common.correct(network, digits, 20)
            assert types == {torch.float32}
            path = _common.attack(network, x, y, batch=7, **BALL)
            kappa = _common.sharpness(network, path)
            assert types == {torch.float32}
            direct = attacks.pgd(network, x, y, **BALL)
        seen.append((x, y, *vars(path).values(), kappa))
        assert torch.allclose(direct.features, path.features, rtol=1e-4) != lowered
        types.clear()
    assert all(map(torch.equal, *seen))
    assert kappa.dtype == torch.float64


@pytest.mark.parametrize("power", [1, 2])
def test_sharpness_at_every_point(network, digits, power):
    path = _common.attack(network, digits.x_test[:5], digits.y_test[:5], **BALL)
    weight = network.head.weight.detach().double()
    kappa = _common.sharpness(network, path, power=power)
    for step in range(4):
        phi, z = path.features[step].double(), path.logits[step].double()
        expected = curvature.relative_sharpness(weight, phi, z, power=power)
        torch.testing.assert_close(kappa[step], expected)
