"""The steps of the two commands."""

import pytest

from tools import make


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (125.0, "2 min 05 s")]
)
def test_duration(seconds, text):
    assert make.duration(seconds) == text


def test_both_commands_set_up_and_share_the_build():
    book, test = make.TARGETS["book"], make.TARGETS["test"]
    assert book[0] is test[0] is make.SETUP
    assert [step for step in test if step in book] == list(book)


def test_a_failed_step_ends_the_run_and_is_named(monkeypatch, capsys):
    done = []
    monkeypatch.setattr(
        make, "perform", lambda step: done.append(step) or len(done) > 1
    )
    assert make.main("book") == 1
    assert len(done) == 2
    assert f"FAILED at: {done[1].title}" in capsys.readouterr().out


def test_success_says_how_to_open_the_book(monkeypatch, capsys):
    monkeypatch.setattr(make, "perform", lambda step: 0)
    assert make.main("book") == 0
    out = capsys.readouterr().out
    assert str(make.INDEX) in out
    assert all(step.title in out for step in make.TARGETS["book"])


def test_paper_asks_for_a_browser_before_any_chapter_runs():
    setup, *work = make.TARGETS["book"]
    assert make.TARGETS["pdf"] == (setup, make.PRINTER, *work, make.PDF)
