"""What holds for the panels of every experiment, and images enough for a small run."""

import dataclasses

LIMIT = 30_000  # bytes of one seed's panels in a card, in single precision


def few_images(dataset, count):
    """The data set with only the first of its test images."""
    x, y = dataset.x_test[:count], dataset.y_test[:count]
    return dataclasses.replace(dataset, x_test=x, y_test=y)


def size_of(panels):
    """Bytes that the panels of a seed take in a card."""
    return 4 * sum(array.numel() for array in panels.values())


def shapes(panels):
    """Shapes by name."""
    return {name: tuple(array.shape) for name, array in panels.items()}


def check_alike(panels, other):
    """Two seeds can be stacked: one shape each, and off the GPU."""
    assert shapes(panels) == shapes(other)
    arrays = (*panels.values(), *other.values())
    assert {array.device.type for array in arrays} == {"cpu"}


def check_small_and_alike(panels, other):
    """They can be stacked, are small, and hold no infinity and no NaN."""
    check_alike(panels, other)
    assert size_of(panels) < LIMIT
    assert all(array.isfinite().all() for array in (*panels.values(), *other.values()))
