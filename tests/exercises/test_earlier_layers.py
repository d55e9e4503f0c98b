"""Checkers accept the solutions and name the typical mistakes."""

import pytest
import torch

from flatbook.exercises import check


def draws(product, size, probes, generator, *, gaussian=False):
    for _ in range(probes):
        v = torch.randint(2, (size,), generator=generator).double() * 2 - 1
        if gaussian:
            v = torch.randn(size, generator=generator, dtype=torch.float64)
        yield v @ product(v)


def estimate(*arguments, **options):
    found = torch.stack(list(draws(*arguments, **options)))
    return found.mean(), found.std() / len(found) ** 0.5


def test_right_layers():
    assert check("earlier_layers.by_hand", [9 / 2, 1, 9]).ok
    assert check("earlier_layers.rescaled", "1 / c**4").ok
    assert check("earlier_layers.passes", "(epsilon**2 + 4) / epsilon**2").ok
    assert check("earlier_layers.estimate", estimate).ok
    as_floats = check("earlier_layers.estimate", lambda *a: [*map(float, estimate(*a))])
    assert as_floats.ok


def no_root(*arguments):
    mean, error = estimate(*arguments)
    return mean, error * arguments[2] ** 0.5


def halved(*arguments):
    mean, error = estimate(*arguments)
    return mean / 2, error / 2


def wasteful(product, size, probes, generator):
    return estimate(product, size, 2 * probes, generator)


@pytest.mark.parametrize(
    ("topic", "answer", "message"),
    [
        ("by_hand", [4.5, 1.0], r"have shape \(2,\)"),
        ("by_hand", [9, 1, 9], "the input: .* factor 2"),
        ("by_hand", [4.5, 9, 1], "the first layer: .* factor 9"),
        ("rescaled", "c**4", "not equal"),
        ("rescaled", "c**-2", "not equal"),
        ("passes", "4 / epsilon**2", "not equal"),
        ("passes", "1 + 4 / e**2", "should not contain e"),
        ("estimate", 3, "should be a function"),
        ("estimate", lambda *a: estimate(*a)[0], "return a mean and a standard error"),
        ("estimate", lambda *a: (torch.ones(2), 1), "products for 5 probes"),
        ("estimate", lambda *a: estimate(*a, gaussian=True), "are your probes signs"),
        ("estimate", no_root, r"case 1: your standard error is (2|3)"),
        ("estimate", halved, "a diagonal matrix: .* factor 0.5"),
        ("estimate", wasteful, "case 1: 10 products for 5 probes"),
    ],
)
def test_wrong_layers(topic, answer, message):
    verdict = check(f"earlier_layers.{topic}", answer)
    assert not verdict.ok
    with pytest.raises(ValueError, match=message):
        raise ValueError(verdict.message)


def test_numbers_not_lists():
    def pair(*arguments):
        mean, error = estimate(*arguments)
        return mean.expand(2), error

    verdict = check("earlier_layers.estimate", pair)
    assert "single numbers" in verdict.message
