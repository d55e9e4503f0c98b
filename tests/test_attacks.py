import dataclasses
import math

import pytest
import torch
from torch import nn

from flatbook import attacks, models, softmax
from tests.waiting import Waits, no_values

SMALL = {"width": 0.125, "in_channels": 1, "image_size": 8}
ATTACK = {"norm": "linf", "eps": 0.1, "step_size": 0.03, "steps": 5}


class Linear(nn.Module):
    """z = W x + b: everything is known in closed form."""

    def __init__(self, weight, bias):
        super().__init__()
        self.head = nn.Linear(weight.shape[1], weight.shape[0])
        self.head.weight.data, self.head.bias.data = weight, bias

    def features(self, x):
        return x.flatten(1)

    def forward(self, x):
        return self.head(self.features(x))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def linear(k=2, d=6, seed=0, dtype=torch.float64):
    draw = generator(seed)
    weight = torch.randn(k, d, generator=draw, dtype=dtype)
    return Linear(weight, torch.randn(k, generator=draw, dtype=dtype))


def batch(n=8, shape=(6,), k=2, dtype=torch.float64, seed=1):
    draw = generator(seed)
    x = torch.rand(n, *shape, generator=draw, dtype=dtype)
    return x, torch.randint(k, (n,), generator=draw)


@pytest.fixture(scope="module")
def network():
    """A small ResNet with statistics of its own."""
    model = models.build("resnet18", 10, **SMALL)
    with torch.no_grad():
        for _ in range(20):
            model(torch.rand(64, 1, 8, 8, generator=generator(3)))
    return model.eval()


def pixels(n=8, seed=1):
    return batch(n, (1, 8, 8), 10, torch.float32, seed)


@pytest.mark.parametrize("loss", ["log_odds", "cross_entropy", "margin"])
def test_linf_optimum_of_a_binary_linear_model(loss):
    """The margin falls by eps ||w||_1 and no further; loss is softplus of it."""
    model, (x, y) = linear(), batch()
    x = 0.3 + 0.4 * x
    path = attacks.pgd(
        model, x, y, norm="linf", eps=0.1, step_size=0.04, steps=4, loss=loss
    )
    w = model.head.weight.detach()
    direction = (w[1 - y] - w[y]).sign()
    torch.testing.assert_close(path.adversarial, x + 0.1 * direction)
    clean = softmax.margin(model(x), y).detach()
    worst = clean - 0.1 * (w[0] - w[1]).abs().sum()
    torch.testing.assert_close(path.losses[-1], nn.functional.softplus(-worst))
    torch.testing.assert_close(path.losses[0], nn.functional.softplus(-clean))


def test_l2_step_goes_along_the_weight():
    model, (x, y) = linear(), batch()
    x = 0.4 + 0.2 * x
    path = attacks.pgd(model, x, y, norm="l2", eps=0.3, step_size=0.1, steps=1)
    w = model.head.weight.detach()
    step = w[1 - y] - w[y]
    expected = 0.1 * step / step.norm(dim=1, keepdim=True)
    torch.testing.assert_close(path.adversarial - x, expected)


def test_l2_stops_on_the_sphere():
    model, (x, y) = linear(), batch()
    x = 0.4 + 0.2 * x
    path = attacks.pgd(model, x, y, norm="l2", eps=0.25, step_size=0.1, steps=5)
    lengths = (path.points - x).flatten(2).norm(dim=2)
    expected = torch.tensor([0, 0.1, 0.2, 0.25, 0.25, 0.25]).double()
    torch.testing.assert_close(lengths, expected[:, None].expand(6, 8))


def test_box_binds():
    """Next to the border of [0, 1] the optimum of a linear model is clipped."""
    model, (x, y) = linear(), batch()
    path = attacks.pgd(model, x, y, norm="linf", eps=0.5, step_size=0.2, steps=9)
    w = model.head.weight.detach()
    expected = (x + 0.5 * (w[1 - y] - w[y]).sign()).clamp(0, 1)
    torch.testing.assert_close(path.adversarial, expected)
    assert (expected == 0).any()
    assert (expected == 1).any()


@pytest.mark.parametrize("norm", attacks.NORMS)
@pytest.mark.parametrize("loss", attacks.LOSSES)
@pytest.mark.parametrize("random_start", [False, True])
def test_ball_and_box(network, norm, loss, random_start):
    x, y = pixels()
    for seed, eps in enumerate((0.0, 0.01, 0.3, 5.0)):
        path = attacks.pgd(
            network,
            x,
            y,
            norm=norm,
            eps=eps,
            step_size=0.4 * eps,
            steps=4,
            loss=loss,
            random_start=random_start,
            generator=generator(seed),
        )
        order = 2 if norm == "l2" else math.inf
        moved = torch.linalg.vector_norm((path.points - x).flatten(2), order, dim=2)
        assert moved.max() <= eps * (1 + 1e-5) + 1e-6
        assert path.points.min() >= 0
        assert path.points.max() <= 1
        assert bool(moved[0].any()) is (random_start and eps > 0)


def test_shapes_and_labels(network):
    x, y = pixels()
    path = attacks.pgd(network, x, y.int(), **ATTACK)
    assert path.points.shape == (6, 8, 1, 8, 8)
    assert path.features.shape == (6, 8, 64)
    assert path.logits.shape == (6, 8, 10)
    assert path.losses.shape == (6, 8)
    assert path.zero_gradients.shape == (5, 8)
    assert path.zero_gradients.dtype == torch.bool
    assert torch.equal(path.labels, y)
    assert torch.equal(path.adversarial, path.points[-1])
    assert not any(
        getattr(path, field.name).requires_grad for field in dataclasses.fields(path)
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        path.points = x


@pytest.mark.parametrize("loss", attacks.LOSSES)
def test_record_equals_a_second_look_at_the_points(network, loss):
    x, y = pixels()
    path = attacks.pgd(network, x, y, loss=loss, **ATTACK)
    assert torch.equal(path.points[0], x)
    for point, phi, z, value in zip(
        path.points, path.features, path.logits, path.losses, strict=True
    ):
        torch.testing.assert_close(phi, network.features(point), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(z, network(point), rtol=1e-4, atol=1e-4)
        reference = nn.functional.cross_entropy(
            network(point).double(), y, reduction="none"
        )
        torch.testing.assert_close(value.double(), reference, rtol=1e-4, atol=1e-4)
    assert path.losses[-1].mean() > path.losses[0].mean() + 0.01


def test_one_forward_pass_for_each_point(network):
    x, y = pixels()
    seen = []
    handle = network.body.register_forward_hook(lambda *_: seen.append(1))
    attacks.pgd(network, x, y, **ATTACK)
    handle.remove()
    assert len(seen) == 6


@pytest.mark.parametrize("norm", attacks.NORMS)
def test_samples_do_not_influence_each_other(network, norm):
    """A sum of losses, not a mean: the batch size changes nothing."""
    model, (x, y) = copy_double(network), pixels()
    attack = {**ATTACK, "norm": norm}
    whole = attacks.pgd(model, x.double(), y, **attack)
    for i in range(3):
        alone = attacks.pgd(model, x[i : i + 1].double(), y[i : i + 1], **attack)
        torch.testing.assert_close(alone.points[:, 0], whole.points[:, i])


def copy_double(model):
    return models.scale_head(model, 1.0).double()


@pytest.mark.parametrize("norm", attacks.NORMS)
def test_log_odds_and_cross_entropy_are_one_attack_in_float64(network, norm):
    model, (x, y) = copy_double(network), pixels()
    attack = {**ATTACK, "norm": norm}
    odds, plain = (
        attacks.pgd(model, x.double(), y, loss=loss, **attack)
        for loss in ("log_odds", "cross_entropy")
    )
    torch.testing.assert_close(odds.points, plain.points, rtol=0, atol=1e-9)


@pytest.mark.parametrize("norm", attacks.NORMS)
def test_a_large_head_masks_gradients_only_from_cross_entropy(network, norm):
    """s = 1000 in float32: cross-entropy stands still, log-odds still flips."""
    model = models.scale_head(network, 1000.0)
    x, _ = pixels(32)
    y = model(x).argmax(1)
    big = {"norm": norm, "eps": 2.0 if norm == "l2" else 0.3, "steps": 10}
    big["step_size"] = big["eps"] / 4
    plain = attacks.pgd(model, x, y, loss="cross_entropy", **big)
    odds = attacks.pgd(model, x, y, loss="log_odds", **big)
    stuck = plain.zero_gradients[0]
    assert stuck.float().mean() > 0.5
    assert torch.equal(plain.points[:, stuck], x[stuck].expand(11, -1, 1, 8, 8))
    assert plain.zero_gradients[:, stuck].all()
    assert not odds.zero_gradients.any()
    flipped = odds.logits[-1].argmax(1) != y
    assert flipped.float().mean() > 0.9
    assert flipped[stuck].any()


@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1e30])
def test_l2_step_survives_extreme_gradients(scale):
    """No floor under the norm: subnormal and huge gradients give unit steps."""
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, -1.0]]) * scale
    length, direction = attacks._polar(vectors)
    expected = torch.tensor([[0.6, 0.8], [0.0, 0.0], [0.0, -1.0]])
    torch.testing.assert_close(
        direction, expected, rtol=0.2 if scale < 1e-40 else 1e-6, atol=0
    )
    torch.testing.assert_close(
        length, vectors.double().norm(dim=1, keepdim=True).float()
    )


def test_zero_gradient_is_recorded_and_moves_nothing():
    weight = torch.zeros(2, 6, dtype=torch.float64)
    model, (x, y) = Linear(weight, torch.zeros(2, dtype=torch.float64)), batch()
    for norm in attacks.NORMS:
        path = attacks.pgd(model, x, y, **{**ATTACK, "norm": norm})
        assert path.zero_gradients.all()
        assert torch.equal(path.points, x.expand(6, 8, 6))


def test_robust_is_judged_at_the_end_of_the_path(network):
    x, y = pixels(32)
    y = network(x).argmax(1).where(torch.arange(32) % 4 > 0, y)
    path = attacks.pgd(network, x, y, **ATTACK)
    assert torch.equal(path.robust, network(path.adversarial).argmax(1) == y)
    clean = attacks.pgd(network, x, y, **{**ATTACK, "eps": 0.0})
    assert torch.equal(clean.robust, network(x).argmax(1) == y)
    assert path.robust.sum() < clean.robust.sum() < 32


def test_stuck_is_every_gradient_zero():
    zeros = torch.tensor([[True, True, False], [True, False, False]])
    logits = torch.zeros(3, 3, 2)
    labels = torch.zeros(3, dtype=torch.long)
    path = attacks.Trajectory(logits, logits, logits, logits[..., 0], zeros, labels)
    assert path.stuck.tolist() == [True, False, False]
    assert not path.robust.any()  # a tie
    still = dataclasses.replace(path, zero_gradients=zeros[:0])
    assert still.stuck.tolist() == [False, False, False]


def test_dlr_is_the_published_ratio():
    z = torch.tensor([[3.0, 1.0, 0.5, -1.0], [1.0, 3.0, 0.5, -1.0], [2.0, 2.0, 2.0, 0]])
    y = torch.tensor([0, 0, 3])
    expected = [-(3 - 1) / (3 - 0.5), -(1 - 3) / (3 - 0.5), 2.0]
    torch.testing.assert_close(attacks.LOSSES["dlr"](z, y), torch.tensor(expected))
    torch.testing.assert_close(
        attacks.LOSSES["dlr"](z[:2] * 7 + 3, y[:2]), torch.tensor(expected[:2])
    )


def test_margin_loss_is_best_other_minus_true():
    z, y = torch.tensor([[3.0, 1.0, 0.5], [1.0, 3.0, 0.5]]), torch.tensor([0, 2])
    assert attacks.LOSSES["margin"](z, y).tolist() == [-2.0, 2.5]


def test_mode_is_restored_module_by_module(network):
    model = models.scale_head(network, 1.0).train()
    model.body[3].eval()
    modes = [module.training for module in model.modules()]
    x, y = pixels()
    statistics = model.body[1].running_mean.clone()
    path = attacks.pgd(model, x, y, **ATTACK)
    attacks.line(model, x, path.adversarial, y, steps=2)
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(model.body[1].running_mean, statistics)
    reference = attacks.pgd(network, x, y, **ATTACK)
    assert torch.equal(path.points, reference.points)


def test_mode_is_restored_after_an_exception():
    model = linear().train()
    model.features = lambda x: x.flatten(1) * math.inf
    with pytest.raises(ValueError, match="finite"):
        attacks.pgd(model, *batch(), **ATTACK)
    assert model.training
    assert model.head.training


@pytest.mark.parametrize("trainable", [True, False])
def test_parameters_and_inputs_are_left_alone(network, trainable):
    model = models.scale_head(network, 1.0).requires_grad_(trainable)
    x, y = pixels()
    if trainable:
        model(x).sum().backward()
    before = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    values = [p.detach().clone() for p in model.parameters()]
    leaf, kept = x.clone().requires_grad_(), x.clone()
    attacks.pgd(model, leaf, y, **ATTACK)
    assert leaf.grad is None
    assert torch.equal(leaf.detach(), kept)
    for parameter, grad, value in zip(model.parameters(), before, values, strict=True):
        assert parameter.requires_grad is trainable
        assert torch.equal(parameter, value)
        assert (parameter.grad is None) is (grad is None)
        assert grad is None or torch.equal(parameter.grad, grad)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_works_for_callers_without_gradients(network, context):
    x, y = pixels()
    reference = attacks.pgd(network, x, y, **ATTACK)
    with context():
        path = attacks.pgd(network, x.clone(), y.clone(), **ATTACK)
    assert torch.equal(path.points, reference.points)


@pytest.mark.parametrize("norm", attacks.NORMS)
@pytest.mark.parametrize("loss", attacks.LOSSES)
def test_steps_read_no_values(network, norm, loss):
    """The checks before and after them do; their number does not grow with steps."""
    x, y = pixels()
    options = {**ATTACK, "norm": norm, "loss": loss, "random_start": True}
    counts = []
    for steps in (0, 1, 5):
        with Waits() as waits:
            options["steps"] = steps
            attacks.pgd(network, x, y, **options, generator=generator())
        counts.append(len(waits.names))
    assert counts[0] == counts[1] == counts[2] > 0


@pytest.mark.parametrize("norm", attacks.NORMS)
def test_the_end_alone_is_that_of_the_path(network, norm):
    x, y = pixels()
    ball = attacks._Ball(norm, 0.3, 0.1, 4)
    options = {"random_start": True, "generator": generator(2)}
    path = attacks.pgd(network, x, y, **vars(ball), **options)
    with Waits() as waits:
        end = attacks._end(network, x, y, ball, generator(2))
    assert torch.equal(end, path.adversarial)
    assert not torch.equal(end, x)
    assert not waits.names


@pytest.mark.parametrize("norm", attacks.NORMS)
def test_the_end_alone_needs_no_values(norm):
    with no_values() as meta:
        model = models.build("resnet18", 10, **SMALL).to(meta)
        x, y = (t.to(meta) for t in pixels())
        end = attacks._end(model, x, y, attacks._Ball(norm, 0.3, 0.1, 3), generator())
    assert end.device == meta
    assert end.shape == x.shape


def test_the_end_alone_marks_what_is_not_finite(network):
    """No check, but the loss of such an image is no number."""
    broken = models.scale_head(network, 1.0)
    x, y = pixels()
    with torch.no_grad():
        broken.head.weight.fill_(1e38)
    finite = broken(x).isfinite().all(1)
    assert not finite.all()
    end = attacks._end(broken, x, y, attacks._Ball("linf", 0.0, 0.0, 2), generator())
    assert torch.equal(end.isnan().flatten(1).all(1), ~finite)
    assert torch.equal(end[finite], x[finite])


def test_float32_is_exact_in_attacks_and_lines(network, monkeypatch):
    """Where a GPU would otherwise round convolutions; what was set comes back."""
    cudnn, seen = torch.backends.cudnn, []
    model = models.scale_head(network, 1.0)
    model.head.register_forward_hook(lambda *_: seen.append(cudnn.allow_tf32))
    monkeypatch.setattr(cudnn, "allow_tf32", True)
    x, y = pixels()
    path = attacks.pgd(model, x, y, **ATTACK)
    attacks.line(model, x, path.adversarial, y, steps=2)
    assert len(seen) == ATTACK["steps"] + 1 + 3
    assert not any(seen)
    assert cudnn.allow_tf32


def test_no_steps(network):
    x, y = pixels()
    path = attacks.pgd(network, x, y, **{**ATTACK, "steps": 0})
    assert torch.equal(path.adversarial, x)
    assert path.zero_gradients.shape == (0, 8)
    assert path.losses.shape == (1, 8)


def test_random_start_is_seeded_and_leaves_the_global_rng_alone(network):
    x, y = pixels()
    before = torch.get_rng_state()
    first, again, other = (
        attacks.pgd(
            network, x, y, random_start=True, generator=generator(seed), **ATTACK
        )
        for seed in (1, 1, 2)
    )
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.points, again.points)
    assert not torch.equal(first.points[0], other.points[0])


@pytest.mark.parametrize(("norm", "power"), [("l2", 3), ("linf", 1)])
def test_random_start_is_uniform_in_the_ball(norm, power):
    """radius**d is uniform in l2; each coordinate is uniform in linf."""
    centre = torch.full((4000, 3), 0.5, dtype=torch.float64)
    draw = attacks._GEOMETRIES[norm].draw(centre, generator())
    values = draw.norm(dim=1) if norm == "l2" else draw.abs().flatten()
    values = values.pow(power).sort().values
    expected = torch.linspace(0, 1, len(values), dtype=torch.float64)
    assert (values - expected).abs().max() < 1.95 / math.sqrt(len(values))
    assert draw.mean(0).abs().max() < 0.05


def test_line_runs_from_x_to_x_adv(network):
    (x, y), (other, _) = pixels(), pixels(seed=9)
    path = attacks.line(network, x, other, y, steps=4)
    assert torch.equal(path.points[0], x)
    assert torch.equal(path.points[-1], other)
    torch.testing.assert_close(path.points[1], 0.75 * x + 0.25 * other)
    torch.testing.assert_close(
        path.logits[3], network(path.points[3]), rtol=1e-4, atol=1e-4
    )
    reference = nn.functional.cross_entropy(
        network(path.points[2]), y, reduction="none"
    )
    torch.testing.assert_close(path.losses[2], reference, rtol=1e-4, atol=1e-4)
    assert path.zero_gradients.shape == (4, 8)
    assert not path.zero_gradients.any()


BAD = [
    ({"norm": "l1"}, ValueError, "l1"),
    ({"loss": "hinge"}, ValueError, "hinge"),
    ({"eps": -0.1}, ValueError, r"eps.*-0\.1"),
    ({"eps": math.nan}, ValueError, "eps.*nan"),
    ({"step_size": -1}, ValueError, "step_size.*-1"),
    ({"step_size": math.inf}, ValueError, "step_size.*inf"),
    ({"steps": -1}, ValueError, "steps.*-1"),
    ({"steps": 2.0}, ValueError, r"steps.*2\.0"),
    ({"random_start": True}, ValueError, "Generator.*None"),
    ({"loss": "dlr"}, ValueError, "three or more classes, got 2"),
    ({"x": torch.zeros(8, 6).byte()}, TypeError, "uint8"),
    ({"x": [0.0]}, TypeError, "list"),
    ({"x": torch.zeros(8, 6)}, TypeError, "float32.*float64"),
    ({"x": torch.full((8, 6), 1.5).double()}, ValueError, r"\[0, 1\].*1\.5"),
    ({"x": torch.full((8, 6), -0.5).double()}, ValueError, r"-0\.5"),
    ({"x": torch.full((8, 6), math.nan).double()}, ValueError, "nan"),
    ({"x": torch.zeros(0, 6).double()}, ValueError, r"\(0, 6\)"),
    ({"y": torch.zeros(8)}, TypeError, "float32"),
    ({"y": torch.zeros(7).long()}, ValueError, r"\(8,\).*\(7,\)"),
    ({"y": torch.full((8,), 2)}, ValueError, r"0 \.\. 1.*2"),
    ({"y": torch.full((8,), -1)}, ValueError, "-1"),
    ({"model": nn.Linear(6, 2).double()}, TypeError, "features"),
]


@pytest.mark.parametrize(("changes", "error", "said"), BAD)
def test_bad_input_is_named_before_any_work(changes, error, said):
    x, y = batch()
    model = linear()
    model.features = lambda _: pytest.fail("the model ran")
    arguments = {"model": model, "x": x, "y": y, **ATTACK, **changes}
    with pytest.raises(error, match=said):
        attacks.pgd(**arguments)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "steps.*0"),
        ({"x_adv": torch.zeros(8, 5).double()}, r"\(8, 6\) and \(8, 5\)"),
        ({"x_adv": torch.full((8, 6), 2.0).double()}, r"2\.0"),
        ({"y": torch.full((8,), 2)}, r"0 \.\. 1.*2"),
    ],
)
def test_line_names_what_is_wrong(changes, said):
    x, y = batch()
    arguments = {"model": linear(), "x": x, "x_adv": x, "y": y, "steps": 3, **changes}
    with pytest.raises(ValueError, match=said):
        attacks.line(**arguments)
