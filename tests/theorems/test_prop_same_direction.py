"""prop-same-direction: cross-entropy and log-odds point the same way at every scale."""

import pytest
import sympy as sp
import torch
from torch import nn

from flatbook import attacks, softmax, symbolic
from tests.cases import generator


def smooth_logits(seed, k, n=8, d=5):
    """Logits (n, k) that are a curved function of inputs (n, d)."""
    g = generator(seed)
    inner = torch.randn(d, 12, generator=g, dtype=torch.float64)
    outer = torch.randn(12, k, generator=g, dtype=torch.float64)
    x = torch.randn(n, d, generator=g, dtype=torch.float64)
    y = torch.randint(k, (n,), generator=g)
    return x, y, lambda points: (points @ inner).tanh() @ outer


def slope(function, x):
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(function(leaf).sum(), leaf)[0]


def rival_and_gap(z, y):
    """The best other class, and how far it is ahead of the next one."""
    top = z.scatter(1, y[:, None], -torch.inf).topk(min(2, z.shape[1] - 1), 1)
    gap = top.values[:, 0] - top.values[:, -1]
    return top.indices[:, 0], gap


@pytest.mark.random
@pytest.mark.parametrize("seed", range(12))
def test_the_factor_is_one_minus_p(seed):
    """The two gradients differ by one minus the probability of the label."""
    k = 2 + seed % 5
    x, y, logits = smooth_logits(seed, k)
    for s in (0.01, 1.0, 7.0):
        plain = slope(lambda v, s=s: softmax.cross_entropy(s * logits(v), y), x)
        odds = slope(lambda v, s=s: softmax.log_odds(s * logits(v), y), x)
        factor = softmax.one_minus(s * logits(x)).gather(1, y[:, None])
        assert (factor > 0).all()
        torch.testing.assert_close(plain, factor * odds, rtol=1e-9, atol=1e-14)


@pytest.mark.random
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_both_attacks_visit_the_same_points(norm):
    """In float64, while nothing is rounded away, both attacks take the same way."""
    torch.manual_seed(0)
    model = nn.Module()
    body = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Tanh()).double()
    model.features, model.head = body, nn.Linear(12, 4).double()
    model.forward = lambda x: model.head(model.features(x))
    x = torch.rand(9, 1, 4, 4, generator=generator(1), dtype=torch.float64)
    y = torch.randint(4, (9,), generator=generator(2))
    for s in (0.1, 1.0, 5.0):
        with torch.no_grad():
            model.head.weight.mul_(s)
        how = {"norm": norm, "eps": 0.3, "step_size": 0.1, "steps": 5}
        one, two = (
            attacks.pgd(model, x, y, loss=loss, **how).points
            for loss in ("cross_entropy", "log_odds")
        )
        torch.testing.assert_close(one, two, rtol=0, atol=1e-7)


@pytest.mark.random
@pytest.mark.parametrize("seed", range(12))
def test_a_large_scale_attacks_the_margin(seed):
    """The distance from the gradient of the margin, against its bound."""
    k = 3 + seed % 4
    x, y, logits = smooth_logits(seed, k)
    z = logits(x)
    rival, gap = rival_and_gap(z, y)
    each = torch.stack([slope(lambda v, j=j: logits(v)[:, j], x) for j in range(k)], 1)
    rows = torch.arange(len(x))
    goal = each[rows, rival] - each[rows, y]
    size = each.norm(dim=2).amax(1)
    for s in (0.5, 2.0, 10.0, 40.0):
        odds = slope(lambda v, s=s: softmax.log_odds(s * logits(v), y), x) / s
        bound = 2 * (k - 2) * (-s * gap).exp() * size
        assert ((odds - goal).norm(dim=1) <= bound * (1 + 1e-9) + 1e-12).all()


@pytest.mark.symbolic
@pytest.mark.parametrize("k", [2, 3, 4])
def test_symbolic(k):
    """In the logits, for up to four classes."""
    z = symbolic.logits(k)
    odds = sp.log(sum(sp.exp(v) for v in z[1:])) - z[0]
    loss = symbolic.cross_entropy(k, 0)
    p = sp.exp(z[0]) / sum(sp.exp(v) for v in z)
    assert sp.simplify(sp.exp(loss) - 1 - sp.exp(odds)) == 0
    for v in z:
        assert sp.simplify(sp.diff(loss, v) - (1 - p) * sp.diff(odds, v)) == 0


@pytest.mark.boundary
def test_boundary_two_classes():
    """With two classes the log-odds are the margin, at every scale."""
    x, y, logits = smooth_logits(3, 2)
    margin = slope(lambda v: -softmax.margin(logits(v), y), x)
    for s in (0.1, 1.0, 30.0, 1000.0):
        odds = slope(lambda v, s=s: softmax.log_odds(s * logits(v), y), x)
        torch.testing.assert_close(odds / s, margin, rtol=1e-9, atol=1e-12)


@pytest.mark.needed
def test_a_single_target_is_needed():
    """With a smoothed label the direction is another one."""
    x, y, logits = smooth_logits(1, 4)

    def smoothed(points):
        return nn.functional.cross_entropy(
            3 * logits(points), y, label_smoothing=0.1, reduction="sum"
        )

    one = slope(smoothed, x)
    two = slope(lambda v: softmax.log_odds(3 * logits(v), y), x)
    assert torch.cosine_similarity(one, two).min() < 0.9


@pytest.mark.needed
def test_exact_arithmetic_is_needed():
    """In float32, at a margin of 60, a third of the signs are wrong."""
    x, y, logits = smooth_logits(5, 4, n=200)
    z = logits(x)
    s = 60 / softmax.margin(z, y).abs()
    y = z.argmax(1)

    def plain(points):
        short = (s[:, None] * logits(points)).float()
        return nn.functional.cross_entropy(short, y, reduction="none")

    one = slope(plain, x).sign()
    two = slope(lambda v: softmax.log_odds(s[:, None] * logits(v), y), x).sign()
    assert 0.5 < (one == two).double().mean() < 0.9


@pytest.mark.needed
def test_a_single_best_rival_is_needed():
    """Two rivals that tie are averaged, however large the scale."""
    z = torch.tensor([[2.0, 1.0, 1.0]], dtype=torch.float64)
    y = torch.tensor([0])
    for s in (1.0, 100.0, 700.0):
        odds = slope(lambda v, s=s: softmax.log_odds(s * v, y), z) / s
        expected = torch.tensor([[-1.0, 0.5, 0.5]], dtype=torch.float64)
        torch.testing.assert_close(odds, expected)
