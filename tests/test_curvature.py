"""Curvature against dense Hessians, brute force and 60-digit arithmetic."""

import itertools
import math

import mpmath as mp
import pytest
import torch
from torch import nn

from flatbook import curvature, softmax
from tests.cases import generator, head, head_ids, heads


def dense(weight, features, label):
    """Hessian of cross-entropy in the row-major weight, by autograd."""
    k, d = weight.shape

    def loss(w):
        z = w.reshape(k, d) @ features
        return z.logsumexp(0) - z[label]

    return torch.func.hessian(loss)(weight.reshape(-1))


@pytest.mark.parametrize("case", heads(), ids=head_ids())
def test_head_measures_against_the_dense_hessian(case):
    weight, features, logits, labels = case
    k, d = weight.shape
    trace = curvature.hessian_trace(features, logits)
    flat = curvature.relative_flatness(weight, features, logits)
    for i in range(len(features)):
        h = dense(weight, features[i], labels[i])
        torch.testing.assert_close(trace[i], h.trace(), rtol=1e-10, atol=1e-13)
        blocks = h.reshape(k, d, k, d).diagonal(dim1=1, dim2=3).sum(-1)
        wanted = (blocks * (weight @ weight.T)).sum()
        rounding = 1e-15 * (weight.square().sum() * features[i].square().sum()).item()
        torch.testing.assert_close(flat[i], wanted, rtol=1e-10, atol=rounding)


@pytest.mark.parametrize("case", heads(), ids=head_ids())
def test_lambda_max_against_the_feature_hessian(case):
    weight, features, logits, labels = case
    got = curvature.lambda_max(weight, logits)
    for phi, label, value in zip(features, labels, got, strict=True):

        def loss(v, y=label):
            z = weight @ v
            return z.logsumexp(0) - z[y]

        wanted = torch.linalg.eigvalsh(torch.func.hessian(loss)(phi))[-1]
        rounding = 1e-15 * weight.square().sum().item()  # of the dense matrix
        torch.testing.assert_close(value, wanted, rtol=1e-10, atol=rounding)


def test_lambda_max_of_saturated_predictions():
    weight = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 1.0]], dtype=torch.float64)
    logits = torch.tensor([[700.0, 0.0, 20.0]], dtype=torch.float64)
    with mp.workdps(800):
        e = [mp.exp(v) for v in (700, 0, 20)]
        p = [v / mp.fsum(e) for v in e]
        w = mp.matrix(weight.tolist())
        cov = mp.diag(p) - mp.matrix(p) * mp.matrix(p).T
        wanted = max(mp.eigsy(w.T * cov * w, eigvals_only=True))
        got = curvature.lambda_max(weight, logits).item()
        assert abs(got - wanted) < 1e-11 * wanted
        small = curvature.lambda_max(weight.float(), logits.float() / 12).item()
    assert small > 0


def test_log_trace_reaches_where_the_trace_underflows():
    features = torch.ones(1, 4, dtype=torch.float64)
    logits = torch.tensor([[2000.0, 0.0]], dtype=torch.float64)
    assert curvature.hessian_trace(features, logits).item() == 0.0
    got = curvature.log_hessian_trace(features, logits).item()
    assert got == pytest.approx(math.log(4 * 2) - 2000, rel=1e-13)


def test_layerwise_rescaling_leaves_the_squared_measures_alone():
    weight, features, logits, _ = head(50, 6, 4, seed=3)
    kappa = curvature.relative_sharpness(weight, features, logits)
    moved = curvature.relative_sharpness(3 * weight, features / 3, logits)
    torch.testing.assert_close(moved, kappa, rtol=1e-12, atol=0)
    printed = curvature.relative_sharpness(weight, features, logits, power=1)
    moved = curvature.relative_sharpness(3 * weight, features / 3, logits, power=1)
    torch.testing.assert_close(moved, printed / 3, rtol=1e-12, atol=0)
    kappa = curvature.relative_flatness(weight, features, logits)
    shifted = weight + torch.randn(4, generator=generator(1), dtype=torch.float64)
    moved = curvature.relative_flatness(shifted, features, logits)
    torch.testing.assert_close(moved, kappa, rtol=1e-10, atol=1e-14)


def test_the_chain_of_measures():
    for seed in range(40):
        k, d = 2 + seed % 9, 1 + seed % 7
        weight, features, logits, _ = head(50, k, d, seed=seed)
        worst = features.square().sum(1) * curvature.lambda_max(weight, logits)
        mean = curvature.relative_flatness(weight, features, logits)
        spectral = curvature.relative_sharpness(
            weight, features, logits, norm="spectral"
        )
        full = curvature.relative_sharpness(weight, features, logits)
        chain = [mean / min(d, k - 1), worst, mean, spectral, full]
        for low, high in itertools.pairwise(chain):
            assert (low <= high * (1 + 1e-9) + 1e-15).all()


class Net(nn.Module):
    """Convolutions, BatchNorm, max-pooling and a residual branch."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3))
        self.relu, self.pool = nn.ReLU(), nn.MaxPool2d(2)
        self.second = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.flat = nn.Flatten()
        self.head = nn.Linear(12, 3)

    def features(self, x):
        x = self.pool(self.relu(self.first(x)))
        return self.flat(self.relu(x + self.second(x)))

    def forward(self, x):
        return self.head(self.features(x))


@pytest.fixture
def net():
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = Net().double()
        model.first[1].running_mean.normal_(0, 0.1)
        model.first[1].running_var.uniform_(0.5, 2)
    return model.eval()


@pytest.fixture
def images():
    return torch.rand(5, 1, 4, 4, generator=generator(2), dtype=torch.float64)


def test_input_trace_against_the_dense_hessian(net, images):
    got = curvature.input_hessian_trace(net, images)
    for label in (0, 2):
        for image, value in zip(images, got, strict=True):

            def loss(v, y=label):
                z = net(v.reshape(1, 1, 4, 4))[0]
                return z.logsumexp(0) - z[y]

            h = torch.func.hessian(loss)(image.reshape(-1))
            torch.testing.assert_close(value, h.trace(), rtol=1e-10, atol=1e-14)


def test_layer_traces_against_dense_hessians(net, images):
    got = curvature.layer_hessian_traces(net, images, chunk_size=2)
    assert list(got) == ["first.0", "first.1", "second", "head"]
    params = {n: p.detach() for n, p in net.named_parameters()}
    for layer, values in got.items():
        for image, value in zip(images, values, strict=True):
            total = 0.0
            for name in (n for n in params if n.rpartition(".")[0] == layer):

                def loss(w, name=name, image=image):
                    z = torch.func.functional_call(
                        net,
                        {**params, name: w.reshape(params[name].shape)},
                        image[None],
                    )[0]
                    return z.logsumexp(0) - z[1]

                total += torch.func.hessian(loss)(params[name].reshape(-1)).trace()
            torch.testing.assert_close(value, total, rtol=1e-10, atol=1e-14)


def test_the_heads_layer_trace_is_the_closed_form(net, images):
    net.head.bias = None
    got = curvature.layer_hessian_traces(net, images)["head"]
    features = net.features(images).detach()
    wanted = curvature.hessian_trace(features, net.head(features).detach())
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=0)


def test_networks_that_break_the_identity_are_refused(net, images):
    with pytest.raises(ValueError, match="train mode"):
        curvature.input_hessian_trace(net.train(), images)
    smooth = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.GELU())
    with pytest.raises(ValueError, match="GELU"):
        curvature.input_hessian_trace(smooth.double().eval(), images)
    with pytest.raises(ValueError, match="LayerNorm"):
        curvature.layer_hessian_traces(nn.Sequential(nn.LayerNorm(4)), images)


def test_bad_input_is_named(net):
    weight, features, logits, _ = head(4, 3, 2)
    with pytest.raises(ValueError, match="power must be 1 or 2, got 3"):
        curvature.relative_sharpness(weight, features, logits, power=3)
    with pytest.raises(ValueError, match="'max'"):
        curvature.relative_sharpness(weight, features, logits, norm="max")
    with pytest.raises(ValueError, match="share d"):
        curvature.relative_flatness(weight[:, :1], features, logits)
    with pytest.raises(TypeError, match="int64"):
        curvature.input_hessian_trace(net, torch.zeros(1, 1, 4, 4).long())
    with pytest.raises(ValueError, match="NaN"):
        curvature.input_hessian_trace(net, torch.full((1, 1, 4, 4), torch.nan))


def test_float32_agrees_with_float64():
    _, features, logits, _ = head(200, 10, 8, scale=2.0, seed=5)
    exact = curvature.hessian_trace(features, logits)
    single = curvature.hessian_trace(features.float(), logits.float())
    torch.testing.assert_close(single.double(), exact, rtol=3e-5, atol=0)
    assert softmax.trace_p(logits.float()).min() > 0
