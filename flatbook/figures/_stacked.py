"""Arrays of several seeds, as they are stacked in an NPZ file beside a result card.

>>> chosen({"scales": np.ones((2, 3)), "other": np.ones(2)}, "scales")["scales"].shape
(2, 3)
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from flatbook.figures import COLORS, LINES

BELOW: dict[str, Any] = {
    "loc": "upper left",
    "bbox_to_anchor": (-0.06, -0.19),
    "ncols": 2,
    "fontsize": 8.5,
    "handlelength": 2.2,
    "columnspacing": 1.1,
}
"""A small legend below the axes, where no curve can be."""


def chosen(arrays: Mapping[str, np.ndarray], *names: str) -> dict[str, np.ndarray]:
    """The arrays of these names.

    Raises:
        ValueError: one is missing; its name is told.
    """
    missing = [name for name in names if name not in arrays]
    if missing:
        raise ValueError(f"missing arrays: {', '.join(missing)}; got {list(arrays)}")
    return {name: np.asarray(arrays[name]) for name in names}


def band(axes: Axes, x: ArrayLike, values: np.ndarray, number: int, label: str) -> None:
    """Mean over seeds of values (S, X), with a band from the lowest to the highest."""
    look: dict[str, Any] = {"color": COLORS[number], "linestyle": LINES[number]}
    axes.fill_between(
        x, values.min(0), values.max(0), color=COLORS[number], alpha=0.18, linewidth=0
    )
    axes.plot(x, values.mean(0), **look, label=label)
