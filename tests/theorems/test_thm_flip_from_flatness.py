"""thm-flip-from-flatness: at given confidence flat is robust, sharp is fragile."""

import math

import pytest
import sympy as sp
import torch

from flatbook import curvature, radius
from tests.cases import generator


def crowd(seed, n=5):
    """A random head with biases, n points, their predictions; k to 100, d to 512."""
    g = generator(seed)
    k = (2, 3, 4, 5, 10, 20, 50, 100)[seed % 8]
    d = (1, 2, 3, 8, 32, 512)[seed % 6]
    spread = 10 ** (4 * torch.rand(1, generator=g, dtype=torch.float64) - 2)
    weight = spread * torch.randn(k, d, generator=g, dtype=torch.float64)
    weight *= torch.randn(k, 1, generator=g, dtype=torch.float64).exp()
    bias = spread * torch.randn(k, generator=g, dtype=torch.float64)
    phi = torch.randn(n, d, generator=g, dtype=torch.float64)
    logits = phi @ weight.T + bias
    return weight, bias, phi, logits, logits.argmax(1)


def bounds(weight, phi, logits, labels):
    """Both lower bounds and the upper one, from p, lambda and Petzka's measure."""
    index = labels[:, None]
    p, log_p = logits.softmax(1), logits.log_softmax(1)
    gaps = log_p.gather(1, index) - log_p
    pair = (log_p.gather(1, index) + log_p).exp()
    share = pair / (p.gather(1, index) + p)
    lam = curvature.lambda_max(weight, logits)[:, None]
    trace = curvature.relative_flatness(weight, phi, logits) / phi.square().sum(1)
    terms = gaps * (share / lam).sqrt(), gaps * (pair / trace[:, None]).sqrt()
    low, lower = (t.scatter(1, index, torch.inf).amin(1) for t in terms)
    return low, lower, ((p * gaps.square()).sum(1) / trace).sqrt()


def walks(weight, bias, phi, label, distance):
    """Predictions after steps of this length toward every other row of the head."""
    ways = weight - weight[label]
    norms = ways.norm(dim=1, keepdim=True)
    points = phi + distance * ways / norms.clamp_min(1e-300)
    return (points @ weight.T + bias)[norms[:, 0] > 0]


@pytest.mark.random
def test_10_000_predictions_between_the_bounds():
    """10,000 predictions of 1,000 random heads, up to 100 classes, 512 features."""
    for seed in range(1000):
        weight, _, phi, logits, labels = crowd(seed, n=10)
        keep = (logits.log_softmax(1) > -300).all(1)
        flip = radius.flip_radius(weight, logits, labels)
        low, lower, upper = bounds(weight, phi, logits, labels)
        assert (lower <= low * (1 + 1e-9))[keep].all()
        assert (low <= flip * (1 + 1e-9))[keep].all()
        assert (flip <= upper * (1 + 1e-9))[keep].all()


@pytest.mark.random
def test_600_walks_flip_at_the_upper_bound_and_not_before_the_lower():
    """600 walks: no flip within the lower bound, a flip within the upper."""
    for seed in range(600):
        weight, bias, phi, logits, labels = crowd(seed, n=1)
        if logits.log_softmax(1).min() < -300 or weight.shape[1] > 32:
            continue
        low, _, upper = bounds(weight, phi, logits, labels)
        near = walks(weight, bias, phi, labels[0], low * (1 - 1e-9))
        far = walks(weight, bias, phi, labels[0], upper * (1 + 1e-6) + 1e-9)
        assert (near.argmax(1) == labels[0]).all()
        assert (far.argmax(1) != labels[0]).any()


@pytest.mark.symbolic
def test_symbolic_variance_of_a_pair():
    """What the variance has over the bound is a square, in sympy."""
    x, y, u, p, q = sp.symbols("x y u p q", positive=True)
    mass = p + q
    mean = (p * x + q * y) / mass
    pair = p * (x - u) ** 2 + q * (y - u) ** 2
    rest = p * q / mass * (x - y) ** 2 + mass * (mean - u) ** 2
    assert sp.simplify(pair - rest) == 0


@pytest.mark.symbolic
def test_symbolic_two_classes():
    """Two classes: lambda is p_y p_j times the squared distance of the rows."""
    z, p = sp.symbols("z", real=True), sp.symbols("p", positive=True)
    v, w = sp.symbols("v w", real=True)
    row = sp.Matrix([v, w])
    head = sp.Matrix([row.T, sp.zeros(1, 2)])
    P = p * (1 - p) * sp.Matrix([[1, -1], [-1, 1]])
    values = (head.T * P * head).eigenvals()
    assert sp.simplify(sum(values) - p * (1 - p) * (v**2 + w**2)) == 0
    assert z not in values


@pytest.mark.boundary
def test_two_classes_are_an_equality():
    """Two classes: both lower bounds are the flip radius, to ten digits."""
    for seed in range(0, 800, 8):
        weight, _, phi, logits, labels = crowd(seed)
        keep = logits.diff(dim=1).abs()[:, 0] < 600
        flip = radius.flip_radius(weight, logits, labels)
        for bound in bounds(weight, phi, logits, labels)[:2]:
            torch.testing.assert_close(bound[keep], flip[keep], rtol=1e-10, atol=0)


@pytest.mark.boundary
@pytest.mark.parametrize("k", [2, 3, 5, 10, 100])
@pytest.mark.parametrize("above", [1e-3, 0.5, 0.999])
def test_every_confidence_attains_the_first_bound(k, above):
    """On a line the first bound is attained for every k at every confidence."""
    top = 1 / k + above * (1 - 1 / k)
    rest = (1 - top) / (k - 1)
    rows = torch.full((k, 1), rest / (top + rest), dtype=torch.float64)
    rows[0], rows[1] = 0.0, 1.0
    logits = torch.full((1, k), math.log(rest), dtype=torch.float64)
    logits[0, 0] = math.log(top)
    y = torch.tensor([0])
    flip = radius.flip_radius(rows, logits, y).item()
    low = bounds(rows, torch.ones(1, 1, dtype=torch.float64), logits, y)[0].item()
    assert low == pytest.approx(flip, rel=1e-9)


@pytest.mark.boundary
@pytest.mark.parametrize("k", [3, 4, 10, 100])
@pytest.mark.parametrize("gap", [1e-3, 1.0, 50.0])
def test_rows_around_the_winner_attain_the_upper_bound(k, gap):
    """Rows spread evenly around the winner's attain the upper bound."""
    others = torch.eye(k - 1, dtype=torch.float64) - 1 / (k - 1)
    others = torch.nn.functional.normalize(others, dim=1)
    weight = torch.cat([torch.zeros(1, k - 1, dtype=torch.float64), others])
    logits = torch.full((1, k), -gap, dtype=torch.float64)
    logits[0, 0] = 0.0
    phi = torch.ones(1, k - 1, dtype=torch.float64)
    upper = bounds(weight, phi, logits, torch.tensor([0]))[2].item()
    assert upper == pytest.approx(gap, rel=1e-9)


@pytest.mark.needed
def test_the_confidence_is_needed():
    """Scaling a head makes it flat and leaves the flip radius where it was."""
    weight, _, phi, logits, labels = crowd(9)
    flat, flip = [], []
    for s in (1.0, 20.0):
        scaled = s * weight, s * logits
        flat.append(curvature.relative_flatness(scaled[0], phi, scaled[1]))
        flip.append(radius.flip_radius(*scaled, labels))
    torch.testing.assert_close(*flip)
    assert (flat[1] < 1e-3 * flat[0]).any()


@pytest.mark.needed
def test_the_least_probable_class_is_needed():
    """Same curvature, same two largest probabilities: a rare class flips anywhere."""
    curvatures, flips = [], []
    for rare in (1e-6, 1e-12, 1e-24):
        p = torch.tensor([[0.9 - rare, 0.1, rare]], dtype=torch.float64)
        weight = torch.tensor([[0.0], [0.0], [rare**-0.5]], dtype=torch.float64)
        curvatures.append(curvature.lambda_max(weight, p.log()).item())
        flips.append(radius.flip_radius(weight, p.log(), torch.tensor([0])).item())
    assert curvatures == pytest.approx([1.0] * 3, rel=1e-5)
    assert flips[0] > 100 * flips[1] > 1e4 * flips[2]


@pytest.mark.needed
def test_the_first_place_is_needed():
    """For a class that is not the prediction the upper bound is false."""
    weight = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    logits = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    phi, loser = torch.ones(1, 1, dtype=torch.float64), torch.tensor([1])
    low = bounds(weight, phi, logits, loser)[0].item()
    assert low < 0 == radius.flip_radius(weight, logits, loser).item()
