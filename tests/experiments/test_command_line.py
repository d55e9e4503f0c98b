import pytest
import torch

from flatbook import profiles
from flatbook.experiments import __main__ as command
from flatbook.experiments import _runner


@pytest.fixture
def line(demo, quick, monkeypatch, tmp_path):
    """Arguments of a run that ends in a temporary folder."""
    monkeypatch.setattr(command, "NAMES", _runner.NAMES)
    monkeypatch.setattr(command, "subject", quick)
    return [
        *("demo", "--model", "mlp", "--quiet"),
        *("--results", str(tmp_path / "cards"), "--work", str(tmp_path / "work")),
    ]


def test_a_card_is_made_and_named(line, capsys):
    assert command.main(line) == 0
    path = capsys.readouterr().out.strip()
    assert path.endswith("demo-mlp-digits-cpu.json")
    card = _runner.results.read(path)
    assert card.command.startswith("python -m flatbook.experiments demo --model mlp")


def test_progress_goes_to_the_standard_error(line, capsys):
    line.remove("--quiet")
    assert command.main([*line, "--seeds", "4"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    assert "seed 4 (1 of 1)" in err
    assert "epoch" in err


def test_help_reads_like_a_manual(demo, monkeypatch, capsys):
    monkeypatch.setattr(command, "NAMES", _runner.NAMES)
    with pytest.raises(SystemExit) as stop:
        command.main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for word in (*_runner.NAMES, *profiles.NAMES, "examples:", "exit status:"):
        assert word in text
    assert "What does a demo show?" in text
    assert "What does an attack walk through?" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "mnist"], "data must be one of digits.*'mnist'"),
        (["--data", "folder"], "needs --root"),
        (["--device", "cuda"], "no GPU that this torch can use"),
        (["--device", "abacus"], "device 'abacus'"),
        (["--seeds", "1", "1", "2"], "seeds must be different"),
        (["--seeds", "-1"], "at least 0"),
        (["--profile", "gpu"], "invalid choice: 'gpu'"),
        (["--model", "resnet50"], "invalid choice: 'resnet50'"),
    ],
)
def test_wrong_arguments_stop_before_any_work(
    line, demo, monkeypatch, capsys, arguments, message
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    demo.run = lambda *args: pytest.fail("worked")
    with pytest.raises(SystemExit) as stop:
        command.main([*line, *arguments])
    assert stop.value.code == 2
    with pytest.raises(ValueError, match=message):
        raise ValueError(capsys.readouterr().err)


def test_an_unknown_experiment(capsys):
    with pytest.raises(SystemExit):
        command.main(["loss"])
    assert "invalid choice: 'loss'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (KeyboardInterrupt(), 130, ["interrupted", "the same command goes on"]),
        (torch.OutOfMemoryError("CUDA out of memory.\nMore"), 1, ["out of memory on"]),
        (MemoryError(), 1, ["out of memory on cpu", "smaller --profile"]),
        (FileNotFoundError("no images at data"), 1, ["error: no images at data"]),
        (ValueError("x.pt is damaged"), 1, ["error: x.pt is damaged"]),
        (FloatingPointError("the loss is nan"), 1, ["error: the loss is nan"]),
    ],
)
def test_failures_are_said_in_one_line(line, demo, capsys, error, status, words):
    def fail(model, dataset, sizes):
        raise error

    demo.run = fail
    assert command.main(line) == status
    err = capsys.readouterr().err
    assert "Traceback" not in err
    for word in words:
        assert word in err


def test_nothing_is_lost_when_memory_runs_out(line, demo, capsys):
    """The networks are kept: the next try does not train them again."""
    run = demo.run

    def fail(model, dataset, sizes):
        raise MemoryError

    demo.run = fail
    assert command.main(line) == 1
    work = line[line.index("--work") + 1]
    (checkpoint,) = _runner.Path(work).glob("checkpoints/*.pt")
    before = checkpoint.stat().st_mtime_ns
    demo.run = run
    assert command.main(line) == 0
    assert checkpoint.stat().st_mtime_ns == before


def test_missing_images(demo, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "NAMES", _runner.NAMES)
    folder = ["--data", "folder", "--root", str(tmp_path)]
    assert command.main(["demo", *folder]) == 1
    assert "train is missing" in capsys.readouterr().err
