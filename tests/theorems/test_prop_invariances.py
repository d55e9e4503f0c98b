"""prop-invariances: five measures, and which moves that change nothing change them."""

import math

import pytest
import sympy as sp
import torch
from torch.func import hessian, vmap
from torch.nn.functional import cross_entropy

from flatbook import radius
from tests.cases import generator

LAYER, SHIFT, NEURON = "layer", "shift", "neuron"
INVARIANT = {
    "|W| Tr H": set(),
    "|W|^2 Tr H": {LAYER},
    "kappa_P": {LAYER, SHIFT},
    "entrywise": {LAYER, NEURON},
    "radial": {LAYER, SHIFT, NEURON},
    "worst case": {LAYER, SHIFT},
    "flip": {LAYER, SHIFT},
}


def measures(weight, phi, bias, label):
    """All for n heads (n, k, d), from dense Hessians: no closed form."""
    n, k, d = weight.shape

    def of_weight(w, f, b, y):
        return cross_entropy(w.reshape(k, d) @ f + b, y)

    def of_features(f, w, b, y):
        return cross_entropy(w @ f + b, y)

    flat = weight.flatten(1)
    dense = vmap(hessian(of_weight))(flat, phi, bias, label)
    bend = vmap(hessian(of_features))(phi, weight, bias, label)
    diagonal = dense.diagonal(dim1=1, dim2=2)
    blocks = torch.einsum("nsata->nst", dense.reshape(n, k, d, k, d))
    logits = (weight @ phi[:, :, None])[:, :, 0] + bias
    flips = [
        radius.flip_radius(w, z[None], z.argmax()[None])
        for w, z in zip(weight, logits, strict=True)
    ]
    size, trace = flat.square().sum(1), diagonal.sum(1)
    length = phi.square().sum(1)
    return {
        "|W| Tr H": size.sqrt() * trace,
        "|W|^2 Tr H": size * trace,
        "kappa_P": (blocks * (weight @ weight.mT)).sum((1, 2)),
        "entrywise": (flat.square() * diagonal).sum(1),
        "radial": torch.einsum("ni,nij,nj->n", flat, dense, flat),
        "worst case": length * torch.linalg.eigvalsh(bend)[:, -1],
        "flip": torch.cat(flips) / length.sqrt(),
    }


def some(n, k, d, seed):
    """Random heads (n, k, d), features, biases and labels."""
    g = generator(seed)
    shapes = ((n, k, d), (n, d), (n, k))
    tensors = [torch.randn(s, generator=g, dtype=torch.float64) for s in shapes]
    return *tensors, torch.randint(k, (n,), generator=g)


def moved(weight, phi, seed):
    """The heads after each of the three moves, with random parameters."""
    (n, _, d), g = weight.shape, generator(seed)
    s = (3 * torch.rand(n, 1, generator=g, dtype=torch.float64) - 1.5).exp()
    v = torch.randn(n, 1, d, generator=g, dtype=torch.float64)
    scale = (3 * torch.rand(n, d, generator=g, dtype=torch.float64) - 1.5).exp()
    return {
        LAYER: (s[:, None] * weight, phi / s),
        SHIFT: (weight + v, phi),
        NEURON: (weight * scale[:, None], phi / scale),
    }


@pytest.mark.random
@pytest.mark.parametrize(("k", "d"), [(2, 2), (3, 2), (3, 5), (5, 3)])
def test_150_heads_under_the_three_moves(k, d):
    """600 heads by dense Hessians: where the table says same, it is the same."""
    weight, phi, bias, labels = some(150, k, d, 100 * k + d)
    before = measures(weight, phi, bias, labels)
    p = ((weight @ phi[:, :, None])[:, :, 0] + bias).softmax(1)
    for move, (w, f) in moved(weight, phi, k + d).items():
        after = ((w @ f[:, :, None])[:, :, 0] + bias).softmax(1)
        torch.testing.assert_close(after, p, rtol=1e-10, atol=1e-14)
        for name, value in measures(w, f, bias, labels).items():
            ratio = value / before[name] - 1
            if move in INVARIANT[name]:
                assert ratio.abs().max() < 1e-6, (name, move)
            else:
                assert (ratio.abs() > 0.01).sum() > 100, (name, move)


@pytest.mark.random
def test_the_printed_measure_is_divided_by_the_scale():
    """500 heads: a layer's scale s divides the unsquared measure by s."""
    weight, phi, bias, labels = some(500, 3, 2, 3)
    s = torch.logspace(-2, 2, 500, dtype=torch.float64)
    before = measures(weight, phi, bias, labels)["|W| Tr H"]
    scaled = s[:, None, None] * weight, phi / s[:, None]
    after = measures(*scaled, bias, labels)["|W| Tr H"]
    torch.testing.assert_close(after, before / s, rtol=1e-9, atol=0)


@pytest.mark.symbolic
def test_symbolic_quadratic_form_after_a_move():
    """In sympy: a move of the neurons conjugates A, a shift leaves q(A) alone."""
    w = sp.Matrix(2, 2, sp.symbols("w:4", real=True))
    a = sp.Matrix(2, 2, sp.symbols("a:4", real=True))
    phi = sp.Matrix(sp.symbols("f:2", real=True))
    v = sp.Matrix(1, 2, sp.symbols("v:2", real=True))
    d = sp.diag(*sp.symbols("d:2", positive=True))
    p = sp.Symbol("p", positive=True)
    covariance = p * (1 - p) * sp.Matrix([[1, -1], [-1, 1]])

    def q(weight, turn, features):
        moved_by = weight * turn * features
        return (moved_by.T * covariance * moved_by)[0]

    neurons = q(w * d, a, d.inv() * phi) - q(w, d * a * d.inv(), phi)
    shift = q(w + sp.ones(2, 1) * v, a, phi) - q(w, a, phi)
    assert sp.simplify(neurons) == 0
    assert sp.simplify(shift) == 0


@pytest.mark.boundary
def test_boundary_the_example_by_hand():
    """The example by hand: every number of the proof."""
    weight, phi = torch.eye(2).double()[None], torch.ones(1, 2).double()
    two, root = torch.tensor([2.0, 1.0]).double(), math.sqrt
    wanted = [
        (weight, phi, [root(2), 2, 1, 1 / 2]),
        (2 * weight, phi / 2, [root(2) / 2, 2, 1, 1 / 2]),
        (weight + 1, phi, [root(10), 10, 1, 5 / 2]),
        (weight * two, phi / two, [root(5) * 5 / 8, 25 / 8, 25 / 16, 1 / 2]),
    ]
    for w, f, values in wanted:
        found = measures(w, f, torch.zeros(1, 2).double(), torch.tensor([0]))
        first = [v.item() for v in found.values()][:4]
        assert first == pytest.approx(values, rel=1e-12)


@pytest.mark.boundary
def test_boundary_one_feature():
    """With one feature the neurons' move is a layer's, and kappa_P survives all."""
    weight, phi, bias, labels = some(20, 3, 1, 2)
    before = measures(weight, phi, bias, labels)["kappa_P"]
    after = measures(3 * weight + 5, phi / 3, bias, labels)["kappa_P"]
    torch.testing.assert_close(after, before, rtol=1e-9, atol=0)


@pytest.mark.needed
def test_moving_one_layer_alone_changes_everything():
    """Scaling the head alone is no such move: all but the flip change."""
    weight, phi, bias, labels = some(20, 3, 2, 4)
    before = measures(weight, phi, 0 * bias, labels)
    after = measures(2 * weight, phi, 0 * bias, labels)
    for name in INVARIANT.keys() - {"flip"}:
        assert ((after[name] / before[name] - 1).abs() > 0.01).all(), name
    torch.testing.assert_close(after["flip"], before["flip"])


@pytest.mark.needed
def test_a_negative_scale_needs_a_linear_network():
    """A negative scale passes through no ReLU, so the moves are positive."""
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)
    torch.testing.assert_close((3 * x).relu() / 3, x.relu())
    assert ((-3 * x).relu() / -3 - x.relu()).abs().max() > 0.5
    gelu = torch.nn.functional.gelu
    assert (gelu(3 * x) / 3 - gelu(x)).abs().max() > 0.1
