"""A small experiment that the framework can run in a fraction of a second."""

import dataclasses
import sys
import types

import pytest

from flatbook.experiments import _common, _runner, _subjects
from flatbook.training import Recipe


@dataclasses.dataclass(frozen=True)
class Sizes:
    images: int = 40
    eps: float = 0.1


def run(model, dataset, sizes):
    x, y = _common.correct(model, dataset, sizes.images)
    ball = {"norm": "linf", "eps": sizes.eps, "step_size": 0.05, "steps": 2}
    return _common.attack(model, x, y, batch=16, **ball)


def numbers(result):
    robust = (result.logits[-1].argmax(1) == result.labels).double().mean()
    curve = {f"loss[{i}]": loss for i, loss in enumerate(result.losses.mean(1))}
    return {"robust accuracy": robust, **curve}


def panels(result):
    return {"losses": result.losses, "margins": result.logits[-1].topk(2).values}


def passes(sizes, *, classes, test_images, networks=1):
    return networks * (min(sizes.images, test_images) * 2 * 2 + test_images)


@pytest.fixture
def demo(monkeypatch):
    """The experiment ``demo``, a module like the real ones."""
    module = types.ModuleType("flatbook.experiments.demo", "What does a demo show?")
    module.VERSION = 1
    module.sizes = lambda profile, data: Sizes()
    module.run, module.numbers = run, numbers
    module.panels, module.passes = panels, passes
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(_runner, "NAMES", (*_runner.NAMES, "demo"))
    return module


@pytest.fixture
def quick(monkeypatch):
    """Networks that are trained in a tenth of a second."""

    def subject(model="mlp", *, profile="cpu", data=None, adversarial=False):
        return _subjects.Subject(model, 1.0, "digits", None, Recipe(2, batch_size=128))

    monkeypatch.setattr(_runner, "subject", subject)
    return subject


@pytest.fixture
def plan(demo, quick):
    return _runner.Plan("demo", "cpu", quick(), (0, 1, 2), "Digits, 8x8")


@pytest.fixture
def places(tmp_path):
    return _runner.Places(tmp_path / "results", tmp_path / "work", progress=False)


@pytest.fixture(scope="session")
def digits():
    from flatbook import data

    return data.digits()
