"""The same list in one process, on workers, and on workers that die."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flatbook import results
from flatbook.reproduce._engine import graph, run

ROOT = Path(__file__).parents[2]
STEM = "gradient_masking-mlp-digits-cpu"


def keys(job):
    return [piece.key for piece in graph(job)]


def test_a_network_that_two_jobs_need_is_trained_once(job):
    both = [job("gradient_masking", seeds=(0, 1)), job("detection", seeds=(1, 2))]
    names = keys(both)
    assert len(names) == len(set(names))
    assert sum(name.startswith("train") for name in names) == 3
    assert sum(name.startswith("measure") for name in names) == 4
    assert sum(name.startswith(("card", "figure")) for name in names) == 4


def test_pieces_know_what_they_need(job):
    (mine,) = [job("uncanny_valley", seeds=(0, 1))]
    pieces = {piece.key: piece for piece in graph([mine])}
    measure = pieces["measure-uncanny_valley-mlp-digits-cpu-1"]
    needed = set(measure.dask.keys()) - {measure.key}
    assert {name for name in needed if str(name).startswith("train")} == {
        f"train-{mine.checkpoint(1, variant).stem}" for variant in mine.plan.variants
    }
    figure = pieces["figure-uncanny_valley-mlp-digits-cpu"]
    assert {k for k in pieces if k != figure.key} < set(figure.dask.keys())


# --- as a command, in processes of their own -----------------------------------------


def command(out, *more):
    return [
        *(sys.executable, "-m", "flatbook.reproduce", "--only", "fig13"),
        *("--model", "mlp", "--data", "digits", "--out", str(out), *more),
    ]


def surroundings(home):
    """Nothing of the caller's but where Python is; all that is written is seen."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(home),
        "TMPDIR": str(home),
    }


def card(out):
    return results.read(out / "cards" / f"{STEM}.json")


def tree(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def worker_processes(pid):
    """Workers of a run: children that wait for pieces, not helpers of Python."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        try:
            line = " ".join(child.cmdline())
        except psutil.Error:
            continue
        if "spawn_main" in line:
            found.append(child)
    return found


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_worker_changes_nothing(tmp_path, job):
    """One of two workers dies while it trains: same card, nothing written elsewhere."""
    home = tmp_path / "home"
    home.mkdir()
    alone, torn = tmp_path / "alone", tmp_path / "torn"
    list(run([job(seeds=(0, 1, 2), folder=alone)]))
    running = subprocess.Popen(
        command(torn, "--workers", "2"),
        env=surroundings(home),
        cwd=home,
        stderr=subprocess.PIPE,
        text=True,
    )
    killed, deadline = None, time.monotonic() + 120
    while killed is None and time.monotonic() < deadline:
        if list((torn / "work" / "checkpoints").glob("*.pt")):
            killed = worker_processes(running.pid)[0]
            killed.send_signal(signal.SIGKILL)
        time.sleep(0.02)
    _, said = running.communicate(timeout=240)
    assert running.returncode == 0, said
    assert killed is not None
    assert card(torn).outcome == card(alone).outcome
    for name in ("cards", "figures"):
        assert tree(torn / name) == tree(alone / name)
    for path in [*(alone / "cards").glob("*.npz"), *(alone / "figures").iterdir()]:
        assert (torn / path.relative_to(alone)).read_bytes() == path.read_bytes()
    assert not tree(home)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_run_leaves_no_process_and_goes_on(tmp_path, job):
    """The command itself dies: its workers end, and the same command finishes."""
    home, out = tmp_path / "home", tmp_path / "out"
    home.mkdir()
    more = ("--workers", "1", "--seeds", "0")
    running = subprocess.Popen(command(out, *more), env=surroundings(home), cwd=home)
    while not list((out / "work").glob("checkpoints/*.pt")):
        assert running.poll() is None
        time.sleep(0.02)
    children = psutil.Process(running.pid).children(recursive=True)
    running.kill()
    running.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    assert not (out / "cards").exists() or not tree(out / "cards")
    done = subprocess.run(
        command(out, "--seeds", "0"),
        env=surroundings(home),
        cwd=home,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [
        str(out / "cards" / f"{STEM}.json"),
        str(out / "figures" / f"{STEM}.svg"),
    ]
    mine = job("gradient_masking", folder=tmp_path / "here")
    list(run([mine]))
    assert card(out).values == results.read(mine.card_path).values
