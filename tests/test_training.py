import dataclasses
import math
import pickle
import resource
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from flatbook import (
    _checkpoint,
    _steps,
    attacks,
    data,
    losses,
    models,
    softmax,
    training,
)
from tests.trap import Trap
from tests.waiting import Waits, no_values

SMALL = {"width": 0.125, "in_channels": 1, "image_size": 8}
QUICK = training.Recipe(epochs=4, batch_size=32, lr=0.05)
NOISY = training.Adversary(eps=0.1, step_size=0.05, steps=2)


def tiny(seed=0, n=96, size=8):
    """Two classes of noise, one brighter than the other."""
    draw = torch.Generator().manual_seed(seed)
    y = torch.randint(2, (n,), generator=draw)
    x = torch.rand(n, 1, size, size, generator=draw) * 0.6
    x = x + 0.4 * y[:, None, None, None]
    half = n // 2
    return data.Dataset("tiny", x[:half], y[:half], x[half:], y[half:], ("a", "b"))


def fresh(name="resnet18", seed=0, **changes):
    built = models.build(name, 2, **{**SMALL, "width": 0.05, **changes})
    return models.reinitialise(built, seed)


def weights(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(first[k], second[k]) for k in first
    )


def run(model, dataset, recipe=QUICK, **more):
    return training.train(model, dataset, recipe, progress=False, **more)


class Interrupt(BaseException):
    """Not an Exception: like a key press."""


def interrupt_after(monkeypatch, steps):
    """Let the given number of steps pass, then stop in the middle of an epoch."""
    original, count = training._Run._step, iter(range(10**6))

    def step(self, *arguments):
        if next(count) >= steps:
            raise Interrupt
        return original(self, *arguments)

    monkeypatch.setattr(training._Run, "_step", step)


def test_resnet_learns_the_digits():
    digits = data.digits()
    model = models.build("resnet18", 10, **SMALL)
    history = training.train(model, digits, training.Recipe(epochs=3), progress=False)
    assert history.test_accuracy[-1] > 0.9
    assert history.test_accuracy[-1] == training.accuracy(
        model, digits.x_test, digits.y_test
    )
    assert history.loss[-1] < history.loss[0] / 2
    assert not model.training
    assert history.epochs == 3
    assert all(len(values) == 3 for values in dataclasses.astuple(history))
    assert min(history.seconds) > 0
    assert all(p.grad is None for p in model.parameters())


def test_one_epoch_against_torchs_own_schedule_and_loss():
    """The same steps by torch's SGD and CosineAnnealingLR on a linear model."""
    dataset = tiny()
    recipe = training.Recipe(
        epochs=3, batch_size=20, lr=0.3, weight_decay=0.01, label_smoothing=0.1, seed=5
    )
    model = fresh("mlp").double()
    dataset_double = dataset.x_train.double()
    twin = fresh("mlp").double()
    order = torch.Generator().manual_seed(5)
    optimizer = torch.optim.SGD(
        twin.parameters(), lr=0.3, momentum=0.9, weight_decay=0.01, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 9)
    losses = []
    for _ in range(3):
        total = 0.0
        for index in torch.randperm(48, generator=order).view(3, 16):
            criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
            loss = criterion(twin(dataset_double[index]), dataset.y_train[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() / 3
        losses.append(total)
    loop = training._Run(model, dataset, recipe)
    loop.x = dataset_double
    loop.test = (dataset.x_test.double(), dataset.y_test)
    for _ in range(3):
        loop.epoch()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    assert loop.history.loss == pytest.approx(losses, rel=1e-6)


def test_seed_changes_the_order_only():
    dataset = tiny()
    first, again, other = (fresh() for _ in range(3))
    run(first, dataset)
    run(again, dataset)
    run(other, dataset, dataclasses.replace(QUICK, seed=1))
    assert same(weights(first), weights(again))
    assert not same(weights(first), weights(other))


@pytest.mark.parametrize("augment", [False, True])
def test_global_rng_is_left_alone(augment):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    run(fresh(), tiny(), training.Recipe(epochs=1, augment=augment))
    assert torch.equal(before, torch.get_rng_state())


def test_batches_are_equal_and_none_is_left_over():
    """49 images in batches of at most 16: 13, 12, 12, 12, never a batch of one."""
    dataset, sizes = tiny(n=98), []
    model = fresh()
    model.head.register_forward_hook(
        lambda module, _, out: sizes.append(len(out)) if model.training else None
    )
    run(model, dataset, training.Recipe(epochs=1, batch_size=16))
    assert sizes == [13, 12, 12, 12]


@pytest.mark.parametrize("steps", [0, 1, 3, 6])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"augment": True, "half": True},
        {"adversary": NOISY, "warmup": 0.5, "loss": "focal"},
    ],
)
def test_interrupted_run_ends_at_the_same_weights(
    tmp_path, monkeypatch, steps, changes
):
    """Two steps per epoch: stops before the first, inside, and between epochs."""
    dataset, recipe = tiny(), dataclasses.replace(QUICK, **changes)
    whole = fresh()
    reference = run(whole, dataset, recipe)
    path = tmp_path / "runs" / "model.pt"
    with monkeypatch.context() as patch:
        interrupt_after(patch, steps)
        interrupted = fresh()
        with pytest.raises(Interrupt):
            run(interrupted, dataset, recipe, checkpoint=path)
    assert not interrupted.training
    part = fresh(seed=9)
    assert training.load_checkpoint(path, part, recipe).epochs == steps // 2
    assert same(weights(part), weights(interrupted))
    for model in (fresh(), interrupted):
        copy = tmp_path / "copy.pt"
        copy.write_bytes(path.read_bytes())
        history = run(model, dataset, recipe, checkpoint=copy)
        assert same(weights(model), weights(whole))
        assert history.loss == reference.loss
        assert history.test_accuracy == reference.test_accuracy
    assert sorted(p.name for p in path.parent.iterdir()) == ["model.pt"]


def test_killed_process_resumes_to_the_same_weights(tmp_path):
    """A real SIGKILL, sent once two epochs are on disk."""
    path = tmp_path / "model.pt"
    script = f"""
    import time
    import torch
    from tests.test_training import QUICK, fresh, tiny
    from flatbook import training
    torch.set_num_threads({torch.get_num_threads()})
    epoch = training._Run.epoch
    def slow(self):
        epoch(self)
        time.sleep(0.05 if self.history.epochs < 3 else 60)
    training._Run.epoch = slow
    training.train(fresh(), tiny(), QUICK, checkpoint={str(path)!r}, progress=False)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=Path(__file__).parents[1]
    )
    deadline, done = time.monotonic() + 120, 0
    while done < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
        if path.exists():
            done = training.load_checkpoint(path, fresh()).epochs
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert training.load_checkpoint(path, fresh()).epochs == 2
    whole, resumed = fresh(), fresh()
    run(whole, tiny())
    history = run(resumed, tiny(), checkpoint=path)
    assert history.epochs == 4
    assert same(weights(resumed), weights(whole))


def test_finished_checkpoint_just_loads(tmp_path, monkeypatch):
    path, first = tmp_path / "model.pt", fresh()
    history = run(first, tiny(), checkpoint=path)
    monkeypatch.setattr(training._Run, "epoch", lambda _: pytest.fail("trained"))
    second = fresh()
    assert run(second, tiny(), checkpoint=path) == history
    assert same(weights(first), weights(second))
    assert run(second, tiny(), checkpoint=path) == history
    assert not second.training


@contextmanager
def full_disk(monkeypatch):
    """No file may exceed 4 kB, and no epoch begins."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with monkeypatch.context() as patch:
        patch.setattr(training._Run, "epoch", lambda _: pytest.fail("trained"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path, model = tmp_path / "model.pt", fresh()
    training.save_checkpoint(path, model)
    before = path.read_bytes()
    with (
        full_disk(monkeypatch),
        pytest.raises(OSError, match=r"checkpoint cannot be written.*model.pt"),
    ):
        training.save_checkpoint(path, fresh(seed=1))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_is_found_before_training(tmp_path, monkeypatch):
    """At the start of a run, and where an interrupted one goes on."""
    path = tmp_path / "runs" / "model.pt"
    with full_disk(monkeypatch), pytest.raises(OSError, match="cannot be written"):
        run(fresh(), tiny(), checkpoint=path)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        with pytest.raises(Interrupt):
            run(fresh(), tiny(), checkpoint=path)
    with full_disk(monkeypatch), pytest.raises(OSError, match="cannot be written"):
        run(fresh(), tiny(), checkpoint=path)
    assert run(fresh(), tiny(), checkpoint=path).epochs == 4


def test_unusable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("no folder")
    path = tmp_path / "file" / "model.pt"
    with pytest.raises(OSError, match=r"cannot be written.*file/model.pt"):
        run(fresh(), tiny(), checkpoint=path)


def test_save_and_load(tmp_path):
    path, model = tmp_path / "a" / "model.pt", fresh(seed=4)
    run(model, tiny(), training.Recipe(epochs=1))
    training.save_checkpoint(path, model, QUICK)
    other = fresh()
    assert training.load_checkpoint(str(path), other).epochs == 0
    assert same(weights(other), weights(model))
    training.load_checkpoint(path, other, QUICK)
    history = training.History((1.0,), (0.5,), (0.25,), (2.0,))
    training.save_checkpoint(path, model, history=history)
    assert training.load_checkpoint(path, other) == history


def test_checkpoint_knows_its_data(tmp_path):
    path, model = tmp_path / "model.pt", fresh()
    training.save_checkpoint(path, model)
    with pytest.raises(ValueError, match=r"model.pt.*another dataset: None"):
        training.load_checkpoint(path, model, dataset=tiny())
    training.save_checkpoint(path, model, dataset=tiny())
    training.load_checkpoint(path, model, dataset=tiny())
    with pytest.raises(ValueError, match=f"another dataset: '{tiny().sha256}'"):
        training.load_checkpoint(path, model, dataset=tiny(seed=1))
    run(model, tiny(), checkpoint=tmp_path / "run.pt")
    training.load_checkpoint(tmp_path / "run.pt", model, QUICK, dataset=tiny())


def test_exchanged_weights_are_refused(tmp_path):
    """The metrics of one network do not pass with the weights of another."""
    path, model = tmp_path / "model.pt", fresh()
    training.save_checkpoint(path, fresh(seed=1))
    content = torch.load(path, weights_only=True)
    content["model"] = fresh(seed=2).state_dict()
    torch.save(content, path)
    before = weights(model)
    with pytest.raises(ValueError, match=r"weights in .*model.pt are not those"):
        training.load_checkpoint(path, model)
    assert same(weights(model), before)


def test_fingerprint_is_of_values_not_of_memory():
    model = fresh(width=0.1)
    print_ = _checkpoint.fingerprint(model.state_dict())
    assert print_ == _checkpoint.fingerprint(
        {k: v.contiguous() for k, v in model.state_dict().items()}
    )
    with torch.no_grad():
        model.head.bias[1] = 1e-30
    assert print_ != _checkpoint.fingerprint(model.state_dict())
    assert _checkpoint.fingerprint(model.bfloat16().state_dict()) != print_


def refused(path, said, **changes):
    """Training with this checkpoint is refused and changes nothing."""
    arguments = {"model": fresh(), "dataset": tiny(), "recipe": QUICK, **changes}
    model = arguments["model"]
    before, content = weights(model), path.read_bytes()
    with pytest.raises(ValueError, match=said) as caught:
        training.train(**arguments, checkpoint=path, progress=False)
    assert str(path) in str(caught.value)
    assert same(weights(model), before)
    assert path.read_bytes() == content


def test_checkpoint_of_another_run_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    run(fresh(), tiny(), checkpoint=path)
    hardened = dataclasses.replace(QUICK, adversary=NOISY)
    refused(path, r"recipe \(adversary\): None, expected \{'norm'", recipe=hardened)
    longer = dataclasses.replace(QUICK, epochs=9)
    refused(path, r"recipe \(epochs\): 4, expected 9", recipe=longer)
    refused(path, "another dataset", dataset=tiny(seed=1))
    refused(path, "other initial weights", model=fresh(seed=1))
    refused(path, r"\(name\): 'resnet18', expected 'mlp'", model=fresh("mlp"))
    refused(path, r"\(width\): 0\.05, expected 0\.1", model=fresh(width=0.1))
    changed = fresh()
    changed.head = nn.Linear(changed.head.in_features, 2, bias=False)
    refused(path, r"weights \(head\.bias\)", model=changed)
    training.save_checkpoint(path, fresh(), QUICK)
    refused(path, "no.* training run|not a training run")


def test_load_checkpoint_refuses_another_model_or_recipe(tmp_path):
    path, model = tmp_path / "model.pt", fresh(width=0.1)
    training.save_checkpoint(path, fresh())
    before = weights(model)
    with pytest.raises(ValueError, match=r"model.pt.*width.*0\.05, expected 0\.1"):
        training.load_checkpoint(path, model)
    assert same(weights(model), before)
    with pytest.raises(ValueError, match=r"model.pt is of another recipe: None"):
        training.load_checkpoint(path, fresh(), QUICK)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*nothing.pt"):
        training.load_checkpoint(tmp_path / "nothing.pt", model)


def test_the_history_is_read_without_the_weights(tmp_path):
    path = tmp_path / "model.pt"
    history = training.History((0.5,), (0.8,), (0.7,), (12.0,))
    training.save_checkpoint(path, fresh("mlp"), history=history)
    assert training.history_of(path) == history
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*nothing.pt"):
        training.history_of(tmp_path / "nothing.pt")


def test_nothing_is_unpickled(tmp_path):
    path, trace = tmp_path / "model.pt", tmp_path / "trace"
    for write in (
        lambda c: torch.save(c, path),
        lambda c: path.write_bytes(pickle.dumps(c)),
    ):
        write({"format": _checkpoint.FORMAT, "model": Trap(trace)})
        with pytest.raises(ValueError, match=r"model.pt is damaged or no checkpoint"):
            training.load_checkpoint(path, fresh())
        assert not trace.exists()


@pytest.mark.parametrize(
    "content", [{"weights": 1}, [1, 2], {"format": "flatbook checkpoint 0"}]
)
def test_foreign_files_are_refused(tmp_path, content):
    path = tmp_path / "model.pt"
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"model.pt has format .*, expected"):
        training.load_checkpoint(path, fresh())
    refused(path, "format")


def test_truncated_files_are_refused(tmp_path):
    path = tmp_path / "model.pt"
    training.save_checkpoint(path, fresh("mlp"))
    whole = path.read_bytes()
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"model.pt is damaged"):
            training.load_checkpoint(path, fresh("mlp"))


def refusal(path, model):
    """What `load_checkpoint` says against a file, empty if it takes it."""
    try:
        training.load_checkpoint(path, model)
    except ValueError as error:
        return str(error)
    return ""


def test_damaged_bytes_are_refused_or_harmless(tmp_path):
    """A flipped bit anywhere is found, or lies in the padding between records."""
    path = tmp_path / "model.pt"
    training.save_checkpoint(path, fresh("mlp", seed=3))
    whole, reference = path.read_bytes(), weights(fresh("mlp", seed=3))
    draw, found = torch.Generator().manual_seed(0), 0
    for _ in range(150):
        at = int(torch.randint(len(whole), (), generator=draw))
        bit = 1 << int(torch.randint(8, (), generator=draw))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
        said = refusal(path, model := fresh("mlp"))
        found += bool(said)
        assert str(path) in said if said else same(weights(model), reference)
    assert found > 50


@pytest.mark.parametrize(
    "changes",
    [{}, {"adversary": NOISY}, *({"loss": name} for name in training.LOSSES)],
)
def test_divergence_is_reported(tmp_path, changes):
    dataset, model = tiny(), fresh("mlp")
    recipe = training.Recipe(epochs=5, batch_size=8, lr=1e30, **changes)
    with pytest.raises(FloatingPointError, match=r"loss is (nan|inf).*lr = 1e\+30"):
        run(model, dataset, recipe, checkpoint=tmp_path / "model.pt")
    assert all(p.isfinite().all() for p in model.parameters())


def test_lack_of_memory_is_explained(tmp_path, monkeypatch):
    original, count = training._Run._step, iter(range(9))

    def step(self, *arguments):
        if next(count) == 3:
            raise torch.OutOfMemoryError("tried to allocate 9 GiB")
        return original(self, *arguments)

    monkeypatch.setattr(training._Run, "_step", step)
    path = tmp_path / "model.pt"
    said = r"batch_size = 32; a smaller one.*9 GiB"
    with pytest.raises(torch.OutOfMemoryError, match=said):
        run(fresh(), tiny(), checkpoint=path)
    assert training.load_checkpoint(path, fresh(), QUICK).epochs == 1


# --- losses ----------------------------------------------------------------------


CHECKED = {
    "cross_entropy": softmax.cross_entropy,
    "focal": lambda z, y: losses.focal(z, y, gamma=2.0),
    "brier": losses.brier,
    "squared_error": losses.squared_error,
}


@pytest.mark.parametrize("name", training.LOSSES)
def test_losses_are_those_of_the_book(name):
    draw = torch.Generator().manual_seed(0)
    z = torch.randn(7, 3, generator=draw, dtype=torch.float64) * 20
    y = torch.randint(3, (7,), generator=draw)
    assert torch.equal(training.LOSSES[name](z, y), CHECKED[name](z, y))


def test_losses_cannot_be_changed():
    with pytest.raises(TypeError):
        training.LOSSES["focal"] = losses.brier


@pytest.mark.parametrize("name", training.LOSSES)
def test_first_step_goes_down_the_mean_loss(name):
    """Without momentum and decay: w - lr times the gradient of the checked loss."""
    dataset, model, twin = tiny(), fresh("mlp"), fresh("mlp")
    recipe = training.Recipe(
        1, batch_size=48, lr=0.3, momentum=0, weight_decay=0, loss=name
    )
    history = run(model, dataset, recipe)
    loss = CHECKED[name](twin(dataset.x_train), dataset.y_train).mean()
    assert history.loss == pytest.approx([loss.item()], rel=1e-5)
    slopes = torch.autograd.grad(loss, list(twin.parameters()))
    for p, old, g in zip(model.parameters(), twin.parameters(), slopes, strict=True):
        torch.testing.assert_close(p, old - 0.3 * g, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "lr", "least"),
    [("focal", 0.1, 0.9), ("brier", 0.1, 0.9), ("squared_error", 0.01, 0.75)],
)
def test_other_losses_learn(name, lr, least):
    model = models.build("mlp", 10, in_channels=1, image_size=8)
    recipe = training.Recipe(5, lr=lr, loss=name, warmup=0.3)
    assert run(model, data.digits(), recipe).test_accuracy[-1] > least


# --- schedule --------------------------------------------------------------------


def test_step_size_rises_on_a_line_and_falls_on_a_cosine():
    got = [_steps.step_size(0.8, 0.25, t / 8) for t in range(9)]
    fall = [0.4 * (1 + math.cos(math.pi * t / 6)) for t in range(7)]
    assert got == pytest.approx([0, 0.4, *fall], abs=1e-15)


def test_steps_follow_the_schedule(monkeypatch):
    """Six steps of which the first half rise; none at zero but the first."""
    sizes, original = [], _steps.Descent.step

    def step(self, lr):
        sizes.append(lr)
        original(self, lr)

    monkeypatch.setattr(_steps.Descent, "step", step)
    recipe = training.Recipe(epochs=3, batch_size=24, lr=0.3, warmup=0.5)
    run(fresh("mlp"), tiny(), recipe)
    assert sizes == pytest.approx([0, 0.1, 0.2, 0.3, 0.225, 0.075])


def test_no_warmup_is_the_plain_cosine():
    for t in range(50):
        assert _steps.step_size(0.1, 0.0, t / 50) == (
            0.1 * (1 + math.cos(math.pi * (t / 50))) / 2
        )


# --- adversary -------------------------------------------------------------------


def test_adversary_of_radius_zero_changes_nothing():
    """One epoch: later ones see another state of the generator."""
    recipe = training.Recipe(epochs=1, batch_size=16)
    still = training.Adversary(eps=0.0, step_size=0.0, steps=1)
    plain, attacked = fresh(), fresh()
    first = run(plain, tiny(), recipe)
    second = run(attacked, tiny(), dataclasses.replace(recipe, adversary=still))
    assert same(weights(plain), weights(attacked))
    assert first.loss == second.loss


@pytest.mark.parametrize("norm", attacks.NORMS)
def test_steps_see_the_images_of_the_attack(norm, monkeypatch):
    """The first batch is what `pgd` gives for the untrained model."""
    dataset, seen, original = tiny(), [], training._Run._attacked

    def attacked(self, x, y, adversary):
        seen.append(original(self, x, y, adversary))
        assert self.model.training
        return seen[-1]

    monkeypatch.setattr(training._Run, "_attacked", attacked)
    adversary = training.Adversary(norm=norm, eps=0.2, step_size=0.1, steps=3)
    recipe = training.Recipe(epochs=1, batch_size=48, adversary=adversary)
    history = run(fresh(), dataset, recipe)
    draw = torch.Generator().manual_seed(0)
    order = torch.randperm(48, generator=draw)
    x, y = dataset.x_train[order], dataset.y_train[order]
    options = {"random_start": True, "generator": draw}
    path = attacks.pgd(fresh(), x, y, **dataclasses.asdict(adversary), **options)
    assert torch.equal(seen[0], path.adversarial)
    assert not torch.equal(seen[0], x)
    loss = nn.functional.cross_entropy(fresh().train()(path.adversarial), y)
    assert history.loss == pytest.approx([loss.item()], rel=1e-6)


def test_adversarial_training_makes_robust():
    digits = data.digits()
    adversary = training.Adversary(eps=0.15, step_size=0.05, steps=5)
    recipe = training.Recipe(epochs=5)
    robust, clean = [], []
    for changes in ({}, {"adversary": adversary}):
        model = models.build("mlp", 10, in_channels=1, image_size=8)
        history = run(model, digits, dataclasses.replace(recipe, **changes))
        path = attacks.pgd(
            model,
            digits.x_test,
            digits.y_test,
            **{**dataclasses.asdict(adversary), "steps": 10},
        )
        robust.append(training.accuracy(model, path.adversarial, digits.y_test))
        clean.append(history.test_accuracy[-1])
        assert clean[-1] == training.accuracy(model, digits.x_test, digits.y_test)
    assert robust[1] > robust[0] + 0.2
    assert min(clean) > 0.85


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"norm": "l1"}, "norm must be one of l2, linf, got 'l1'"),
        ({"eps": -0.1}, r"eps.*-0\.1"),
        ({"eps": math.nan}, "eps.*nan"),
        ({"step_size": math.inf}, "step_size.*inf"),
        ({"steps": 0}, "steps.*0"),
        ({"steps": 1.0}, r"steps.*1\.0"),
    ],
)
def test_adversary_names_what_is_wrong(changes, said):
    with pytest.raises(ValueError, match=said):
        training.Adversary(**{"eps": 0.1, "step_size": 0.1, "steps": 1, **changes})


# --- 16 bits ---------------------------------------------------------------------


@pytest.fixture(params=[torch.float16, torch.bfloat16], ids=str)
def half(request, monkeypatch):
    monkeypatch.setattr(training, "half_dtype", lambda device: request.param)
    return request.param


def test_half_learns_the_digits_as_well(half):
    digits, seen = data.digits(), []
    full, mixed = (models.build("resnet18", 10, **SMALL) for _ in range(2))
    expected = run(full, digits, training.Recipe(epochs=2))
    mixed.head.register_forward_hook(
        lambda module, _, out: seen.append((module.training, out.dtype))
    )
    got = run(mixed, digits, training.Recipe(epochs=2, half=True))
    assert got.test_accuracy[-1] > expected.test_accuracy[-1] - 0.03
    assert not same(weights(full), weights(mixed))
    assert all(p.dtype == torch.float32 for p in mixed.parameters())
    assert set(seen) == {(True, half), (False, torch.float32)}


def test_half_attacks_in_16_bits_too(half, monkeypatch):
    digits, seen, original = data.digits(), set(), attacks._end

    def end(*arguments, **options):
        seen.add((torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")))
        return original(*arguments, **options)

    monkeypatch.setattr(attacks, "_end", end)
    recipe = training.Recipe(epochs=2, adversary=NOISY, half=True)
    model = models.build("mlp", 10, in_channels=1, image_size=8)
    assert run(model, digits, recipe).test_accuracy[-1] > 0.8
    assert seen == {(True, half)}


def test_half_takes_nearly_the_same_step(half):
    """One step on all digits; later ones amplify any rounding."""
    losses, moves = [], []
    for mixed in (False, True):
        model = models.build("resnet18", 10, **SMALL)
        before = [p.detach().clone() for p in model.parameters()]
        history = run(model, data.digits(), training.Recipe(1, 2000, half=mixed))
        losses += history.loss
        steps = zip(model.parameters(), before, strict=True)
        moves.append(torch.cat([(new - old).detach().flatten() for new, old in steps]))
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    assert torch.cosine_similarity(*moves, 0) > 0.95
    assert float(moves[1].norm() / moves[0].norm()) == pytest.approx(1, rel=0.05)


def test_loss_is_taken_in_32_bits(half, monkeypatch):
    seen, original = [], training._mean_loss

    def mean_loss(recipe, logits, y):
        seen.append(logits.dtype)
        return original(recipe, logits, y)

    monkeypatch.setattr(training, "_mean_loss", mean_loss)
    run(fresh(), tiny(), training.Recipe(1, half=True))
    assert set(seen) == {torch.float32}


def test_half_dtype_goes_by_capability(monkeypatch):
    assert training.half_dtype(torch.device("cpu")) == torch.bfloat16
    assert training.half_dtype("mps") == torch.float16
    for capability, wanted in [((7, 5), torch.float16), ((8, 0), torch.bfloat16)]:
        monkeypatch.setattr(
            torch.cuda, "get_device_capability", lambda device, c=capability: c
        )
        assert training.half_dtype("cuda:0") == wanted


def descent(gradient):
    """A descent in motion, and gradients as a scaled loss leaves them."""
    model = nn.Linear(3, 2).requires_grad_(True)
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(0.5)
    moving = _steps.Descent(model, 0.9, 0.01)
    for velocity in moving.velocity:
        velocity.fill_(2.0)
    for p in model.parameters():
        p.grad = torch.full_like(p, 3.0)
    model.weight.grad[1, 2] = gradient
    return model, moving


@pytest.mark.parametrize("gradient", [math.inf, -math.inf, math.nan])
def test_overflowing_step_moves_nothing(gradient):
    model, moving = descent(gradient)
    moving.scaled_step(0.1)
    assert all((p == 0.5).all() for p in model.parameters())
    assert all((v == 2.0).all() for v in moving.velocity)
    assert all(p.grad is None for p in model.parameters())
    assert int(moving.skipped) == 1


def test_scaled_step_is_the_step():
    plain, reference = descent(7.0)
    reference.step(0.1)
    model, moving = descent(7.0)
    for p in model.parameters():
        p.grad *= _steps.LOSS_SCALE
    moving.scaled_step(0.1)
    assert same(weights(model), weights(plain))
    assert all(map(torch.equal, moving.velocity, reference.velocity))
    assert int(moving.skipped) == 0


def test_training_that_only_overflows_is_reported(monkeypatch):
    monkeypatch.setattr(training, "half_dtype", lambda device: torch.float16)
    monkeypatch.setattr(_steps, "LOSS_SCALE", 2.0**60)
    with pytest.raises(FloatingPointError, match=r"epoch 1.*float16; half=False"):
        run(fresh(), tiny(), dataclasses.replace(QUICK, half=True))


@pytest.mark.parametrize("name", training.LOSSES)
@pytest.mark.parametrize("adversary", [None, NOISY], ids=["clean", "attacked"])
def test_steps_do_not_wait(half, name, adversary):
    recipe = training.Recipe(
        1, augment=True, half=True, warmup=0.5, loss=name, adversary=adversary
    )
    loop = training._Run(fresh(), tiny(), recipe)
    loop.model.train()
    with Waits() as waits:
        loop._step(0, torch.arange(32))
    assert not waits.names


@pytest.mark.parametrize("norm", attacks.NORMS)
def test_steps_need_no_values(norm):
    """Without values, as a GPU that is still busy: reading one is an error."""
    adversary = training.Adversary(norm=norm, eps=0.1, step_size=0.05, steps=2)
    recipe = training.Recipe(1, augment=True, adversary=adversary)
    with no_values() as meta:
        loop = training._Run(fresh(), tiny(), recipe)
        loop.model.to(meta).train()
        loop.descent = _steps.Descent(loop.model, 0.9, 1e-4)
        loop.x, loop.y = loop.x.to(meta), loop.y.to(meta)
        seen = loop._step(0, torch.arange(32, device=meta))
    assert seen.device == meta
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        seen.tolist()


def test_an_epoch_reads_only_its_sums():
    """As often with many batches as with one."""
    counts = []
    for size in (8, 48):
        recipe = training.Recipe(1, batch_size=size, augment=True, adversary=NOISY)
        loop = training._Run(fresh(), tiny(), recipe)
        with Waits() as waits:
            loop.epoch()
        counts.append(len(waits.names))
    assert counts[0] == counts[1] > 0


def test_training_and_testing_choose_how_a_gpu_computes(monkeypatch):
    """Repeatable steps; exact accuracies."""
    seen, cudnn = set(), torch.backends.cudnn
    model = fresh()
    model.head.register_forward_hook(
        lambda module, *_: seen.add(
            (module.training, cudnn.deterministic, cudnn.allow_tf32)
        )
    )
    monkeypatch.setattr(cudnn, "allow_tf32", True)
    run(model, tiny(), training.Recipe(1))
    assert seen == {(True, True, True), (False, True, False)}
    assert not cudnn.deterministic


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", [n for n in models.NAMES if n != "mlp"])
def test_convolutions_run_channels_last(name, half):
    """In training and folded, all that a convolution of several channels makes.

    One channel has no layout: after it, the next convolution rearranges the images.
    """
    model = fresh(name, width=0.125, image_size=32)
    model.load_state_dict(weights(models.reinitialise(model, 1)))
    folded, outputs = models.fold(model), []

    def look(module, _, out):
        if isinstance(module, nn.Conv2d) and module.in_channels > 1:
            outputs.append(out)

    loop = training._Run(model, tiny(size=32), training.Recipe(1, half=half))
    with register_module_forward_hook(look):
        loop.model.train()
        loop._step(0, torch.arange(8))
        folded.features(loop.x[:8])
    several = [o for o in outputs if min(o.shape[1:]) > 1]
    assert len(several) > 8
    assert all(o.is_contiguous(memory_format=torch.channels_last) for o in several)


# --- recipes ---------------------------------------------------------------------


def test_recipe_of_the_paper():
    assert (
        training.Recipe(
            epochs=100, batch_size=128, lr=0.1, weight_decay=1e-4, augment=True
        )
        == training.PAPER
    )


def test_fast_is_shorter_and_leaves_confidence_alone():
    assert training.FAST.epochs < training.PAPER.epochs / 2
    assert training.FAST.half
    assert training.FAST.label_smoothing == 0
    assert training.FAST.loss == "cross_entropy"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochs": 0}, "epochs.*0"),
        ({"epochs": 1.5}, r"epochs.*1\.5"),
        ({"batch_size": 0}, "batch_size.*0"),
        ({"lr": 0.0}, r"lr.*0\.0"),
        ({"lr": math.nan}, "lr.*nan"),
        ({"momentum": 1.0}, r"momentum.*1\.0"),
        ({"momentum": -0.1}, r"momentum.*-0\.1"),
        ({"weight_decay": -1e-4}, "weight_decay.*-0.0001"),
        ({"weight_decay": math.inf}, "weight_decay.*inf"),
        ({"label_smoothing": 1}, "label_smoothing.*1"),
        ({"augment": 1}, "augment.*1"),
        ({"seed": -1}, "seed.*-1"),
        ({"loss": "hinge"}, "loss must be one of cross_entropy, .*'hinge'"),
        ({"warmup": 1.0}, r"warmup.*1\.0"),
        ({"warmup": -0.1}, r"warmup.*-0\.1"),
        ({"half": 1}, "half.*1"),
        ({"label_smoothing": 0.1, "loss": "brier"}, r"0\.1 needs.*'brier'"),
    ],
)
def test_recipe_names_what_is_wrong(changes, said):
    with pytest.raises(ValueError, match=said):
        training.Recipe(**{"epochs": 1, **changes})


def test_adversary_has_its_type():
    with pytest.raises(TypeError, match="Adversary or None, got 'pgd'"):
        training.Recipe(1, adversary="pgd")
    with pytest.raises(TypeError, match="positional"):
        training.Adversary(0.1, 0.05, 3)


def test_recipe_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        QUICK.lr = 1.0


def test_model_and_data_must_fit():
    with pytest.raises(ValueError, match="10 classes, the dataset 2"):
        run(models.build("mlp", 10, **SMALL), tiny())
    with pytest.raises(ValueError, match=r"\(N, 1, 8, 8\), got \(1, 1, 16, 16\)"):
        run(fresh(), tiny(size=16))
    with pytest.raises(TypeError, match="Linear has no method features"):
        run(nn.Linear(64, 2), tiny())


def test_accuracy():
    dataset, model = tiny(), fresh()
    model.train()
    modes = [m.training for m in model.modules()]
    statistics = model.body[1].running_mean.clone()
    got = training.accuracy(model, dataset.x_test, dataset.y_test, batch_size=7)
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(model.body[1].running_mean, statistics)
    model.eval()
    right = [
        int(model(image[None]).argmax()) == int(label)
        for image, label in zip(dataset.x_test, dataset.y_test, strict=True)
    ]
    assert got == sum(right) / len(right)


@pytest.mark.parametrize("labels", [torch.zeros(3), torch.zeros(2, 1)])
def test_accuracy_names_a_wrong_length(labels):
    with pytest.raises(ValueError, match="2 images"):
        training.accuracy(fresh(), torch.zeros(2, 1, 8, 8), labels.long())
    with pytest.raises(ValueError, match="batch_size.*0"):
        training.accuracy(fresh(), torch.zeros(2, 1, 8, 8), labels, batch_size=0)


def test_augmentation_shifts_and_mirrors():
    """Every result is the padded image, mirrored or not, at one of nine places."""
    x = torch.rand(200, 2, 8, 8, generator=torch.Generator().manual_seed(0)) + 0.1
    got = _steps.augment(x, torch.Generator().manual_seed(1))
    padded = torch.zeros(200, 2, 10, 10)
    padded[:, :, 1:9, 1:9] = x
    seen = torch.zeros(200, dtype=torch.long)
    for place in range(9):
        top, left = place // 3, place % 3
        window = padded[:, :, top : top + 8, left : left + 8]
        for mirrored, candidate in enumerate((window, window.flip(3))):
            match = (got == candidate).flatten(1).all(1)
            seen[match] += 1 + 100 * (place + 9 * mirrored)
    assert (seen % 100 == 1).all()
    assert len((seen // 100).unique()) == 18
    assert 70 < int((seen // 100 >= 9).sum()) < 130


def test_progress_bar_goes_to_the_standard_error(capsys):
    training.train(fresh("mlp"), tiny(), training.Recipe(epochs=2))
    out, err = capsys.readouterr()
    assert out == ""
    assert "2/2" in err
    run(fresh("mlp"), tiny())
    assert capsys.readouterr() == ("", "")
