import dataclasses

import pytest
import torch

from flatbook import models, profiles, training
from flatbook.experiments import Subject, subject


@pytest.fixture(scope="module")
def quick():
    return Subject("mlp", 0.5, "digits", None, training.Recipe(2, batch_size=128))


@pytest.mark.parametrize("model", models.NAMES)
@pytest.mark.parametrize("profile", profiles.NAMES)
@pytest.mark.parametrize("data", ["digits", "cifar10", "cifar100", "folder"])
def test_every_subject_can_be_written_on_a_card(model, profile, data):
    import json

    made = subject(model, profile=profile, data=data)
    settings = made.settings()
    assert json.loads(json.dumps(settings))["model"] == model
    assert settings["recipe"]["epochs"] == made.recipe.epochs


def test_profiles_grow():
    digits, small = subject(), subject(data="cifar10")
    t4, fast, full = (subject(profile=name) for name in ("t4", "fast", "full"))
    assert digits.data == "digits"
    assert t4.data == fast.data == full.data == "cifar10"
    assert digits.width < small.width <= t4.width < fast.width == full.width == 1
    assert small.limit < t4.limit < 5000
    assert fast.limit is full.limit is None
    assert fast.recipe == training.FAST
    assert full.recipe == training.PAPER


def test_the_full_recipe_is_the_papers():
    """Section 6 of the paper: SGD, 100 epochs, 0.1, cosine, 1e-4, crop and flip."""
    recipe = subject(profile="full").recipe
    assert (recipe.epochs, recipe.lr, recipe.weight_decay) == (100, 0.1, 1e-4)
    assert recipe.augment
    assert recipe.warmup == recipe.label_smoothing == 0
    assert recipe.loss == "cross_entropy"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "resnet50"}, "model must be one of resnet18.*'resnet50'"),
        ({"profile": "gpu"}, "profile must be one of cpu.*'gpu'"),
    ],
)
def test_unknown_names(arguments, message):
    with pytest.raises(ValueError, match=message):
        subject(**arguments)


def test_seeds_differ_and_repeat(quick, digits):
    first, again, other = (quick.train(digits, seed) for seed in (1, 1, 2))
    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)
    assert not first.training


def test_changes_of_the_recipe(quick, digits):
    plain = quick.train(digits, 0)
    smooth = quick.train(digits, 0, changes={"label_smoothing": 0.2})
    assert not torch.equal(plain.head.weight, smooth.head.weight)
    with pytest.raises(TypeError, match="smoothness"):
        quick.train(digits, 0, changes={"smoothness": 1})


def test_a_checkpoint_saves_the_training(quick, digits, tmp_path, monkeypatch):
    first = quick.train(digits, 0, folder=tmp_path)
    monkeypatch.setattr(
        training._Run, "epoch", lambda self: pytest.fail("trained again")
    )
    again = quick.train(digits, 0, folder=tmp_path)
    assert torch.equal(first.head.weight, again.head.weight)


def test_networks_of_other_settings_have_other_checkpoints(quick, digits, tmp_path):
    quick.train(digits, 0, folder=tmp_path)
    quick.train(digits, 1, folder=tmp_path)
    quick.train(digits, 0, changes={"label_smoothing": 0.1}, folder=tmp_path)
    wider = dataclasses.replace(quick, width=0.25)
    wider.train(digits, 0, folder=tmp_path)
    assert len(list(tmp_path.glob("*.pt"))) == 4


def test_a_damaged_checkpoint_is_named(quick, digits, tmp_path):
    quick.train(digits, 0, folder=tmp_path)
    (path,) = tmp_path.glob("*.pt")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=f"{path.name} is damaged"):
        quick.train(digits, 0, folder=tmp_path)


def test_missing_images(tmp_path):
    with pytest.raises(FileNotFoundError, match="train is missing"):
        subject(data="folder").load(root=tmp_path)
