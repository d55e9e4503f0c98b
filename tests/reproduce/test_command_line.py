import re

import pytest
import torch

from flatbook import profiles, results
from flatbook.reproduce import __main__ as command
from flatbook.reproduce import _engine, _work

FIG13 = ("--only", "fig13", "--model", "mlp", "--seeds", "0")


def test_a_run_names_its_card_and_figure(tmp_path, capsys):
    out = tmp_path / "out"
    assert command.main([*FIG13, "--out", str(out)]) == 0
    said = capsys.readouterr()
    stem = "gradient_masking-mlp-digits-cpu"
    assert said.out.split() == [
        str(out / "cards" / f"{stem}.json"),
        str(out / "figures" / f"{stem}.svg"),
    ]
    assert "train mlp-digits" in said.err
    assert said.err.splitlines()[-1] == "pieces: 4 done"
    card = results.read(out / "cards" / f"{stem}.json")
    assert card.command.startswith("python -m flatbook.reproduce --only fig13")
    assert command.main([*FIG13, "--out", str(out)]) == 0
    assert capsys.readouterr().err.splitlines()[-1] == "pieces: 2 done, 2 was done"


def test_a_dry_run_plans_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(_engine, "run", lambda *a, **k: pytest.fail("worked"))
    out = tmp_path / "out"
    line = ["--dry-run", "--profile", "full", "--tflops", "50", "--out", str(out)]
    assert command.main(line) == 0
    text = capsys.readouterr().out
    rows = [row for row in text.splitlines() if re.search(r"\d+/\d+", row)]
    assert len(rows) == 21
    total = float(re.search(r"about (\d+) minutes", text)[1])
    minutes = [float(row.split()[-2]) for row in rows]
    assert total == pytest.approx(sum(minutes), abs=2)
    assert all(float(row.split()[-1]) > 0.5 for row in rows)
    assert "--download fetches it" in text
    # Five losses on ResNet-18, three seeds; loss geometry comes first and trains one.
    assert any(re.search(r"fig3 fig16 .*15/15", row) for row in rows)
    assert not out.exists()


def test_help_reads_like_a_manual(capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for word in (*profiles.NAMES, "fig12", "--dry-run", "SIGKILL", "exit status:"):
        assert word in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "folder"], "needs --root"),
        (["--device", "cuda"], "no GPU that this torch can use"),
        (["--seeds", "1", "1"], "seeds must be different"),
        (["--workers", "-1"], "workers must be at least 0, got -1"),
        (["--threads", "0"], "threads must be at least 1, got 0"),
        (["--workers", "2", "--scheduler", "tcp://a:1"], "exclude each other"),
        (["--only", "fig15"], "invalid choice: 'fig15'"),
        (["--only", "fig14", "--data", "cifar100"], "nothing in the grid"),
        (["--label", "x", "--profile", "full"], "label needs one kind of images"),
    ],
)
def test_wrong_arguments_stop_before_any_work(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(_engine, "run", lambda *a, **k: pytest.fail("worked"))
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as stop:
        command.main(["--out", str(out), *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_missing_images_are_named(tmp_path, capsys):
    out = tmp_path / "out"
    assert command.main(["--data", "cifar10", "--out", str(out)]) == 1
    assert "--download" in capsys.readouterr().err or not out.exists()


def test_failures_are_told_and_counted(tmp_path, monkeypatch, capsys):
    def broken(*arguments):
        raise FloatingPointError("the loss is nan")

    monkeypatch.setattr(_work._runner, "train", broken)
    assert command.main([*FIG13, "--out", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert not said.out
    assert "failed: FloatingPointError: the loss is nan" in said.err
    assert said.err.splitlines()[-1] == "pieces: 1 failed, 3 left out"


def test_an_interruption_is_not_an_error(tmp_path, monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(_work._runner, "train", interrupted)
    assert command.main([*FIG13, "--out", str(tmp_path)]) == 130
    assert "the same command goes on" in capsys.readouterr().err
