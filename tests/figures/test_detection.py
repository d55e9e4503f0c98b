import numpy as np
import pytest
import torch

from flatbook.experiments.detection import Matched, Result, Sizes
from flatbook.figures import detection

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
