"""Figures of scaled heads: they draw the numbers they get."""

import numpy as np
import pytest
import torch

from flatbook.experiments import gradient_masking as experiment
from flatbook.figures import gradient_masking as figures
from tests.shown import first_seed, letters, read_again, shown

SIZES = experiment.Sizes(
    eps=0.3, eps_l2=2.0, batch=10, scales=(1.0, 10.0, 100.0), floor_batches=(1, 100)
)


def result(seed, images=20):
    """Random answers in the shapes of a result."""
    source = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.rand(*shape, generator=source, dtype=torch.float64)

    def flags(*shape):
        return draw(*shape) < 0.4

    def each(names):
        return {name: flags(3, images) for name in names}

    heads = ("both", "weight only")
    return experiment.Result(
        sizes=SIZES,
        margin=12 * draw(images),
        log_sharpness=-50 * draw(3, images),
        robust=each(experiment.ATTACKS),
        stuck=each(experiment.ATTACKS),
        cosine=2 * draw(3, images) - 1,
        zero=flags(3, images),
        fooled=flags(images),
        transferred=each(heads),
        changed=each(heads),
        floored=flags(2, images),
        floored_stuck=flags(2, images),
        unfloored=flags(images),
        unfloored_stuck=flags(images),
    )


@pytest.fixture(scope="module")
def results():
    return [result(seed) for seed in range(3)]


def draw(name, results):
    value = {"net": results} if name == "sharpness" else results
    return getattr(figures, name)(value)


@pytest.mark.parametrize("name", [n for n in figures.__all__ if n != "paper_figure"])
@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")
def test_every_figure_is_drawn(name, results):
    for some in (results, results[:1]):
        shown(draw(name, some))


def lines(axes):
    return {line.get_label(): line.get_ydata() for line in axes.lines}


def test_robust_beside_stuck_and_predicted(results):
    (axes,) = figures.masking(results).axes
    drawn = lines(axes)
    for label, name in (
        ("float32", "cross-entropy"),
        ("float64", "cross-entropy, float64"),
    ):
        robust = np.mean([r.robust[name].double().mean(1) for r in results], axis=0)
        np.testing.assert_allclose(drawn[f"robust, {label}"], 100 * robust)
        stuck = np.mean([r.stuck[name].double().mean(1) for r in results], axis=0)
        np.testing.assert_allclose(drawn[f"never moved, {label}"], 100 * stuck)
    guess = np.mean([r.predicted(torch.float64) for r in results], axis=0)
    np.testing.assert_allclose(drawn["predicted from margins"], 100 * guess)
    assert [t.get_text() for t in axes.get_xticklabels()] == ["1", "10", "100"]


def test_a_cell_holds_robust_and_stuck(results):
    (axes,) = figures.attacks(results).axes
    texts = [text.get_text() for text in axes.texts]
    assert len(texts) == 2 * 6 * 3
    robust = np.mean([r.robust["DLR"][1].double().mean() for r in results])
    stuck = np.mean([r.stuck["DLR"][1].double().mean() for r in results])
    place = 2 * (3 * list(experiment.ATTACKS).index("DLR") + 1)
    assert texts[place] == f"{100 * robust:.0f}"
    assert texts[place + 1] == f"{100 * stuck:.0f} stuck"
    assert axes.get_yticklabels()[4].get_text() == "DLR"


def test_every_image_and_scale_is_a_point(results):
    (axes,) = figures.regimes(results).axes
    points = axes.collections[-1].get_offsets()
    scales = torch.tensor([[1.0], [10.0], [100.0]])
    inside = [scales * r.margin < 125 for r in results]
    assert len(points) == sum(int(i.sum()) for i in inside)
    expected = torch.cat([r.cosine[i] for r, i in zip(results, inside, strict=True)])
    np.testing.assert_allclose(points[:, 1], expected)
    names = [text.get_text() for text in axes.texts]
    assert names == ["right", "true class lost", "zero"]


def test_sharpness_over_robust_accuracy(results):
    left, right = figures.sharpness({"A": results, "B": results[:1]}).axes
    assert len(left.lines) == len(right.lines) == 4
    first = results[0]
    robust = 100 * first.robust["cross-entropy"].double().mean(1)
    np.testing.assert_allclose(left.lines[0].get_xdata(), robust)
    mean = first.log_sharpness.exp().mean(1).log10()
    np.testing.assert_allclose(left.lines[0].get_ydata(), mean)
    median = first.log_sharpness.median(1).values / np.log(10)
    np.testing.assert_allclose(right.lines[0].get_ydata(), median)


def test_sharpness_that_is_zero_leaves_the_axes():
    flat = result(0)
    flat.log_sharpness[:] = -1e4
    left, _ = figures.sharpness({"A": [flat]}).axes
    assert (left.lines[0].get_ydata() == -300).all()


def test_floors_by_batch(results):
    (axes,) = figures.floors(results).axes
    drawn = lines(axes)
    floored = np.mean([r.floored.double().mean(1) for r in results], axis=0)
    np.testing.assert_allclose(drawn["mean loss, with a floor"], 100 * floored)
    plain = np.mean([r.unfloored.double().mean() for r in results])
    np.testing.assert_allclose(drawn["log-odds, no floor"], [100 * plain] * 2)


# --- the paper's figure from stacked arrays ------------------------------------------


@pytest.fixture
def arrays(results, tmp_path):
    """Of two seeds, as they come back from a file."""
    return read_again(map(experiment.panels, results[:2]), tmp_path)


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")
def test_the_papers_figure_is_drawn(arrays):
    for some in (arrays, first_seed(arrays)):
        assert letters(shown(figures.paper_figure(some))) == "abcd"


def test_the_papers_figure_shows_means_over_seeds(arrays, results):
    first, second, third, fourth = map(lines, figures.paper_figure(arrays).axes)
    pair = results[:2]
    kappa = [r.log_sharpness.exp().mean(1).log10().numpy() for r in pair]
    np.testing.assert_allclose(first["mean"], np.mean(kappa, axis=0), rtol=1e-5)
    medians = [np.median(r.log_sharpness, axis=1) / np.log(10) for r in pair]
    median = np.mean(medians, axis=0)
    np.testing.assert_allclose(first["median, quartiles"], median, rtol=1e-5)
    np.testing.assert_allclose(third["median"], median, rtol=1e-5)
    for label, name in (
        ("cross-entropy", "cross-entropy"),
        ("in float64", "cross-entropy, float64"),
        ("other losses", "log-odds"),
    ):
        robust = np.mean([r.robust[name].double().mean(1) for r in pair], axis=0)
        np.testing.assert_allclose(second[label], 100 * robust)
    guess = np.mean([r.predicted() for r in pair], axis=0)
    np.testing.assert_allclose(second["predicted"], 100 * guess)
    for label, head in (("whole head scaled", "both"), ("weight alone", "weight only")):
        kept = [r.transferred[head][:, r.fooled].double().mean(1) for r in pair]
        np.testing.assert_allclose(fourth[label], 100 * np.mean(kept, axis=0))


def test_hollow_marks_of_the_papers_figure(arrays, results):
    axes = figures.paper_figure(arrays).axes
    pair = results[:2]

    def hollow(one):
        drawn = [line for line in one.lines if line.get_markerfacecolor() == "white"]
        return [line for line in drawn if len(line.get_xdata())]

    stuck = [r.stuck["cross-entropy"].double().mean(1) for r in pair]
    np.testing.assert_allclose(
        hollow(axes[1])[0].get_ydata(), 100 * np.mean(stuck, axis=0)
    )
    every = [np.all(list(r.robust.values()), axis=0).mean(1) for r in pair]
    for line in hollow(axes[2]):
        np.testing.assert_allclose(line.get_xdata(), 100 * np.mean(every, axis=0))
    changed = [r.changed["weight only"].double().mean(1) for r in pair]
    np.testing.assert_allclose(
        hollow(axes[3])[1].get_ydata(), 100 * np.mean(changed, axis=0)
    )


def test_a_missing_array_is_named(arrays):
    del arrays["transferred"]
    with pytest.raises(ValueError, match="missing arrays: transferred"):
        figures.paper_figure(arrays)
