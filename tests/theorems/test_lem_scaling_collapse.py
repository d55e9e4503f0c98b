"""lem-scaling-collapse: the paper's Lemma 11, corrected."""

import math

import pytest
import sympy as sp
import torch
from torch.func import hessian, jacrev, vmap
from torch.nn.functional import softplus

from flatbook import softmax
from tests.cases import generator

SIZES = ((2, 3), (3, 3), (3, 3))  # input 2, two hidden layers, three classes


def logits(parameters, x):
    """A ReLU network with biases; parameters is a list of (weight, bias)."""
    for weight, bias in parameters[:-1]:
        x = torch.relu(weight @ x + bias)
    weight, bias = parameters[-1]
    return weight @ x + bias


def unpack(flat):
    parts, start = [], 0
    for inputs, outputs in SIZES:
        size = inputs * outputs
        weight = flat[start : start + size].reshape(outputs, inputs)
        bias = flat[start + size : start + size + outputs]
        parts.append((weight, bias))
        start += size + outputs
    return parts


HEAD = 3 * 3 + 3
COUNT = sum(i * o + o for i, o in SIZES)


def networks(seed, n=125):
    g = generator(seed)
    flat = torch.randn(n, COUNT, generator=g, dtype=torch.float64)
    return flat, torch.randn(n, 2, generator=g, dtype=torch.float64)


def scaled(flat, alpha):
    return torch.cat([flat[..., :-HEAD], alpha * flat[..., -HEAD:]], -1)


def full_hessian(flat, x, labels):
    def loss(one, x, label):
        z = logits(unpack(one), x)
        return z.logsumexp(0) - (z * label).sum()

    hits = torch.nn.functional.one_hot(labels, 3).double()
    return vmap(hessian(loss))(flat, x, hits)


def constants(flat, x):
    """B of the lemma, and the margin of the prediction, at scale one."""
    jacobian = vmap(jacrev(lambda w, x: logits(unpack(w), x)))(flat, x)
    second = vmap(hessian(lambda w, x: logits(unpack(w), x)))(flat, x)
    bend = second.flatten(2).norm(dim=2).amax(1)
    z = vmap(lambda w, x: logits(unpack(w), x))(flat, x)
    size = torch.linalg.matrix_norm(jacobian, 2).square() + bend
    return size, softmax.margin(z, z.argmax(1)), z.argmax(1)


@pytest.mark.random
@pytest.mark.parametrize("seed", range(4))
def test_the_full_hessian_of_a_correct_sample(seed):
    """500 three-layer networks: the whole Hessian, by autograd, obeys the bound."""
    flat, x = networks(seed)
    size, m, top = constants(flat, x)
    for alpha in (1.0, 2.0, 10.0):
        found = full_hessian(scaled(flat, alpha), x, top).flatten(1).norm(dim=1)
        bound = 4 * size * alpha**2 * (-alpha * m).exp()
        assert (found <= bound * (1 + 1e-9) + 1e-13 * alpha**2 * size).all()


@pytest.mark.random
@pytest.mark.parametrize("seed", range(5))
def test_the_block_of_the_head_right_or_wrong(seed):
    """600 heads, right and wrong: the block of the head obeys the bound."""
    g, k = generator(seed), 2 + seed
    z = 3 * torch.randn(120, k, generator=g, dtype=torch.float64)
    features = torch.randn(120, 4, generator=g, dtype=torch.float64)
    m = softmax.margin(z, z.argmax(1))
    for alpha in (1.0, 3.0, 30.0):
        P = softmax.covariance(alpha * z)
        outer = features[:, :, None] * features[:, None, :]
        norm = torch.einsum("njl,nab->njalb", P, outer).flatten(1).norm(dim=1)
        bound = 2 * (k - 1) * features.square().sum(1) * (-alpha * m).exp()
        assert (norm <= bound * (1 + 1e-12)).all()


@pytest.mark.symbolic
def test_scaling_the_head_scales_the_other_derivatives():
    """Scaling the head multiplies only the derivatives in the other weights."""
    v, w, alpha = sp.symbols("v w alpha", positive=True)
    z = v * sp.sin(w)  # one head weight v, anything smooth below it
    at = {v: alpha * v}
    assert sp.diff(z, v).subs(at, simultaneous=True) == sp.diff(z, v)
    assert sp.diff(z, v, w).subs(at, simultaneous=True) == sp.diff(z, v, w)
    for order in (1, 2):
        lower = sp.diff(z, w, order)
        assert sp.simplify(lower.subs(at, simultaneous=True) - alpha * lower) == 0


@pytest.mark.boundary
def test_two_classes_nearly_attain_the_bound_of_the_head():
    """Two classes at a large margin: the bound of the head is attained in the limit."""
    z = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    for alpha in (20.0, 200.0, 700.0):
        norm = softmax.covariance(alpha * z).norm().item()
        assert norm == pytest.approx(2 * math.exp(-alpha), rel=1e-8)


@pytest.mark.boundary
def test_every_score_of_the_corrected_form_vanishes():
    """Scores with large powers of the weights and a small one of H vanish as well."""
    flat, x = networks(9)
    size, m, _ = constants(flat, x)
    lead = m > 0.1
    for r, s in ((10, 0.1), (2, 1), (0, 0.01)):
        logs = []
        for alpha in (1e6, 1e7):
            weight = 1 + alpha * flat[lead].norm(dim=1)
            bound = (4 * size[lead]).log() + 2 * math.log(alpha) - alpha * m[lead]
            logs.append(r * weight.log() + s * bound)
        assert (logs[1] < logs[0]).all()
        assert (logs[1] < -100).all()


@pytest.mark.needed
def test_without_a_power_of_the_hessian():
    """Scores 1 and |W| satisfy the printed premise: neither vanishes."""
    flat, _ = networks(0)
    norms = [scaled(flat, alpha).norm(dim=1) for alpha in (1.0, 1e3, 1e6)]
    assert (norms[2] > norms[1]).all()
    assert (norms[1] > norms[0]).all()
    factor = [(1 + 4 * math.exp(-alpha)) ** 2 for alpha in (1.0, 10.0, 100.0)]
    assert factor[2] == 1.0  # where the printed proof has e^{-2 alpha}
    assert factor[2] > math.exp(-200)


@pytest.mark.needed
def test_a_correct_prediction_is_needed():
    """Misclassified, the whole Hessian grows like the scale; its trace vanishes."""
    for alpha in (20.0, 100.0, 500.0):
        w = torch.tensor([1.0, 1.0, alpha], dtype=torch.float64)
        H = hessian(lambda w: softplus(w[2] * torch.relu(w[1] * torch.relu(w[0]))))(w)
        assert H.norm().item() == pytest.approx(math.sqrt(2) * alpha, rel=1e-2)
        assert abs(H.trace().item()) < 1e-4


@pytest.mark.needed
def test_a_lead_is_needed():
    """With two classes in a tie the block of the head keeps its size."""
    z = torch.tensor([[0.0, 0.0, -1.0]], dtype=torch.float64)
    norms = [softmax.covariance(a * z).norm().item() for a in (1.0, 30.0, 300.0)]
    assert norms[1] == pytest.approx(0.5)
    assert norms[2] == pytest.approx(0.5)
