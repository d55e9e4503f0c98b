"""Curvature in the input and in the layers, against dense Hessians; and its refusals.

The public names are those of `flatbook.curvature`.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.functional import hessian
from torch.func import functional_call

from flatbook import curvature, models, softmax
from tests.cases import generator

LABELS = torch.tensor([0, 2, 1, 1, 0])


def settle(model, seed=0):
    """Statistics and affine parameters of BatchNorm that a training might leave."""
    g = generator(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                draw = torch.rand(4, module.num_features, generator=g)
                draw[[0, 3]] += 0.5
                draw[[1, 2]] -= 0.5
                for own, value in zip(
                    (*module.parameters(), module.running_mean, module.running_var),
                    draw,
                    strict=True,
                ):
                    own.copy_(value)
    return model


def seeded(make, seed=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return settle(make()).eval()


class Net(nn.Module):
    """Convolutions, BatchNorm, both kinds of pooling and a residual branch."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3))
        self.second = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.bn, self.head = nn.BatchNorm2d(3), nn.Linear(3, 3)

    def features(self, x):
        x = F.max_pool2d(self.first(x).relu(), 2)
        x = (x + self.bn(self.second(x))).relu()
        return F.avg_pool2d(x, 2).flatten(1)

    def forward(self, x):
        return self.head(self.features(x))


class Mlp(nn.Module):
    """Two hidden layers with a function of choice between them."""

    def __init__(self, activation, *more):
        super().__init__()
        self.first, self.second = nn.Linear(6, 5), nn.Linear(5, 5)
        self.head, self.f = nn.Linear(5, 3), activation
        self.g = more[0] if more else activation

    def forward(self, x):
        return self.head(self.g(self.second(self.f(self.first(x)))))


class Attention(nn.Module):
    """One head of attention over seven tokens, mean-pooled."""

    def __init__(self, fused=False):
        super().__init__()
        self.embed, self.fused = nn.Linear(4, 3), fused
        self.query, self.key, self.value = (nn.Linear(3, 3) for _ in range(3))
        self.head = nn.Linear(3, 3)

    def forward(self, x):
        h = self.embed(x)
        q, k, v = (f(h)[:, None] for f in (self.query, self.key, self.value))
        if self.fused:
            out = F.scaled_dot_product_attention(q, k, v)
        else:
            out = (q @ k.mT / 3**0.5).softmax(-1) @ v
        return self.head(out[:, 0].mean(1))


class Twice(nn.Module):
    """One layer used twice, as a module or as a parameter of two modules."""

    def __init__(self, as_parameter=False):
        super().__init__()
        self.first, self.head = nn.Linear(6, 6), nn.Linear(6, 3)
        self.again = nn.Linear(6, 6, bias=False) if as_parameter else self.first
        self.again.weight = self.first.weight

    def forward(self, x):
        return self.head(self.again(self.first(x).relu()).relu())


class Autoencoder(Mlp):
    """A weight of a layer that is called once, used a second time by a function."""

    def forward(self, x):
        code = F.linear(super().forward(x), self.head.weight.T)
        return F.linear(code.relu(), self.head.weight)


class Branches(Twice):
    """Shared weights beside each other, not behind: affine all the same."""

    def forward(self, x):
        return self.head(self.first(x).relu() - self.first(x.flip(1)).relu())


class Scalars(nn.Module):
    """z = (w2 relu(w1 x), 0): parameters of the model itself."""

    def __init__(self):
        super().__init__()
        self.w1, self.w2 = (nn.Parameter(torch.tensor(v)) for v in (1.0, 3.0))

    def forward(self, x):
        z = self.w2 * (self.w1 * x).relu()
        return torch.cat([z, 0 * z], 1)


def vectors(dtype=torch.float64):
    return torch.randn(5, 6, generator=generator(1), dtype=dtype)


def images(dtype=torch.float64):
    return torch.rand(5, 1, 4, 4, generator=generator(2), dtype=dtype)


def tokens(dtype=torch.float64):
    return torch.randn(5, 7, 4, generator=generator(3), dtype=dtype)


def dense_input(model, x, labels=LABELS):
    """Hessians in the input, sample by sample."""

    def loss(v, y):
        return F.cross_entropy(model(v.reshape(x[:1].shape)), y[None])

    return [
        hessian(lambda v, y=y: loss(v, y), image.flatten())
        for image, y in zip(x, labels, strict=True)
    ]


def dense_layer(model, layer, x, labels=LABELS):
    """Hessians in all parameters of one layer, sample by sample."""
    values = {n: p.detach() for n, p in model.named_parameters()}
    names = [n for n in values if layer in (n, n.rpartition(".")[0])]
    sizes = [values[n].numel() for n in names]
    point = torch.cat([values[n].flatten() for n in names])

    def loss(flat, batch, y):
        own = {
            n: part.reshape(values[n].shape)
            for n, part in zip(names, flat.split(sizes), strict=True)
        }
        return F.cross_entropy(functional_call(model, values | own, (batch,)), y)

    return [
        hessian(lambda flat, i=i: loss(flat, x[i, None], labels[i, None]), point)
        for i in range(len(x))
    ]


def traces(matrices):
    return torch.stack([m.trace() for m in matrices])


def close(got, wanted, rtol=1e-10):
    torch.testing.assert_close(got, wanted, rtol=rtol, atol=0)


# --- exact -------------------------------------------------------------------

STRAIGHT = {
    "ReLU": nn.ReLU,
    "leaky ReLU, a function": lambda: F.leaky_relu,
    "absolute value": lambda: torch.abs,
    "hard tanh": nn.Hardtanh,
    "identity": nn.Identity,
    "dropout in eval mode": nn.Dropout,
}


@pytest.mark.parametrize("name", STRAIGHT)
def test_mlps_against_dense_hessians(name):
    net, x = seeded(lambda: Mlp(STRAIGHT[name]())).double(), vectors()
    close(curvature.input_hessian_trace(net, x), traces(dense_input(net, x)))
    got = curvature.layer_hessian_traces(net, x)
    assert list(got) == ["first", "second", "head"]
    for layer, values in got.items():
        close(values, traces(dense_layer(net, layer, x)))


def test_a_convolutional_network_against_dense_hessians():
    net, x = seeded(Net).double(), images()
    close(curvature.input_hessian_trace(net, x), traces(dense_input(net, x)))
    got = curvature.layer_hessian_traces(net, x)
    assert list(got) == ["first.0", "first.1", "second", "bn", "head"]
    for layer, values in got.items():
        close(values, traces(dense_layer(net, layer, x)))


def test_float32_to_six_digits():
    net, x = seeded(Net), images(torch.float32)
    exact = seeded(Net).double()
    wanted = traces(dense_input(exact, x.double()))
    close(curvature.input_hessian_trace(net, x).double(), wanted, rtol=1e-6)
    for layer, values in curvature.layer_hessian_traces(net, x).items():
        wanted = traces(dense_layer(exact, layer, x.double()))
        close(values.double(), wanted, rtol=1e-6)


@pytest.mark.parametrize("name", models.NAMES)
def test_every_architecture(name):
    """All layers run; the smallest ones and the input against dense Hessians."""
    width = 0.1 if name == "densenet121" else 0.04
    net = settle(models.build(name, 3, width=width, in_channels=1, image_size=8))
    net = net.double().eval()
    x = torch.rand(2, 1, 8, 8, generator=generator(5), dtype=torch.float64)
    net = models.scale_head(net, 1 / net(x).abs().max().item())  # no saturation
    labels = torch.tensor([2, 0])
    got = curvature.layer_hessian_traces(net, x)
    sizes = {n: sum(p.numel() for p in m.parameters()) for n, m in net.named_modules()}
    for layer in sorted(got, key=sizes.__getitem__)[:2]:
        wanted = traces(dense_layer(net, layer, x, labels))
        torch.testing.assert_close(got[layer], wanted, rtol=1e-10, atol=1e-14)
    phi = net.features(x).detach()
    z = net.head(phi).detach()
    close(got["head"], curvature.hessian_trace(phi, z) + softmax.trace_p(z))
    corner = x[:1, :, :2, :2].clone()

    def loss(v):
        image = x[:1].clone()
        image[:, :, :2, :2] = v
        return F.cross_entropy(net(image), labels[:1])

    h = hessian(loss, corner).reshape(4, 4)
    gram = _corner_gram(net, x[:1])
    close(curvature.gram_trace(gram, z[:1]), h.trace()[None], rtol=1e-8)
    whole = curvature.input_hessian_trace(net, x)[0]
    assert whole > curvature.gram_trace(gram, z[:1])[0] > 0


def _corner_gram(net, x):
    """Gram of the gradients in four pixels."""
    point = x.clone().requires_grad_()
    rows = [torch.autograd.grad(z, point, retain_graph=True)[0] for z in net(point)[0]]
    rows = torch.stack([r[:, :, :2, :2].flatten() for r in rows])
    return (rows @ rows.T)[None]


def test_the_traces_do_not_depend_on_the_batch():
    net, x = seeded(Net).double(), images()
    whole = curvature.layer_hessian_traces(net, x)
    for layer, values in curvature.layer_hessian_traces(net, x, chunk_size=2).items():
        close(values, whole[layer])
    for layer, values in curvature.layer_hessian_traces(net, x[3:4]).items():
        close(values, whole[layer][3:4])
    close(
        curvature.input_hessian_trace(net, x[3:4]),
        curvature.input_hessian_trace(net, x)[3:4],
    )


def test_one_gram_matrix_serves_every_scale_and_the_spectrum():
    net, x = seeded(Net).double(), images()
    gram, logits = curvature.input_gram(net, x)
    top = logits.argmax(1)
    assert (gram[torch.arange(5), top] == 0).all()
    for s in (0.5, 1.0, 4.0):
        scaled = models.scale_head(net, s)
        matrices = dense_input(scaled, x)
        close(curvature.gram_trace(s**2 * gram, s * logits), traces(matrices))
        values = curvature.gram_eigenvalues(s**2 * gram, s * logits)
        wanted = torch.stack([torch.linalg.eigvalsh(m)[-3:] for m in matrices])
        torch.testing.assert_close(values, wanted, rtol=1e-9, atol=1e-13)
    grams, logits = curvature.layer_grams(net, x, layers=["bn"])
    values = curvature.gram_eigenvalues(grams["bn"], logits)
    wanted = [torch.linalg.eigvalsh(m)[-3:] for m in dense_layer(net, "bn", x)]
    torch.testing.assert_close(values, torch.stack(wanted), rtol=1e-9, atol=1e-13)


def test_saturated_predictions_keep_their_digits():
    """At a gap of 60 one minus the probability of float32 would be zero."""
    net, x = models.scale_head(seeded(Net), 100.0), images(torch.float32)
    exact = models.scale_head(seeded(Net).double(), 100.0)
    got = curvature.input_hessian_trace(net, x).double()
    wanted = curvature.input_hessian_trace(exact, x.double())
    assert wanted.min() < 1e-6
    close(got, wanted, rtol=1e-3)
    gram = torch.tensor([[[0.0, 0.0], [0.0, 2.0]]])
    tiny = curvature.gram_trace(gram, torch.tensor([[60.0, 0.0]])).item()
    assert tiny == pytest.approx(2 * 8.756510762696521e-27, rel=1e-5)


def test_a_tie_for_the_first_place():
    net, x = seeded(lambda: Mlp(nn.ReLU())).double(), vectors()
    nn.init.zeros_(net.head.weight)
    nn.init.zeros_(net.head.bias)
    assert (curvature.input_hessian_trace(net, x) == 0).all()
    got = curvature.layer_hessian_traces(net, x)
    close(got["head"], traces(dense_layer(net, "head", x)))


def test_parameters_of_the_model_itself_and_single_parameters():
    net, x = Scalars().double(), torch.ones(1, 1, dtype=torch.float64)
    got = curvature.layer_hessian_traces(net, x)
    q = torch.tensor([3.0], dtype=torch.float64).sigmoid()
    close(got["w1"], 9 * q * (1 - q))
    close(got["w2"], q * (1 - q))
    net, x = seeded(Net).double(), images()
    whole = curvature.layer_hessian_traces(net, x, layers=["head", "first.0"])
    assert list(whole) == ["head", "first.0"]
    parts = curvature.layer_hessian_traces(net, x, layers=["head.bias", "head.weight"])
    close(parts["head.bias"] + parts["head.weight"], whole["head"])


class Counting(torch.autograd.Function):
    """The identity; counts the backward passes through it."""

    passes = 0

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        Counting.passes += 1
        return gradient


def test_the_input_costs_one_backward_pass_less_than_there_are_classes():
    class Counted(Net):
        def forward(self, x):
            return super().forward(Counting.apply(x))

    net = seeded(Counted).double()
    for n in (1, 5):
        Counting.passes = 0
        curvature.input_hessian_trace(net, images()[:n])
        assert Counting.passes <= (3 - 1) + 2  # and two for the test at a few samples


# --- refusals ----------------------------------------------------------------

BENT = {
    "GELU": (nn.GELU, "GELU"),
    "GELU, a function": (lambda: F.gelu, "functions in forward"),
    "SiLU": (nn.SiLU, "SiLU"),
    "softplus, a function": (lambda: F.softplus, "functions in forward"),
    "square": (lambda: lambda v: v * v, "functions in forward"),
    "tanh": (nn.Tanh, "Tanh"),
    "LayerNorm": (lambda: nn.LayerNorm(5), "LayerNorm"),
    "softmax": (lambda: nn.Softmax(1), "Softmax"),
    "batch statistics, a function": (
        lambda: lambda v: F.batch_norm(v, None, None, training=True),
        "functions in forward",
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", BENT)
def test_networks_that_bend_are_refused(name, dtype):
    make, told = BENT[name]
    net = seeded(lambda: Mlp(make())).to(dtype)
    with pytest.raises(ValueError, match=f"in the input.*{told}.*hutchinson_trace"):
        curvature.input_hessian_trace(net, vectors(dtype))
    with pytest.raises(ValueError, match=f"'first', 'second'.*{told}.*from 'head'"):
        curvature.layer_hessian_traces(net, vectors(dtype))
    if dtype == torch.float64 and "statistics" not in name:
        got = curvature.layer_hessian_traces(net, vectors(), layers=["head"])
        close(got["head"], traces(dense_layer(net, "head", vectors())))


def test_only_what_lies_before_the_bend_is_refused():
    net = seeded(lambda: Mlp(nn.GELU(), nn.ReLU())).double()
    with pytest.raises(ValueError, match="in 'first', so.*from 'second', 'head'"):
        curvature.layer_hessian_traces(net, vectors())
    got = curvature.layer_hessian_traces(net, vectors(), layers=["second", "head"])
    close(got["second"], traces(dense_layer(net, "second", vectors())))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_attention_is_exact_from_the_values_on(fused, dtype):
    net, x = seeded(lambda: Attention(fused)).to(dtype), tokens(dtype)
    with pytest.raises(
        ValueError, match="'embed', 'query', 'key', so.*'value', 'head'"
    ):
        curvature.layer_hessian_traces(net, x)
    for layer in ("embed", "query", "key"):
        with pytest.raises(ValueError, match=f"'{layer}'"):
            curvature.layer_hessian_traces(net, x, layers=[layer])
    with pytest.raises(ValueError, match="in the input"):
        curvature.input_hessian_trace(net, x)
    got = curvature.layer_hessian_traces(net, x, layers=["value", "head"])
    exact = seeded(Attention).double()
    for layer, values in got.items():
        wanted = traces(dense_layer(exact, layer, x.double()))
        close(values.double(), wanted, rtol=1e-5 if dtype == torch.float32 else 1e-10)


def test_multihead_attention_by_name():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))

    net = seeded(Block).double()
    with pytest.raises(ValueError, match="'attention', so.*MultiheadAttention"):
        curvature.layer_hessian_traces(net, tokens())
    layers = ["attention.out_proj", "head"]
    got = curvature.layer_hessian_traces(net, tokens(), layers=layers)
    for layer in layers:
        close(got[layer], traces(dense_layer(net, layer, tokens())))


@pytest.mark.parametrize("as_parameter", [False, True])
def test_weights_used_twice_in_a_row_are_refused(as_parameter):
    net = seeded(lambda: Twice(as_parameter)).double()
    with pytest.raises(ValueError, match="in 'first', so.*shared weights"):
        curvature.layer_hessian_traces(net, vectors())
    close(
        curvature.input_hessian_trace(net, vectors()),
        traces(dense_input(net, vectors())),
    )


def test_a_weight_used_outside_its_layer_is_seen():
    net = seeded(lambda: Autoencoder(nn.ReLU())).double()
    with pytest.raises(ValueError, match="in 'head', so.*from 'first', 'second'"):
        curvature.layer_hessian_traces(net, vectors())
    got = curvature.layer_hessian_traces(net, vectors(), layers=["first", "second"])
    for layer, values in got.items():
        close(values, traces(dense_layer(net, layer, vectors())))


def test_weights_used_twice_side_by_side_are_exact():
    net = seeded(Branches).double()
    got = curvature.layer_hessian_traces(net, vectors(), layers=["first"])
    close(got["first"], traces(dense_layer(net, "first", vectors())))


def test_a_product_of_weights_is_no_affine_layer():
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.low, self.high = (nn.Parameter(torch.rand(3, 3)) for _ in "ab")

        def forward(self, x):
            return x[:, :3] @ self.low @ self.high

    net, x = seeded(lambda: nn.Sequential(Product())).double(), vectors()
    with pytest.raises(ValueError, match="in '0', so"):
        curvature.layer_hessian_traces(net, x)
    close(curvature.input_hessian_trace(net, x), traces(dense_input(net, x)))
    for single in ("0.low", "0.high"):
        got = curvature.layer_hessian_traces(net, x, layers=[single])[single]
        close(got, traces(dense_layer(net, single, x)))


def test_a_subclass_of_an_affine_layer_is_not_trusted():
    class Squared(nn.Linear):
        def forward(self, x):
            return F.linear(x, self.weight**2, self.bias)

    net = nn.Sequential(seeded(lambda: Squared(6, 4)), nn.ReLU(), nn.Linear(4, 3))
    with pytest.raises(ValueError, match="in '0', so.*from '2'"):
        curvature.layer_hessian_traces(net.double().eval(), vectors())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_curvature_that_cross_entropy_does_not_see_is_no_reason(dtype):
    """Log-probabilities for logits: they bend, their differences do not."""
    net = nn.Sequential(seeded(lambda: Mlp(nn.ReLU())), nn.LogSoftmax(1)).to(dtype)
    x = vectors(dtype)
    plain = curvature.layer_hessian_traces(net[0], x)
    for layer, values in curvature.layer_hessian_traces(net, x).items():
        close(values, plain[layer.removeprefix("0.")], rtol=1e-5)
    close(
        curvature.input_hessian_trace(net, x),
        curvature.input_hessian_trace(net[0], x),
        rtol=1e-5,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", models.NAMES)
def test_no_false_alarm_at_large_and_small_weights(name, dtype):
    for size in (1e-3, 30.0):
        net = models.build(name, 10, width=0.05, in_channels=1, image_size=8)
        net = settle(models.scale_head(net, size)).to(dtype).eval()
        x = torch.rand(3, 1, 8, 8, generator=generator(1), dtype=dtype)
        assert (curvature.input_hessian_trace(net, x) >= 0).all()
        assert len(curvature.layer_hessian_traces(net, x[:1])) > 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_weak_bend_is_seen(dtype):
    """A thousandth of a GELU beside a ReLU."""
    net = seeded(lambda: Mlp(lambda v: v.relu() + 1e-3 * F.gelu(v))).to(dtype)
    with pytest.raises(ValueError, match="'first', 'second'"):
        curvature.layer_hessian_traces(net, vectors(dtype))
    with pytest.raises(ValueError, match="in the input"):
        curvature.input_hessian_trace(net, vectors(dtype))


def test_modes_that_mix_samples_or_draw_are_refused():
    net, x = seeded(Net).double(), images()
    before = net.first[1].running_mean.clone()
    net.bn.train()
    for function in (curvature.input_hessian_trace, curvature.layer_hessian_traces):
        with pytest.raises(ValueError, match=r"bn: BatchNorm2d in train.*model.eval"):
            function(net, x)
    net.eval()
    net.bn = nn.BatchNorm2d(3, track_running_stats=False).double().eval()
    with pytest.raises(ValueError, match="bn: BatchNorm2d.*samples mix"):
        curvature.input_hessian_trace(net, x)
    noisy = nn.Sequential(nn.Linear(6, 3), nn.Dropout()).double()
    with pytest.raises(ValueError, match="1: Dropout in train mode"):
        curvature.layer_hessian_traces(noisy, vectors())
    assert torch.equal(net.first[1].running_mean, before)


def test_what_has_no_second_derivative_is_told():
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, gradient):
            return 2 * ctx.saved_tensors[0] * gradient

    net = seeded(lambda: Mlp(Square.apply)).double()
    for function in (curvature.input_hessian_trace, curvature.layer_hessian_traces):
        with pytest.raises(ValueError, match="differentiated twice"):
            function(net, vectors())
    cut = seeded(lambda: Mlp(nn.ReLU())).double()
    cut.forward = lambda x: Mlp.forward(cut, x).detach()
    with pytest.raises(ValueError, match="carry no gradient"):
        curvature.input_hessian_trace(cut, vectors())


def test_bad_input_is_named():
    net = seeded(Net).double()
    with pytest.raises(TypeError, match="int64"):
        curvature.input_hessian_trace(net, torch.zeros(1, 1, 4, 4).long())
    with pytest.raises(ValueError, match="NaN"):
        curvature.input_hessian_trace(net, torch.full((1, 1, 4, 4), torch.nan))
    with pytest.raises(ValueError, match=r"no layer 'third'; layers: first.0, first.1"):
        curvature.layer_hessian_traces(net, images(), layers=["third"])
    with pytest.raises(TypeError, match="sequence of names, got 'head'"):
        curvature.layer_hessian_traces(net, images(), layers="head")
    with pytest.raises(ValueError, match="chunk_size"):
        curvature.layer_hessian_traces(net, images(), chunk_size=0)
    with pytest.raises(ValueError, match=r"gram must have shape \(5, 3, 3\)"):
        curvature.gram_trace(torch.zeros(5, 2, 2), torch.zeros(5, 3))


def test_nothing_is_left_behind():
    net, x = seeded(Net).double(), images()
    net.head.weight.requires_grad_(False)
    state = torch.random.get_rng_state()
    with torch.no_grad():
        curvature.input_hessian_trace(net, x)
        got = curvature.layer_hessian_traces(net, x)
        curvature.hutchinson_trace(net, x, LABELS, samples=2)
    assert not any(values.requires_grad for values in got.values())
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(p.grad is None for p in net.parameters())
    assert not any(m._forward_hooks for m in net.modules())
    wanted = [n != "head.weight" for n, _ in net.named_parameters()]
    assert [p.requires_grad for p in net.parameters()] == wanted
    for net in (seeded(Twice), seeded(Branches)):  # a module with two names
        before = list(net.parameters())
        curvature.layer_hessian_traces(net, vectors(torch.float32), layers=["head"])
        curvature.hutchinson_trace(net, vectors(torch.float32), LABELS, samples=2)
        assert all(p is q for p, q in zip(net.parameters(), before, strict=True))


# --- estimates ---------------------------------------------------------------


def within(estimate, wanted, errors=5.0):
    off = (estimate.mean - wanted).abs()
    return bool((off <= errors * estimate.standard_error + 1e-9).all())


@pytest.mark.parametrize("make", [nn.GELU, lambda: nn.LayerNorm(5), nn.ReLU])
def test_hutchinson_is_unbiased(make):
    net, x = seeded(lambda: Mlp(make())).double(), vectors()
    got = curvature.hutchinson_trace(net, x, LABELS, samples=200)
    for layer, estimate in got.items():
        wanted = traces(dense_layer(net, layer, x)).mean()
        assert within(estimate, wanted)
        assert estimate.standard_error < 0.5 * wanted.abs() + 0.1
    got = curvature.hutchinson_trace(net, x, LABELS, wrt="input", samples=200)
    assert within(got["input"], traces(dense_input(net, x)))


def test_hutchinson_agrees_with_the_exact_traces():
    net, x = seeded(Net).double(), images()
    got = curvature.hutchinson_trace(net, x, LABELS, samples=200)
    for layer, wanted in curvature.layer_hessian_traces(net, x).items():
        assert within(got[layer], wanted.mean())
    got = curvature.hutchinson_trace(net, x, LABELS, wrt="input", samples=200)
    assert within(got["input"], curvature.input_hessian_trace(net, x))


def test_the_error_bar_falls_as_one_over_the_root_and_is_honest():
    net, x = seeded(lambda: Mlp(nn.GELU())).double(), vectors()
    wanted = traces(dense_layer(net, "first", x)).mean()
    scores, ratios = [], []
    for seed in range(8):
        few, many = (
            curvature.hutchinson_trace(
                net, x, LABELS, layers=["first"], samples=n, generator=generator(seed)
            )["first"]
            for n in (20, 320)
        )
        scores.append((many.mean - wanted) / many.standard_error)
        ratios.append(few.standard_error / many.standard_error)
    assert 3.3 < torch.stack(ratios).mean() < 4.7  # sqrt(16) = 4
    assert 0.4 < torch.stack(scores).square().mean().sqrt() < 2.0


def test_hutchinson_with_train_mode_batch_norm():
    """The true Hessian of the batch, and the running statistics stay."""
    net, x = seeded(Net).double().train(), images()
    before = {n: b.clone() for n, b in net.named_buffers()}
    got = curvature.hutchinson_trace(
        net, x, LABELS, layers=["first.1", "bn"], samples=200
    )
    assert all(torch.equal(b, before[n]) for n, b in net.named_buffers())
    assert net.training
    values = {n: p.detach() for n, p in net.named_parameters()}
    buffers = {n: b.clone() for n, b in net.named_buffers()}
    for layer, estimate in got.items():
        name = f"{layer}.weight"

        def loss(w, name=name):
            z = functional_call(net, values | buffers | {name: w}, (x,))
            return F.cross_entropy(z, LABELS)

        weight = hessian(loss, values[name]).trace()
        name = f"{layer}.bias"
        bias = hessian(lambda b, n=name: loss(b, n), values[name]).trace()
        assert within(estimate, weight + bias)


def test_hutchinson_draws_from_its_generator_only():
    net, x = seeded(lambda: Mlp(nn.GELU())), vectors(torch.float32)
    one, same = (curvature.hutchinson_trace(net, x, LABELS)["first"] for _ in range(2))
    assert torch.equal(one.mean, same.mean)
    other = curvature.hutchinson_trace(net, x, LABELS, generator=generator(9))["first"]
    assert not torch.equal(one.mean, other.mean)


def test_hutchinson_names_bad_requests():
    net, x = seeded(lambda: Mlp(nn.GELU())).double(), vectors()
    for options, message in [
        ({"wrt": "weights"}, "'weights'"),
        ({"wrt": "input", "layers": ["head"]}, "takes no layers"),
        ({"samples": 1}, "at least 2, got 1"),
        ({"layers": ["tail"]}, "no layer 'tail'"),
    ]:
        with pytest.raises(ValueError, match=message):
            curvature.hutchinson_trace(net, x, LABELS, **options)
    with pytest.raises(ValueError, match="labels must lie in 0 .. 2"):
        curvature.hutchinson_trace(net, x, LABELS + 1)
    noisy = nn.Sequential(nn.Linear(6, 3), nn.Dropout()).double()
    with pytest.raises(ValueError, match="Dropout in train mode"):
        curvature.hutchinson_trace(noisy, x, LABELS)
