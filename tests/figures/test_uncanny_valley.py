"""Figures of walks: they draw the numbers they get, in readable places."""

import numpy as np
import pytest
import torch

from flatbook.experiments import uncanny_valley as experiment
from flatbook.figures import BookFigure
from flatbook.figures import uncanny_valley as figures
from tests.shown import first_seed, read_again, shown

SIZES = experiment.Sizes(eps=(0.1, 0.3), main=0.3, line_steps=20)


def walk(source, steps, images):
    """Random numbers in the ranges of a walk; the second half is wrong."""

    def draw(*shape):
        return torch.rand(*shape, generator=source, dtype=torch.float64)

    names = ("kappa", "trace", "size", "loss", "slope", "doubt")
    values = {name: draw(steps + 1, images) for name in names}
    wrong = torch.zeros(steps + 1, images, dtype=torch.bool)
    wrong[steps // 2 :] = True
    stuck = torch.zeros(images, dtype=torch.bool)
    own = draw(steps + 1, images) - 0.5
    return experiment.Walk(
        **values, own=own, wrong=wrong, pull=draw(2, images), stuck=stuck
    )


def result(seed):
    source = torch.Generator().manual_seed(seed)
    return experiment.Result(
        sizes=SIZES,
        accuracy={"standard": 0.9, "Brier": 0.8},
        walks={
            name: {eps: walk(source, 4, 9) for eps in SIZES.eps}
            for name in ("standard", "Brier")
        },
        line=walk(source, 20, 5),
        held=walk(source, 6, 3),
        free=walk(source, 6, 3),
    )


@pytest.fixture(scope="module")
def results():
    return [result(seed) for seed in range(3)]


@pytest.mark.parametrize(
    "draw",
    ["walks", "strengths", "peak_minus_flip", "ridge", "ramp", "losses"],
)
@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")
def test_every_figure_is_drawn(draw, results):
    figure = shown(getattr(figures, draw)(results))
    assert all(axes.lines or axes.patches for axes in figure.axes)


@pytest.mark.parametrize("draw", ["walks", "ramp", "losses"])
def test_one_seed_is_enough(draw, results):
    assert getattr(figures, draw)(results[:1]).axes


def test_walks_show_the_median_of_all_images(results):
    figure = figures.walks(results)
    top = figure.axes[:2]
    assert [axes.get_title("left") for axes in top] == ["ε = 0.1", "ε = 0.3"]
    pooled = torch.cat([r.walks["standard"][0.3].kappa for r in results], 1)
    expected = np.median(pooled.numpy(), axis=1)
    np.testing.assert_allclose(top[1].lines[-1].get_ydata(), expected)
    loss = torch.cat([r.walks["standard"][0.1].loss for r in results], 1)
    expected = np.median(loss.numpy(), axis=1)
    np.testing.assert_allclose(figure.axes[2].lines[-1].get_ydata(), expected)
    assert top[0].get_yscale() == "log"


def test_strengths_are_shares_in_percent(results):
    (axes,) = figures.strengths(results).axes
    lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    each = [list(r.valley_share.values()) for r in results]
    expected = 100 * np.mean(each, axis=0)
    np.testing.assert_allclose(lines["ends in the valley"], expected)
    np.testing.assert_allclose(lines["ends wrong"], [100, 100])
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0.1", "0.3"]


def test_architectures_show_means_over_seeds(results):
    names = ("A", "B", "C", "D")
    figure = figures.architectures(dict.fromkeys(names, results))
    assert [axes.get_title("left") for axes in figure.axes] == list(names)
    expected = np.mean([r.main.kappa.mean(1).numpy() for r in results], axis=0)
    for axes in figure.axes:
        lines = {line.get_label(): line.get_ydata() for line in axes.lines}
        np.testing.assert_allclose(lines["mean"], expected)
        assert axes.get_yscale() == "log"


def test_histograms_count_every_image(results):
    for axes in figures.peak_minus_flip(results).axes:
        heights = [bar.get_height() for bar in axes.patches]
        assert sum(heights) == pytest.approx(100)


def test_what_is_far_goes_into_the_outer_bars():
    axes = BookFigure().subplots()
    figures._histogram(axes, np.array([-9.0, 0.0, 0.2, 7.0]), 2)
    heights = [bar.get_height() for bar in axes.patches]
    assert heights == [25, 0, 50, 0, 25]
    texts = [text.get_text() for text in axes.get_xticklabels()]
    assert texts == ["≤ −2", "−1", "0", "1", "≥ 2"]


def test_the_ridge_is_centred_at_the_flip(results):
    left, right = figures.ridge(results, reach=5).axes
    np.testing.assert_allclose(left.lines[-1].get_xdata(), np.arange(-25, 26, 5))
    pooled = torch.cat([r.line.size[5:16] for r in results], 1)
    expected = np.median(pooled.numpy(), axis=1)
    np.testing.assert_allclose(right.lines[-1].get_ydata(), expected)


def test_own_curvature_of_every_loss(results):
    figure = figures.losses(results)
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["standard", "Brier"]
    own = torch.cat([r.walks["Brier"][0.3].own for r in results], 1)
    expected = 100 * (own < 0).double().mean(1)
    np.testing.assert_allclose(figure.axes[2].lines[1].get_ydata(), expected)


@pytest.mark.parametrize(
    ("eps", "text"),
    [(0.05, "ε = 0.05"), (0.2, "ε = 0.2"), (16 / 255, "ε = 16/255")],
)
def test_radii(eps, text):
    assert figures.radius(eps) == text


@pytest.fixture
def stored(tmp_path):
    """Panels of two seeds, stacked, through a file."""
    seeds = [experiment.panels(result(seed)) for seed in range(2)]
    return read_again(seeds, tmp_path)


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")
def test_the_figure_of_the_paper(stored):
    figure = shown(figures.paper_figure(stored))
    drawn = [
        {line.get_label(): line.get_ydata() for line in axes.lines}
        for axes in figure.axes
    ]
    seen = [result(seed).main for seed in range(2)]

    def mean(values):
        return np.mean([value.numpy() for value in values], 0)

    np.testing.assert_allclose(
        drawn[0]["mean ± s.d."], mean([walk.kappa.mean(1) for walk in seen])
    )
    np.testing.assert_allclose(
        drawn[1]["median"], mean([walk.loss.median(1).values for walk in seen])
    )
    logs = [walk.kappa.median(1).values.log() for walk in seen]
    np.testing.assert_allclose(drawn[2]["median, quartiles"], np.exp(mean(logs)))
    np.testing.assert_allclose(
        drawn[3]["share that is right"],
        mean([(~walk.wrong).double().mean(1) for walk in seen]),
    )
    spread = mean([walk.kappa.mean(1) + walk.kappa.std(1, False) for walk in seen])
    band = figure.axes[0].collections[0].get_paths()[0].vertices[:, 1]
    assert band.max() == pytest.approx(spread.max())
    assert figure.axes[2].get_xlabel() == "attack step, ε = 0.3"


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")
def test_the_figure_of_one_seed(stored):
    assert len(figures.paper_figure(first_seed(stored)).axes[0].lines) == 1
    assert len(figures.paper_figure(stored).axes[0].lines) == 3


def test_a_missing_array_is_named(stored):
    del stored["mean_loss"]
    with pytest.raises(ValueError, match="missing arrays: mean_loss"):
        figures.paper_figure(stored)
