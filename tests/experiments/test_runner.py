import dataclasses

import numpy
import pytest
import torch

from flatbook import _checkpoint, results, training
from flatbook.experiments import _runner
from flatbook.training import Adversary


def card_of(path):
    return results.read(path)


def test_a_run_leaves_a_complete_card(plan, places, digits):
    path = _runner.execute(plan, digits, places)
    assert path.name == "demo-mlp-digits-8x8-cpu.json"
    card = results.read(path, settings=plan.settings)
    assert card.values["robust accuracy"]["seeds"] == 3
    assert 0 <= card.values["robust accuracy"]["mean"] < 1
    assert card.values["loss[2]"]["mean"] > card.values["loss[0]"]["mean"]
    assert card.input_hashes == {"Digits, 8x8": digits.sha256}
    assert card.wall_seconds > 0
    assert card.peak_memory_mb > 100


def test_finished_seeds_are_not_run_again(plan, places, digits, demo, monkeypatch):
    first = card_of(_runner.execute(plan, digits, places))
    monkeypatch.setattr(demo, "run", lambda *args: pytest.fail("ran again"))
    again = card_of(_runner.execute(plan, digits, places))
    assert again.values == first.values
    assert again.wall_seconds == first.wall_seconds


def pretend(checkpoint, seconds):
    """Let a checkpoint say that each epoch took so long."""
    content = _checkpoint.read(checkpoint)
    content["history"]["seconds"] = [seconds] * len(content["history"]["loss"])
    del content["format"]
    _checkpoint.write(checkpoint, content)


def test_the_time_of_a_card_has_the_training_of_earlier_runs(plan, places, digits):
    """Two epochs for each of three seeds, done long before the measurements."""
    for seed in plan.seeds:
        _runner.train(plan, digits, seed, "standard", places)
        at = _runner.checkpoint_path(plan, digits.sha256, seed, "standard", places)
        pretend(at, 1e6)
        spent = _runner.training_seconds(plan, digits.sha256, seed, places)
        assert spent == 2e6
    card = card_of(_runner.execute(plan, digits, places))
    assert 6e6 <= card.wall_seconds < 6.5e6


def test_the_time_of_a_seed_has_all_its_networks(plan, places, digits, demo):
    def run(models, dataset, sizes):
        return demo.first(models["standard"], dataset, sizes)

    demo.first, demo.run = demo.run, run
    demo.variants = lambda profile, data: {"standard": {}, "slow": {"lr": 0.01}}
    part = _runner.measure(plan, digits, 0, places)
    spent = {}
    for variant in ("standard", "slow"):
        at = _runner.checkpoint_path(plan, digits.sha256, 0, variant, places)
        spent[at] = sum(training.history_of(at).seconds)
    assert len(spent) == 2
    assert min(spent.values()) > 0
    assert part.seconds > sum(spent.values())


def test_an_interrupted_run_goes_on(plan, places, digits, demo, monkeypatch):
    """The third seed is interrupted: the first two are not run a second time."""
    seeds, run = [], demo.run

    def interrupted(model, dataset, sizes):
        seeds.append(len(seeds))
        if len(seeds) == 3:
            raise KeyboardInterrupt
        return run(model, dataset, sizes)

    monkeypatch.setattr(demo, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _runner.execute(plan, digits, places)
    assert not list(places.results.glob("*.json"))
    card = card_of(_runner.execute(plan, digits, places))
    assert len(seeds) == 4
    assert card.values["robust accuracy"]["seeds"] == 3


def change_sizes(plan, demo, monkeypatch):
    sizes = dataclasses.replace(plan.sizes, images=20)
    monkeypatch.setattr(demo, "sizes", lambda profile, data: sizes)


def change_version(plan, demo, monkeypatch):
    monkeypatch.setattr(demo, "VERSION", 2)


def change_source(plan, demo, monkeypatch):
    monkeypatch.setattr(_runner, "source", lambda name: "another")


@pytest.mark.parametrize("change", [change_sizes, change_version, change_source])
def test_seeds_of_other_settings_are_run_again(
    plan, places, digits, demo, monkeypatch, change
):
    _runner.execute(plan, digits, places)
    runs, run = [], demo.run
    monkeypatch.setattr(demo, "run", lambda *args: runs.append(1) or run(*args))
    change(plan, demo, monkeypatch)
    _runner.execute(plan, digits, places)
    assert len(runs) == 3


def test_a_changed_module_changes_the_source(monkeypatch):
    """Also without a commit: an edited file makes finished seeds old."""
    name = "detection"
    before, read = _runner.source(name), _runner.Path.read_bytes
    assert before == _runner.source(name)
    touched = set()

    def edited(path):
        return read(path) + b"#" * (path.name in touched)

    monkeypatch.setattr(_runner.Path, "read_bytes", edited)
    touched = {"uncanny_valley.py", "explorer.py"}
    assert _runner.source(name) == before
    for module in ("detection.py", "softmax.py", "training.py", "_common.py"):
        touched = {module}
        assert _runner.source(name) != before


@pytest.mark.parametrize("suffix", [".json", ".npz"])
@pytest.mark.parametrize("damage", ["cut", "emptied", "removed"])
def test_a_damaged_part_is_run_again(plan, places, digits, suffix, damage):
    first = card_of(_runner.execute(plan, digits, places))
    part = sorted((places.work / "parts").glob(f"*{suffix}"))[0]
    whole = part.read_bytes()
    if damage == "removed":
        part.unlink()
    else:
        part.write_bytes(whole[: len(whole) // 2 if damage == "cut" else 0])
    card = card_of(_runner.execute(plan, digits, places))
    assert card.outcome == first.outcome
    assert _runner.read_part(plan, digits.sha256, 0, places) is not None


def test_the_arrays_of_the_figure_lie_beside_the_card(plan, places, digits):
    path = _runner.execute(plan, digits, places)
    arrays = results.unpack(path.with_suffix(".npz"), card_of(path).arrays)
    assert {k: v.shape for k, v in arrays.items()} == {
        "losses": (3, 3, 40),
        "margins": (3, 40, 2),
    }
    mean = arrays["losses"][:, 2].mean()
    assert mean == pytest.approx(card_of(path).values["loss[2]"]["mean"], rel=1e-6)


def test_two_runs_of_one_plan_agree(plan, places, digits, tmp_path):
    """From nothing, and in another order of the seeds' work."""
    first = card_of(_runner.execute(plan, digits, places))
    other = dataclasses.replace(places, work=tmp_path / "w", results=tmp_path / "r")
    for seed in reversed(plan.seeds):
        _runner.measure(plan, digits, seed, other)
    path = _runner.file_card(plan, digits.sha256, other)
    assert card_of(path).outcome == first.outcome
    assert path.with_suffix(".npz").read_bytes() == (
        (places.results / path.name).with_suffix(".npz").read_bytes()
    )


def test_nothing_is_measured_in_fewer_bits(plan, places, digits, demo, monkeypatch):
    """Also where whoever calls it computes in 16."""
    run, seen = demo.run, []

    def watched(model, dataset, sizes):
        seen.append(torch.is_autocast_enabled("cpu"))
        return run(model, dataset, sizes)

    monkeypatch.setattr(demo, "run", watched)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _runner.measure(plan, digits, 0, places)
    assert seen == [False]


def test_a_card_needs_all_its_seeds(plan, places, digits):
    _runner.measure(plan, digits, 0, places)
    with pytest.raises(ValueError, match="seed 1 is not done: expected .*seed1.json"):
        _runner.file_card(plan, digits.sha256, places)


def test_seeds_whose_figures_differ_in_shape():
    one = {"a": numpy.zeros(3), "b": numpy.zeros(2)}
    assert _runner.stack([one, one])["a"].shape == (2, 3)
    with pytest.raises(ValueError, match="seeds differ in the shape of a, c"):
        _runner.stack([one, {"a": numpy.zeros(4), "b": one["b"], "c": one["b"]}])


def test_an_experiment_without_sizes_for_robust_networks(plan, places, demo):
    recipe = dataclasses.replace(
        plan.subject.recipe, adversary=Adversary(eps=0.1, step_size=0.1, steps=1)
    )
    robust = dataclasses.replace(
        plan, subject=dataclasses.replace(plan.subject, recipe=recipe)
    )
    assert robust.stem == "demo-mlp-adversarial-digits-8x8-cpu"
    with pytest.raises(ValueError, match="demo has no sizes for adversarial"):
        _ = robust.sizes
    demo.robust_sizes = lambda profile, data: "these"
    assert robust.sizes == "these"


def test_several_networks_of_a_seed(plan, places, digits, demo, monkeypatch):
    variants = {"standard": {}, "smooth": {"label_smoothing": 0.2}}
    demo.variants = lambda profile, data: variants
    seen = []

    def run(models, dataset, sizes):
        seen.append(models)
        return models

    def numbers(nets):
        gap = (nets["standard"].head.weight - nets["smooth"].head.weight).detach()
        return {"apart": gap.abs().max()}

    monkeypatch.setattr(demo, "run", run)
    monkeypatch.setattr(demo, "numbers", numbers)
    monkeypatch.setattr(demo, "panels", lambda result: {})
    card = card_of(_runner.execute(plan, digits, places))
    assert [list(nets) for nets in seen] == [["standard", "smooth"]] * 3
    assert card.values["apart"]["low"] > 0
    recipes = card.settings["recipes"]
    assert [recipes[name]["label_smoothing"] for name in variants] == [0, 0.2]


def test_numbers_that_are_none(plan, places, digits, demo, monkeypatch):
    nan = {"robust accuracy": torch.tensor(torch.nan)}
    monkeypatch.setattr(demo, "numbers", lambda result: nan)
    with pytest.raises(ValueError, match=r"JSON compliant|finite"):
        _runner.execute(plan, digits, places)


def test_the_folder_of_the_cards_is_tried_first(plan, places, digits, demo, tmp_path):
    (tmp_path / "file").write_text("")
    blocked = dataclasses.replace(places, results=tmp_path / "file" / "cards")
    demo.run = lambda *args: pytest.fail("worked before looking")
    with pytest.raises(NotADirectoryError):
        _runner.execute(plan, digits, blocked)


def test_summaries():
    both = _runner.summarise([{"a": 1.0}, {"a": 3.0}])
    assert both == {"a": {"mean": 2.0, "low": 1.0, "high": 3.0, "seeds": 2}}
    with pytest.raises(ValueError, match="not every seed has b"):
        _runner.summarise([{"a": 1.0}, {"a": 1.0, "b": 2.0}])


def test_unknown_experiments():
    with pytest.raises(ValueError, match="one of loss_geometry.*'loss'"):
        _runner.load("loss")


@pytest.mark.parametrize("name", _runner.NAMES)
def test_every_experiment_keeps_the_protocol(name):
    import importlib

    from flatbook import data, profiles

    module = _runner.load(name)
    assert module.__doc__.splitlines()[0].endswith("?")
    for profile in profiles.NAMES:
        for images in data.NAMES:
            settings = dataclasses.asdict(module.sizes(profile, images))
            assert settings
            results.digest(settings)
    assert callable(module.run)
    assert callable(module.numbers)
    assert module.VERSION >= 1
    drawing = importlib.import_module(f"flatbook.figures.{name}")
    assert drawing.__doc__
