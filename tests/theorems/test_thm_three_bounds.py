"""thm-three-bounds: quadratic, Bennett's and union bound on the rise of the loss."""

import math

import pytest
import sympy as sp
import torch

from flatbook import data, models, radius, softmax
from flatbook.training import Recipe, train
from tests.cases import generator, head
from tests.maximum import exact_increase, rise


def random_heads(number, each):
    """Heads with k from 2 to 100, d from 1 to 512, uniform to saturated logits.

    Every weight comes with several biases: that many heads at one point each. The
    distance times the diameter runs from 0.001 to 100.
    """
    g = generator(0)
    for _ in range(number):
        u = torch.rand(4, generator=g, dtype=torch.float64)
        k, d = round(2 * 50 ** u[0].item()), round(512 ** u[1].item())
        weight = torch.randn(k, d, generator=g, dtype=torch.float64)
        weight = weight * 10 ** (2 * u[2] - 1)
        if u[3] < 0.2 and k > 2:
            weight[-1] = weight[0]
        width = 60 * torch.rand(each, 1, generator=g, dtype=torch.float64) ** 3
        logits = width * torch.randn(each, k, generator=g, dtype=torch.float64)
        labels = torch.randint(k, (each,), generator=g)
        labels[::2] = logits[::2].argmax(1)
        reach = 10 ** (5 * torch.rand(each, generator=g, dtype=torch.float64) - 3)
        yield weight, logits, labels, reach / radius._pair_distances(weight).max()


def no_violation(weight, logits, labels, rho, steps=4):
    """Every bound holds, up to rounding; returns the exact rise and the bounds."""
    exact = exact_increase(weight, logits, labels, rho, steps=steps)
    bounds = radius.loss_increase_bounds(weight, logits, labels, rho)
    for name, bound in bounds.items():
        assert (exact <= bound * (1 + 1e-10)).all(), name
    gap = bounds["union"] - exact
    assert (gap <= math.log(len(weight) - 1) + 1e-10 * (1 + exact)).all()
    return exact, bounds


@pytest.mark.random
def test_ten_thousand_heads():
    """10,000 random heads with 2 to 100 classes and 1 to 512 features, uniform to
    saturated, against an independent maximiser: no bound violated."""
    total = 0
    for weight, logits, labels, rho in random_heads(1000, 10):
        no_violation(weight, logits, labels, rho)
        total += len(logits)
    assert total == 10_000


@pytest.mark.random
def test_trained_heads():
    """Digits of three trained networks, at three distances and three scales of the
    head: no bound violated. At the flip the best bound is within five percent of the
    exact rise in the median."""
    digits, ratios = data.digits(), []
    for seed in range(3):
        weight, logits, labels = trained(digits, seed)
        flip = radius.flip_radius(weight, logits, labels)
        exact, bounds = no_violation(weight, logits, labels, flip)
        ratios.append(bounds["best"] / exact)
        z, y, far = logits[:60], labels[:60], flip[:60]
        for s in (0.25, 1.0, 5.0):
            for part in (0.3, 1.0, 2.0):
                no_violation(s * weight, s * z, y, part * far)
    assert torch.cat(ratios).median() <= 1.05


def trained(digits, seed):
    model = models.build("mlp", 10, in_channels=1, image_size=8)
    train(models.reinitialise(model, seed), digits, Recipe(10), progress=False)
    model = model.double()
    with torch.no_grad():
        logits = model(digits.x_test[:250].double())
    right = logits.argmax(1) == digits.y_test[:250]
    return model.head.weight.detach(), logits[right], digits.y_test[:250][right]


def in_words(weight, logits, label, rho):
    """The three bounds of one sample, from the words of the theorem."""
    p = logits.softmax(0)
    mean = p @ weight
    slope = (mean - weight[label]).norm().item()
    P = torch.diag(p) - torch.outer(p, p)
    v = torch.linalg.eigvalsh(weight.T @ P @ weight)[-1].item() * rho**2
    h = (weight - mean).norm(dim=1).max().item() * rho
    two = math.log((h**2 * math.exp(-v / h) + v * math.exp(h)) / (h**2 + v))
    gamma = (weight - weight[label]).norm(dim=1)
    return {
        "quadratic": slope * rho + torch.pdist(weight).max().item() ** 2 * rho**2 / 8,
        "bennett": slope * rho + two,
        "union": math.log((p * (rho * gamma).exp()).sum().item()),
    }


@pytest.mark.random
def test_the_package_computes_these_bounds():
    """600 heads: the package gives the numbers that the words of the theorem give."""
    for seed in range(30):
        weight, _, logits, labels = head(20, 2 + seed % 5, 3, seed=seed)
        bounds = radius.loss_increase_bounds(weight, logits, labels, 0.7)
        for i in range(20):
            wanted = in_words(weight, logits[i], labels[i], 0.7)
            for name, value in wanted.items():
                assert bounds[name][i].item() == pytest.approx(value, rel=1e-8)


@pytest.mark.symbolic
def test_two_classes_with_symbols():
    """Two classes: the two-point law is the prediction itself, so Bennett's bound and
    the union bound are one expression."""
    p, x = sp.symbols("p x", positive=True)  # p = p_y, x = rho Gamma
    v, h = p * (1 - p) * x**2, p * x
    top = h**2 * sp.exp(-v / h) + v * sp.exp(h)
    bennett = sp.exp((1 - p) * x) * top / (h**2 + v)
    assert sp.simplify(bennett - (p + (1 - p) * sp.exp(x))) == 0


@pytest.mark.boundary
def test_two_classes_are_exact():
    """Two classes, 600 heads: the union bound is the exact rise to ten digits, and so
    is Bennett's where the true class has at least half of the probability."""
    weight, _, logits, labels = head(600, 2, 4, seed=5, scale=1.5)
    rho = 10 ** (3 * torch.rand(600, generator=generator(6), dtype=torch.float64) - 2)
    exact, bounds = no_violation(weight, logits, labels, rho)
    torch.testing.assert_close(bounds["union"], exact, rtol=1e-10, atol=0)
    right = softmax.margin(logits, labels) >= 0
    torch.testing.assert_close(
        bounds["bennett"][right], exact[right], rtol=1e-9, atol=0
    )
    assert (bounds["bennett"] > exact * 1.01)[~right].any()


@pytest.mark.boundary
def test_a_simplex_attains_the_gap():
    """Rows at equal distances, equal logits and a long way: union - exact approaches
    log(k - 1)."""
    for k in (3, 10, 40):
        weight = torch.eye(k, dtype=torch.float64)
        logits, label = torch.zeros(1, k, dtype=torch.float64), torch.tensor([0])
        rho = torch.tensor([200.0], dtype=torch.float64)
        exact, bounds = no_violation(weight, logits, label, rho)
        gap = (bounds["union"] - exact).item()
        assert gap == pytest.approx(math.log(k - 1), abs=1e-6)


@pytest.mark.boundary
def test_no_distance_and_equal_rows():
    """At distance zero, or with all rows of the head equal, all bounds are zero."""
    weight, _, logits, labels = head(5, 4, 3)
    bounds = radius.loss_increase_bounds(weight, logits, labels, 0.0)
    equal = torch.ones(4, 3, dtype=torch.float64)
    bounds |= radius.loss_increase_bounds(equal, logits, labels, 2.0)
    assert all((value == 0).all() for value in bounds.values())


@pytest.mark.needed
def test_the_diameter_not_the_distance_to_the_true_row():
    """With the largest distance from the true row in place of the diameter the
    quadratic bound fails."""
    weight = torch.tensor([[0.0], [1.0], [-1.0]], dtype=torch.float64)
    logits = torch.tensor([[-40.0, 0.0, 0.0]], dtype=torch.float64)
    rho, label = 0.5, torch.tensor([0])
    move = torch.tensor([[rho]], dtype=torch.float64)
    got = rise(weight, logits, label, move).item()
    assert 1**2 * rho**2 / 8 < got <= 2**2 * rho**2 / 8


@pytest.mark.needed
def test_the_union_bound_needs_a_label():
    """For a target spread over two classes the union bound of the likelier one
    fails."""
    weight = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    logits, rho = torch.tensor([[2.0, 0.0]], dtype=torch.float64), 1.0
    label = torch.tensor([0])
    moved = logits + rho * weight.T
    soft = moved.logsumexp(1) - logits.logsumexp(1) - 0.5 * rho
    union = radius.loss_increase_bounds(weight, logits, label, rho)["union"]
    assert soft.item() > union.item() + 0.1
