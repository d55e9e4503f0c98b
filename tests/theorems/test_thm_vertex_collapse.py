"""thm-vertex-collapse: slope and curvature of a loss where one class is certain."""

import math
from functools import partial

import mpmath as mp
import pytest
import sympy as sp
import torch

from flatbook import losses, softmax
from tests.cases import generator

ROOT2 = math.sqrt(2)


def curves(g, k):
    """k random smooth curves f_j, with weights that tell the classes apart."""
    a = torch.randn(k, 4, generator=g, dtype=torch.float64)

    def total(x):
        parts = (x, (-x).exp(), x.sin(), x.square().log1p())
        return sum((a[:, i] * part).sum(-1) for i, part in enumerate(parts))

    return total


def log_losses(z):
    """x_j = -log p_j, without cancellation."""
    k = z.shape[1]
    one = [softmax.cross_entropy(z, torch.full((len(z),), j)) for j in range(k)]
    return torch.stack(one, 1)


def formula(total, z):
    """Gradient and Hessian of part 3, the derivatives of the curves by autograd."""
    x = log_losses(z).detach().requires_grad_()
    (first,) = torch.autograd.grad(total(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    first = first.detach()
    away = z.softmax(1)[:, None, :] - torch.eye(z.shape[1], dtype=z.dtype)
    slope = torch.einsum("nj,nja->na", first, away)
    bend = torch.einsum("nj,nja,njb->nab", second, away, away)
    return slope, bend + first.sum(1)[:, None, None] * softmax.covariance(z)


def certain(seed, n, k, gap):
    """Logits whose class v leads by at least gap, and v."""
    g = generator(seed)
    z = torch.randn(n, k, generator=g, dtype=torch.float64)
    v = torch.randint(k, (n,), generator=g)
    lead = torch.nn.functional.one_hot(v, k) * (z.amax(1) - z.amin(1) + gap)[:, None]
    return z + lead, v


@pytest.mark.random
@pytest.mark.parametrize("seed", range(10))
def test_the_formula_against_autograd(seed):
    """500 sums of random curves: gradient and Hessian as automatic differentiation."""
    k, g = 2 + seed % 5, generator(seed)
    total = curves(g, k)
    z = 2 * torch.randn(50, k, generator=g, dtype=torch.float64)

    def loss(z, labels):
        return total(log_losses(z))

    labels = torch.zeros(50, dtype=torch.int64)
    slope, bend = formula(total, z)
    torch.testing.assert_close(losses.logit_gradient(loss, z, labels), slope)
    torch.testing.assert_close(
        losses.logit_hessian(loss, z, labels), bend, rtol=1e-7, atol=1e-11
    )


@pytest.mark.random
@pytest.mark.parametrize("gap", [1.0, 5.0, 10.0, 20.0, 30.0])
def test_cross_entropy_with_any_target(gap):
    """2000 soft targets at certain predictions: gradient p - q and Hessian P."""
    for k in (2, 3, 5, 10):
        z, v = certain(k, 100, k, gap)
        q = torch.rand(100, k, generator=generator(k), dtype=torch.float64)
        q = q / q.sum(1, keepdim=True)
        found = losses.logit_hessian(losses.kl_divergence, z, q)
        torch.testing.assert_close(found, softmax.covariance(z), rtol=0, atol=1e-14)
        slope = losses.logit_gradient(losses.kl_divergence, z, q)
        torch.testing.assert_close(slope, z.softmax(1) - q)
        doubt = softmax.one_minus(z).gather(1, v[:, None])[:, 0]
        norm = softmax.covariance(z).flatten(1).norm(dim=1)
        assert (norm <= 2 * doubt * (1 + 1e-12)).all()


@pytest.mark.random
@pytest.mark.parametrize("temperature", [0.2, 1.0, 3.0])
def test_temperature(temperature):
    """600 predictions under three temperatures: the covariance over T squared."""
    z, v = certain(3, 200, 4, 2.0)
    loss = partial(losses.temperature_scaled, temperature=temperature)
    found = losses.logit_hessian(loss, z, v)
    wanted = softmax.covariance(z / temperature) / temperature**2
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-13)


def smooth(name):
    """Losses that are C^2 in p up to every vertex; the last one mixes the classes."""

    def mixed(z, labels):
        p = z.softmax(1)
        others = (p[:, :-1] * p[:, 1:]).sum(1)
        return (p.square().sum(1) + others).sin() + p[:, 0].exp()

    return {"brier": losses.brier, "mae": losses.absolute_error, "mixed": mixed}[name]


@pytest.mark.random
@pytest.mark.parametrize("name", ["brier", "mae", "mixed"])
def test_losses_smooth_up_to_the_vertex(name):
    """1800 predictions, right and wrong: slope and curvature of the order of 1 - p."""
    for gap in (2.0, 6.0, 12.0):
        z, v = certain(1, 200, 4, gap)
        labels = torch.randint(4, (200,), generator=generator(2))
        doubt = softmax.one_minus(z).gather(1, v[:, None])[:, 0]
        slope = losses.logit_gradient(smooth(name), z, labels).norm(dim=1)
        bend = losses.logit_hessian(smooth(name), z, labels).flatten(1).norm(dim=1)
        assert (slope <= 40 * doubt + 1e-14).all()
        assert (bend <= 40 * doubt + 1e-14).all()


def limit_norms(curve, gap, k=3, wrong=True):
    """Norms of Hessian and gradient of f(x_y), classes tied behind, in 60 digits."""
    with mp.workdps(60):
        e = mp.exp(-mp.mpf(gap))
        p = [1 / (1 + (k - 1) * e)] + [e / (1 + (k - 1) * e)] * (k - 1)
        y = 1 if wrong else 0
        x = mp.log(1 + (k - 1) * e) + (gap if wrong else 0)
        first, second = mp.diff(curve, x), mp.diff(curve, x, 2)
        away = [p[j] - (j == y) for j in range(k)]
        entries = [
            second * away[i] * away[j] + first * (p[i] * (i == j) - p[i] * p[j])
            for i in range(k)
            for j in range(k)
        ]
        bend = mp.sqrt(mp.fsum(v * v for v in entries))
        return float(bend), float(mp.sqrt(mp.fsum((first * v) ** 2 for v in away)))


@pytest.mark.boundary
@pytest.mark.parametrize(
    ("curve", "bend", "slope"),
    [
        (lambda x: x, 0, ROOT2),
        (lambda x: x * (1 - mp.exp(-x)) ** 2, 0, ROOT2),
        (lambda x: x * mp.sqrt(1 - mp.exp(-x)), 0, ROOT2),
        (lambda x: 2 * (1 - mp.exp(-x)), 0, 0),
        (lambda x: mp.log(1 + x), 0, 0),
        (lambda x: x**2, 4, math.inf),
        (mp.exp, math.inf, math.inf),
    ],
)
def test_limits_at_growing_gaps(curve, bend, slope):
    """Seven curves in 60-digit arithmetic: the limits at a confident mistake."""
    near = [limit_norms(curve, gap) for gap in (50, 500)]
    for found, wanted in zip(zip(*near, strict=True), (bend, slope), strict=True):
        if wanted == math.inf:
            assert found[1] > 5 * found[0] > 50
        else:
            assert abs(found[1] - wanted) < 0.01
            assert abs(found[1] - wanted) <= abs(found[0] - wanted)


@pytest.mark.boundary
def test_the_correct_vertex_forgets_every_tame_curve():
    """At a confident success all these losses flatten, bent or not."""
    for curve in (lambda x: x, lambda x: x**2, mp.exp, lambda x: mp.sqrt(x) * x):
        bend, slope = limit_norms(curve, 40, wrong=False)
        assert bend < 1e-8
        assert slope < 1e-8


@pytest.mark.symbolic
def test_gradient_and_hessian_of_minus_log_p():
    """The gradient of -log p_j is p - e_j and its Hessian P, for three classes."""
    z = sp.symbols("z:3", real=True)
    total = sum(sp.exp(v) for v in z)
    p = [sp.exp(v) / total for v in z]
    for j in range(3):
        for i in range(3):
            slope = sp.diff(sp.log(total) - z[j], z[i])
            assert sp.simplify(slope - (p[i] - int(i == j))) == 0
            for o in range(3):
                bend = sp.diff(slope, z[o]) - p[i] * (int(i == o) - p[o])
                assert sp.simplify(bend) == 0


@pytest.mark.symbolic
def test_the_two_forms_of_the_coefficients():
    """For a loss psi(p): f' = -p psi' and f'' = p^2 psi'' + p psi'."""
    x, pi = sp.symbols("x pi", positive=True)
    psi = sp.Function("psi")
    f = psi(sp.exp(-x))
    first, second = (
        sp.diff(f, x, n).doit().subs(x, -sp.log(pi)).doit() for n in (1, 2)
    )
    assert sp.simplify(first + pi * psi(pi).diff(pi)) == 0
    wanted = pi**2 * psi(pi).diff(pi, 2) + pi * psi(pi).diff(pi)
    assert sp.simplify(second - wanted) == 0


@pytest.mark.needed
def test_a_regular_curve_is_needed():
    """The log-odds loss, not regular at certainty, keeps its curvature there."""
    y = torch.tensor([0])
    for gap in (10.0, 40.0, 300.0):
        z = torch.tensor([[gap, 0.0, 0.0]], dtype=torch.float64)
        assert losses.logit_hessian(softmax.log_odds, z, y).norm().item() == (
            pytest.approx(0.5, abs=1e-4)
        )


@pytest.mark.needed
def test_a_curve_that_straightens_is_needed():
    """A wavy curve satisfies the paper's (A), and its curvature never settles."""
    norms = [limit_norms(lambda x: x + mp.sin(x), gap)[0] for gap in range(20, 60)]
    assert max(norms) > 1.9
    assert min(norms) < 0.2


@pytest.mark.needed
def test_a_bounded_slope_is_needed_for_several_classes():
    """An unbounded slope: with a third class far behind, flattening can be outrun."""

    def curve(x):
        return x**1.5

    norms = []
    for doubt in (1e-2, 1e-3, 1e-4):
        # p_c = doubt, and p_y so small that sqrt(x_y) is larger than 1 / doubt
        z = torch.tensor([[-4 / doubt**2, 0.0, math.log(doubt)]], dtype=torch.float64)
        H = losses.hessian_through(curve, z, torch.tensor([0]))
        norms.append(H.norm().item())
    assert min(norms) > 1


@pytest.mark.needed
def test_probabilities_are_needed():
    """Squared hinge and squared error of the logits do not flatten at all."""
    y = torch.tensor([0])
    for gap in (5.0, 50.0, 500.0):
        z = torch.tensor([[0.0, gap, 0.0, 0.0]], dtype=torch.float64)
        hinge = losses.logit_hessian(losses.squared_hinge, z, y)
        assert hinge.norm().item() == pytest.approx(6 * ROOT2)
        error = losses.logit_hessian(losses.squared_error, z, y)
        assert error.norm().item() == pytest.approx(2)
