"""Small layered networks, and derivatives of them that know no formula."""

from itertools import pairwise

import torch
from torch.autograd.functional import hessian
from torch.nn.functional import cross_entropy


def network(g, *, depth=None, k=None, width=4):
    """Weights of a random network without biases, and an input."""
    depth = depth or 1 + int(torch.randint(3, (), generator=g))
    sizes = (1 + torch.randint(width, (depth,), generator=g)).tolist()
    sizes.append(k or 2 + int(torch.randint(3, (), generator=g)))
    weights = [
        torch.randn(m, n, generator=g, dtype=torch.float64) for n, m in pairwise(sizes)
    ]
    return weights, torch.randn(sizes[0], generator=g, dtype=torch.float64)


def logits(weights, x, f=torch.relu):
    """The last layer has no activation."""
    for weight in weights[:-1]:
        x = f(weight @ x)
    return weights[-1] @ x


def acts(weights, x):
    """The inputs x^0 .. x^(L-1) of the layers and their outputs a^1 .. a^L."""
    inside, outside = [x], []
    for weight in weights:
        outside.append(weight @ inside[-1])
        inside.append(outside[-1].relu())
    return inside[:-1], outside


def square(matrix):
    size = round(matrix.numel() ** 0.5)
    return matrix.reshape(size, size)


def loss_hessian(function, point, y=0):
    """Hessian of cross-entropy of the logits function(point)."""
    label = torch.tensor(y)
    return square(hessian(lambda v: cross_entropy(function(v), label), point))


def with_weight(weights, level, x, f=torch.relu):
    """Logits as a function of the weights of one layer, row by row."""

    def function(weight):
        return logits([*weights[:level], weight, *weights[level + 1 :]], x, f)

    return function


def close(found, wanted, rtol=1e-9):
    """Equal up to rounding: of dense derivatives 1e-11 even where both are tiny."""
    size = max(found.norm().item(), wanted.norm().item(), 0.01)
    assert (found - wanted).norm().item() <= rtol * size
