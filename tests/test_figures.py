"""Figures: they draw what they get, leave nothing open and show themselves."""

import sys

import matplotlib as mpl
import numpy as np
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from matplotlib.colors import to_hex

from flatbook import figures


def lines(axes):
    return {line.get_label(): line for line in axes.lines}


def test_curves_draw_their_data_in_distinct_dashes():
    xs = torch.linspace(0, 1, 5)
    data = {f"line {i}": (xs, xs * i) for i in range(6)}
    figure = figures.curves(data, x="radius", y="loss", title="Bounds")
    (axes,) = figure.axes
    for i, line in enumerate(axes.lines):
        np.testing.assert_allclose(
            line.get_ydata(), i * np.linspace(0, 1, 5), atol=1e-6
        )
        assert to_hex(line.get_color()).upper() == figures.COLORS[i]
    dashes = {str(line._unscaled_dash_pattern) for line in axes.lines}
    assert len(dashes) == 6
    assert axes.get_xlabel() == "radius"
    assert axes.get_title(loc="left") == "Bounds"
    assert [t.get_text() for t in axes.get_legend().get_texts()] == list(data)


def test_log_axes():
    axes = figures.curves({"k": ([1, 2], [1, 2])}, x="s", y="k", log="xy").axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_legend() is None


def test_trajectory_shows_median_quartiles_and_seeds():
    rng = np.random.default_rng(0)
    kappa, loss = rng.random((3, 11, 40)), rng.random((11, 40))
    figure = figures.trajectory(
        {"sharpness": {"PGD": kappa}, "loss": {"PGD": loss, "line": loss + 1}},
        log=["sharpness"],
        steps=np.linspace(0, 1, 11),
    )
    left, right = figure.axes
    pooled = np.moveaxis(kappa, 0, 1).reshape(11, -1)
    np.testing.assert_allclose(
        lines(left)["PGD"].get_ydata(), np.median(pooled, axis=1)
    )
    assert len(left.lines) == 4
    np.testing.assert_allclose(left.lines[0].get_ydata(), np.median(kappa[0], axis=1))
    low, high = np.quantile(loss, [0.25, 0.75], axis=1)
    band = right.collections[0].get_paths()[0].vertices
    assert {*low.round(9), *high.round(9)} <= set(band[:, 1].round(9))
    assert (left.get_yscale(), right.get_yscale()) == ("log", "linear")
    np.testing.assert_allclose(right.lines[0].get_xdata(), np.linspace(0, 1, 11))


def test_images_and_signed_perturbations():
    digits = torch.rand(3, 1, 8, 8)
    figure = figures.image_row(digits, ["a", "b", "c"])
    assert [axes.get_title() for axes in figure.axes] == ["a", "b", "c"]
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), digits[1, 0])
    colour = figures.image_row([torch.rand(3, 4, 5)])
    assert colour.axes[0].images[0].get_array().shape == (4, 5, 3)
    signed = figures.image_row([[[-0.3, 0.1]]], signed=True).axes[0].images[0]
    assert signed.get_clim() == (-0.3, 0.3)


def test_heatmap_annotates_readably():
    figure = figures.heatmap([[1.0, -0.5], [0.0, 2.0]], ["a", "b"], annotate=".1f")
    texts = figure.axes[0].texts
    assert [t.get_text() for t in texts] == ["1.0", "−0.5", "0.0", "2.0"]
    assert texts[3].get_color() == "white"
    assert texts[2].get_color() == "black"
    assert figure.axes[0].images[0].get_clim() == (-2.0, 2.0)
    plain = figures.heatmap(np.ones((2, 3)), (["x", "y"], ["p", "q", "r"]))
    assert [t.get_text() for t in plain.axes[0].get_xticklabels()] == ["p", "q", "r"]
    assert not plain.axes[0].texts


NAN = float("nan")


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: figures.curves({}, x="", y=""), "between 1 and 6 lines, got 0"),
        (lambda: figures.curves({"a": ([0], [NAN])}, x="", y=""), "y of 'a'.*NaN"),
        (lambda: figures.curves({"a": ([0], [1, 2])}, x="", y=""), "1 x but 2 y"),
        (lambda: figures.curves({"a": ([0], [1])}, x="", y="", log="z"), "'z'"),
        (lambda: figures.trajectory({"k": {"a": [1.0, 2.0]}}), "2 or 3 axes"),
        (lambda: figures.trajectory({"k": {"a": [[1.0]]}}, log=["q"]), r"\['q'\]"),
        (lambda: figures.trajectory({"k": {"a": [[1.0]]}}, steps=[0, 1]), "2 steps"),
        (lambda: figures.image_row([[[2.0]]]), r"image 0 leaves \[0, 1\]"),
        (lambda: figures.image_row([[[0.5]]], ["a", "b"]), "1 images and 2 titles"),
        (lambda: figures.image_row(np.zeros((1, 2, 4, 4))), r"shape \(2, 4, 4\)"),
        (lambda: figures.heatmap([[1.0]], ["a", "b"]), "2 x 2 labels"),
        (lambda: figures.heatmap([1.0]), "2 axes"),
    ],
)
def test_refusals(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_figures_show_themselves_and_pyplot_knows_nothing_of_them():
    figure = figures.heatmap(np.eye(3))
    data, metadata = DisplayFormatter().format(figure)
    assert data["image/png"].startswith(b"\x89PNG")
    width = int.from_bytes(data["image/png"][16:20])
    assert width == pytest.approx(metadata["image/png"]["width"] * 150 / 96, abs=2)
    assert figure._repr_png_() == figure._repr_png_()
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_style_is_set_on_request_only():
    with mpl.rc_context():
        mpl.rcdefaults()
        before = dict(mpl.rcParams)
        figures.curves({"a": ([0, 1], [0, 1])}, x="x", y="y")
        assert dict(mpl.rcParams) == before
        figures.use_style()
        assert mpl.rcParams["figure.dpi"] == 150
        cycle = mpl.rcParams["axes.prop_cycle"].by_key()
        assert tuple(cycle["color"]) == figures.COLORS
        assert len({str(style) for style in cycle["linestyle"]}) == 6
