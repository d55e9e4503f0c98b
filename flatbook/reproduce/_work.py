"""The pieces of a run: train a network, measure a seed, file a card, draw a figure.

Each piece is a plain function of a `Job` that looks first whether its result is there,
and leaves a file that is whole or absent. Pieces may run in any process that sees the
folder, more than once and in any order that their needs allow.
"""

import importlib
import io
import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from flatbook import _sources, results, training
from flatbook.data import Dataset
from flatbook.experiments import _runner
from flatbook.experiments._runner import Places, Plan
from flatbook.experiments._subjects import Subject

__all__ = ["Job", "Outcome", "card", "draw", "images", "measure", "train"]

DONE, MADE, FAILED, LEFT_OUT = "was done", "done", "failed", "left out"


@dataclass(frozen=True)
class Job:
    """An entry of the grid with all that its pieces need to know.

    Attributes:
        plan: what is run.
        places: where cards, parts and checkpoints lie, and on which device.
        figures: folder of the figures.
        sha256: of the images.
        root: where the images lie; None for the usual place.
        threads: of the processor, for each piece. The last digits depend on it.
    """

    plan: Plan
    places: Places
    figures: Path
    sha256: str
    root: str | None = None
    threads: int = 1

    @property
    def card_path(self) -> Path:
        """Where the card is filed."""
        return self.places.results / f"{self.plan.stem}.json"

    @property
    def figure_path(self) -> Path:
        """Where the figure is drawn."""
        return self.figures / f"{self.plan.stem}.svg"

    def checkpoint(self, seed: int, variant: str) -> Path:
        """Where a network is kept."""
        return _runner.checkpoint_path(
            self.plan, self.sha256, seed, variant, self.places
        )


@dataclass(frozen=True)
class Outcome:
    """What became of a piece.

    Attributes:
        name: of the piece.
        state: "was done", "done", "failed" or "left out".
        seconds: that it took.
        text: the file it left, or what went wrong.
    """

    name: str
    state: str
    seconds: float
    text: str

    @property
    def good(self) -> bool:
        """Whether its result is there."""
        return self.state in (DONE, MADE)

    def __str__(self) -> str:
        took = f" in {self.seconds:.1f} s" if self.state == MADE else ""
        more = "" if self.good else f": {self.text}"
        return f"{self.name}: {self.state}{took}{more}"


def train(job: Job, seed: int, variant: str) -> Outcome:
    """Train a network; an interrupted training goes on from its last epoch."""
    path, epochs = job.checkpoint(seed, variant), job.plan.subject.recipe.epochs

    def work() -> Path:
        _runner.train(job.plan, _images(job), seed, variant, job.places)
        return path

    return _attempt(job, f"train {path.stem}", epochs_of(path) >= epochs, work)


def measure(job: Job, seed: int, *needs: Outcome) -> Outcome:
    """Attack and measure the networks of a seed."""
    path = _runner.part_path(job.plan, job.sha256, seed, job.places)

    def work() -> Path:
        silent = replace(job.places, progress=False)  # the networks are there
        _runner.measure(job.plan, _images(job), seed, silent)
        return path

    name = f"measure {job.plan.stem}, seed {seed}"
    return _attempt(job, name, is_measured(job, seed), work, needs)


def card(job: Job, *needs: Outcome) -> Outcome:
    """Collect the seeds in a card; quick, so that it is always done again."""

    def work() -> Path:
        return _runner.file_card(job.plan, job.sha256, job.places)

    return _attempt(job, f"card {job.plan.stem}", False, work, needs)


def draw(job: Job, *needs: Outcome) -> Outcome:
    """Draw the figure of a card."""

    def work() -> Path:
        found = results.read(job.card_path)
        key = _figure_key(job, found)
        if not job.figure_path.is_file() or key not in job.figure_path.read_text():
            arrays = results.unpack(job.card_path.with_suffix(".npz"), found.arrays)
            _save_figure(job, arrays, key)
        return job.figure_path

    return _attempt(job, f"figure {job.plan.stem}", False, work, needs)


def epochs_of(path: Path) -> int:
    """Finished epochs of a checkpoint; 0 where there is none or it is damaged."""
    try:
        return training.history_of(path).epochs
    except (FileNotFoundError, ValueError, KeyError):
        return 0


def is_measured(job: Job, seed: int) -> bool:
    """Whether the part of a seed is there."""
    with _settled(job):
        return _runner.read_part(job.plan, job.sha256, seed, job.places) is not None


def images(subject: Subject, root: str | None, *, download: bool = False) -> Dataset:
    """The images of a network, read once in each process."""
    return _loaded(subject.data, subject.limit, root, download)


@lru_cache(maxsize=2)
def _loaded(name: str, limit: int | None, root: str | None, download: bool) -> Dataset:
    from flatbook import data

    if name == "digits":
        return data.digits()
    return data.load(name, root=root, download=download, limit=limit)


def _images(job: Job) -> Dataset:
    """The images of a job, compared with what the job was planned for.

    Raises:
        ValueError: this process finds other images.
    """
    dataset = images(job.plan.subject, job.root)
    if dataset.sha256 != job.sha256:
        raise ValueError(
            f"images in {job.root or 'the usual place'} have SHA-256 {dataset.sha256}, "
            f"expected {job.sha256}"
        )
    return dataset


def _attempt(
    job: Job,
    name: str,
    done: bool,
    work: Callable[[], Path],
    needs: tuple[Outcome, ...] = (),
) -> Outcome:
    """Do a piece if what it needs is there; an error ends this piece, not the run."""
    for need in needs:
        if not need.good:
            return Outcome(name, LEFT_OUT, 0.0, f"needs {need.name}")
    if done:
        return _report(job, Outcome(name, DONE, 0.0, ""))
    start = time.perf_counter()
    try:
        with _settled(job):
            path = work()
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        log = job.places.work / "errors" / f"{name.replace(', ', ' ')}.txt"
        results.write_whole(log, traceback.format_exc())
        text = f"{type(error).__name__}: {first} (see {log})"
        return _report(job, Outcome(name, FAILED, time.perf_counter() - start, text))
    return _report(job, Outcome(name, MADE, time.perf_counter() - start, str(path)))


def _report(job: Job, outcome: Outcome) -> Outcome:
    _runner.say(job.places, str(outcome))
    return outcome


@contextmanager
def _settled(job: Job) -> Iterator[None]:
    """The same arithmetic in every process: threads, and no race on a GPU.

    Training asks cuDNN alone to repeat itself (`flatbook._gpu.repeatable`); two runs of
    a piece have to agree, so that here torch and cuBLAS order their sums too.
    """
    threads, kind = torch.get_num_threads(), torch.device(job.places.device).type
    before = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_num_threads(job.threads)
    if kind == "cuda":  # cuBLAS reads its variable when it first runs
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(before, warn_only=warns)


def _figure_key(job: Job, card: results.Card) -> str:
    """Another one for other arrays and for another way to draw them."""
    from importlib.metadata import version

    source = _sources.digest(f"flatbook.figures.{job.plan.name}", "flatbook.figures")
    found = {"arrays": card.arrays, "source": source, "with": version("matplotlib")}
    return f"flatbook:{results.digest(found)}"


def _save_figure(job: Job, arrays: dict[str, np.ndarray], key: str) -> None:
    """As SVG, the same bytes for the same arrays."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    module = importlib.import_module(f"flatbook.figures.{job.plan.name}")
    figure = module.paper_figure(arrays)
    FigureCanvasSVG(figure)
    file = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "flatbook"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Identifier": key})
    results.write_whole(job.figure_path, file.getvalue())
