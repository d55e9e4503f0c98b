"""One adversary for all networks that are trained with one."""

import pytest

from flatbook import profiles
from flatbook.experiments._adversary import adversary, radius


def test_the_adversary_of_the_paper():
    found = adversary("full", "cifar10")
    assert (found.eps, found.steps, found.norm) == (8 / 255, 10, "linf")
    assert found.step_size == pytest.approx(2 / 255)


@pytest.mark.parametrize("profile", profiles.NAMES)
@pytest.mark.parametrize("data", ["digits", "cifar10", "folder"])
def test_it_reaches_the_edge_and_scales(profile, data):
    found, half = adversary(profile, data), adversary(profile, data, share=0.5)
    assert found.eps == radius(data)
    assert found.steps * found.step_size >= found.eps
    assert half.eps == found.eps / 2
    assert half.step_size == found.step_size / 2
    assert half.steps == found.steps


def test_a_laptop_takes_fewer_steps():
    quick = [adversary("cpu", "cifar10"), adversary("full", "digits")]
    assert [found.steps for found in quick] == [4, 4]


@pytest.mark.parametrize(
    ("profile", "share", "message"),
    [
        ("gpu", 1.0, "profile must be one of cpu, t4, fast, full"),
        ("cpu", 0.0, "share must be positive"),
    ],
)
def test_bad_arguments(profile, share, message):
    with pytest.raises(ValueError, match=message):
        adversary(profile, "digits", share=share)
