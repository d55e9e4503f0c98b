import dataclasses
import math
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from flatbook import _checkpoint, data, models, training

SMALL = {"width": 0.125, "in_channels": 1, "image_size": 8}
QUICK = training.Recipe(epochs=4, batch_size=32, lr=0.05)


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
    loop.dataset = dataclasses.replace(dataset)
    object.__setattr__(loop.dataset, "x_test", dataset.x_test.double())
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
@pytest.mark.parametrize("augment", [False, True])
def test_interrupted_run_ends_at_the_same_weights(
    tmp_path, monkeypatch, steps, augment
):
    """Two steps per epoch: stops before the first, inside, and between epochs."""
    dataset, recipe = tiny(), dataclasses.replace(QUICK, augment=augment)
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
    from tests.test_training import QUICK, fresh, tiny
    from flatbook import training
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


def test_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path, model = tmp_path / "model.pt", fresh()
    training.save_checkpoint(path, model)
    before = path.read_bytes()

    def full(content, file):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="disk full"):
        training.save_checkpoint(path, fresh(seed=1))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


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


class Trap:
    """Unpickling this would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


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


def test_divergence_is_reported(tmp_path):
    dataset, model = tiny(), fresh("mlp")
    recipe = training.Recipe(epochs=5, lr=1e20)
    with pytest.raises(FloatingPointError, match=r"loss is (nan|inf).*lr = 1e\+20"):
        run(model, dataset, recipe, checkpoint=tmp_path / "model.pt")
    assert all(p.isfinite().all() for p in model.parameters())


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
    ],
)
def test_recipe_names_what_is_wrong(changes, said):
    with pytest.raises(ValueError, match=said):
        training.Recipe(**{"epochs": 1, **changes})


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
    got = training._augment(x, torch.Generator().manual_seed(1))
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
