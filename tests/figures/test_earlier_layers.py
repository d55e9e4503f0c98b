"""Figures of layers: they draw the numbers they get, in readable places."""

import numpy as np
import pytest
import torch

from flatbook.experiments import earlier_layers as experiment
from flatbook.figures import earlier_layers as figures
from tests.shown import first_seed, read_again, shown

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")

STEPS, IMAGES, DEPTH = 4, 7, 3


def walk(seed, layers):
    source = torch.Generator().manual_seed(seed)
    shape = (STEPS + 1, IMAGES, 1 + layers)
    trace = torch.rand(shape, generator=source, dtype=torch.float64) + 0.01
    names = ("input", *(f"layer {i}" for i in range(layers)))
    square = torch.rand(layers, generator=source, dtype=torch.float64)
    wrong = torch.zeros(shape[:2], dtype=torch.bool)
    return experiment.Walk(names, trace, square, wrong, wrong[0])


def result(seed):
    source = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return 3 * torch.randn(*shape, generator=source, dtype=torch.float64)

    shape = (2, STEPS + 1, DEPTH)
    found = [experiment.Estimates(draw(*shape), draw(*shape).abs()) for _ in range(2)]
    inside = draw(2, STEPS + 1, IMAGES)
    sizes = experiment.Sizes(eps=0.3, steps=STEPS, deep=DEPTH)
    return experiment.Result(sizes, walk(seed, 6), 4, *found, inside)


@pytest.fixture(scope="module")
def walks():
    """Three seeds of a network with six layers, and of one with three."""
    return {
        name: [walk(seed, layers) for seed in range(3)]
        for name, layers in (("deep", 6), ("shallow", 3))
    }


@pytest.fixture(scope="module")
def results():
    return [result(seed) for seed in range(3)]


@pytest.mark.parametrize("draw", ["fall", "shares", "ratios"])
def test_figures_of_several_networks_are_drawn(draw, walks):
    shown(getattr(figures, draw)(walks))
    shown(getattr(figures, draw)({"deep": walks["deep"]}))


def test_paths_are_medians_of_all_images(walks):
    figure = shown(figures.paths(walks["deep"], depth=3))
    left, right = figure.axes
    labels = [line.get_label() for line in left.get_lines()]
    assert labels == ["l", "l − 1", "l − 2", "input"]
    assert len(right.get_lines()) == 3
    pooled = torch.cat([w.trace for w in walks["deep"]], 1).median(1).values
    for line, column in zip(left.get_lines(), (-1, -2, -3, 0), strict=True):
        np.testing.assert_allclose(line.get_ydata(), pooled[:, column])


def test_the_fall_is_measured_from_each_layers_own_peak(walks):
    figure = figures.fall(walks)
    (image,) = figure.axes[0].get_images()
    decades = np.asarray(image.get_array())
    assert decades.shape == (STEPS + 1, 7)
    np.testing.assert_allclose(decades.max(0), 0)
    assert [axes.get_title(loc="left") for axes in figure.axes[:2]] == [*walks]


def test_the_last_layer_is_one(walks):
    figure = figures.ratios(walks)
    for axes in figure.axes[:3]:
        middle = axes.containers[0].lines[0].get_ydata()
        assert len(middle) == 6
        assert middle[-1] == pytest.approx(1)


def test_shares_below_one_half_stay_in_sight(walks):
    figure = figures.shares(walks)
    for axes in figure.axes:
        low, high = axes.get_ylim()
        for container in axes.containers:
            values = container.lines[0].get_ydata()
            assert low <= values.min()
            assert values.max() <= high


def test_estimates_show_the_truth_of_the_layer(results):
    figure = shown(figures.estimates(results, back=2))
    left, right = figure.axes
    truth = results[0].truth[:, 0]
    np.testing.assert_allclose(left.get_lines()[0].get_ydata(), truth)
    assert left.get_title(loc="left") == "mean Tr H of layer l − 2"
    assert len(left.containers) == 4
    names = [line.get_label() for line in right.get_lines()[:3]]
    assert names == ["shared probes", "probes of its own", "input, each image"]


def test_depths():
    assert figures.places(5).tolist() == [0, 0.25, 0.5, 0.75, 1]


@pytest.fixture(scope="module")
def arrays(results, tmp_path_factory):
    """Two seeds, stacked, written and read again."""
    folder = tmp_path_factory.mktemp("arrays")
    return read_again(map(experiment.panels, results[:2]), folder)


def test_the_paper_figure_has_a_panel_for_each_layer(arrays, results):
    figure = shown(figures.paper_figure(arrays))
    shown(figures.paper_figure(first_seed(arrays)))
    titles = [axes.get_title(loc="left") for axes in figure.axes[:DEPTH]]
    assert titles == ["l", "l − 1", "l − 2"]
    for place in range(DEPTH):
        kappa = [one.walk.sharpness()[:, :, -1 - place] for one in results[:2]]
        lines = {line.get_label(): line for line in figure.axes[place].get_lines()}
        for name, values in (
            ("median", [one.median(1).values for one in kappa]),
            ("mean", [one.mean(1) for one in kappa]),
        ):
            expected = (values[0] * values[1]).sqrt()
            np.testing.assert_allclose(lines[name].get_ydata(), expected)


def test_the_paper_figure_draws_the_errors(arrays, results):
    figure = figures.paper_figure(arrays)
    for place in range(DEPTH):
        lines = {
            line.get_label(): line.get_ydata()
            for line in figure.axes[DEPTH + place].get_lines()
        }
        for kind, name in (("shared", "shared probes"), ("alone", "probes of its own")):
            found = [
                getattr(one, kind).mean[..., -1 - place] / one.truth[:, -1 - place] - 1
                for one in results[:2]
            ]
            expected = torch.cat(found).square().mean(0).sqrt()
            np.testing.assert_allclose(lines[name], expected)


def test_the_paper_figure_ends_with_all_layers(arrays, results):
    (image,) = figures.paper_figure(arrays).axes[2 * DEPTH].get_images()
    logs = [one.walk.trace.median(1).values.log10() for one in results[:2]]
    expected = sum(logs) / 2
    expected -= expected.amax(0)
    np.testing.assert_allclose(np.asarray(image.get_array()), expected, atol=1e-12)


@pytest.mark.filterwarnings("error:.*encountered in:RuntimeWarning")
def test_traces_below_single_precision_are_drawn(arrays):
    """A very confident network has traces below 1e-45."""
    flat = {name: a * (name in ("steps", "shared")) for name, a in arrays.items()}
    figure = shown(figures.paper_figure(flat))
    (image,) = figure.axes[2 * DEPTH].get_images()
    np.testing.assert_allclose(np.asarray(image.get_array()), 0)


@pytest.mark.parametrize("name", ["steps", "alone", "median_trace"])
def test_a_missing_array_is_named(arrays, name):
    rest = {key: array for key, array in arrays.items() if key != name}
    with pytest.raises(ValueError, match=f"missing arrays: {name}; got"):
        figures.paper_figure(rest)
