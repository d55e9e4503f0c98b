"""prop-average-worst: worst and mean curvature over moves as long as the head."""

import math

import pytest
import sympy as sp
import torch
from torch.func import hessian
from torch.nn.functional import cross_entropy

from flatbook import curvature
from tests.cases import generator, head

F64 = torch.float64


def bend(weight, phi, moves):
    """Second derivative of the loss along each move, by a dense Hessian."""
    k, d = weight.shape

    def loss(flat):
        return cross_entropy(flat.reshape(k, d) @ phi, torch.tensor(0))

    dense = hessian(loss)(weight.flatten())
    flat = moves.flatten(-2)
    return torch.einsum("...i,ij,...j->...", flat, dense, flat)


def rotations(n, d, seed):
    """Haar-distributed orthogonal matrices (n, d, d)."""
    q, r = torch.linalg.qr(torch.randn(n, d, d, generator=generator(seed), dtype=F64))
    return q * r.diagonal(dim1=1, dim2=2).sign()[:, None]


def signs(*shape):
    """All sign patterns of this shape."""
    count = math.prod(shape)
    bits = torch.arange(2**count)[:, None] >> torch.arange(count) & 1
    return (2.0 * bits.double() - 1).reshape(-1, *shape)


@pytest.mark.random
def test_the_largest_value_over_600_heads():
    """600 heads: no contraction gets above the maximum, and a reflection attains it."""
    for seed in range(600):
        k, d = 2 + seed % 3, 1 + seed % 4
        weight, features, logits, _ = head(1, k, d, seed=seed)
        phi, g = features[0], generator(seed)
        top = (phi @ phi * curvature.lambda_max(weight, logits)[0]).item()
        contractions = torch.randn(20, d, d, generator=g, dtype=F64)
        contractions /= torch.linalg.matrix_norm(contractions, 2)[:, None, None]
        matrix = torch.diag(logits.softmax(1)[0])
        matrix = matrix - torch.outer(logits.softmax(1)[0], logits.softmax(1)[0])
        form = weight.T @ matrix @ weight
        u = torch.linalg.eigh(form)[1][:, -1]
        gap = phi / phi.norm() - u
        mirror = torch.eye(d, dtype=F64)
        if gap.norm() > 1e-9:
            mirror = mirror - 2 * torch.outer(gap, gap) / (gap @ gap)
        moved = torch.cat([contractions, mirror[None]]) @ phi
        values = torch.einsum("ni,ij,nj->n", moved, form, moved)
        assert (values <= top * (1 + 1e-9) + 1e-15).all()
        assert values[-1].item() == pytest.approx(top, rel=1e-8, abs=1e-14)


@pytest.mark.random
def test_means_over_signs_by_counting_them_all():
    """500 heads, all sign patterns: both sign means exactly, by dense Hessians."""
    for seed in range(500):
        k, d = (2, 3) if seed % 2 else (3, 2)
        weight, features, logits, _ = head(1, k, d, seed=seed)
        phi, p = features[0], logits.softmax(1)[0]
        columns = signs(1, d)
        matrix = torch.diag(p) - torch.outer(p, p)
        per_feature = (phi.square() * (weight.T @ matrix @ weight).diagonal()).sum()
        entries = (weight.square() * phi.square() * (p * (1 - p))[:, None]).sum()
        for pattern, wanted in ((columns, per_feature), (signs(k, d), entries)):
            moved = (weight * pattern) @ phi
            mean = torch.einsum("ni,ij,nj->n", moved, matrix, moved).mean()
            assert mean.item() == pytest.approx(wanted.item(), rel=1e-9)
        if seed < 20:
            mean = bend(weight, phi, weight * columns).mean()
            assert mean.item() == pytest.approx(per_feature.item(), rel=1e-8)


@pytest.mark.random
def test_the_mean_over_rotations_and_its_rate():
    """Rotations: the error of a mean of n values shrinks as the variance says."""
    weight, features, logits, _ = head(1, 4, 3, seed=3)
    phi, p = features[0], logits.softmax(1)[0]
    form = weight.T @ (torch.diag(p) - torch.outer(p, p)) @ weight
    d, size = 3, (phi @ phi).item()
    mean = curvature.relative_flatness(weight, features, logits).item() / d
    square, trace = (form @ form).trace().item(), form.trace().item()
    variance = 2 * size**2 / (d * (d + 2)) * (square - trace**2 / d)
    moved = rotations(64_000, d, 0) @ phi
    values = torch.einsum("ni,ij,nj->n", moved, form, moved)
    for n in (10, 40, 160):
        errors = values.reshape(-1, n).mean(1) - mean
        assert errors.mean().abs() < 5 * math.sqrt(variance / len(values))
        assert (errors.square().mean() * n).item() == pytest.approx(variance, rel=0.15)
    some = bend(weight, phi, weight @ rotations(50, d, 1))
    again = rotations(50, d, 1) @ phi
    torch.testing.assert_close(some, torch.einsum("ni,ij,nj->n", again, form, again))


@pytest.mark.random
def test_the_mean_over_all_directions_of_the_weights():
    """500 heads: over all directions of the length of W the mean is kappa / (k d)."""
    for seed in range(500):
        k, d = 2 + seed % 3, 1 + seed % 3
        weight, features, logits, _ = head(1, k, d, seed=seed)
        kappa = curvature.relative_sharpness(weight, features, logits).item()
        basis = weight.norm() * torch.eye(k * d, dtype=F64).reshape(-1, k, d)
        moved = basis @ features[0]
        p = logits.softmax(1)[0]
        matrix = torch.diag(p) - torch.outer(p, p)
        values = torch.einsum("ni,ij,nj->n", moved, matrix, moved)
        assert values.mean().item() == pytest.approx(kappa / (k * d), rel=1e-9)


@pytest.mark.symbolic
def test_symbolic_variance_on_the_circle():
    """Two features in sympy: mean and variance as integrals over the circle."""
    t, a, b, c = sp.symbols("t a b c", real=True)
    form = sp.Matrix([[a, b], [b, c]])
    u = sp.Matrix([sp.cos(t), sp.sin(t)])
    value = sp.expand((u.T * form * u)[0])
    mean, second = (
        sp.integrate(sp.expand(value**n), (t, 0, 2 * sp.pi)) / (2 * sp.pi)
        for n in (1, 2)
    )
    trace, square = form.trace(), (form * form).trace()
    assert sp.simplify(mean - trace / 2) == 0
    wanted = sp.Rational(2, 8) * (square - trace**2 / 2)
    assert sp.simplify(second - mean**2 - wanted) == 0


@pytest.mark.boundary
def test_boundary_one_feature_has_no_spread():
    """One feature: worst case, mean and radial value are the same."""
    weight, features, logits, _ = head(1, 3, 1, seed=1)
    phi = features[0]
    values = bend(weight, phi, weight @ torch.tensor([[[1.0]], [[-1.0]]]).double())
    top = phi @ phi * curvature.lambda_max(weight, logits)[0]
    mean = curvature.relative_flatness(weight, features, logits)[0]
    torch.testing.assert_close(values, torch.stack([top, mean]))


@pytest.mark.boundary
@pytest.mark.parametrize(("k", "d"), [(2, 9), (4, 3)])
def test_boundary_how_far_the_worst_can_be_from_the_mean(k, d):
    """Rows on a line: d times the mean. Spread alike in d directions: the mean."""
    g = generator(k)
    phi = torch.randn(1, d, generator=g, dtype=F64)
    numbers = torch.arange(k, dtype=F64)
    line = torch.outer(numbers, torch.randn(d, generator=g, dtype=F64))
    logits = torch.zeros(1, k, dtype=F64)
    size = phi.square().sum()
    top = size * curvature.lambda_max(line, logits)[0]
    mean = curvature.relative_flatness(line, phi, logits)[0] / d
    assert (top / mean).item() == pytest.approx(d, rel=1e-9)
    if d < k:
        even = torch.linalg.qr(torch.randn(k, d, generator=g, dtype=F64))[0]
        even = torch.linalg.qr(even - even.mean(0))[0]
        top = size * curvature.lambda_max(even, logits)[0]
        mean = curvature.relative_flatness(even, phi, logits)[0] / d
        assert (top / mean).item() == pytest.approx(1, rel=1e-9)


@pytest.mark.needed
def test_larger_matrices_go_above():
    """Without the bound on the norm of A nothing bounds the curvature."""
    weight, features, logits, _ = head(1, 3, 2, seed=6)
    phi = features[0]
    top = phi @ phi * curvature.lambda_max(weight, logits)[0]
    u = torch.linalg.eigh(bend_form(weight, logits))[1][:, -1]
    reach = 2 * torch.outer(u, phi) / phi.norm()
    value = bend(weight, phi, weight @ reach)
    assert value.item() == pytest.approx(4 * top.item(), rel=1e-9)


@pytest.mark.needed
def test_a_fixed_axis_spoils_the_mean():
    """Rotations about a fixed axis do not average to kappa_P / d."""
    weight, features, logits, _ = head(1, 4, 3, seed=3)
    phi, form = features[0], bend_form(weight, logits)
    angle = torch.linspace(0, 2 * math.pi, 721, dtype=F64)[:-1]
    turned = torch.stack(
        [
            angle.cos() * phi[0] - angle.sin() * phi[1],
            angle.sin() * phi[0] + angle.cos() * phi[1],
            phi[2].expand(720),
        ],
        1,
    )
    mean = torch.einsum("ni,ij,nj->n", turned, form, turned).mean().item()
    wanted = curvature.relative_flatness(weight, features, logits).item() / 3
    assert abs(mean / wanted - 1) > 0.05


def bend_form(weight, logits):
    p = logits.softmax(1)[0]
    return weight.T @ (torch.diag(p) - torch.outer(p, p)) @ weight
