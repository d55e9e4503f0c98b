"""Pieces: what is there is not done again, what breaks ends nothing else."""

import dataclasses
import itertools
import multiprocessing
import os
import signal
import sys

import pytest
import torch

from flatbook import results, training
from flatbook.reproduce import _work, run


def done(job):
    """States of the pieces by their names; reasons for those that failed."""
    return {
        outcome.name: outcome.state if outcome.good else str(outcome)
        for outcome in run([job])
    }


def test_a_job_leaves_a_card_its_arrays_and_a_figure(job):
    mine = job(seeds=(0, 1))
    assert set(done(mine).values()) == {"done"}
    card = results.read(mine.card_path, settings=mine.plan.settings)
    arrays = results.unpack(mine.card_path.with_suffix(".npz"), card.arrays)
    assert {len(array) for array in arrays.values()} == {2}
    assert mine.figure_path.read_text().startswith("<?xml")


def test_finished_pieces_are_not_done_again(job, monkeypatch):
    mine = job()
    done(mine)
    before = results.read(mine.card_path)
    monkeypatch.setattr(_work._runner, "one_seed", lambda *a: pytest.fail("again"))
    monkeypatch.setattr(_work._runner, "train", lambda *a: pytest.fail("again"))
    states = done(mine)
    assert [s for n, s in states.items() if n.startswith(("train", "measure"))] == [
        "was done",
        "was done",
    ]
    assert results.read(mine.card_path) == before


def test_the_time_of_a_card_has_the_training_which_is_a_piece_of_its_own(job):
    mine = job()
    done(mine)
    spent = sum(training.history_of(mine.checkpoint(0, "standard")).seconds)
    measured = _work._runner.read_part(mine.plan, mine.sha256, 0, mine.places)
    assert 0 < spent < measured.seconds
    card = results.read(mine.card_path)
    assert card.wall_seconds == pytest.approx(measured.seconds, abs=0.1)


def test_the_same_arrays_give_the_same_figure(job):
    mine = job()
    done(mine)
    first = mine.figure_path.read_bytes()
    mine.figure_path.unlink()
    done(mine)
    assert mine.figure_path.read_bytes() == first


def test_a_figure_is_drawn_again_if_it_would_look_different(job, monkeypatch):
    mine = job()
    done(mine)
    mine.figure_path.write_text(mine.figure_path.read_text() + "<!-- touched -->")
    done(mine)
    assert "touched" in mine.figure_path.read_text()
    monkeypatch.setattr(_work._sources, "digest", lambda *names: "another source")
    assert _work.draw(mine).good
    assert "touched" not in mine.figure_path.read_text()


def test_a_piece_that_breaks_leaves_out_what_needs_it(job, monkeypatch):
    good, bad = job("gradient_masking"), job("detection")
    module = bad.plan.experiment

    def broken(*arguments):
        raise RuntimeError("no more memory\nwith a second line")

    monkeypatch.setattr(module, "run", broken)
    outcomes = {outcome.name: outcome for outcome in run([bad, good])}
    failed = outcomes["measure detection-mlp-digits-cpu, seed 0"]
    assert failed.state == "failed"
    assert failed.text.startswith("RuntimeError: no more memory (see ")
    log = bad.places.work / "errors" / "measure detection-mlp-digits-cpu seed 0.txt"
    assert "with a second line" in log.read_text()
    for name in ("card", "figure"):
        left = outcomes[f"{name} detection-mlp-digits-cpu"]
        assert (left.state, left.text[:6]) == ("left out", "needs ")
    assert good.figure_path.is_file()
    assert not bad.card_path.exists()


def test_other_images_than_planned_are_refused(job):
    mine = dataclasses.replace(job(), sha256="0" * 64)
    outcome = _work.train(mine, 0, "standard")
    assert outcome.state == "failed"
    assert "expected 000000" in outcome.text


def test_a_piece_settles_its_arithmetic_and_puts_it_back(job, monkeypatch):
    seen = []
    mine = dataclasses.replace(job(), threads=2)
    monkeypatch.setattr(
        _work._runner, "train", lambda *a: seen.append(torch.get_num_threads())
    )
    before = torch.get_num_threads()
    _work.train(mine, 0, "standard")
    assert seen == [2]
    assert torch.get_num_threads() == before
    parts = {
        _work._runner.part_path(mine.plan, mine.sha256, 0, mine.places)
        for threads in (1, 2)
        for _ in [torch.set_num_threads(threads)]
    }
    torch.set_num_threads(before)
    assert len(parts) == 2  # the last digits depend on it


# --- SIGKILL at any moment -----------------------------------------------------------


def _killed_at(job, count):
    """Do the job in this process, and die with the file number `count` half written."""
    from flatbook import _checkpoint

    left = [count]

    def dying(write):
        def replaced(path, *arguments):
            left[0] -= 1
            if left[0] < 0:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.with_name(f".{path.name}.tmp").write_bytes(b"half")
                os.kill(os.getpid(), signal.SIGKILL)
            write(path, *arguments)

        return replaced

    _checkpoint.write = dying(_checkpoint.write)
    results.write_whole = dying(results.write_whole)
    done(job)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_at_every_file_that_it_writes(job, tmp_path):
    """Each time it goes on; the last one ends in the card of an undisturbed run."""
    whole = job(folder=tmp_path / "whole")
    recipe = dataclasses.replace(whole.plan.subject.recipe, epochs=3)
    subject = dataclasses.replace(whole.plan.subject, recipe=recipe)
    plan = dataclasses.replace(whole.plan, subject=subject)
    whole = dataclasses.replace(whole, plan=plan)
    done(whole)
    torn = dataclasses.replace(job(folder=tmp_path / "torn"), plan=plan)
    fork, deaths = multiprocessing.get_context("fork"), 0
    for count in itertools.cycle((0, 1, 2)):
        if torn.figure_path.is_file():
            break
        epochs = _work.epochs_of(torn.checkpoint(0, "standard"))
        child = fork.Process(target=_killed_at, args=(torn, count))
        child.start()
        child.join()
        deaths += child.exitcode == -signal.SIGKILL
        assert deaths < 20
        if epochs < 3:  # at most the epoch that was under way is lost
            assert _work.epochs_of(torn.checkpoint(0, "standard")) >= epochs
    assert deaths >= 6
    cards = [results.read(each.card_path) for each in (whole, torn)]
    assert cards[0].outcome == cards[1].outcome
    assert cards[0].values == cards[1].values
    for file in ("card_path", "figure_path"):
        paths = [getattr(each, file) for each in (whole, torn)]
        if file == "card_path":
            paths = [path.with_suffix(".npz") for path in paths]
        assert paths[0].read_bytes() == paths[1].read_bytes()
