"""prop-probe-noise: what a random probe adds to the trace of one layer."""

import itertools
import math

import pytest
import torch

from flatbook import curvature
from tests.cases import generator


def signs(n):
    """All 2 ** n vectors of signs."""
    return torch.tensor(list(itertools.product((-1.0, 1.0), repeat=n))).double()


def exact(hessian, layer):
    """Mean and variance of v_l^T (H v)_l over all signs v."""
    v = signs(len(hessian))
    values = (v[:, layer] * (v @ hessian)[:, layer]).sum(1)
    return values.mean().item(), values.var(correction=0).item()


def by_formula(hessian, layer):
    """Trace, noise of the layer's own block, noise of the blocks beside it."""
    block = hessian[layer, layer]
    own = 2 * (block.square().sum() - block.diagonal().square().sum())
    beside = hessian[layer].square().sum() - block.square().sum()
    return block.trace().item(), own.item(), beside.item()


def symmetric(seed, n=7):
    half = torch.randn(n, n, generator=generator(seed), dtype=torch.float64)
    return half + half.T


def semidefinite(seed, n=8):
    """Of rank 1 to 5."""
    rank = 1 + seed % 5
    half = torch.randn(n, rank, generator=generator(seed), dtype=torch.float64)
    return half @ half.T, rank


def flat(n, rank):
    """Projection on `rank` columns of a Hadamard matrix: all diagonal entries equal."""
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < n:
        pair = torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)
        matrix = torch.cat(pair)
    return matrix[:, :rank] @ matrix[:, :rank].T / n


@pytest.mark.random
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("layer", [slice(0, 3), slice(3, 7), slice(2, 3)])
def test_all_signs_of_20_matrices(seed, layer):
    """20 symmetric matrices in three layers, over all 128 vectors of signs."""
    hessian = symmetric(seed)
    trace, own, beside = by_formula(hessian, layer)
    mean, variance = exact(hessian, layer)
    assert mean == pytest.approx(trace, abs=1e-10)
    assert variance == pytest.approx(own + beside, rel=1e-10, abs=1e-10)


@pytest.mark.random
@pytest.mark.parametrize("seed", range(40))
def test_both_bounds_at_low_rank(seed):
    """40 semidefinite matrices of rank 1 to 5: both bounds, over all signs."""
    hessian, rank = semidefinite(seed)
    whole = slice(0, len(hessian))
    trace, variance = exact(hessian, whole)
    share = (hessian.diagonal().max() / trace).item()
    assert variance >= 2 * (1 / rank - share) * trace**2 - 1e-9
    assert variance <= 2 * trace**2 + 1e-9


@pytest.mark.random
def test_the_estimator_of_the_package():
    """The estimator of the package, against the formula."""
    net = torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3)
    ).double()
    torch.manual_seed(0)
    for parameter in net.parameters():
        parameter.data.normal_()
    x, y = torch.randn(2, 3).double(), torch.tensor([0, 2])
    layers, named = ["0.weight", "2.weight"], dict(net.named_parameters())
    sizes = [named[name].numel() for name in layers]

    def loss(flat):
        parts = dict(zip(layers, flat.split(sizes), strict=True))
        parts = {name: part.view_as(named[name]) for name, part in parts.items()}
        logits = torch.func.functional_call(net, parts, (x,))
        return torch.nn.functional.cross_entropy(logits, y)

    point = torch.cat([named[name].detach().flatten() for name in layers])
    hessian = torch.autograd.functional.hessian(loss, point)
    found = curvature.hutchinson_trace(net, x, y, layers=layers, samples=3000)
    for name, layer in zip(layers, (slice(0, 12), slice(12, 24)), strict=True):
        trace, own, beside = by_formula(hessian, layer)
        error = math.sqrt((own + beside) / 3000)
        assert found[name].mean.item() == pytest.approx(trace, abs=5 * error)
        assert found[name].standard_error.item() == pytest.approx(error, rel=0.15)


@pytest.mark.boundary
@pytest.mark.parametrize("rank", [1, 2, 5, 8])
def test_equal_eigenvalues_on_an_even_diagonal(rank):
    """Equal eigenvalues and an even diagonal attain the lower bound."""
    hessian = flat(8, rank)
    _, variance = exact(hessian, slice(0, 8))
    assert variance == pytest.approx(2 * (1 / rank - 1 / 8) * rank**2, abs=1e-9)


@pytest.mark.boundary
def test_the_example_of_the_page():
    """The two weights of the page: two probes out of four say −q, far from zero."""
    for gap in (2.0, 6.0, 12.0):
        q = 1 / (1 + math.exp(-gap))
        curved = gap * q * (1 - q)
        rows = [[curved, curved + q], [curved + q, curved]]
        hessian = torch.tensor(rows, dtype=torch.float64)
        values = {round(v, 12) for v in _probes(hessian)}
        assert values == {round(v, 12) for v in (-q, 2 * curved + q)}


def _probes(hessian):
    v = signs(2)
    return (v[:, 0] * (v @ hessian)[:, 0]).tolist()


@pytest.mark.needed
def test_low_rank_is_needed():
    """The identity has no noise at all: the rank is needed."""
    trace, variance = exact(torch.eye(6).double(), slice(0, 6))
    assert (trace, variance) == (6.0, 0.0)


@pytest.mark.needed
def test_a_spread_diagonal_is_needed():
    """Rank one with its trace on one entry has no noise: the spread is needed."""
    hessian = torch.zeros(6, 6, dtype=torch.float64)
    hessian[2, 2] = 5.0
    assert exact(hessian, slice(0, 6)) == (5.0, 0.0)


@pytest.mark.needed
def test_semidefinite_is_needed():
    """Trace zero with noise: without definiteness nothing bounds it by the trace."""
    hessian = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    mean, variance = exact(hessian, slice(0, 2))
    assert mean == 0
    assert variance == 4
