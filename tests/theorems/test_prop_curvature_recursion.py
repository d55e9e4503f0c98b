"""prop-curvature-recursion: one layer back, with the gate of the layer arrived at."""

import pytest
import torch

from flatbook import softmax
from tests.cases import generator
from tests.layered import (
    acts,
    close,
    logits,
    loss_hessian,
    network,
    with_weight,
)


def gate(a):
    return torch.diag((a > 0).to(a))


def recursion(weights, x):
    """H^1 .. H^L and the blocks of W_1 .. W_L, column by column; and H_x."""
    inside, outside = acts(weights, x)
    h, inner, blocks = softmax.covariance(outside[-1][None])[0], [], []
    for i in reversed(range(len(weights))):
        inner.insert(0, h)
        blocks.insert(0, torch.kron(torch.outer(inside[i], inside[i]), h))
        back = weights[i] @ gate(outside[i - 1]) if i else weights[i]
        h = back.T @ h @ back
    return inner, blocks, h


def printed(weights, x, last=None):
    """The same as printed; `last` stands for the gate on the logits."""
    inside, outside = acts(weights, x)
    h, inner, blocks = softmax.covariance(outside[-1][None])[0], [], []
    gates = [gate(a) for a in outside]
    gates[-1] = gates[-1] if last is None else last
    for i in reversed(range(len(weights))):
        gated = gates[i] @ h @ gates[i]
        inner.insert(0, h)
        blocks.insert(0, torch.kron(torch.outer(inside[i], inside[i]), gated))
        h = weights[i].T @ gated @ weights[i]
    return inner, blocks, h


def columns(weights, level, x, y):
    """The block of one layer by autograd, listed column by column."""
    weight = with_weight(weights, level, x)
    return loss_hessian(lambda w: weight(w.T), weights[level].T, y)


def from_outputs(weights, level):
    """Logits as a function of a^(level + 1)."""

    def function(a):
        rest = weights[level + 1 :]
        return logits(rest, a.relu()) if rest else a

    return function


def cases(number, **options):
    g = generator(0)
    for case in range(number):
        weights, x = network(g, **options)
        yield case, weights, x


@pytest.mark.random
def test_500_networks():
    """500 random networks of one to three layers against automatic differentiation."""
    for case, weights, x in cases(500):
        level, y = case % len(weights), case % len(weights[-1])
        inner, blocks, h_x = recursion(weights, x)
        _, outside = acts(weights, x)
        close(
            inner[level],
            loss_hessian(from_outputs(weights, level), outside[level], y),
        )
        close(blocks[level], columns(weights, level, x, y))
        if level == 0:
            close(h_x, loss_hessian(lambda v, w=weights: logits(w, v), x, y))


@pytest.mark.random
def test_gradients():
    """200 random networks: the gradient goes back through the same gates."""
    for case, weights, x in cases(200, depth=3):
        _, outside = acts(weights, x)
        level = case % 2
        points = [outside[i].clone().requires_grad_() for i in (level, level + 1)]
        slopes = [
            torch.autograd.grad(
                torch.nn.functional.cross_entropy(
                    from_outputs(weights, i)(p), torch.tensor(1)
                ),
                p,
            )[0]
            for i, p in zip((level, level + 1), points, strict=True)
        ]
        back = gate(outside[level]) @ weights[level + 1].T @ slopes[1]
        close(slopes[0], back)


@pytest.mark.random
def test_the_charitable_reading():
    """200 networks: as printed it is right for Hessians behind the ReLU, if D^L = I."""
    for case, weights, x in cases(200, depth=3):
        one = torch.eye(len(weights[-1]), dtype=torch.float64)
        inner, blocks, _ = printed(weights, x, last=one)
        inside, _ = acts(weights, x)
        level = case % 2
        rest = weights[level + 1 :]
        wanted = loss_hessian(lambda v, r=rest: logits(r, v), inside[level + 1])
        close(inner[level], wanted)
        close(blocks[level], columns(weights, level, x, 0))


@pytest.mark.boundary
def test_one_layer():
    """One layer is the last one: the Hessian of the softmax head."""
    for _, weights, x in cases(20, depth=1):
        inner, blocks, h_x = recursion(weights, x)
        p = softmax.covariance((weights[0] @ x)[None])[0]
        close(inner[0], p)
        close(blocks[0], torch.kron(torch.outer(x, x), p))
        close(h_x, weights[0].T @ p @ weights[0])


@pytest.mark.boundary
def test_a_layer_that_is_off():
    """Where a whole layer is off, every Hessian before it is zero."""
    weights = [-torch.ones(3, 2), torch.ones(3, 3), torch.randn(2, 3)]
    weights = [w.double() for w in weights]
    inner, blocks, h_x = recursion(weights, torch.ones(2, dtype=torch.float64))
    assert inner[0].abs().max() == blocks[0].abs().max() == h_x.abs().max() == 0
    assert inner[2].abs().max() > 0


@pytest.mark.needed
def test_with_the_gates_as_printed_it_fails():
    """With the gates as printed it fails by more than ten percent, typically."""
    off = []
    for _, weights, x in cases(100, depth=3, k=3):
        right, wrong = recursion(weights, x), printed(weights, x)
        if min(h.norm() for h in right[0]) > 1e-6:
            pairs = zip(right[0] + right[1], wrong[0] + wrong[1], strict=True)
            off.append([((w - r).norm() / r.norm()).item() for r, w in pairs])
    middle = torch.tensor(off).median(0).values
    assert len(off) > 30
    assert (middle[[0, 1, 3, 4, 5]] > 0.1).all()
    assert middle[2] == 0  # H^L itself


@pytest.mark.needed
def test_a_smooth_activation_adds_curvature():
    """With GELU in the place of ReLU it fails."""
    f = torch.nn.functional.gelu
    off = 0
    for _, weights, x in cases(60, depth=2, k=3):
        (low, high), y = weights, 1
        a = low @ x

        def outputs(v, high=high):
            return high @ f(v)

        slope = torch.diag(torch.func.vmap(torch.func.grad(f))(a))
        p = softmax.covariance(outputs(a)[None])[0]
        guess = slope @ high.T @ p @ high @ slope
        truth = loss_hessian(outputs, a, y)
        off += bool((guess - truth).norm() > 0.01 * truth.norm())
    assert off > 50
