"""What the benchmarks count and round; their times are not tested."""

import doctest
import functools

import pytest
import torch
from torch import nn

from benchmarks import __main__ as command
from benchmarks import networks, precision, table, throughput, timing
from flatbook import _gpu, attacks, curvature, data, models, training

CPU = torch.device("cpu")


def clock(durations):
    """A clock of which every second reading is later by the next duration."""
    now, steps = 0.0, iter(durations)
    while True:
        yield now
        now += next(steps)
        yield now


def test_first_calls_do_not_count():
    ticks = clock([9.0, 5.0, 1.0, 2.0, 3.0, 2.0])
    seen = timing.times(
        {"a": lambda: None, "b": lambda: None}, rounds=2, now=lambda: next(ticks)
    )
    assert seen["a"] == timing.Times(9.0, (1.0, 3.0))
    assert seen["b"] == timing.Times(5.0, (2.0, 2.0))
    assert seen["a"].median == 2.0
    assert timing.against(seen["b"], seen["a"]) == pytest.approx((4 / 3, 2 / 3, 2))


@pytest.mark.parametrize("module", [table, precision])
def test_examples_of_the_docstrings(module):
    failed, tried = doctest.testmod(module)
    assert not failed
    assert tried


def test_a_long_name_moves_the_columns(capsys):
    table.show("title", {"n" * 60: ("1",), "short": ("1000",)})
    title, first, second = capsys.readouterr().out.splitlines()
    assert title == "title"
    assert first == f"  {'n' * 60}      1"
    assert len(second) == len(first)


def test_the_same_recipe_gives_the_same_network():
    digits, recipe = data.digits(), training.Recipe(1, seed=3)
    first, second = (networks.trained(digits, recipe, width=0.05) for _ in "ab")
    assert not first.training
    assert torch.equal(first.head.weight, second.head.weight)


def test_the_radius_suits_the_data():
    def chosen(*arguments):
        return networks.radius(networks.parser("attack").parse_args(arguments))

    assert chosen() == 0.1
    assert chosen("--data", "cifar10") == 1 / 255
    assert chosen("--eps", "0.3") == 0.3


def test_ratios_are_of_the_first_job():
    seen = timing.ratios({"one": lambda: None, "two": lambda: None}, rounds=3)
    assert seen["one"] == (1.0, 1.0, 1.0)


def multiply_adds(model, x):
    """Of all convolutions and linear layers, from the shapes alone."""
    counts, hooks = [], []

    def count(layer, _, out):
        inside = layer.weight[0].numel()
        counts.append(out.numel() * inside)

    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            hooks.append(layer.register_forward_hook(count))
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return counts


@pytest.fixture(scope="module")
def setup():
    model = models.build("resnet18", 10, width=0.05).eval()
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return throughput.Setup(CPU, model, x, torch.arange(4), False)


def test_forward_pass_against_shapes(setup):
    counts = multiply_adds(setup.model, setup.x)
    with torch.no_grad():
        seen = throughput.operations(lambda: setup.model(setup.x))
    assert seen == 2 * sum(counts)


def test_gradient_in_the_images_is_as_much_again(setup):
    """Nothing is spent on the weights, whose gradients nobody wants."""
    assert throughput.gradient_work(setup) == 4 * sum(
        multiply_adds(setup.model, setup.x)
    )


def test_training_step_is_three_passes_but_for_the_images(setup):
    """Forward, weights and inputs of all layers; the first layer's input needs none."""
    counts = multiply_adds(setup.model, setup.x)
    cases = throughput.training_cases(setup)
    assert {case.work for case in cases.values()} == {6 * sum(counts) - 2 * counts[0]}
    assert {case.items for case in cases.values()} == {4}


def test_a_step_runs_with_the_algorithms_of_its_variant(setup, monkeypatch):
    seen, step = [], training._Run._step

    def watched(self, *arguments):
        cudnn = torch.backends.cudnn
        seen.append((cudnn.deterministic, cudnn.benchmark))
        return step(self, *arguments)

    free = functools.partial(_gpu.algorithms, same_bits=False, trials=True)
    cases = [throughput._training(setup, "float32")]
    cases.append(throughput._training(setup, "float32", chosen=free))
    monkeypatch.setattr(training._Run, "_step", watched)
    for case in cases:
        case.job()
    assert seen == [(True, False), (False, True)]


def test_resnet18_is_as_large_as_in_the_literature():
    """0.56 billion multiply-adds of the CIFAR variant at full width."""
    model = models.build("resnet18", 10).eval()
    with torch.no_grad():
        seen = throughput.operations(lambda: model(torch.zeros(1, 3, 32, 32)))
    assert seen / 2 == pytest.approx(0.56e9, rel=0.01)


def test_share_is_work_over_time_and_limit():
    case = throughput.Case(lambda: None, "float32", 10, 6e9)
    assert throughput.share(case, 2.0, 1e10) == pytest.approx(0.3)


def test_least_bytes_by_type():
    tensors = torch.zeros(3, 5), torch.zeros(7, dtype=torch.float64)
    assert throughput.least_bytes(*tensors) == 3 * 5 * 4 + 7 * 8


def test_limits_are_positive_and_named_by_the_cases(setup):
    limits = throughput.limits_of(
        [throughput.Case(lambda: None, name, 1, 1) for name in ("float32", "copy")],
        CPU,
        rounds=1,
        scale=1 / 16,
    )
    assert set(limits) == {"float32", "copy"}
    assert min(limits.values()) > 0


def test_variants_of_the_attack_end_where_it_does(setup, monkeypatch):
    """All of them climb as `pgd` does, the 16-bit ones nearly."""
    ends, original = [], attacks._Ball.climb

    def climb(self, *arguments):
        ends.append(original(self, *arguments))
        return ends[-1]

    monkeypatch.setattr(attacks._Ball, "climb", climb)
    ball = throughput._ball(2)
    expected = attacks.pgd(setup.model, setup.x, setup.y, **vars(ball)).adversarial
    for name, case in throughput.attack_cases(setup, 2).items():
        ends.clear()
        case.job()
        (end,) = ends
        same = (end - expected).abs() < 1e-5
        assert same.double().mean() > (0.6 if "bfloat16" in name else 0.98), name
        assert case.items == 8


def test_kappa_is_that_of_the_book(setup):
    for case in throughput.kappa_cases(setup, 50).values():
        kappa = case.job()
        assert kappa.shape == (50,)
        bits = kappa.element_size()
        assert case.work == bits * ((10 + 50) * setup.model.head.in_features + 50 * 10)


@pytest.mark.parametrize("name", ["float32", "tensorfloat32", "bfloat16"])
def test_precision_is_what_its_name_says(name):
    before = torch.backends.cudnn.allow_tf32
    with throughput.precision(name, CPU):
        assert torch.is_autocast_enabled("cpu") == (name == "bfloat16")
        assert torch.backends.cudnn.allow_tf32 == (name == "tensorfloat32")
        wanted = "high" if name == "tensorfloat32" else "highest"
        assert torch.get_float32_matmul_precision() == wanted
    assert torch.backends.cudnn.allow_tf32 == before


def test_every_table_is_printed(capsys):
    arguments = "--width .05 --batch 2 --points 10 --rounds 1 --limits .0625"
    throughput.main(arguments.split())
    printed = capsys.readouterr().out
    for part in (
        "limits",
        "float32, GFLOP/s",
        "copy, GB/s",
        "training",
        "attack",
        "kappa",
        "folded",
        "*",
    ):
        assert part in printed


# --- precision -------------------------------------------------------------------


def test_tensorfloat_keeps_ten_bits_and_rounds_to_even():
    x = torch.tensor([1.0, 1 + 2**-10, 1 + 2**-11, 1 + 3 * 2**-11, -(1 + 2**-10), 0.0])
    wanted = [1.0, 1 + 2**-10, 1.0, 1 + 2 * 2**-10, -(1 + 2**-10), 0.0]
    assert precision.tensorfloat(x).tolist() == wanted
    noise = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    error = (precision.tensorfloat(noise) / noise - 1).abs()
    assert 2**-12 < error.max() <= 2**-11


def test_imitation_rounds_weights_and_images_but_leaves_the_model():
    model = models.build("resnet18", 10, width=0.05, in_channels=1, image_size=8).eval()
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    weight = model.body[0].weight
    before = weight.clone()
    twin = precision.imitation(model)
    assert torch.equal(weight, before)
    first = twin.body[0](x)
    rounded = [precision.tensorfloat(t.detach()) for t in (x, weight)]
    assert torch.equal(first, nn.functional.conv2d(*rounded, padding=1))
    assert not torch.equal(first, model.body[0](x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_sharpness_is_the_books_in_every_type(dtype):
    head = nn.Linear(6, 4)
    phi = torch.rand(20, 6, generator=torch.Generator().manual_seed(2))
    weight = head.weight.detach().double()
    with torch.no_grad():
        z = head.double()(phi.double())
    expected = curvature.relative_sharpness(weight, phi.double(), z)
    close = 1e-12 if dtype == torch.float64 else 0.1
    seen = precision.sharpness(head, phi.double(), dtype)
    torch.testing.assert_close(seen, expected, rtol=close, atol=0)


def test_training_rows_are_means_and_spreads(monkeypatch):
    states = iter([{"a": 1.0}, {"a": 2.0}, {"a": 3.0}, {"a": 6.0}])
    monkeypatch.setattr(precision, "state_of", lambda *_: next(states))
    ((name, values),) = precision.training_rows([(None, None)] * 2, None, None)
    assert name == "a"
    assert values == pytest.approx((2.0, 2**0.5, 2.0, 2**0.5))


def test_float32_is_good_enough_and_16_bits_are_not():
    """The decision of the book, on a small trained network."""
    digits = data.digits()
    model = models.build("resnet18", 10, width=0.125, in_channels=1, image_size=8)
    training.train(model, digits, training.Recipe(2), progress=False)
    rows = dict(precision.kappa_rows(model, digits.x_test[:200]))
    good = max(rows["features and formula in float32"])
    assert good < 1e-4
    for name in rows:
        if "float16" in name or "TensorFloat" in name:
            assert rows[name][0] > 30 * good


# --- command line ----------------------------------------------------------------


def test_a_theme_gets_its_options(monkeypatch):
    calls = []
    for name in command.THEMES:
        note = functools.partial(lambda *call: calls.append(call), name)
        monkeypatch.setitem(command.THEMES, name, note)
    command.main(["throughput", "--batch", "2"])
    command.main([])
    assert calls == [
        ("throughput", ["--batch", "2"]),
        ("closed_forms", []),
        ("attack", []),
    ]
    with pytest.raises(SystemExit, match="themes are closed_forms.*'speed'"):
        command.main(["speed"])
