"""prop-radial: along itself every layer has the curvature Var_p(z)."""

from functools import partial

import pytest
import torch

from tests.cases import generator
from tests.layered import close, logits, loss_hessian, network, with_weight


def variance(z):
    p = z.softmax(0)
    return (p * (z - p @ z).square()).sum()


def along(weights, level, x, y=0, f=torch.relu):
    """<W, H W> and |W|^2 Tr H of one layer, by autograd."""
    h = loss_hessian(with_weight(weights, level, x, f), weights[level], y)
    w = weights[level].flatten()
    return w @ h @ w, (w @ w) * h.trace()


@pytest.mark.random
def test_500_networks():
    """500 random networks without biases: every layer, and the floor below it."""
    g = generator(0)
    for case in range(500):
        weights, x = network(g)
        z = logits(weights, x)
        level = case % len(weights)
        radial, kappa = along(weights, level, x, y=case % len(z))
        close(radial, variance(z), rtol=1e-8)
        assert kappa >= radial - 1e-9 * (1 + kappa)


@pytest.mark.random
def test_the_input():
    """200 random networks: the input has the same curvature along itself."""
    g = generator(1)
    for _ in range(200):
        weights, x = network(g, depth=2)
        h = loss_hessian(lambda v, w=weights: logits(w, v), x)
        close(x @ h @ x, variance(logits(weights, x)), rtol=1e-8)


@pytest.mark.boundary
def test_one_weight_a_layer():
    """A chain of single weights: all layers but the last attain the floor."""
    weights = [torch.tensor([[2.0]]), torch.tensor([[0.5]]), torch.tensor([[3.0], [0]])]
    weights = [w.double() for w in weights]
    x = torch.ones(1, dtype=torch.float64)
    wanted = variance(logits(weights, x))
    for level in (0, 1):
        radial, kappa = along(weights, level, x)
        close(radial, wanted)
        close(kappa, wanted)
    radial, kappa = along(weights, 2, x)
    close(radial, wanted)
    close(kappa, 2 * wanted)  # its dead row has curvature, too


@pytest.mark.boundary
def test_a_network_that_is_off():
    """All units off: the logits are zero, and so is the curvature."""
    weights = [-torch.ones(2, 1).double(), torch.ones(2, 2).double()]
    x = torch.ones(1, dtype=torch.float64)
    assert variance(logits(weights, x)) == 0
    assert along(weights, 0, x)[0] == along(weights, 1, x)[0] == 0


@pytest.mark.needed
@pytest.mark.parametrize("case", ["biases", "a shortcut", "GELU"])
def test_the_assumptions(case):
    """With biases, with a shortcut or with GELU the layers differ."""
    g, off = generator(2), 0
    for _ in range(40):
        weights, x = network(g, depth=2, k=3, width=4)
        low, high = weights
        b = torch.randn(len(low), generator=g, dtype=torch.float64)
        f = torch.nn.functional.gelu if case == "GELU" else torch.relu
        b = b if case == "biases" else 0 * b
        one = torch.ones(len(low), dtype=torch.float64) * float(case == "a shortcut")

        def outputs(low, high, inputs=(x, b, one, f)):
            x, b, one, f = inputs
            return high @ (one * x[0] + f(low @ x + b))

        first, second = partial(outputs, high=high), partial(outputs, low)
        radial = []
        for function, weight in ((first, low), (second, high)):
            h = loss_hessian(function, weight)
            radial.append(weight.flatten() @ h @ weight.flatten())
        close(radial[1], variance(second(high)), rtol=1e-8)  # the head stays linear
        off += bool((radial[0] - radial[1]).abs() > 0.01 * radial[1])
    assert off > 25
