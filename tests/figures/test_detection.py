import numpy as np
import pytest
import torch

from flatbook.experiments.detection import Matched, Result, Sizes, panels
from flatbook.figures import detection
from tests.shown import first_seed, letters, read_again, shown

SIZES = Sizes((0.1, 0.2, 0.5), (0.2, 0.5), images=40)


def one(seed):
    """A result in which attacked images are two decades sharper, or flatter."""
    source = torch.Generator().manual_seed(seed)
    features = torch.randn(4, 4, 40, generator=source, dtype=torch.float64)
    features[0] += 2 * torch.log(torch.tensor([1.0, 10.0, 1.0, 0.1]))[:, None]
    accuracy = 0.5 + 0.4 * torch.rand(4, 3, 5, generator=source, dtype=torch.float64)
    same = torch.full((5,), 0.5, dtype=torch.float64)
    found = Matched(
        features=features[:, 0],
        wrong=torch.ones(40, dtype=torch.bool),
        size=torch.full((40,), 0.1),
        gap=torch.zeros(40),
        same=same + seed / 100,
        retrained=same.repeat(5, 1),
    )
    return Result(
        sizes=SIZES,
        features=features,
        wrong=torch.ones(4, 40, dtype=torch.bool),
        stuck=torch.zeros(3, 40, dtype=torch.bool),
        accuracy=accuracy,
        leaky=accuracy[0],
        across=torch.tensor([[0.9, 0.5, 0.2], [0.5, 0.5, 0.5], [0.1, 0.5, 0.8]]),
        matched={0.2: found, 0.5: found},
    )


RESULTS = [one(seed) for seed in range(3)]


@pytest.mark.parametrize(
    ("eps", "name"),
    [(0.05, "0.05"), (0.1, "0.1"), (0.2, "0.2"), (0.5, "0.5")]
    + [(n / 255, f"{n}/255") for n in (0.5, 1, 2, 4, 8, 16)],
)
def test_names_of_radii(eps, name):
    assert detection.radius(eps) == name


def test_ridges_stand_where_the_values_are():
    figure = detection.ridges(RESULTS, (0.1, 0.5))
    (axes,) = figure.axes
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels == ["clean", "ε = 0.1", "ε = 0.5"]
    thick = [line for line in axes.lines if line.get_linewidth() == 1.8]
    modes = [line.get_xdata()[line.get_ydata().argmax()] for line in thick]
    assert modes == pytest.approx([0, 2, -2], abs=0.6)
    assert len(axes.lines) == 3 * (len(RESULTS) + 1) + 1


def test_a_ridge_for_the_adaptive_attack():
    (axes,) = detection.ridges(RESULTS, (0.1,), adaptive=0.5).axes
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels[-1] == "adaptive,\nε = 0.5"
    thick = [line for line in axes.lines if line.get_linewidth() == 1.8]
    clean, _, adaptive = (line.get_ydata() for line in thick)
    np.testing.assert_allclose(adaptive, clean - 2)


def test_what_was_not_measured():
    with pytest.raises(ValueError, match=r"radius 0.3 was not measured; there are"):
        detection.ridges(RESULTS, (0.3,))
    with pytest.raises(ValueError, match=r"no adaptive attack at 0.1"):
        detection.ridges(RESULTS, (0.1,), adaptive=0.1)


def test_strengths_show_means_and_seeds():
    top, bottom = detection.strengths(RESULTS).axes
    mean = np.mean([r.accuracy.mean(2).numpy() for r in RESULTS], axis=0)
    named = {line.get_label(): line.get_ydata() for line in top.lines}
    np.testing.assert_allclose(named["sharpness κ"], mean[0])
    np.testing.assert_allclose(named["‖φ‖²"], mean[3])
    assert len(top.lines) == 4 * (len(RESULTS) + 1) + 1
    auc = np.mean([r.auc.numpy() for r in RESULTS], axis=0)
    assert any(np.allclose(line.get_ydata(), auc) for line in bottom.lines[:4])
    assert auc[0] < 0.1
    assert auc[2] > 0.9


def test_across_is_counted_from_chance():
    axes, _ = detection.across(RESULTS).axes
    cells = [text.get_text() for text in axes.texts]
    assert cells == ["+40", "+0", "−30", "+0", "+0", "+0", "−40", "+0", "+30"]
    assert axes.get_xlabel() == "used at ε"
    assert [t.get_text() for t in axes.get_yticklabels()] == ["0.1", "0.2", "0.5"]


def test_adaptive_has_a_row_for_each_detector():
    figure = detection.adaptive(RESULTS)
    first, second = figure.axes
    assert [axes.get_title(loc="left") for axes in (first, second)] == [
        "ε = 0.2",
        "ε = 0.5",
    ]
    dots = [line for line in second.lines if line.get_marker() == "o"]
    assert len(dots) == 7
    np.testing.assert_allclose(dots[1].get_xdata(), [0.5, 0.51, 0.52])
    plain = [r.accuracy[0, 2].mean().item() for r in RESULTS]
    np.testing.assert_allclose(dots[0].get_xdata(), plain)


@pytest.mark.parametrize("draw", ["strengths", "across", "adaptive"])
def test_one_seed_is_enough(draw):
    assert getattr(detection, draw)(RESULTS[:1]).axes


# --- what the paper describes, from stacked arrays -----------------------------------


@pytest.fixture
def arrays(tmp_path):
    """Of two seeds, as they come back from a file."""
    return read_again(map(panels, RESULTS[:2]), tmp_path)


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")
def test_the_papers_figure_is_drawn(arrays):
    for some in (arrays, first_seed(arrays)):
        assert letters(shown(detection.paper_figure(some))) == "abcd"


def test_the_papers_radius_and_the_strongest(arrays):
    hills, _, elsewhere, adaptive = detection.paper_figure(arrays).axes
    labels = [text.get_text() for text in hills.get_yticklabels()]
    assert labels == ["clean", "ε = 0.1", "ε = 0.5", "adaptive,\nε = 0.5"]
    thick = [line for line in hills.lines if line.get_linewidth() == 1.8]
    modes = [line.get_xdata()[line.get_ydata().argmax()] for line in thick]
    assert modes == pytest.approx([0, 2, -2, 0], abs=0.6)
    strokes = hills.collections[-2].get_segments()
    expected = arrays["threshold"][:, 0]
    np.testing.assert_allclose([stroke[0][0] for stroke in strokes], expected)
    drawn = {line.get_label(): line.get_ydata() for line in elsewhere.lines}
    np.testing.assert_allclose(drawn["trained at 0.1"], [0.9, 0.5, 0.2])
    np.testing.assert_allclose(drawn["trained at 0.5"], [0.1, 0.5, 0.8])
    np.testing.assert_allclose(drawn["trained there"], [0.9, 0.5, 0.8])
    assert adaptive.get_title(loc="left").endswith("ε = 0.5")


def test_natural_radii_survive_single_precision(arrays):
    small = np.tile(np.float32([4 / 255, 8 / 255, 16 / 255]), (2, 1))
    arrays |= {"eps": small, "adaptive_eps": small[:, 1:]}
    hills, _, elsewhere, _ = detection.paper_figure(arrays).axes
    labels = [text.get_text() for text in hills.get_yticklabels()]
    assert labels[1:] == ["ε = 8/255", "ε = 16/255", "adaptive,\nε = 16/255"]
    names = [text.get_text() for text in elsewhere.get_xticklabels()]
    assert names == ["4/255", "8/255", "16/255"]


def test_the_papers_figure_counts_like_the_others(arrays):
    _, accuracy, _, detectors = detection.paper_figure(arrays).axes
    drawn = {line.get_label(): line.get_ydata() for line in accuracy.lines}
    mean = np.mean([r.accuracy.mean(2).numpy() for r in RESULTS[:2]], axis=0)
    np.testing.assert_allclose(drawn["confidence"], mean[1])
    np.testing.assert_allclose(drawn["paper, D.4"], [0.92, 0.92])
    ours, theirs = (
        [line.get_xdata() for line in axes.lines if line.get_marker() == "o"]
        for axes in (detectors, detection.adaptive(RESULTS[:2]).axes[-1])
    )
    np.testing.assert_allclose(ours, theirs)


def test_a_missing_array_is_named(arrays):
    del arrays["across"], arrays["retrained"]
    with pytest.raises(ValueError, match="missing arrays: across, retrained"):
        detection.paper_figure(arrays)
