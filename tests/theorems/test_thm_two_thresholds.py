"""thm-two-thresholds: below log 2 always right, from log k on always wrong."""

import math

import mpmath
import pytest
import sympy as sp
import torch

from flatbook import softmax
from tests.cases import generator


def logits(seed, n=100):
    """Two to eleven classes, from nearly equal to saturated logits, with ties."""
    g = generator(seed)
    k, spread = 2 + seed % 10, 10.0 ** (seed % 4 - 2)
    z = spread * torch.randn(n, k, generator=g, dtype=torch.float64)
    labels = torch.randint(k, (n,), generator=g)
    top = z.amax(1)
    z[torch.arange(0, n, 5), labels[::5]] = top[::5]  # every fifth one a tie or a lead
    return z, labels


@pytest.mark.random
def test_the_loss_lies_between_two_functions_of_the_margin():
    """1000 random logits against torch's own loss and sorted logits."""
    for seed in range(10):
        z, y = logits(seed)
        loss = torch.nn.functional.cross_entropy(z, y, reduction="none")
        rows = zip(z.tolist(), y.tolist(), loss.tolist(), strict=True)
        for row, label, value in rows:
            own = row.pop(label)
            m, rivals = own - max(row), len(row)
            assert math.log1p(math.exp(-m)) <= value + 1e-12
            assert value <= math.log1p(rivals * math.exp(-m)) + 1e-12


@pytest.mark.random
def test_thresholds():
    """4000 random predictions: none wrong below log 2, none right from log k on."""
    seen = set()
    for seed in range(40):
        z, y = logits(seed)
        k = z.shape[1]
        loss = softmax.cross_entropy(z, y)
        beaten = (z > z.gather(1, y[:, None])).any(1)
        ties = (z == z.gather(1, y[:, None])).sum(1) > 1
        wrong = beaten | ties
        assert not (wrong & (loss < math.log(2) * (1 - 1e-14))).any()
        assert not (~wrong & (loss >= math.log(k) * (1 + 1e-14))).any()
        between = (loss > math.log(2)) & (loss < math.log(k))
        seen |= {bool(w) for w in wrong[between]}
    assert seen == {True, False}


@pytest.mark.symbolic
def test_log_odds_and_margin_in_symbols():
    """The odds are e^-m times one plus a sum of at most k - 2 ratios in (0, 1]."""
    a, b, c, y = sp.symbols("a b c y", real=True)
    odds = sum(sp.exp(v - y) for v in (a, b, c))
    m = y - a  # a leads the rivals
    rest = 1 + sp.exp(b - a) + sp.exp(c - a)
    assert sp.simplify(odds - sp.exp(-m) * rest) == 0
    loss = -sp.log(sp.exp(y) / sum(sp.exp(v) for v in (a, b, c, y)))
    gap = sp.exp(loss) - 1 - odds
    assert sp.simplify(gap) == 0


@pytest.mark.boundary
@pytest.mark.parametrize("k", [3, 4, 10])
@pytest.mark.parametrize("share", [1e-6, 0.25, 0.5, 0.75, 1 - 1e-6])
def test_every_loss_in_between_belongs_to_both(k, share):
    """Each loss between log 2 and log k, once with a right answer and once wrong."""
    loss = math.log(2) + share * math.log(k / 2)
    p = math.exp(-loss)
    even = torch.full((1, k), (1 - p) / (k - 1), dtype=torch.float64)
    crumb = (1 - 2 * p) / (2 * k)
    one = torch.full((1, k), crumb, dtype=torch.float64)
    even[0, 0] = one[0, 0] = p
    one[0, 1] = 1 - p - (k - 2) * crumb
    label = torch.tensor([0])
    for probabilities, right in ((even, True), (one, False)):
        z = probabilities.log()
        assert softmax.cross_entropy(z, label).item() == pytest.approx(loss, rel=1e-12)
        assert (softmax.margin(z, label).item() > 0) == right


@pytest.mark.boundary
def test_two_classes_have_one_threshold():
    """For two classes the loss decides: margin and log 2 to 60 digits."""
    with mpmath.workdps(60):
        for m in (mpmath.mpf(10) ** -50, mpmath.mpf(1), mpmath.mpf(40)):
            loss = mpmath.log1p(mpmath.exp(-m))
            assert loss < mpmath.log(2) < mpmath.log1p(mpmath.exp(m))
    tie = torch.zeros(1, 2, dtype=torch.float64)
    assert softmax.cross_entropy(tie, torch.tensor([0])).item() == math.log(2)


@pytest.mark.boundary
def test_uniform_prediction_is_an_error_of_loss_log_k():
    """All logits equal: the tie counts as an error, at exactly log k."""
    for k in (2, 3, 10, 1000):
        z, y = torch.zeros(1, k, dtype=torch.float64), torch.tensor([k - 1])
        assert softmax.cross_entropy(z, y).item() == pytest.approx(
            math.log(k), rel=1e-14
        )
        assert softmax.margin(z, y).item() == 0


@pytest.mark.needed
def test_other_losses_have_other_thresholds():
    """Brier loss and 10 + |z|^2 can be larger at a right answer than at a flip."""
    right = torch.tensor([0.34, 0.33, 0.33], dtype=torch.float64)
    wrong = torch.tensor([0.45, 0.50, 0.05], dtype=torch.float64)
    target = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    assert (right - target).square().sum() > (wrong - target).square().sum()
    z = torch.tensor([[100.0, 0, 0], [0.0, 1, 0]], dtype=torch.float64)
    other = 10 + z.square().sum(1)
    assert (softmax.margin(z, torch.tensor([0, 0])) > 0).tolist() == [True, False]
    assert other[0] > other[1] > math.log(3)


@pytest.mark.needed
def test_only_the_true_label_counts():
    """Of another label the loss may be large however right the answer is."""
    z = torch.tensor([[9.0, 0.0, 0.0]], dtype=torch.float64)
    assert softmax.margin(z, torch.tensor([0])).item() > 0
    assert softmax.cross_entropy(z, torch.tensor([1])).item() > math.log(3)
