"""thm-piecewise-affine: where the logits are affine in a block, H = J^T P J."""

import pytest
import sympy as sp
import torch
from torch import nn
from torch.autograd.functional import jacobian
from torch.func import functional_call

from flatbook import models, softmax, symbolic
from tests.cases import generator
from tests.layered import close, loss_hessian, square


def draw(seed, *, k=None, m=None):
    """Logits and a Jacobian with the smallest and larger sizes."""
    g = generator(seed)
    k, m = k or 2 + seed % 4, m or 1 + seed % 6
    z = 2 * torch.randn(k, generator=g, dtype=torch.float64)
    return z, torch.randn(k, m, generator=g, dtype=torch.float64)


def trace_by_pairs(p, rows):
    k = len(p)
    return sum(
        p[i] * p[j] * (rows[i] - rows[j]).square().sum()
        for i in range(k)
        for j in range(i)
    )


@pytest.mark.random
def test_500_affine_families():
    """500 random affine families of logits: Hessian, Fisher matrix, trace, bound."""
    for seed in range(500):
        z, jac = draw(seed)
        k, m = jac.shape
        zero = torch.zeros(m, dtype=torch.float64)
        h = loss_hessian(lambda v, z=z, jac=jac: z + jac @ v, zero, seed % k)
        p = z.softmax(0)
        close(h, jac.T @ softmax.covariance(z[None])[0] @ jac)
        slopes = [jac.T @ (p - torch.eye(k).double()[c]) for c in range(k)]
        fisher = sum(p[c] * torch.outer(s, s) for c, s in enumerate(slopes))
        close(h, fisher)
        close(h.trace(), trace_by_pairs(p, jac))
        bound = torch.linalg.matrix_norm(jac, 2) ** 2 * softmax.trace_p(z[None])[0]
        assert h.trace() <= bound * (1 + 1e-12)
        values = torch.linalg.eigvalsh(h)
        assert values[0] > -1e-12
        assert int((values > 1e-10).sum()) <= k - 1


def residual():
    """Convolutions, batch normalisation, both poolings, a residual branch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = nn.Sequential(
            *(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU()),
            *(nn.MaxPool2d(2), models.ResidualBlock(2, 2, 1), nn.AvgPool2d(2)),
            *(nn.Flatten(), nn.Linear(2, 3)),
        )
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.5, 0.5)
                module.running_var.uniform_(0.5, 2)
                module.weight.data.uniform_(0.5, 2)
    return net.double().eval()


def block(net, name, x):
    """Gauss-Newton matrix and Hessian of the mean loss in one tensor of parameters."""
    labels = torch.arange(len(x)) % 3

    def outputs(w):
        return functional_call(net, {name: w}, (x,))

    w = net.get_parameter(name).detach()
    jac = jacobian(outputs, w).reshape(len(x), 3, -1)
    p = softmax.covariance(outputs(w).detach()) / len(x)
    h = torch.autograd.functional.hessian(
        lambda w: nn.functional.cross_entropy(outputs(w), labels), w
    )
    return torch.einsum("nai,nab,nbj->ij", jac, p, jac), square(h)


@pytest.mark.random
def test_every_block_of_a_convolutional_network():
    """Every block of a network with BatchNorm, pooling and a residual branch."""
    net = residual()
    x = torch.rand(3, 1, 4, 4, generator=generator(2), dtype=torch.float64)
    for name, _ in net.named_parameters():
        close(*block(net, name, x))


@pytest.mark.symbolic
def test_the_fisher_information_of_a_softmax():
    """The mean of (p - e_c)(p - e_c)^T under p is P, for two and three classes."""
    for k in (2, 3):
        p = symbolic.probabilities(k)
        total = sp.zeros(k, k)
        for c in range(k):
            off = p - sp.Matrix([int(j == c) for j in range(k)])
            total += p[c] * off * off.T
        wanted = sp.diag(*p) - p * p.T
        assert (total - wanted).applyfunc(sp.simplify).is_zero_matrix


@pytest.mark.boundary
def test_the_bound_is_attained():
    """Orthonormal rows of the Jacobian: the trace is the bound."""
    z, _ = draw(0, k=4)
    jac = torch.linalg.qr(torch.randn(6, 4, generator=generator(1)).double())[0].T
    h = jac.T @ softmax.covariance(z[None])[0] @ jac
    close(h.trace(), softmax.trace_p(z[None])[0])


@pytest.mark.boundary
def test_two_classes():
    """Two classes: one eigenvalue, p_0 p_1 |g_0 - g_1|^2, the trace."""
    z, jac = draw(3, k=2, m=5)
    h = loss_hessian(lambda v: z + jac @ v, torch.zeros(5, dtype=torch.float64))
    p = z.softmax(0)
    values = torch.linalg.eigvalsh(h)
    close(values[-1], p[0] * p[1] * (jac[0] - jac[1]).square().sum())
    assert values[:-1].abs().max() < 1e-12


@pytest.mark.boundary
def test_a_common_bend_of_all_logits_is_invisible():
    """Logits that all bend alike: the identity holds and they are not affine."""
    z, jac = draw(5, k=3, m=2)
    point = torch.zeros(2, dtype=torch.float64)

    def bent(v):
        return z + jac @ v + 7 * (v @ v)

    for y in range(3):
        p = softmax.covariance(z[None])[0]
        close(loss_hessian(bent, point, y), jac.T @ p @ jac)


@pytest.mark.needed
def test_logits_that_bend():
    """One logit gets a square: the identity fails, for every label."""
    for seed in range(50):
        z, jac = draw(seed, k=3, m=2)
        point = torch.zeros(2, dtype=torch.float64)

        def bent(v, z=z, jac=jac):
            return z + jac @ v + torch.stack([v @ v, 0 * v[0], 0 * v[0]])

        gauss = jac.T @ softmax.covariance(z[None])[0] @ jac
        for y in range(3):
            off = (loss_hessian(bent, point, y) - gauss).norm()
            wanted = 2 * 2**0.5 * (z.softmax(0)[0] - float(y == 0)).abs()
            close(off, wanted)


@pytest.mark.needed
def test_one_label_is_not_enough_for_the_converse():
    """A bend that label 0 does not see and label 1 does."""
    z, jac = draw(8, k=3, m=1)
    p, point = z.softmax(0), torch.zeros(1, dtype=torch.float64)
    bend = torch.stack([0 * p[0], torch.ones_like(p[0]), -p[1] / p[2]])

    def bent(v):
        return z + jac @ v + bend * (v @ v)

    gauss = jac.T @ softmax.covariance(z[None])[0] @ jac
    close(loss_hessian(bent, point, 0), gauss)
    assert (loss_hessian(bent, point, 1) - gauss).norm() > 0.1


@pytest.mark.needed
@pytest.mark.parametrize("kind", [nn.GELU, nn.SiLU, lambda: nn.LayerNorm(4)])
def test_layers_that_bend(kind):
    """With GELU, SiLU or LayerNorm the first block is off by over five percent."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        net = nn.Sequential(nn.Linear(3, 4), kind(), nn.Linear(4, 3)).double()
    x = torch.randn(4, 3, generator=generator(4), dtype=torch.float64)
    gauss, h = block(net, "0.weight", x)
    assert (gauss - h).norm() > 0.05 * h.norm()
    close(*block(net, "2.weight", x))


@pytest.mark.needed
def test_batch_statistics():
    """With batch normalisation in train mode it fails."""
    x = torch.rand(3, 1, 4, 4, generator=generator(2), dtype=torch.float64)
    gauss, h = block(residual().train(), "0.weight", x)
    assert (gauss - h).norm() > 0.05 * h.norm()
