"""Arrays of several seeds."""

import numpy as np
import pytest

from flatbook.figures import BookFigure
from flatbook.figures._stacked import band, chosen


def test_what_is_missing_is_named():
    arrays = {"a": np.zeros(2), "b": np.ones(2)}
    assert list(chosen(arrays, "b")) == ["b"]
    with pytest.raises(ValueError, match=r"missing arrays: c, d; got \['a', 'b'\]"):
        chosen(arrays, "a", "c", "d")


def test_a_band_of_seeds():
    axes = BookFigure().subplots()
    band(axes, np.arange(3), np.array([[0.0, 2.0, 4.0], [2.0, 4.0, 6.0]]), 0, "seeds")
    (line,) = axes.lines
    np.testing.assert_allclose(line.get_ydata(), [1, 3, 5])
    assert line.get_label() == "seeds"
    heights = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (0, 6)
