"""Checkers accept the solutions and name the typical mistakes."""

from pathlib import Path

import pytest

from flatbook.exercises import check
from flatbook.exercises import reproduce as checkers
from flatbook.experiments._runner import Places
from flatbook.reproduce import CLAIMS, GRID, Job, plan
from flatbook.reproduce._rules import VERDICTS


def verdict(parts):
    holds = [low <= x <= high for x, low, high in parts if x is not None]
    if not holds:
        return "not yet run"
    return "agrees" if all(holds) else "agrees in part" if any(holds) else VERDICTS[2]


def without_missing(parts):
    return verdict([(-9.0 if x is None else x, low, high) for x, low, high in parts])


def open_bounds(parts):
    return verdict([(x, low + 1e-9, high - 1e-9) for x, low, high in parts])


def empty_agrees(parts):
    return verdict(parts) if parts else "agrees"


def test_right_answers():
    assert check("reproduce.networks", 126).ok
    assert check("reproduce.rounding", {"recovers", "sharpness-tracks"}).ok
    assert check("reproduce.rounding", ["sharpness-tracks", "recovers"]).ok
    assert check("reproduce.stale", {"fig12", "d2"}).ok
    assert check("reproduce.verdict", verdict).ok


@pytest.mark.parametrize(
    ("topic", "answer", "message"),
    [
        ("networks", 42, "for one seed"),
        ("networks", 189, "the very same network"),
        ("networks", 24, "five losses"),
        ("networks", [1, 2], "one number"),
        ("rounding", "recovers", "a set of names"),
        ("rounding", {"detected"}, "'detected' is no statement about figure 13"),
        ("rounding", {"recovers"}, "one is missing"),
        ("rounding", {"recovers", "transfer"}, "no gradient is taken"),
        ("rounding", {"zero-at-one"}, "at s = 1 no gradient"),
        ("rounding", {"unattackable"}, "fails already"),
        ("rounding", {3}, "names are texts"),
        ("stale", {"fig12"}, "not all"),
        ("stale", {"fig2", "d2"}, "'fig2': its networks are trained without"),
        ("stale", 12, "a set of names"),
        ("verdict", lambda parts: "yes", "a verdict is one of agrees, "),
        ("verdict", lambda parts: "agrees", "is not 'agrees'"),
        ("verdict", without_missing, "a number that is missing|no number to judge"),
        ("verdict", open_bounds, "a number on a bound|missing"),
        ("verdict", empty_agrees, "no number to judge"),
        ("verdict", "agrees", "should be a function"),
    ],
)
def test_wrong_answers(topic, answer, message):
    found = check(f"reproduce.{topic}", answer)
    assert not found.ok
    with pytest.raises(ValueError, match=message):
        raise ValueError(found.message)


def jobs():
    places = Places(Path(), Path())
    for entry in GRID:
        made = plan(entry, profile="full")
        yield entry, Job(made, places, Path(), entry.data)


def test_the_grid_trains_that_many_networks():
    networks = {
        job.checkpoint(seed, variant)
        for _, job in jobs()
        for seed in job.plan.seeds
        for variant in job.plan.variants
    }
    assert len(networks) == checkers._NETWORKS


def test_these_runs_and_no_others_have_an_adversary():
    robust = {
        entry.figures
        for entry, job in jobs()
        if any(
            recipe["adversary"] is not None
            for recipe in job.plan.settings["recipes"].values()
        )
    }
    assert robust == checkers._ROBUST


def test_the_statements_about_figure_13_are_the_claims():
    ids = {claim.id for claim in CLAIMS if claim.experiment == "gradient_masking"}
    assert ids == checkers._FIGURE_13
    assert set(checkers._WORDS) == set(VERDICTS)
