"""prop-exact-rise: the largest rise, in closed form for two classes, else by ascent."""

import math

import pytest
import sympy as sp
import torch

from flatbook import radius, softmax, symbolic
from tests.cases import generator, head
from tests.maximum import brute_increase, exact_increase, on_sphere, rise


def distances(n, seed):
    g = generator(seed)
    return 10 ** (3 * torch.rand(n, generator=g, dtype=torch.float64) - 2)


@pytest.mark.random
def test_two_classes_against_brute_force():
    """600 heads with two classes: the closed form against 4,000 points of the
    circle."""
    for seed in range(12):
        weight, _, logits, labels = head(50, 2, 2, seed=seed, scale=1 + seed % 3)
        rho = distances(50, seed)
        gamma, m = (weight[0] - weight[1]).norm(), softmax.margin(logits, labels)
        closed = torch.logaddexp(rho * gamma - m, 0 * m) - torch.logaddexp(-m, 0 * m)
        brute = brute_increase(weight, logits, labels, rho)
        assert (brute <= closed * (1 + 1e-10) + 1e-14).all()
        torch.testing.assert_close(brute, closed, rtol=1e-4, atol=1e-12)


@pytest.mark.random
def test_ascent_against_brute_force():
    """600 heads with three classes on two features: the ascent finds what 4,000
    points of the circle find."""
    for seed in range(12):
        weight, _, logits, labels = head(50, 3, 2, seed=seed, scale=1 + seed % 3)
        rho = distances(50, 50 + seed)
        brute = brute_increase(weight, logits, labels, rho)
        found = exact_increase(weight, logits, labels, rho, steps=40)
        assert (found >= brute * (1 - 1e-7)).all()
        assert (found <= brute * (1 + 1e-4)).all()


@pytest.mark.random
def test_a_step_never_descends():
    """1,500 random moves with two to nine classes: one step of the ascent never lowers
    the loss, and stays within the distance."""
    for seed in range(30):
        k, d = 2 + seed % 8, 1 + seed % 6
        weight, _, logits, labels = head(50, k, d, seed=seed, scale=1 + seed % 3)
        rho = distances(50, 100 + seed)
        g = generator(seed)
        move = on_sphere(torch.randn(50, d, generator=g, dtype=torch.float64), rho)
        move = move * torch.rand(50, 1, generator=g, dtype=torch.float64)
        slope = (logits + move @ weight.T).softmax(1) @ weight - weight[labels]
        after = on_sphere(slope, rho)
        before = rise(weight, logits, labels, move)
        assert (rise(weight, logits, labels, after) >= before - 1e-12).all()
        assert (after.norm(dim=1) <= rho * (1 + 1e-12)).all()


@pytest.mark.random
def test_the_sandwich():
    """500 heads with two to eleven classes: the best of the first points is within
    log(k - 1) of the union bound."""
    for seed in range(10):
        k = 2 + seed
        weight, _, logits, labels = head(50, k, 6, seed=seed, scale=2)
        rho = distances(50, seed)
        starts = on_sphere(weight[:, None] - weight[labels], rho)
        first = rise(weight, logits, labels, starts).amax(0)
        union = radius.loss_increase_bounds(weight, logits, labels, rho)["union"]
        assert (first <= union * (1 + 1e-10)).all()
        assert (union - first <= math.log(k - 1) + 1e-10).all()


@pytest.mark.symbolic
def test_two_classes_depend_on_the_margin_alone():
    """Two classes: the loss is softplus of minus the margin, in sympy."""
    z = symbolic.logits(2)
    softplus = sp.log(1 + sp.exp(z[1] - z[0]))
    ratio = sp.exp(symbolic.cross_entropy(2, 0)) / sp.exp(softplus)
    assert sp.simplify(ratio) == 1


@pytest.mark.boundary
def test_equal_rows_and_no_distance():
    """Equal rows cannot raise the loss; neither can distance zero."""
    weight, _, logits, labels = head(6, 3, 2, seed=3)
    zero = torch.zeros(6, dtype=torch.float64)
    assert (exact_increase(weight, logits, labels, zero) == 0).all()
    equal = torch.ones(3, 2, dtype=torch.float64)
    assert (exact_increase(equal, logits, labels, zero + 2) == 0).all()


@pytest.mark.boundary
def test_at_the_flip():
    """Two classes: at the flip radius the loss has risen to log 2 exactly."""
    weight, _, logits, _ = head(200, 2, 5, seed=8)
    labels = logits.argmax(1)
    rho = radius.flip_radius(weight, logits, labels)
    reached = exact_increase(weight, logits, labels, rho)
    reached = reached + softmax.cross_entropy(logits, labels)
    torch.testing.assert_close(
        reached, torch.full_like(reached, math.log(2)), rtol=1e-12, atol=0
    )


@pytest.mark.needed
def test_one_start_is_not_enough():
    """Started from the gradient alone, the ascent stops below the maximum for some of
    200 heads with three classes."""
    weight, _, logits, labels = head(200, 3, 2, seed=4, scale=2)
    rho = torch.full((200,), 2.0, dtype=torch.float64)
    move = torch.zeros(200, 2, dtype=torch.float64)
    for _ in range(60):
        slope = (logits + move @ weight.T).softmax(1) @ weight - weight[labels]
        move = on_sphere(slope, rho)
    single = rise(weight, logits, labels, move)
    assert (single < 0.99 * brute_increase(weight, logits, labels, rho)).any()


@pytest.mark.needed
def test_without_convexity_a_step_can_descend():
    """For the Brier loss, which is not convex in the logits, a step lowers the loss
    for some of 200 heads."""
    weight, _, logits, labels = head(200, 3, 2, seed=2, scale=2)
    rho = torch.ones(200, dtype=torch.float64)
    one_hot = torch.eye(3, dtype=torch.float64)[labels]

    def brier(v):
        return ((logits + v @ weight.T).softmax(1) - one_hot).square().sum(1)

    g = generator(0)
    move = on_sphere(torch.randn(200, 2, generator=g, dtype=torch.float64), rho)
    slope = torch.func.grad(lambda v: brier(v).sum())(move)
    assert (brier(on_sphere(slope, rho)) < brier(move) - 1e-3).any()
