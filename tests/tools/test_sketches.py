"""The curves of the handouts are those of the package."""

import itertools
import math
import xml.etree.ElementTree as ET

import pytest
import torch

from flatbook import curvature, radius, softmax
from tools import sketches


def two(gaps):
    gaps = torch.as_tensor(gaps, dtype=torch.float64)
    return torch.stack([gaps, torch.zeros_like(gaps)], 1)


def columns(sketch, name):
    x, y = zip(*sketch.lines[name], strict=True)
    return torch.tensor(x).double(), torch.tensor(y).double()


def test_scales():
    sketch = sketches.scales()
    t, trace = columns(sketch, "tr P(s), times two")
    logits = two(2**t * math.log(3))
    torch.testing.assert_close(trace, 2 * softmax.trace_p(logits))
    _, kappa = columns(sketch, "κ(s), over its peak")
    weight, one = torch.tensor([[1.0], [0.0]]).double(), torch.ones(len(t), 1).double()
    wanted = 2 ** (2 * t) * curvature.relative_sharpness(weight, one, logits)
    torch.testing.assert_close(kappa, wanted / wanted.max())
    _, flip = columns(sketch, "flip radius, over its value at s = 1")
    scaled = torch.stack(
        [
            radius.flip_radius(2**u * weight, z[None], torch.tensor([0]))[0]
            for u, z in zip(t, logits, strict=True)
        ]
    )
    torch.testing.assert_close(flip, scaled / math.log(3))


def test_radius():
    sketch = sketches.radius()
    weight = torch.tensor([[1.0], [0.0]]).double()
    logits, label = two([math.log(20)]), torch.tensor([0])
    rho, exact = columns(sketch, "exact rise of the loss")
    for name, line in (("cubic", "cubic bound"), ("quadratic", "quadratic bound")):
        wanted = [
            radius.loss_increase_bounds(weight, logits, label, r.item()) for r in rho
        ]
        _, got = columns(sketch, line)
        torch.testing.assert_close(got, torch.cat([w[name] for w in wanted]))
        torch.testing.assert_close(exact, torch.cat([w["union"] for w in wanted]))
    flip = radius.flip_radius(weight, logits, label).item()
    assert sketch.marks == pytest.approx([flip])
    level = sketch.lines["largest tolerance that rules out a flip"][0][1]
    loss = softmax.cross_entropy(logits, label).item()
    assert level == pytest.approx(math.log(2) - loss)
    assert level == pytest.approx(sketches.rise(math.log(20), flip))


def test_valley():
    sketch = sketches.valley()
    gap, trace = columns(sketch, "tr P, times two")
    torch.testing.assert_close(trace, 2 * softmax.trace_p(two(gap)))
    logits = two(gap).requires_grad_()
    loss = softmax.cross_entropy(logits, torch.ones(len(gap), dtype=torch.long))
    _, drawn = columns(sketch, "loss, over its last value")
    torch.testing.assert_close(drawn, (loss / loss[-1]).detach())
    slope = torch.autograd.grad(loss.sum(), logits)[0][:, 0]
    torch.testing.assert_close(columns(sketch, "slope of the loss")[1], slope)


def test_triangle():
    """Predictions inside the kite, and only those, are led by the first class."""
    kite = sketches.triangle().lines["inside: the true class is predicted"]
    p = torch.rand(500, 3, generator=torch.Generator().manual_seed(0)).double()
    p /= p.sum(1, keepdim=True)
    for q in p:
        x, y = sketches.corner(q.tolist())
        sides = [
            (b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])
            for a, b in itertools.pairwise(kite)
        ]
        inside = all(s > 0 for s in sides) or all(s < 0 for s in sides)
        assert inside == bool(q.argmax() == 0)


@pytest.mark.parametrize("name", sketches.SKETCHES)
def test_a_drawing_is_described_and_stays_in_its_frame(name):
    root = ET.fromstring(sketches.svg(name, 'what "is"\nseen & known'))
    svg = root.find("svg")
    assert svg.get("role") == "img"
    assert svg.get("aria-label") == 'what "is" seen & known'
    assert len(svg.findall("path")) >= 2 * len(sketches.SKETCHES[name]().lines)
    for path in svg.findall("path"):
        if "curve" in path.get("class"):
            steps = path.get("d").replace("h", "L0,").strip("M").split("L")
            assert all(0 <= float(s.split(",")[0]) <= sketches.WIDTH for s in steps)
