import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from flatbook import _folding, attacks, models

SMALL = {"width": 0.125, "in_channels": 1, "image_size": 8}
ATTACK = {"norm": "linf", "eps": 0.1, "step_size": 0.03, "steps": 3}


def images(n=4, dtype=torch.float64, seed=1):
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(n, 1, 8, 8, generator=draw, dtype=dtype)


def shaken(name="resnet18", dtype=torch.float64, seed=0):
    """A network in training mode whose batch statistics and weights are random."""
    model = models.build(name, 10, **SMALL).to(dtype)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model(images(32, dtype))
        for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
            for tensor in (norm.weight, norm.running_var):
                tensor.mul_(0.5 + torch.rand(tensor.shape, generator=draw))
            for tensor in (norm.bias, norm.running_mean):
                tensor.add_(0.3 * torch.randn(tensor.shape, generator=draw))
    return model


def norms(model):
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]


def affines(model):
    return [m for m in model.modules() if isinstance(m, _folding.Affine)]


def first_block(model):
    return next(m for m in model.modules() if isinstance(m, models.ResidualBlock))


def seen(model, x):
    """Features, logits and an input gradient."""
    leaf = x.detach().clone().requires_grad_()
    logits = model(leaf)
    (gradient,) = torch.autograd.grad(logits.square().sum(), leaf)
    return model.features(leaf), logits, gradient


@pytest.mark.parametrize(
    ("dtype", "close"), [(torch.float64, 1e-10), (torch.float32, 1e-4)]
)
@pytest.mark.parametrize("name", models.NAMES)
def test_features_and_gradients_are_the_same(name, dtype, close):
    """The unfolded network in float64 is the slow twin."""
    model = shaken(name, dtype)
    twin = copy.deepcopy(model).double().eval()
    x = images()
    pairs = zip(seen(models.fold(model), x.to(dtype)), seen(twin, x), strict=True)
    for value, expected in pairs:
        assert value.dtype == dtype
        error = (value.double() - expected).abs().max() / expected.abs().max()
        assert error < close


@pytest.mark.parametrize("name", models.NAMES)
def test_what_is_folded(name):
    """What stands in front of a convolution stays: one multiply-add."""
    model, folded = shaken(name), models.fold(shaken(name))
    blocks = {
        "resnet18": 0,
        "wrn28_4": 12 + 1,
        "densenet121": 58 + 3 + 1,
        "vgg11_bn": 0,
        "mlp": 0,
    }
    assert not norms(folded)
    assert len(affines(folded)) == blocks[name]
    assert bool(norms(model)) is (name != "mlp")
    assert all(not m.training for m in folded.modules())
    assert not any(p.requires_grad for p in folded.parameters())
    weights = [p for p in folded.parameters() if p.ndim == 4]
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)
    assert type(folded) is models.Model
    assert folded.config == model.config


@pytest.mark.parametrize("attack", ["fold", "pgd", "line"])
def test_the_model_is_left_alone(attack):
    model, x, y = shaken(), images(), torch.arange(4)
    model(x).sum().backward()
    model.body[3].eval()
    model.body[0].weight.requires_grad_(False)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    wanted = [p.requires_grad for p in model.parameters()]
    modules = [(m, type(m), m.training) for m in model.modules()]
    if attack == "fold":
        folded = models.fold(model)
        with torch.no_grad():
            for tensor in (*folded.parameters(), *folded.buffers()):
                tensor.fill_(7)
    elif attack == "pgd":
        attacks.pgd(model, x, y, **ATTACK)
    else:
        attacks.line(model, x, 1 - x, y, steps=2)
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    for p, grad, want in zip(model.parameters(), grads, wanted, strict=True):
        assert p.requires_grad is want
        assert (p.grad is None) is (grad is None)
        assert grad is None or torch.equal(p.grad, grad)
    again = list(model.modules())
    assert all(
        m is now and type(now) is kind and now.training is mode
        for now, (m, kind, mode) in zip(again, modules, strict=True)
    )
    assert not any(m.inplace for m in again if isinstance(m, nn.ReLU))


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    models.fold(shaken("wrn28_4"))
    assert torch.equal(torch.get_rng_state(), before)


def test_copies_and_second_folds_are_the_same():
    model, x = shaken("wrn28_4"), images()
    once = models.fold(model)
    for network in (copy.deepcopy(once), models.fold(once)):
        assert torch.equal(network(x), once(x))
    assert torch.equal(models.scale_head(once, 2.0)(x), 2 * once(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_and_device_follow(dtype):
    model = shaken("wrn28_4").to(dtype)
    assert {p.dtype for p in models.fold(model).parameters()} == {dtype}
    elsewhere = models.fold(model.to("meta"))
    assert {p.device.type for p in elsewhere.parameters()} == {"meta"}


def hooked(model):
    model.body[1].register_forward_hook(lambda *_: None)


def parametrised(model):
    parametrizations.weight_norm(model.body[0])


def shared(model):
    model.body[4].residual = model.body[3].residual


def overridden(model):
    plain = type(model.body[1]).forward
    model.body[1].forward = lambda x: 2 * plain(model.body[1], x)


def foreign(model):
    model.body[2] = nn.GELU()


def attached(model):
    model.note = torch.ones(2, requires_grad=True) * 2


def other_parameter(model):
    class Named(nn.Parameter):
        pass

    norm = model.body[1]
    norm.weight = Named(norm.weight.detach().clone())


UNUSUAL = [hooked, parametrised, shared, overridden, foreign, attached, other_parameter]


@pytest.mark.parametrize("change", UNUSUAL)
def test_anything_unusual_is_not_folded(change):
    """The attack then runs the model itself, bit for bit."""
    model = shaken()
    change(model)
    assert not models._foldable(model)
    x, y = images(), torch.arange(4)
    path = attacks.pgd(model, x, y, **ATTACK)
    model.eval()
    with torch.no_grad():
        assert torch.equal(path.logits[-1], model(path.adversarial))


def test_an_unusual_model_is_copied_as_it_is():
    model = shaken()
    foreign(model)
    copied = models.fold(model)
    assert len(norms(copied)) == len(norms(model))
    assert not any(p.requires_grad for p in copied.parameters())
    assert torch.equal(copied(images()), model.eval()(images()))
    assert model.head.weight.requires_grad


def test_a_subclass_is_not_folded():
    class Louder(models.Model):
        def features(self, x):
            return 2 * super().features(x)

    model = shaken().eval()
    louder = copy.deepcopy(model)
    louder.__class__ = Louder
    path = attacks.pgd(louder, images(), torch.arange(4), **ATTACK)
    torch.testing.assert_close(path.features[0], 2 * model.features(images()))


def test_a_global_hook_sees_the_whole_network():
    model, called = shaken(), []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, *_: called.append(type(module))
    )
    attacks.line(model, images(), images(), torch.arange(4), steps=1)
    handle.remove()
    assert called.count(nn.BatchNorm2d) == 2 * 20


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_every_kind_of_batch_normalisation(affine, bias):
    """Without weights it folds as well; without stored statistics it must not."""
    model = shaken()
    block = first_block(model)
    old = block.residual[0]
    conv = nn.Conv2d(old.in_channels, old.out_channels, 3, padding=1, bias=bias)
    block.residual[0] = conv.double()
    block.residual[1] = nn.BatchNorm2d(old.out_channels, affine=affine).double()
    block.residual[1].running_mean.add_(0.3)
    batch_norm = nn.BatchNorm2d(old.out_channels, track_running_stats=False)
    block.residual[4] = batch_norm.double()
    folded = models.fold(model.eval())
    assert len(norms(folded)) == 1
    torch.testing.assert_close(folded(images()), model(images()))


def test_relu_works_in_place_only_on_what_is_nobody_elses():
    layers = nn.Sequential(
        nn.ReLU(), nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Identity(), nn.ReLU()
    )
    folded = _folding.frozen_copy(layers, _folding.replacements(layers))
    assert [m.inplace for m in folded if type(m) is nn.ReLU] == [False, True, False]
    x = images(dtype=torch.float32) - 0.5
    kept = x.clone()
    folded(x)
    assert torch.equal(x, kept)


def test_only_a_model_is_folded():
    with pytest.raises(TypeError, match="Model, got Linear"):
        models.fold(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("dtype", "close"), [(torch.float64, 1e-10), (torch.float32, 1e-4)]
)
@pytest.mark.parametrize("name", models.NAMES)
def test_recorded_paths_are_those_of_the_model(name, dtype, close):
    model, y = shaken(name, dtype).eval(), torch.arange(4)
    x = images(dtype=dtype)
    walks = [
        attacks.pgd(model, x, y, **ATTACK),
        attacks.line(model, x, 1 - x, y, steps=3),
    ]
    for path in walks:
        for point, phi, z in zip(path.points, path.features, path.logits, strict=True):
            with torch.no_grad():
                pairs = [(phi, model.features(point)), (z, model(point))]
            for value, expected in pairs:
                error = (value - expected).abs().max() / expected.abs().max()
                assert error < close


@pytest.mark.parametrize("name", ["resnet18", "wrn28_4", "mlp"])
def test_autocast_lowers_the_features_only(name):
    """Points, head and record stay in float32; the features are close, not equal."""
    model, x = shaken(name, torch.float32).eval(), images(8, torch.float32)
    y = torch.arange(8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        path = attacks.pgd(model, x, y, **ATTACK)
    for value in (path.points, path.features, path.logits, path.losses):
        assert value.dtype == torch.float32
    head = torch.nn.functional.linear(path.features, model.head.weight, model.head.bias)
    torch.testing.assert_close(path.logits, head, rtol=1e-5, atol=1e-6)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = models.fold(model).features(path.adversarial)
    assert torch.equal(path.features[-1], lowered.float())
    exact = model.features(path.adversarial).detach()
    error = (path.features[-1] - exact).norm() / exact.norm()
    assert 1e-5 < error < 0.05
    assert (path.points - x).abs().max() <= 0.1 + 1e-6


def test_autocast_leaves_a_double_model_in_double():
    model, x = shaken(), images()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        path = attacks.pgd(model, x, torch.arange(4), **ATTACK)
    expected = attacks.pgd(model, x, torch.arange(4), **ATTACK)
    assert torch.equal(path.points, expected.points)
