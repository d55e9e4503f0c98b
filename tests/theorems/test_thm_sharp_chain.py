"""thm-sharp-chain: from the worst case up to kappa, every inequality with its case."""

import pytest
import sympy as sp
import torch
from torch.func import hessian, vmap
from torch.nn.functional import cross_entropy

from flatbook import curvature
from tests.cases import generator

F64 = torch.float64
SIZES = [(2, 1), (2, 5), (3, 2), (3, 7), (5, 2), (6, 6), (10, 4), (4, 12)]


def chain(weight, phi, logits):
    """The six numbers (6, n) for heads (n, k, d), from the smallest on."""
    p = logits.softmax(1)
    covariance = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    spectrum = torch.linalg.eigvalsh(weight.mT @ covariance @ weight)
    _, k, d = weight.shape
    size = phi.square().sum(1)
    trace = size * covariance.diagonal(dim1=1, dim2=2).sum(1)
    centred = weight - weight.mean(1, keepdim=True)
    return torch.stack(
        [
            size * spectrum.sum(1) / min(d, k - 1),
            size * spectrum[:, -1],
            size * spectrum.sum(1),
            torch.linalg.matrix_norm(centred, 2).square() * trace,
            torch.linalg.matrix_norm(weight, 2).square() * trace,
            weight.square().sum((1, 2)) * trace,
        ]
    )


def draw(n, k, d, seed):
    g = generator(seed)
    scale = (3 * torch.rand(n, 1, 1, generator=g, dtype=F64) - 1.5).exp()
    weight = scale * torch.randn(n, k, d, generator=g, dtype=F64)
    phi = torch.randn(n, d, generator=g, dtype=F64)
    bias = torch.randn(n, k, generator=g, dtype=F64)
    return weight, phi, (weight @ phi[:, :, None])[:, :, 0] + bias


def simplex(k):
    """k points in R^k with all distances equal and mean zero."""
    return torch.eye(k, dtype=F64) - 1 / k


@pytest.mark.random
@pytest.mark.parametrize(("k", "d"), SIZES)
def test_200_heads(k, d):
    """1600 random heads of eight sizes: five inequalities, no violation."""
    weight, phi, logits = draw(200, k, d, 10 * k + d)
    numbers = chain(weight, phi, logits)
    rounding = 1e-14 * weight.square().sum((1, 2)) * phi.square().sum(1)
    assert (numbers.diff(dim=0) >= -1e-12 * numbers[1:] - rounding).all()


@pytest.mark.random
def test_the_numbers_are_what_they_are_called():
    """600 heads by autograd: trace, worst case and kappa_P from dense Hessians."""
    k, d = 3, 4
    weight, phi, logits = draw(600, k, d, 5)
    bias = logits - (weight @ phi[:, :, None])[:, :, 0]

    def loss(w, f, b):
        return cross_entropy(w @ f + b, torch.tensor(1))

    dense = vmap(hessian(loss))(weight, phi, bias)
    bend = vmap(hessian(lambda f, w, b: loss(w, f, b)))(phi, weight, bias)
    size, numbers = phi.square().sum(1), chain(weight, phi, logits)
    close = {"rtol": 1e-7, "atol": 1e-10}
    spectrum = torch.linalg.eigvalsh(bend)
    torch.testing.assert_close(numbers[1], size * spectrum[:, -1], **close)
    blocks = torch.einsum("nsata->nst", dense)
    torch.testing.assert_close(
        numbers[2], (blocks * (weight @ weight.mT)).sum((1, 2)), **close
    )
    trace = torch.einsum("njaja->n", dense)
    torch.testing.assert_close(numbers[5], weight.square().sum((1, 2)) * trace, **close)
    for at in range(0, 600, 60):
        head = weight[at], phi[at, None], logits[at, None]
        ours = curvature.relative_flatness(*head)[0]
        torch.testing.assert_close(ours, numbers[2, at], **close)


@pytest.mark.random
def test_the_plain_mean_is_the_best_shift():
    """500 heads, 20 shifts each: none has a smaller norm than the centred head."""
    for seed in range(500):
        g = generator(seed)
        k, d = 2 + seed % 5, 1 + seed % 4
        weight = torch.randn(k, d, generator=g, dtype=F64)
        shifts = torch.randn(20, 1, d, generator=g, dtype=F64)
        best = torch.linalg.matrix_norm(weight - weight.mean(0), 2)
        near = weight - weight.mean(0) + 0.1 * shifts
        norms = torch.linalg.matrix_norm(torch.cat([weight + shifts, near]), 2)
        assert (norms >= best * (1 - 1e-12)).all()


@pytest.mark.symbolic
def test_symbolic_simplex():
    """Three equidistant rows in sympy, any p: kappa_P is the centred bound."""
    p = [*sp.symbols("p:2", positive=True)]
    p.append(1 - sum(p))
    centred = sp.eye(3) - sp.ones(3, 3) / 3
    covariance = sp.diag(*p) - sp.Matrix(p) * sp.Matrix(p).T
    scatter = (centred.T * covariance * centred).trace()
    largest = max((centred * centred.T).eigenvals())
    assert largest == 1
    assert sp.expand(scatter - largest * covariance.trace()) == 0


@pytest.mark.boundary
def test_boundary_all_equal_for_two_opposite_rows():
    """Two opposite rows: all six numbers are one number."""
    row = torch.tensor([0.3, -1.2, 0.7], dtype=F64)
    weight, phi = torch.stack([row, -row])[None], torch.ones(1, 3, dtype=F64)
    for bias in (-3.0, 0.0, 5.0):
        logits = (weight @ phi[0]) + torch.tensor([bias, 0.0], dtype=F64)
        numbers = chain(weight, phi, logits)[:, 0]
        assert (numbers.max() / numbers.min()).item() == pytest.approx(1, rel=1e-10)


@pytest.mark.boundary
@pytest.mark.parametrize(("k", "d"), [(3, 2), (5, 2), (4, 7), (6, 5)])
def test_boundary_equal_spread_in_all_directions(k, d):
    """Rows spread alike in all directions: the first inequality is an equality."""
    g, r = generator(k), min(d, k - 1)
    logits = torch.randn(1, k, generator=g, dtype=F64)
    p = logits.softmax(1)[0]
    columns = torch.randn(k, r, generator=g, dtype=F64)
    columns = columns - p @ columns
    frame = torch.linalg.qr(p.sqrt()[:, None] * columns)[0] / p.sqrt()[:, None]
    weight = torch.zeros(1, k, d, dtype=F64)
    weight[0, :, :r] = frame
    numbers = chain(weight, torch.ones(1, d, dtype=F64), logits)[:, 0]
    assert numbers[0].item() == pytest.approx(numbers[1].item(), rel=1e-10)


@pytest.mark.boundary
def test_boundary_each_other_equality_and_a_case_without():
    """Rows on a line, equidistant, summing to zero, rank one: equal there only."""
    logits = torch.tensor([[0.4, -1.0, 0.3]], dtype=F64)
    line = torch.outer(torch.tensor([1.0, 2.0, 4.0]).double(), torch.ones(3).double())
    offset = torch.tensor([0.0, 3.0, -1.0], dtype=F64)
    equal = {1: line + offset, 2: simplex(3) + offset, 3: simplex(3), 4: line}
    phi = torch.ones(1, 3, dtype=F64)
    rest = chain(*draw(1, 3, 3, 1)[:2], logits)[:, 0]
    for at, weight in equal.items():
        numbers = chain(weight[None], phi, logits)[:, 0]
        assert numbers[at].item() == pytest.approx(numbers[at + 1].item(), rel=1e-10)
        assert rest[at] < 0.99 * rest[at + 1]


@pytest.mark.needed
def test_without_the_square_kappa_P_can_be_larger():
    """Without the square it is no bound: most heads, scaled up, are above it."""
    weight, phi, logits = draw(500, 3, 4, 8)
    numbers = chain(10 * weight, phi / 10, logits)
    unsquared = numbers[5] / (10 * weight).flatten(1).norm(dim=1)
    assert (numbers[2] > unsquared).sum() > 400


@pytest.mark.needed
def test_centring_with_weights_of_its_own_is_needed():
    """Centred by another mean the norm can exceed that of the head as it is."""
    weight = torch.eye(5, dtype=F64)
    p = torch.tensor([0.96, 0.01, 0.01, 0.01, 0.01], dtype=F64)
    by_p, plain = (weight - m for m in (p @ weight, weight.mean(0)))
    norms = [torch.linalg.matrix_norm(w, 2).item() for w in (plain, weight, by_p)]
    assert norms[0] <= norms[1] * (1 + 1e-12)
    assert norms[1] < 0.5 * norms[2]
