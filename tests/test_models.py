import itertools
import math

import pytest
import torch
from torch import nn

from flatbook import models

SMALL = {"width": 0.125, "in_channels": 1, "image_size": 8}


def small(name="resnet18"):
    return models.build(name, 10, **SMALL)


def images(n=4, channels=1, size=8, seed=1):
    return torch.rand(
        n, channels, size, size, generator=torch.Generator().manual_seed(seed)
    )


def settle(model):
    """Give the batch normalisations statistics of their own."""
    with torch.no_grad():
        model.train()(images(32, seed=2))
    return model.eval()


def conv(inputs, outputs, size=3):
    return inputs * outputs * size**2


def bn(channels):
    return 2 * channels


def count_resnet18(c, classes):
    """Stem, four stages of two basic blocks, projections at three of them."""
    total, now = conv(c, 64) + bn(64), 64
    for out in (64, 128, 256, 512):
        total += conv(now, out) + 3 * conv(out, out) + 4 * bn(out)
        if now != out:
            total += conv(now, out, 1) + bn(out)
        now = out
    return total + 513 * classes


def count_wrn(depth, widen, classes):
    """Formula in depth and widening factor, after Zagoruyko and Komodakis."""
    blocks = (depth - 4) // 6
    total, now = conv(3, 16), 16
    for out in (16 * widen, 32 * widen, 64 * widen):
        total += conv(now, out, 1) + conv(now, out) + bn(now) + bn(out)
        total += conv(out, out)
        total += (blocks - 1) * 2 * (conv(out, out) + bn(out))
        now = out
    return total + bn(now) + (now + 1) * classes


def count_densenet(growth, blocks, classes):
    """Bottleneck layers 4 * growth wide, compression one half."""
    now = 2 * growth
    total = conv(3, now)
    for index, layers in enumerate(blocks):
        for _ in range(layers):
            total += bn(now) + conv(now, 4 * growth, 1)
            total += bn(4 * growth) + conv(4 * growth, growth)
            now += growth
        if index < len(blocks) - 1:
            total += bn(now) + conv(now, now // 2, 1)
            now //= 2
    return total + bn(now) + (now + 1) * classes


def count_vgg11(classes):
    widths = (3, 64, 128, 256, 256, 512, 512, 512, 512)
    convs = sum(conv(a, b) + bn(b) for a, b in itertools.pairwise(widths))
    return convs + 513 * classes


COUNTS = {
    "resnet18": (count_resnet18(3, 10), 11_173_962),
    "wrn28_4": (count_wrn(28, 4, 10), 5.85e6),
    "densenet121": (count_densenet(32, (6, 12, 24, 16), 10), 6.96e6),
    "vgg11_bn": (count_vgg11(10), 9.23e6),
    "mlp": (3072 * 256 + 256 + 256 * 128 + 128 + 1290, 820_874),
}


@pytest.mark.parametrize("name", models.NAMES)
def test_parameter_count_of_the_literature(name):
    formula, literature = COUNTS[name]
    assert formula == pytest.approx(literature, rel=1e-3)
    model = models.build(name, 10)
    assert sum(p.numel() for p in model.parameters()) == formula


@pytest.mark.parametrize("name", models.NAMES)
def test_features_then_head(name):
    model = small(name)
    settle(model)
    x = images()
    phi = model.features(x)
    assert phi.shape == (4, model.head.in_features)
    torch.testing.assert_close(
        model(x), phi @ model.head.weight.T + model.head.bias, rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(model.features(x[2:]), phi[2:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", models.NAMES)
@pytest.mark.parametrize("size", [8, 13, 32])
def test_every_image_size_from_8(name, size):
    model = models.build(name, 3, width=0.05, in_channels=2, image_size=size).eval()
    assert model(images(2, 2, size)).shape == (2, 3)


@pytest.mark.parametrize("name", models.NAMES)
def test_piecewise_affine(name):
    """On a small segment without a kink the features are linear in the pixels."""
    model = settle(small(name)).double()
    x, direction = images().double(), images(seed=7).double()
    steps = [model.features(x + t * 1e-7 * direction) for t in (0, 1, 2)]
    first, second = steps[1] - steps[0], steps[2] - steps[1]
    assert first.abs().amax(1).min() > 1e-10
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-13)


def test_layers_are_affine_relu_batchnorm_or_pooling():
    allowed = (
        nn.Conv2d,
        nn.Linear,
        nn.ReLU,
        nn.BatchNorm2d,
        nn.MaxPool2d,
        nn.AvgPool2d,
        nn.Flatten,
        nn.Identity,
        models.GlobalMean,
        models.Normalise,
    )
    for name in models.NAMES:
        for module in small(name).modules():
            leaf = not list(module.children())
            assert not leaf or isinstance(module, allowed), module


def test_relus_are_modules_used_once_per_place():
    """17 ReLUs: one after each convolution but the projections."""
    relus = [m for m in small().modules() if isinstance(m, nn.ReLU)]
    assert len(relus) == 17


def test_first_layer_normalises():
    x = torch.tensor([0.0, 0.5, 1.0])
    assert models.Normalise()(x).tolist() == [-2.0, 0.0, 2.0]


@pytest.mark.parametrize(
    ("width", "expected"), [(0.001, 1), (0.1, 51), (0.125, 64), (2, 1024)]
)
def test_width_scales_channels(width, expected):
    assert models._Plan(width, 1, 8).channels(512) == expected
    if width < 1:
        built = models.build("resnet18", 10, width=width, in_channels=1, image_size=8)
        assert built.head.in_features == expected


def test_build_is_reproducible_and_leaves_global_rng_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = small()
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(6)
    second = small()
    for (name, a), b in zip(
        first.state_dict().items(), second.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("name", models.NAMES)
def test_he_initialisation(name):
    model = models.build(name, 10, width=0.5)
    for module in model.body.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.weight.numel() > 2e4:
            out, *rest = module.weight.shape
            fan = rest[0] if len(rest) == 1 else out * math.prod(rest[1:])
            assert float(module.weight.detach().std()) == pytest.approx(
                math.sqrt(2 / fan), rel=0.05
            )
            assert abs(float(module.weight.detach().mean())) < 0.05 * math.sqrt(2 / fan)
    assert not model.head.bias.any()


def test_reinitialise_redraws_everything_and_resets_statistics():
    model = small()
    reference = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(3)
    model(images(8))
    other = models.reinitialise(model, 1)
    assert other is model
    changed = [
        k
        for k, v in model.state_dict().items()
        if v.ndim > 1 and torch.equal(v, reference[k])
    ]
    assert not changed
    models.reinitialise(model, 0)
    for name, value in model.state_dict().items():
        assert torch.equal(value, reference[name]), name


def test_reinitialise_refuses_layers_it_does_not_know():
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    before = model[0].weight.clone()
    with pytest.raises(TypeError, match="LayerNorm"):
        models.reinitialise(model, 0)
    assert torch.equal(before, model[0].weight)


def test_reinitialise_leaves_global_rng_alone():
    model = small()
    before = torch.get_rng_state()
    models.reinitialise(model, 3)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": "resnet19"}, "resnet19"),
        ({"num_classes": 1}, "num_classes.*1"),
        ({"num_classes": 2.5}, "2.5"),
        ({"num_classes": True}, "True"),
        ({"width": 0}, "width.*0"),
        ({"width": -1.0}, "-1.0"),
        ({"width": math.nan}, "nan"),
        ({"width": math.inf}, "inf"),
        ({"width": "half"}, "half"),
        ({"in_channels": 0}, "in_channels.*0"),
        ({"image_size": 7}, "image_size.*7"),
        ({"image_size": 8.0}, "8.0"),
    ],
)
def test_build_names_what_is_wrong(arguments, said):
    with pytest.raises(ValueError, match=said):
        models.build(**{"name": "mlp", "num_classes": 10, **arguments})


@pytest.mark.parametrize("seed", [-1, 0.5, None])
def test_reinitialise_names_a_bad_seed(seed):
    with pytest.raises(ValueError, match=f"seed.*{seed}"):
        models.reinitialise(small("mlp"), seed)


@pytest.mark.parametrize("shape", [(4, 3, 8, 8), (4, 1, 32, 32), (1, 8, 8), (4, 64)])
def test_features_name_the_shape_they_want(shape):
    with pytest.raises(ValueError, match=r"\(N, 1, 8, 8\), got") as caught:
        small("mlp")(torch.rand(shape))
    assert str(shape) in str(caught.value)


def test_config_is_a_copy():
    model = models.build("vgg11_bn", 7, width=0.25, in_channels=1, image_size=16)
    expected = {
        "name": "vgg11_bn",
        "num_classes": 7,
        "width": 0.25,
        "in_channels": 1,
        "image_size": 16,
    }
    assert model.config == expected
    model.config["num_classes"] = 3
    assert model.config == expected
    assert models.build(**expected).config == expected
    with pytest.raises(AttributeError):
        model.config = {}


@pytest.mark.parametrize("s", [0.01, 1, 5.0, 1000.0])
def test_scaled_head_keeps_predictions_and_the_original(s):
    model = settle(small())
    with torch.no_grad():
        model.head.bias.normal_(generator=torch.Generator().manual_seed(0))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    scaled, x = models.scale_head(model, s), images(64)
    torch.testing.assert_close(scaled(x), s * model(x), rtol=1e-4, atol=1e-4 * s)
    assert torch.equal(scaled(x).argmax(1), model(x).argmax(1))
    assert torch.equal(scaled.features(x), model.features(x))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_weight_only_scaling_changes_predictions():
    """With a bias, w -> s w is another classifier; with both scaled it is not."""
    model = settle(small("mlp"))
    with torch.no_grad():
        model.head.bias.normal_(0, 3, generator=torch.Generator().manual_seed(0))
    x = images(256)
    scaled = models.scale_head(model, 10, weight_only=True)
    assert torch.equal(scaled.head.bias, model.head.bias)
    assert torch.equal(scaled.head.weight, 10 * model.head.weight)
    assert (scaled(x).argmax(1) != model(x).argmax(1)).any()


def test_scale_head_of_a_head_without_bias():
    model = small("mlp")
    model.head = nn.Linear(16, 10, bias=False)
    assert models.scale_head(model, 2).head.bias is None


@pytest.mark.parametrize("s", [0, -1.0, math.nan, math.inf, "2"])
def test_scale_head_names_a_bad_factor(s):
    with pytest.raises(ValueError, match=f"s must be.*{s}"):
        models.scale_head(small("mlp"), s)


def test_scale_head_refuses_overflow():
    with pytest.raises(ValueError, match=r"1e\+39.*float32"):
        models.scale_head(small("mlp"), 1e39)


def test_check_model_returns_the_two_parts():
    model = small("mlp")
    features, head = models.check_model(model)
    assert head is model.head
    assert torch.equal(features(images()), model.features(images()))


def test_check_model_names_what_is_missing():
    with pytest.raises(TypeError, match="function"):
        models.check_model(settle)
    with pytest.raises(TypeError, match="Linear has no method features"):
        models.check_model(nn.Linear(2, 2))
    model = small("mlp")
    model.head = nn.Sequential(model.head)
    with pytest.raises(TypeError, match=r"head.*Sequential"):
        models.check_model(model)
    with pytest.raises(TypeError, match="Linear has no method features"):
        models.scale_head(nn.Linear(2, 2), 2.0)


def test_evaluating_restores_each_mode_after_an_exception():
    model = small().train()
    model.body[1].eval()
    modes = [m.training for m in model.modules()]
    seen = []

    def fail():
        seen.extend(m.training for m in model.modules())
        raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"), models.evaluating(model):
        fail()
    assert not any(seen)
    assert len(seen) == len(modes)
    assert [m.training for m in model.modules()] == modes
