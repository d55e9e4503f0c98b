"""Figures of robust networks: they draw the numbers they get."""

import numpy as np
import pytest
import torch

from flatbook.experiments import adversarial_training as experiment
from flatbook.figures import adversarial_training as figures
from tests.shown import first_seed, read_again, shown

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")

SIZES = experiment.Sizes((0.1, 0.2), 0.2, 3, 0.1, 12, (0.01, 0.1, 1.0), 30)
NAMES = ("standard", "adversarial", experiment.COOLED)


def seen(source, images=30):
    """Random numbers in the ranges of a network."""

    def draw(*shape):
        return torch.rand(*shape, generator=source, dtype=torch.float64)

    reach = draw(3, images).sort(0).values
    reach[2, 0] = torch.inf
    return experiment.Seen(
        logits=4 * draw(images, 3),
        size=1 + draw(images),
        features=draw(images),
        right=draw(images) > 0.1,
        flip=draw(images),
        reach=reach,
        path=draw(4, images),
        robust=draw(2, images) > 0.5,
        stuck=draw(2, images) > 2,
        margin=draw(images) > 0.5,
        margin_stuck=draw(images) > 2,
    )


@pytest.fixture(scope="module")
def results():
    made = []
    for seed in range(3):
        source = torch.Generator().manual_seed(seed)
        networks = {name: seen(source) for name in NAMES}
        accuracy = dict.fromkeys(NAMES, 0.9)
        made.append(experiment.Result(SIZES, accuracy, networks, 0.3))
    return made


@pytest.fixture(scope="module")
def groups():
    source = torch.Generator().manual_seed(9)
    return {f"recipe {i}": [seen(source) for _ in range(3)] for i in range(4)}


@pytest.mark.parametrize(
    "draw", ["definitions", "crossing", "factors", "valleys", "within"]
)
def test_every_figure_is_drawn(draw, results):
    shown(getattr(figures, draw)(results))


def test_figures_of_many_networks_are_drawn(results, groups):
    shown(figures.clouds(groups))
    shown(figures.cooled(results, groups, scales=[0.1, 0.5, 1.0]))


def test_crossing_draws_the_medians(results):
    (axes,) = figures.crossing(results).axes
    drawn = {line.get_label(): line.get_ydata() for line in axes.get_lines()}
    for name in NAMES:
        each = np.array([result.widths(name).numpy() for result in results])
        np.testing.assert_allclose(drawn[name], each.mean(0))


def test_definitions_end_where_all_images_have_it(results):
    left, right = figures.definitions(results).axes
    for axes in (left, right):
        for line in axes.get_lines():
            assert (np.diff(line.get_ydata()) >= 0).all()
            assert 0 <= line.get_ydata()[0] <= line.get_ydata()[-1] <= 100


def test_clouds_draws_a_point_for_each_network(groups):
    (axes,) = figures.clouds(groups).axes
    lines = axes.get_lines()
    assert [len(line.get_xdata()) for line in lines] == [3] * 4
    first = groups["recipe 0"]
    expected = [float(one.kappa.median()) for one in first]
    np.testing.assert_allclose(lines[0].get_xdata(), expected)
    looks = {(line.get_marker(), line.get_color()) for line in lines}
    assert len(looks) == 4


def test_cooled_draws_one_line_for_each_result(results, groups):
    (axes,) = figures.cooled(results, groups, scales=[0.1, 1.0]).axes
    ends = [line.get_xdata()[-1] for line in axes.get_lines()[:3]]
    found = [float(r.networks["standard"].confidence.mean()) for r in results]
    np.testing.assert_allclose(ends, found)


def test_share_within_by_hand():
    found = figures.share_within(
        torch.tensor([0.5, torch.inf, 0.1, 0.5]), torch.tensor([0.0, 0.1, 0.5, 9.0])
    )
    assert found.tolist() == [0, 25, 75, 75]


def test_decades():
    assert figures._decades((0.02, 300.0)) == (0.01, 1000.0)


@pytest.fixture(scope="module")
def arrays(results, tmp_path_factory):
    """Two seeds, stacked, written and read again."""
    folder = tmp_path_factory.mktemp("arrays")
    stacked = read_again(map(experiment.panels, results[:2]), folder)
    for name in ("flip", "mean flip", "confidence", "mean confidence", "trace H"):
        stacked[f"focal: {name}"] = stacked[f"standard: {name}"]
    whats = ("mean trace H", "sharpness", "mean sharpness", "width", "points")
    for name in (*whats, "robust accuracy", "robust accuracy, margin"):
        stacked[f"focal: {name}"] = stacked[f"standard: {name}"]
    return dict(sorted(stacked.items()))


def test_the_paper_figure_is_drawn_from_arrays(arrays):
    shown(figures.paper_figure(arrays))
    shown(figures.paper_figure(first_seed(arrays)))


def test_the_paper_figure_has_a_row_for_each_network(arrays, results):
    figure = figures.paper_figure(arrays)
    first, *_, flips = figure.axes[:4]
    rows = [label.get_text() for label in first.get_yticklabels()]
    assert rows == [*NAMES, "focal"]
    medians = [line for line in flips.get_lines() if line.get_marker() == "o"]
    assert len(medians) == 4
    for row, name in enumerate(NAMES):
        seen = [result.networks[name].flip for result in results[:2]]
        expected = [float(one.clamp(max=SIZES.longest).quantile(0.5)) for one in seen]
        np.testing.assert_allclose(medians[row].get_xdata(), expected)
        assert set(medians[row].get_ydata()) == {row}
    means = [line for line in flips.get_lines() if line.get_marker() == "|"]
    both = [result.networks["standard"].flip.mean() for result in results[:2]]
    assert means[0].get_xdata()[0] == pytest.approx(float(sum(both)) / 2)


def test_the_paper_figure_draws_shares_and_distances(arrays, results):
    robust, width, points = figures.paper_figure(arrays).axes[4:]
    lines = {line.get_label(): line for line in robust.get_lines()}
    seen = [result.networks["adversarial"] for result in results[:2]]
    expected = [
        float(sum(100 * one.double().mean() for one in pair)) / 2
        for pair in (
            [one.right for one in seen],
            *([one.robust[i] for one in seen] for i in range(2)),
        )
    ]
    np.testing.assert_allclose(lines["adversarial"].get_ydata(), expected)
    np.testing.assert_allclose(lines["adversarial"].get_xdata(), [0, 0.1, 0.2])
    hollow = [line for line in robust.get_lines() if line.get_marker() == "o"]
    margin = float(sum(100 * one.margin.double().mean() for one in seen)) / 2
    assert [line.get_xdata()[0] for line in hollow] == [SIZES.main] * 3
    assert margin in [pytest.approx(line.get_ydata()[0]) for line in hollow]
    lines = {line.get_label(): line for line in width.get_lines()}
    medians = [result.widths("standard").numpy() for result in results[:2]]
    np.testing.assert_allclose(lines["standard"].get_ydata(), np.mean(medians, 0))
    right = results[0].networks["standard"].right
    drawn = points.get_lines()[0].get_xdata()
    assert np.isfinite(drawn).sum() == int(right.sum())


@pytest.mark.parametrize(
    "name", ["eps", "share", "adversarial: points", "focal: width"]
)
def test_a_missing_array_is_named(arrays, name):
    rest = {key: array for key, array in arrays.items() if key != name}
    with pytest.raises(ValueError, match=f"missing arrays: {name}; got"):
        figures.paper_figure(rest)


def test_without_networks_the_first_one_is_missing():
    with pytest.raises(ValueError, match=r"missing arrays: .*standard: confidence"):
        figures.paper_figure({})
