"""What a run will need, counted another way or measured."""

import dataclasses

import pytest
import torch

from flatbook import training
from flatbook.experiments import subject
from flatbook.reproduce import _estimate, _work
from flatbook.training import Adversary
from tests.flops import flops


@pytest.fixture
def shape(digits):
    return _estimate.shape(subject("mlp"), digits)


def test_the_operations_of_a_perceptron_by_hand(shape):
    layers = [(64, 256), (256, 128), (128, 10)]
    by_hand = 2 * sum(a * b for a, b in layers)
    assert _estimate.forward_flops(subject("mlp"), shape) == by_hand


@pytest.mark.parametrize(
    "adversary", [None, Adversary(eps=0.1, step_size=0.05, steps=3)]
)
def test_an_epoch_is_as_many_passes_as_torch_counts(digits, shape, adversary):
    which = subject("resnet18")
    recipe = dataclasses.replace(which.recipe, epochs=1, adversary=adversary)
    network = which.build(digits, 0)
    done = flops(lambda: training.train(network, digits, recipe, progress=False))
    counted = done / _estimate.forward_flops(which, shape)
    # The first layer needs no gradient in the images.
    assert _estimate.epoch_passes(recipe, shape) == pytest.approx(counted, rel=0.03)


def test_the_memory_of_a_step_is_what_autograd_keeps(shape):
    """By hand for a perceptron: inputs of the layers, and which units are on."""
    weights, kept = _estimate._kept(subject("mlp"), shape)
    assert weights == sum(a * b + b for a, b in [(64, 256), (256, 128), (128, 10)])
    assert kept == 64 + 256 + 128
    small = _estimate._memory(subject("mlp"), shape, 10, half=False)
    large = _estimate._memory(subject("mlp"), shape, 1010, half=False)
    assert (large - small) * 2**20 == pytest.approx(4000 * kept)


def test_what_is_done_is_not_counted(job, shape):
    mine = job()
    train, measure = _estimate.needs(mine, shape)
    assert not train.done
    assert not measure.done
    _work.train(mine, 0, "standard")
    train, measure = _estimate.needs(mine, shape)
    assert (train.done, train.flops) == (True, 0)
    assert not measure.done
    assert _work.measure(mine, 0).good
    train, measure = _estimate.needs(mine, shape)
    assert measure.done
    assert not any(need.done for need in _estimate.needs(mine, shape, known=False))


def test_half_a_training_is_half_the_work(job, shape, digits):
    mine = job()
    whole = next(iter(_estimate.needs(mine, shape))).flops
    plan = mine.plan.subject
    path = mine.checkpoint(0, "standard")
    network = plan.build(digits, 0)
    half = training.History(*[(0.5,) * (plan.recipe.epochs // 2)] * 4)
    training.save_checkpoint(path, network, plan.recipe, history=half)
    assert next(iter(_estimate.needs(mine, shape))).flops == pytest.approx(whole / 2)


def test_the_shape_of_cifar_is_known_without_it():
    full = _estimate.shape(subject(profile="full", data="cifar100"))
    assert full == _estimate.Shape(50_000, 10_000, 100, 3, 32)
    small = _estimate.shape(subject(profile="cpu", data="cifar10"))
    assert (small.train, small.test) == (10_000, 10_000)
    with pytest.raises(ValueError, match="'folder' are needed"):
        _estimate.shape(subject(profile="full", data="folder"))


def test_resnet18_costs_what_its_paper_says():
    """0.56 billion multiplications for 32x32 pixels, two operations each."""
    which = subject(profile="full")
    flops = _estimate.forward_flops(which, _estimate.shape(which))
    assert flops / 2 == pytest.approx(0.56e9, rel=0.02)


def test_a_rate_is_measured(shape):
    rate = _estimate.measured_rate(subject("mlp"), shape, "cpu")
    assert 1e6 < rate < 1e15
    assert torch.is_grad_enabled()
