import math
import subprocess
import sys
from itertools import product

import pytest
import torch
from torch import nn
from torch.linalg import matrix_norm, vector_norm

from flatbook import attacks, lipschitz, models, radius
from tests.cases import dense, generator

CONV = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def net(*layers):
    """A model whose features are these layers, in evaluation mode and float64."""
    model = nn.Module()
    model.features = nn.Sequential(*layers)
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.copy_(normal(*p.shape, seed=i))
    return model.double().eval()


def settle(model, x):
    """Give the batch normalisations statistics and factors of their own."""
    with torch.no_grad():
        model.train()(x)
        for i, m in enumerate(model.modules()):
            if isinstance(m, nn.BatchNorm2d):
                m.weight.copy_(normal(len(m.weight), seed=i))
    return model.double().eval()


def jacobian(features, x):
    """Dense Jacobian (d, pixels) at one sample, by the package's slowest way."""
    rows = torch.autograd.functional.jacobian(lambda v: features(v)[0], x)
    return rows.flatten(1)


def bound(model, *shape):
    return lipschitz.global_bound(model, torch.zeros(1, *shape, dtype=torch.float64))


# --- convolution_bound --------------------------------------------------------

SETTINGS = [
    (size, kernel, stride, padding, dilation)
    for size, kernel, stride, padding, dilation in product(
        [(1, 1), (2, 3), (5, 4), (7, 7)], [1, 2, 3], [1, 2, 3], [0, 1, 2], [1, 2]
    )
    if min(size) + 2 * padding > dilation * (kernel - 1)
]


@pytest.mark.parametrize(("inputs", "outputs", "groups"), [(2, 3, 1), (2, 4, 2)])
def test_never_below_the_dense_norm(inputs, outputs, groups):
    ratios = []
    for seed, (size, k, stride, padding, dilation) in enumerate(SETTINGS):
        kernel = normal(outputs, inputs // groups, k, k, seed=seed)
        setting = {"stride": stride, "padding": padding, "dilation": dilation}
        setting["groups"] = groups
        matrix = dense(
            lambda x, w=kernel, s=setting: torch.conv2d(x, w, **s), (inputs, *size)
        )
        found = lipschitz.convolution_bound(kernel, size, **setting)
        true = matrix_norm(matrix, 2).item()
        assert found >= true
        ratios.append(found / true if true else 1.0)
    assert len(ratios) > 150
    assert sorted(ratios)[len(ratios) // 2] < 1.2  # and not far above it


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_one_two_and_three_axes(axes):
    for seed in range(20):
        size, kernel = (4, 3, 5)[:axes], normal(2, 3, 3, 2, 2, seed=seed)
        kernel = kernel[(...,) + (0,) * (3 - axes)]
        stride, padding = (1, 2, 3)[:axes], (1, 0, 1)[:axes]
        matrix = dense(
            lambda x, w=kernel, s=stride, p=padding: CONV[x.ndim - 2](
                x, w, stride=s, padding=p
            ),
            (3, *size),
        )
        found = lipschitz.convolution_bound(
            kernel, size, stride=stride, padding=padding
        )
        assert matrix_norm(matrix, 2).item() <= found


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_exact_for_circular_convolutions(stride):
    """The torus is then the image, whatever the stride."""
    kernel = normal(3, 2, 3, 3)

    def circular(x):
        around = nn.functional.pad(x, (1, 1, 1, 1), mode="circular")
        return torch.conv2d(around, kernel, stride=stride)

    from flatbook._torus import _frequencies

    placed = torch.zeros(1, 3, 2, 8, 8, dtype=torch.float64)
    placed[0, :, :, :3, :3] = kernel
    found = matrix_norm(_frequencies(placed, (stride, stride)), 2).amax() / stride
    true = matrix_norm(dense(circular, (2, 8, 8)), 2)
    torch.testing.assert_close(found, true, rtol=1e-12, atol=0)


@pytest.mark.parametrize("stride", [1, 2])
def test_exact_for_one_pixel(stride):
    kernel = normal(4, 3, 1, 1)
    found = lipschitz.convolution_bound(kernel, (6, 6), stride=stride)
    assert found == pytest.approx(matrix_norm(kernel[:, :, 0, 0], 2).item(), rel=1e-8)


def test_taps_that_meet_no_pixel_do_not_count():
    kernel = normal(4, 3, 3, 3)
    found = lipschitz.convolution_bound(kernel, (1, 1), padding=1)
    assert found == pytest.approx(matrix_norm(kernel[:, :, 1, 1], 2).item(), rel=1e-8)
    assert lipschitz.convolution_bound(kernel[:, :, :1, :1], (1, 1), padding=1) > 0
    nothing = lipschitz.convolution_bound(
        kernel[..., :2, :2], (1, 1), padding=1, dilation=2, stride=5
    )
    assert nothing == pytest.approx(
        matrix_norm(
            dense(
                lambda x: torch.conv2d(
                    x, kernel[..., :2, :2], stride=5, padding=1, dilation=2
                ),
                (3, 1, 1),
            ),
            2,
        ).item()
    )


def test_box_filter_between_its_norms():
    """Nine ones: 9 on the torus, (1 + 2 cos(pi / (n + 1)))^2 on n x n pixels."""
    kernel = torch.ones(1, 1, 3, 3)
    for n in (2, 5, 20):
        true = (1 + 2 * math.cos(math.pi / (n + 1))) ** 2
        matrix = dense(lambda x: torch.conv2d(x, kernel.double(), padding=1), (1, n, n))
        assert matrix_norm(matrix, 2).item() == pytest.approx(true)
        assert lipschitz.convolution_bound(kernel, (n, n), padding=1) == pytest.approx(
            9
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": (4,)}, "does not fit"),
        ({"groups": 2}, "does not fit"),
        ({"image_size": (1, 1), "padding": 0}, "larger than the padded image"),
        ({"padding": "same"}, "padding must be a number of zeros"),
        ({"kernel": torch.full((1, 1, 3, 3), math.nan)}, "kernel must be finite"),
    ],
)
def test_what_convolution_bound_refuses(change, message):
    settings = {"kernel": torch.ones(3, 1, 3, 3), "image_size": (5, 5), "padding": 1}
    with pytest.raises(ValueError, match=message):
        lipschitz.convolution_bound(**settings | change)


# --- global_bound, spectral_norms -----------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(5, 3), (5,)),
        (nn.BatchNorm2d(3), (3, 4, 4)),
        (nn.AvgPool2d(2), (3, 4, 4)),
        (models.Normalise(), (3, 4, 4)),
        (models.GlobalMean(), (3, 4, 5)),
        (nn.AdaptiveAvgPool2d(2), (3, 4, 4)),
        (nn.Conv2d(3, 2, 1), (3, 4, 4)),
        (nn.Flatten(), (3, 4)),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else "",
)
def test_exact_for_one_linear_layer(layer, shape, dtype):
    model = net(layer).to(dtype)
    if isinstance(layer, nn.BatchNorm2d):
        layer.running_var.uniform_(0.1, 2, generator=generator(3))
    found = lipschitz.global_bound(model, torch.rand(2, *shape, dtype=dtype))
    model.double()
    with torch.no_grad():
        matrix = dense(
            lambda x: model.features(x) - model.features(torch.zeros_like(x)), shape
        )
    true = matrix_norm(matrix, 2).item()
    assert true <= found <= true * (1 + 1e-8)


@pytest.mark.parametrize("pool", [nn.MaxPool2d, nn.AvgPool2d])
@pytest.mark.parametrize(("k", "stride"), [(2, 2), (2, 1), (3, 2), (3, 1), (2, 3)])
def test_pooling(pool, k, stride):
    model = net(pool(k, stride))
    found = bound(model, 1, 7, 7)
    overlap = math.ceil(k / stride) ** 2
    assert found == pytest.approx(
        math.sqrt(overlap / (k * k if pool is nn.AvgPool2d else 1))
    )
    x, move = normal(300, 1, 7, 7), torch.zeros(300, 1, 7, 7).double()
    x[:, :, 3, 3] = 5  # one pixel that wins all its windows
    move[:, :, 3, 3] = 1
    quotient = vector_norm(
        (model.features(x + move) - model.features(x)).flatten(1), dim=1
    )
    assert quotient.max() <= found
    if pool is nn.MaxPool2d and k % stride == 0:
        assert quotient.max() == pytest.approx(found)


class Blocks(nn.Module):
    """features(x) = cat(x, A x) + B cat(x, A x)."""

    def __init__(self, a, b):
        super().__init__()
        self.a = nn.Linear(len(a), len(a), bias=False)
        self.b = nn.Linear(2 * len(a), 2 * len(a), bias=False)
        self.a.weight.data, self.b.weight.data = a, b

    def features(self, x):
        wide = torch.cat([x, self.a(x)], 1)
        return wide + self.b(wide)


def test_branches():
    a, b = normal(3, 3), normal(6, 6)
    expected = math.hypot(1, matrix_norm(a, 2)) * (1 + matrix_norm(b, 2))
    assert bound(Blocks(a, b), 3) == pytest.approx(expected.item())


def test_branches_are_attained_where_they_point_the_same_way():
    eye = torch.eye(4, dtype=torch.float64)
    model = Blocks(2 * eye[:2, :2], 3 * eye)
    true = matrix_norm(dense(model.features, (2,)), 2).item()
    assert bound(model, 2) == pytest.approx(true)
    assert true == pytest.approx(4 * math.sqrt(5))


@pytest.mark.parametrize("name", models.NAMES)
@pytest.mark.parametrize("size", [8, 16])
def test_estimates_below_jacobians_below_the_bound(name, size):
    model = models.build(name, 10, width=0.05, in_channels=1, image_size=size)
    settle(model, torch.rand(32, 1, size, size, generator=generator(1)))
    x = torch.rand(2, 1, size, size, generator=generator(2)).double()
    upper = lipschitz.global_bound(model, x)
    true = torch.stack(
        [matrix_norm(jacobian(model.features, row[None]), 2) for row in x]
    )
    assert true.max() <= upper
    lower = lipschitz.local_estimate(model, x, iterations=5, generator=generator(3))
    assert (lower <= true * (1 + 1e-12)).all()
    assert (lower > 0.3 * true).all()
    secant = lipschitz.secant_estimate(
        model, x, radius=1.0, steps=3, generator=generator(4)
    )
    assert (secant <= upper).all()


def test_bound_of_resnet18_by_hand():
    """Product of the layers outside, sum of both branches in every block."""
    model = models.build("resnet18", 10, width=0.05, in_channels=1, image_size=8)
    settle(model, torch.rand(32, 1, 8, 8, generator=generator(1)))
    x = torch.zeros(1, 1, 8, 8).double()
    norms = lipschitz.spectral_norms(model, x)

    def along(prefix):
        return math.prod(v for k, v in norms.items() if k.startswith(prefix))

    expected = 4 * norms["body.0"] * norms["body.1"]  # the last map has one pixel
    for block in range(3, 11):
        residual, passed = (along(f"body.{block}.{b}.") for b in BRANCHES)
        expected *= residual + passed  # the empty product is the identity
    assert lipschitz.global_bound(model, x) == pytest.approx(expected, rel=1e-6)
    assert norms["normalise"] == pytest.approx(4)
    convs = [m for m in model.body.modules() if isinstance(m, nn.Conv2d)]
    assert len(norms) == 1 + 2 * len(convs)


BRANCHES = ("residual", "shortcut")


def test_spectral_norms_in_order_and_named():
    model = net(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    norms = lipschitz.spectral_norms(model, torch.zeros(1, 1, 4, 4).double())
    assert list(norms) == ["features.0", "features.1", "features.3"]
    assert math.prod(norms.values()) == pytest.approx(bound(model, 1, 4, 4))


def test_a_layer_that_runs_twice_has_its_larger_norm():
    layer = nn.Conv2d(1, 1, 3, padding=1)
    model = net(layer, nn.AvgPool2d(4), layer)
    with torch.no_grad():
        layer.weight.fill_(1)
    norms = lipschitz.spectral_norms(model, torch.zeros(1, 1, 4, 4).double())
    assert norms == {"features.0": pytest.approx(9)}


def test_nothing_is_changed():
    model = settle(
        models.build("resnet18", 3, width=0.05, in_channels=1, image_size=8),
        torch.rand(8, 1, 8, 8, generator=generator(0)),
    )
    x = torch.rand(3, 1, 8, 8).double().requires_grad_()
    before, state = x.detach().clone(), torch.get_rng_state()
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    lipschitz.global_bound(model, x)
    lipschitz.local_estimate(model, x, iterations=2, generator=generator(0))
    lipschitz.secant_estimate(model, x, radius=1, steps=2, generator=generator(0))
    assert torch.equal(x, before)
    assert x.grad is None
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert type(model.features(x)) is torch.Tensor


class Odd(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.features = function


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (nn.GELU(), "gelu"),
        (lambda x: torch.matmul(x, x), "matmul"),
        (lambda x: x * x, "mul"),
        (lambda x: x / x, "div"),
        (lambda x: 2 / x, "__rdiv__|reciprocal|__rtruediv__"),
        (lambda x: x[:, :1], "__getitem__"),
        (lambda x: x.chunk(2, 1)[0], "chunk"),
        (lambda x: x + x[0].item(), "__getitem__"),
        (lambda x: x.mean(), "mean over samples"),
        (lambda x: x.mean(0), "mean over samples"),
        (lambda x: x.flatten(), r"turning \(1, 2, 4, 4\) into \(32,\)"),
        (lambda x: torch.cat([x, x]), "concatenating samples"),
        (lambda x: x + torch.zeros(3, 1, 2, 4, 4).double(), "broadcasting"),
        (lambda x: x.mean(1, keepdim=True) * torch.ones(2, 1, 1).double(), "broadcast"),
        (lambda x: x.mean(1, keepdim=True) + x, "broadcasting"),
        (lambda x: x.add_(x), "add_"),
        (lambda x: nn.functional.leaky_relu(x, 2.0, inplace=True), "leaky_relu"),
        (nn.MaxPool2d(2, dilation=2), "dilation"),
        (nn.MaxPool2d(2, return_indices=True), "with_indices"),
        (nn.AvgPool2d(3, padding=1, count_include_pad=False), "unequal weight"),
        (nn.AvgPool2d(3, ceil_mode=True), "unequal weight"),
        (nn.AdaptiveAvgPool2d(3), "unequal size"),
        (lambda x: x.detach().numpy().sum(), "detach"),
        (lambda x: torch.ones(1, 2), "do not depend"),
        (lambda x: nn.functional.linear(torch.ones(1, 4).double(), x[0, 0]), "no rule"),
        (nn.Conv2d(2, 1, 3, padding=1, padding_mode="circular").double(), "pad"),
    ],
)
def test_no_rule_no_bound(function, message):
    """What is not known to hold is refused by name, never guessed."""
    with pytest.raises(TypeError, match=message):
        bound(Odd(function), 2, 4, 4)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (nn.Tanh(), 1),
        (nn.LeakyReLU(0.1), 1),
        (nn.LeakyReLU(-3.0), 3),
        (lambda x: -x, 1),
        (lambda x: x - 2, 1),
        (lambda x: x * 3 + 1, 3),
        (lambda x: 3 * x - x, 4),
        (lambda x: torch.add(x, x, alpha=-2), 3),
        (lambda x: x * torch.tensor([[[1.0]], [[-5.0]]]).double(), 5),
        (lambda x: x / 4, 0.25),
        (lambda x: nn.functional.dropout(x, training=False), 1),
        (lambda x: nn.functional.relu(x, inplace=True), 1),
        (lambda x: x.view(len(x), x.size(1), x.shape[2], -1), 1),
        (lambda x: torch.cat([x, x, x.relu()], 1), math.sqrt(3)),
        (lambda x: x.mean((2, 3)) if x.ndim == x.dim() else x, 0.25),
    ],
)
def test_small_rules(function, expected):
    found = bound(Odd(function), 2, 4, 4)
    assert expected <= found <= expected * (1 + 1e-8)


def test_training_mode_is_refused():
    for layer in (nn.BatchNorm2d(2), nn.Dropout()):
        model = net(nn.Conv2d(1, 2, 1), layer).train()
        x = torch.zeros(1, 1, 4, 4).double()
        for find in (
            lipschitz.global_bound,
            lambda m, x: lipschitz.local_estimate(m, x, generator=generator(0)),
        ):
            with pytest.raises(ValueError, match=r"features.1.*model.eval"):
                find(model, x)
    for function in (
        nn.functional.dropout,
        lambda x: nn.functional.batch_norm(x, None, None, training=True),
    ):
        with pytest.raises(ValueError, match="training mode"):
            bound(Odd(function), 2, 4, 4)


@pytest.mark.parametrize(
    ("model", "x", "error", "message"),
    [
        (nn.ReLU(), torch.zeros(1, 2), TypeError, "ReLU has no method features"),
        (Odd(nn.ReLU()), torch.zeros(1, 2).long(), TypeError, "int64"),
        (Odd(nn.ReLU()), [0.0], TypeError, "list"),
        (Odd(nn.ReLU()), torch.zeros(2), ValueError, r"shape \(N, ...\)"),
        (Odd(nn.ReLU()), torch.zeros(0, 2), ValueError, r"\(0, 2\)"),
    ],
)
def test_what_models_and_inputs_must_be(model, x, error, message):
    with pytest.raises(error, match=message):
        lipschitz.global_bound(model, x)


def test_weights_must_be_finite():
    model = net(nn.Linear(2, 2))
    model.features[0].weight.data[0, 0] = math.inf
    with pytest.raises(ValueError, match="weight must be finite"):
        bound(model, 2)


# --- estimates ---------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_estimates_of_linear_features_find_the_norm(dtype):
    model = net(nn.Linear(6, 4)).to(dtype)
    true = matrix_norm(model.features[0].weight.detach().double(), 2).item()
    x, settings = normal(5, 6).to(dtype), {"generator": generator(0)}
    found = lipschitz.local_estimate(model, x, iterations=200, **settings)
    assert found.dtype == dtype
    assert not found.requires_grad
    close = 1e-5 if dtype == torch.float32 else 1e-12
    assert found.tolist() == pytest.approx([true] * 5, rel=close)
    found = lipschitz.secant_estimate(model, x, radius=2.0, steps=200, **settings)
    assert found.tolist() == pytest.approx([true] * 5, rel=close)


def test_more_iterations_never_give_less():
    model = net(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 4))
    x = normal(9, 6)
    for find in (
        lambda n: lipschitz.local_estimate(
            model, x, iterations=n, generator=generator(1)
        ),
        lambda n: lipschitz.secant_estimate(
            model, x, radius=1.0, steps=n, generator=generator(1)
        ),
    ):
        grown = torch.stack([find(n) for n in (1, 2, 4, 8, 16)])
        assert (grown.diff(dim=0) >= 0).all()
        assert (grown[-1] > grown[0]).all()


def test_samples_do_not_see_each_other():
    model = net(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 4))
    x = normal(3, 6)
    true = [matrix_norm(jacobian(model.features, row[None]), 2).item() for row in x]
    found = lipschitz.local_estimate(model, x, iterations=300, generator=generator(0))
    assert found.tolist() == pytest.approx(true, rel=1e-9)


def test_features_that_do_not_move():
    model = net(nn.Linear(3, 2), nn.ReLU())
    with torch.no_grad():
        model.features[0].bias.fill_(-100)
    x = normal(4, 3)
    find = {"generator": generator(0)}
    assert lipschitz.local_estimate(model, x, **find).tolist() == [0] * 4
    assert lipschitz.secant_estimate(model, x, radius=1, **find).tolist() == [0] * 4


def test_inside_inference_mode():
    model = net(nn.Linear(3, 2))
    with torch.inference_mode():
        x = normal(2, 3)
        assert lipschitz.local_estimate(model, x, generator=generator(0)).min() > 0
        assert bound(model, 3) > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"radius": 0}, "radius must be positive"),
        ({"radius": math.inf}, "radius must be positive"),
        ({"steps": 0}, "steps must be an integer"),
        ({"steps": 2.0}, "steps must be an integer"),
    ],
)
def test_numbers_out_of_range(change, message):
    settings = {"radius": 1.0, "steps": 3, "generator": generator(0)} | change
    with pytest.raises(ValueError, match=message):
        lipschitz.secant_estimate(net(nn.Linear(3, 2)), normal(2, 3), **settings)
    with pytest.raises(ValueError, match="iterations"):
        lipschitz.local_estimate(
            net(nn.Linear(3, 2)), normal(2, 3), iterations=0, generator=generator(0)
        )


def test_min_feature_norm():
    phi = normal(7, 3)
    assert lipschitz.min_feature_norm(phi) == phi.square().sum(1).min().sqrt().item()
    for wrong in (torch.zeros(3), torch.zeros(0, 3)):
        with pytest.raises(ValueError, match=r"features must be \(N, d\)"):
            lipschitz.min_feature_norm(wrong)


def test_no_attack_flips_within_a_certificate():
    """100 steps, four losses, three sizes, in float64, with the bound as L."""
    model = models.build("mlp", 5, width=0.1, in_channels=1, image_size=8).double()
    x = torch.rand(60, 1, 8, 8, generator=generator(0)).double()
    z = model(x).detach()
    y = z.argmax(1)
    safe = radius.certified_radius(
        model.head.weight.detach(), z, y, lipschitz=lipschitz.global_bound(model, x)
    )
    nearest = torch.full_like(safe, math.inf)
    for loss, eps in product(attacks.LOSSES, (0.05, 0.2, 1.0)):
        path = attacks.pgd(
            model, x, y, norm="l2", eps=eps, step_size=eps / 20, steps=100, loss=loss
        )
        away = (path.points - x).flatten(2).norm(dim=2)
        flipped = path.logits.argmax(2) != y
        found = torch.where(flipped, away, torch.inf).amin(0)
        nearest = torch.minimum(nearest, found)
    assert nearest.isfinite().sum() > 30
    assert (safe > 0).all()
    assert (nearest > safe).all()
    assert (nearest < 60 * safe).any()  # and the certificate is not empty talk


def test_estimates_import_no_compiler():
    code = (
        "import sys, torch\nfrom torch import nn\nfrom flatbook import lipschitz\n"
        "m = nn.Module(); m.features = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), "
        "nn.MaxPool2d(2), nn.Flatten())\n"
        "x, g = torch.zeros(2, 1, 4, 4), torch.Generator()\n"
        "lipschitz.global_bound(m, x)\n"
        "lipschitz.local_estimate(m, x, generator=g)\n"
        "lipschitz.secant_estimate(m, x, radius=1.0, generator=g)\n"
        "print([m for m in ('torch._dynamo', 'sympy') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
