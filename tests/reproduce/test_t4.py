"""The chapters fit a free GPU: counted work over rates that such a GPU should reach.

A T4 multiplies matrices at 65 TFLOP/s in 16 bits and at 8.1 in 32 (NVIDIA's data
sheet). Networks this narrow use little of it: 3 % and 10 % are assumed, which is below
what is reported for wider ones. No T4 was at hand to measure.
"""

import pytest

from flatbook.experiments import load, subject
from flatbook.reproduce import _estimate

TRAINING, MEASURING = 0.03 * 65e12, 0.10 * 8.1e12
SEEDS, LIMIT = 3, 600
CHAPTERS = {  # experiment -> networks of a seed, and how often each is trained
    "loss_geometry": {"resnet18": 1, "vgg11_bn": 1},
    "uncanny_valley": {"resnet18": 5, "vgg11_bn": 1, "wrn28_4": 1, "densenet121": 1},
    "earlier_layers": {"resnet18": 1, "wrn28_4": 1},
    "gradient_masking": {"resnet18": 1, "vgg11_bn": 1},
    "adversarial_training": {"resnet18": 2},
    "detection": {"resnet18": 1, "vgg11_bn": 1},
}


def seconds(name, model, copies):
    which, experiment = subject(model, profile="t4"), load(name)
    shape = _estimate.shape(which)
    flops, recipe = _estimate.forward_flops(which, shape), which.recipe
    epochs = copies * recipe.epochs
    if name == "adversarial_training":
        robust = subject(model, profile="t4", adversarial=True).recipe
        training = recipe.epochs * (
            _estimate.epoch_passes(recipe, shape)
            + _estimate.epoch_passes(robust, shape)
        )
    else:
        training = epochs * _estimate.epoch_passes(recipe, shape)
    measuring = experiment.passes(
        experiment.sizes("t4", "cifar10"),
        classes=shape.classes,
        test_images=shape.test,
        networks=copies,
    )
    return flops * (training / TRAINING + measuring / MEASURING)


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_takes_less_than_ten_minutes(name):
    models = CHAPTERS[name].items()
    total = SEEDS * sum(seconds(name, model, copies) for model, copies in models)
    assert 30 < total < LIMIT


def test_the_memory_of_a_t4_is_enough():
    for models in CHAPTERS.values():
        for model in models:
            which = subject(model, profile="t4")
            shape = _estimate.shape(which)
            need = _estimate._memory(which, shape, 500, half=False)
            assert need < 12_000
