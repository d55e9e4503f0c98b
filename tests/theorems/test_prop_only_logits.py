"""prop-only-logits: what no invertible change of the features moves sees the logits."""

import pytest
import torch
from torch import Tensor

from flatbook import curvature, softmax
from tests.cases import generator

F64 = torch.float64


def squeeze(phi: Tensor, t: float) -> Tensor:
    """The map of the proof: keeps phi, stretches what is orthogonal to it by t."""
    along = torch.outer(phi, phi) / (phi @ phi)
    return along + t * (torch.eye(len(phi), dtype=F64) - along)


def pair(seed):
    """Two heads of one size with the same logits, and else unrelated."""
    k, d = 2 + seed % 4, 2 + seed % 5
    g = generator(seed)
    weight, other = torch.randn(2, k, d, generator=g, dtype=F64)
    phi, psi = torch.randn(2, d, generator=g, dtype=F64)
    gap = weight @ phi - other @ psi
    return weight, phi, other + torch.outer(gap, psi) / (psi @ psi), psi


def radial(weight, phi):
    z = (weight @ phi)[None]
    return (z[0] @ softmax.covariance(z)[0] @ z[0]).item()


@pytest.mark.random
def test_600_pairs_of_heads_with_the_same_logits():
    """600 pairs with the same logits: the maps of the proof bring them together."""
    for seed in range(600):
        weight, phi, other, psi = pair(seed)
        z = weight @ phi
        torch.testing.assert_close(other @ psi, z, rtol=1e-9, atol=1e-9)
        first = weight @ torch.linalg.inv(squeeze(phi, 1e9))
        second = other @ torch.linalg.inv(squeeze(psi, 1e9))
        flat = torch.outer(z, phi) / (phi @ phi)
        size = (1 + weight.norm() + other.norm()).item()
        assert (first - flat).norm() < 1e-7 * size
        a, b = phi / phi.norm(), psi / psi.norm()
        mirror = torch.eye(len(a), dtype=F64)
        mirror = mirror - 2 * torch.outer(a - b, a - b) / (a - b).square().sum()
        turn = mirror * psi.norm() / phi.norm()
        torch.testing.assert_close(turn @ phi, psi, rtol=1e-9, atol=1e-9)
        moved = first @ torch.linalg.inv(turn)
        assert (moved - second).norm() < 1e-6 * size * (1 + 1 / psi.norm() + 1)


@pytest.mark.random
def test_the_radial_measure_is_of_this_kind():
    """500 heads under a random invertible map: the radial measure stays."""
    for seed in range(500):
        weight, phi, other, psi = pair(seed)
        g = generator(seed + 7)
        change = torch.randn(len(phi), len(phi), generator=g, dtype=F64)
        change = change + 4 * torch.eye(len(phi), dtype=F64)
        after = radial(weight @ torch.linalg.inv(change), change @ phi)
        assert after == pytest.approx(radial(weight, phi), rel=1e-6, abs=1e-9)
        assert radial(other, psi) == pytest.approx(
            radial(weight, phi), rel=1e-6, abs=1e-9
        )


@pytest.mark.boundary
def test_boundary_one_feature():
    """With one feature there is nothing but the logits to know."""
    weight = torch.tensor([[1.0], [-2.0], [0.5]], dtype=F64)
    phi = torch.tensor([[3.0]], dtype=F64)
    logits = phi @ weight.T
    scaled = curvature.relative_flatness(weight * 7, phi / 7, logits)
    torch.testing.assert_close(scaled, curvature.relative_flatness(weight, phi, logits))


@pytest.mark.needed
def test_without_continuity_the_rank_survives():
    """The rank of W survives every invertible map and is no function of the logits."""
    ranks = set()
    for seed in range(40):
        weight, phi, *_ = pair(seed)
        flat = torch.outer(weight @ phi, phi) / (phi @ phi)
        g = generator(seed)
        change = torch.randn(len(phi), len(phi), generator=g, dtype=F64)
        for head in (weight, flat):
            torch.testing.assert_close(head @ phi, weight @ phi)
            before = torch.linalg.matrix_rank(head)
            assert torch.linalg.matrix_rank(head @ change) == before
        ranks.add(int(torch.linalg.matrix_rank(weight)))
        assert torch.linalg.matrix_rank(flat) == 1
    assert max(ranks) > 1


@pytest.mark.needed
def test_diagonal_maps_alone_leave_more():
    """If only neurons are rescaled, the mean over signs survives and sees more."""
    weight, phi, other, psi = pair(3)

    def signs(w, f):
        rows = curvature.centred_rows(w, (w @ f)[None])[0]
        p = (w @ f).softmax(0)
        return (f.square() * (p[:, None] * rows.square()).sum(0)).sum().item()

    scale = torch.linspace(0.2, 3, len(phi), dtype=F64)
    assert signs(weight * scale, phi / scale) == pytest.approx(signs(weight, phi))
    assert abs(signs(other, psi) / signs(weight, phi) - 1) > 0.05
