"""Figures of loss geometry: they draw the numbers they get."""

import numpy as np
import pytest
import torch

from flatbook.experiments import loss_geometry as experiment
from flatbook.figures import loss_geometry as figures
from tests.shown import read_again, shown

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")
SIZES = experiment.Sizes(
    weak_eps=0.1, strong_eps=1.0, weak_steps=4, strong_steps=6, again_images=5
)


def followed(source, steps, scales=SIZES.scales, images=20):
    """Random walks of three logits away from class 0."""
    z = torch.randn(steps + 1, images, 3, generator=source).double()
    z[1:, :, 0] -= 3
    z[0, :, 0] += 6
    labels = torch.zeros(images, dtype=torch.int64)
    zeros = torch.rand(steps, images, generator=source) > 0.5
    return experiment.follow(z.cumsum(0), labels, zeros, scales)


def made(seed):
    source = torch.Generator().manual_seed(seed)
    paths = {"weak": followed(source, 4), "strong": followed(source, 6)}
    again = {
        loss: [followed(source, 6, [1.0], 5) for _ in SIZES.again]
        for loss in experiment.LOSSES
    }
    scales = torch.logspace(0, 2, 5, dtype=torch.float64)
    level = experiment.Plateau(scales, 9 + 0 * scales, 2 / scales**3, 9.0)
    kappa = torch.rand(20, generator=source).double()
    return experiment.Result(SIZES, 0.9, kappa, paths, again, level)


@pytest.fixture(scope="module")
def results():
    return [made(seed) for seed in range(3)]


def lines(axes):
    return {line.get_label(): line.get_ydata() for line in axes.lines}


def test_sorted_rises(results):
    figure = figures.sorted_rises(results)
    shown(figure)
    for axes, kind in zip(figure.axes, ("weak", "strong"), strict=True):
        drawn = lines(axes)["s = 1"]
        rise = torch.cat([r.paths[kind].rise[SIZES.one] for r in results])
        assert len(drawn) == 60
        assert (np.diff(drawn) >= 0).all()
        assert drawn[-1] == pytest.approx(rise.max().item())


def test_middle_and_mean(results):
    figure = figures.middle_and_mean(results)
    shown(figure)
    drawn = lines(figure.axes[1])["mean"]
    logs = [r.paths["strong"].rise.mean(1).log() for r in results]
    np.testing.assert_allclose(drawn, torch.stack(logs).mean(0).exp())


def test_basin(results):
    figure = figures.basin(results[0], 3)
    shown(figure)
    path = results[0].paths["strong"]
    drawn = lines(figure.axes[0])["s = 1/4"]
    np.testing.assert_allclose(drawn, path.normalised[0, :, 3])
    hinge = lines(figure.axes[1])["hinge"]
    np.testing.assert_allclose(hinge, (-path.margins[:, 3]).clamp_min(0))


def test_narrowing(results):
    figure = figures.narrowing(results)
    shown(figure)
    drawn = lines(figure.axes[1])
    wanted = [r.paths["strong"].width("label flip")[0].median() for r in results]
    np.testing.assert_allclose(drawn["label flip"], np.mean(wanted))
    assert drawn["rise of 0.1"][-1] == pytest.approx(drawn["label flip"][-1], abs=0.1)


def test_against_sharpness_marks_what_never_gets_there(results):
    figure = figures.against_sharpness(results[0])
    shown(figure)
    reached = [sum(len(line.get_xdata()) for line in a.lines) for a in figure.axes]
    assert reached == [20] * 4


def test_readings(results):
    figure = figures.readings(results)
    shown(figure)
    drawn = lines(figure.axes[0])["anew, log-odds"]
    means = [{k: v.mean(1) for k, v in r.readings.items()} for r in results]
    wanted = [100 * m["log_odds"] / m["one path"] for m in means]
    np.testing.assert_allclose(drawn, torch.stack(wanted).mean(0))
    shares = lines(figure.axes[1])["never moved"]
    wanted = [r.stuck("cross_entropy") for r in results]
    np.testing.assert_allclose(shares, 100 * torch.stack(wanted).mean(0))


def test_plateau(results):
    figure = figures.plateau(results)
    shown(figure)
    np.testing.assert_allclose(lines(figure.axes[0])["mean"], 1)
    np.testing.assert_allclose(lines(figure.axes[0])["median"][0], 2 / 9)


def test_scales_as_they_are_read():
    assert figures.scale(0.5) == "s = 1/2"
    assert figures.scale(2.5) == "s = 2.5"
    with pytest.raises(ValueError, match=r"not in tuple|x not in"):
        figures.sorted_rises([made(0)], (3.0,))


@pytest.fixture
def stored(tmp_path, results):
    """Panels of two seeds, stacked, through a file."""
    return read_again(map(experiment.panels, results[:2]), tmp_path)


def test_the_figure_of_the_paper(stored, results):
    figure = figures.paper_figure(stored)
    shown(figure)
    for column, kind in enumerate(("weak", "strong")):
        rises, example, basins, scatter = figure.axes[column::2]
        paths = [result.paths[kind] for result in results[:2]]
        means = np.mean([path.rise.mean(1).numpy() for path in paths], 0)
        places = next(at for at in rises.lines if at.get_label() == "mean")
        np.testing.assert_allclose(places.get_xdata(), np.log10(means))
        assert len(rises.patches) == len(SIZES.scales)
        flips = paths[0].width("label flip")[0]
        (marks,) = [line for line in example.lines if line.get_marker() == "^"]
        assert marks.get_xdata()[0] in flips.tolist()
        at = flips.tolist().index(marks.get_xdata()[0])
        expected = paths[0].normalised[-1, :, at]
        np.testing.assert_allclose(lines(example)["s = 50"], expected, atol=1e-6)
        assert 1 <= len(basins.lines) - 1 <= 6
        rho = [
            r.correlation(kind, figures._SCATTER[kind][0]).value for r in results[:2]
        ]
        assert figures._signed(np.mean(rho)) in scatter.get_title(loc="left")


def test_what_never_flips_is_hollow(stored, results):
    """All points are there, those of images that the path does not turn apart."""
    figure = figures.paper_figure(stored)
    for axes, kind in zip(figure.axes[6:], ("weak", "strong"), strict=True):
        full, hollow = axes.lines
        turned = results[0].paths[kind].width("label flip")[0].isfinite().sum()
        assert len(full.get_xdata()) == turned
        assert len(hollow.get_xdata()) == 20 - turned
        assert np.isfinite(hollow.get_ydata()).all()
        assert hollow.get_markerfacecolor() == "none"
        assert (hollow.get_ydata() <= axes.get_ylim()[1]).all()


def test_the_bins_that_are_drawn(stored):
    figure = figures.paper_figure(stored)
    for row, patch in enumerate(figure.axes[0].patches):
        values, edges, _ = patch.get_data()
        share = stored["weak_rises"][:, row].mean(0)
        np.testing.assert_allclose(values - row, 0.85 * share / share.max(), atol=1e-6)
        np.testing.assert_allclose(edges[1:-1], np.log10(stored["edges"][0]))


def test_a_figure_without_flips(stored):
    stored |= {
        "weak_basins": np.full_like(stored["weak_basins"], np.nan),
        "weak_flips": np.full_like(stored["weak_flips"], np.nan),
        "weak_example_flip": np.full_like(stored["weak_example_flip"], np.inf),
        "weak_widths": np.full_like(stored["weak_widths"], np.inf),
        "weak_correlation": np.full_like(stored["weak_correlation"], np.nan),
    }
    figure = figures.paper_figure(stored)
    shown(figure)
    assert [text.get_text() for text in figure.axes[4].texts] == ["no label flips"]
    assert "ρ = –" in figure.axes[6].get_title(loc="left")


def test_a_missing_array_is_named(stored):
    del stored["strong_flips"]
    with pytest.raises(ValueError, match="missing arrays: strong_flips"):
        figures.paper_figure(stored)
