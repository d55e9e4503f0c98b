"""Reproduce the paper's figures: ``python -m flatbook.reproduce``."""

import argparse
import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from flatbook import data, models, profiles
from flatbook.data import Dataset
from flatbook.experiments import NAMES
from flatbook.experiments._runner import (
    Places,
    Plan,
    check_data,
    check_device,
    check_seeds,
)
from flatbook.experiments._subjects import Subject
from flatbook.reproduce import _engine, _estimate, _work
from flatbook.reproduce._grid import FIGURES, GRID, STAND_INS, plan, select
from flatbook.reproduce._work import Job

_DESCRIPTION = """\
Train the networks of the paper, measure them, draw its figures and file result cards.
Everything goes to the folder --out:

  cards/     a JSON file for each run, and the arrays of its figure as NPZ
  figures/   SVG
  work/      checkpoints, finished seeds, traces of errors

Finished pieces are recognised by a hash of settings, images, source and versions, and
are not done again. A run that is stopped in any way, SIGKILL included, loses at most
the current epoch of a training or the current seed of a measurement; the same command
goes on from there, and on a processor it ends in the same numbers, bit for bit.
"""

_EPILOG = """\
examples:
  python -m flatbook.reproduce
      the grid on digits, on the processor of a laptop
  python -m flatbook.reproduce --dry-run --profile full --device cuda
      what the paper's grid would need on this GPU
  python -m flatbook.reproduce --only fig3 fig13 --profile fast --device cuda --download
      two figures at full width with the short training
  python -m flatbook.reproduce --data folder --root ~/birds --label birds --workers 2
      images of your own, two processes: ~/birds/train/<class>/*.png and test/
  python -m flatbook.reproduce --profile full --device cuda --scheduler tcp://head:8786
      a cluster: `dask scheduler` on one machine, one `dask worker --nthreads 1` for
      each GPU, all with this package and the folders --out and --root

exit status: 0 done, 1 some piece failed, 2 wrong arguments, 130 interrupted
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, run or plan, and report; the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    given = sys.argv[1:] if arguments is None else arguments
    try:
        plans = _plans(options)
    except ValueError as error:
        parser.error(str(error))
    try:
        with _kept_inside(Path(options.out) / "work"):
            sets = _sets(options, plans)
            jobs = [_job(options, given, each, sets) for each in plans]
            if options.dry_run:
                _print_plan(options, jobs, sets)
                return 0
            return _work_through(options, jobs)
    except KeyboardInterrupt:
        print(
            f"\ninterrupted; the same command goes on from {options.out}",
            file=sys.stderr,
        )
        return 130
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


@contextmanager
def _kept_inside(work: Path) -> Iterator[None]:
    """What libraries keep in the home or temporary folder goes to ours instead."""
    places = {
        "MPLCONFIGDIR": "matplotlib",
        "TORCHINDUCTOR_CACHE_DIR": "torch",
        "DASK_TEMPORARY_DIRECTORY": "dask",
    }
    new = {k: str(work.resolve() / v) for k, v in places.items() if k not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


def _plans(options: argparse.Namespace) -> list[Plan]:
    """What is to be done, checked before any work.

    Raises:
        ValueError: arguments that cannot work; the message says which.
    """
    chosen = options.data
    if not chosen and options.profile == "cpu":
        chosen = ["digits"]
    for name in chosen:
        check_data(name, options.root)
    check_device(options.device)
    check_seeds(options.seeds)
    for name, least in (("workers", 0), ("threads", 1)):
        if getattr(options, name) < least:
            raise ValueError(
                f"{name} must be at least {least}, got {getattr(options, name)}"
            )
    if options.workers and options.scheduler:
        raise ValueError("workers and scheduler exclude each other")
    if options.label and len(chosen) != 1:
        raise ValueError("label needs one kind of images in --data")
    return [
        plan(entry, profile=options.profile, seeds=options.seeds, label=options.label)
        for entry in select(only=options.only, model=options.model, data=chosen)
    ]


def _sets(
    options: argparse.Namespace, plans: Iterable[Plan]
) -> dict[tuple[str, int | None], Dataset | None]:
    """The images of all plans; None for CIFAR that is not here, in a dry run."""
    found: dict[tuple[str, int | None], Dataset | None] = {}
    for each in plans:
        subject = each.subject
        key = (subject.data, subject.limit)
        if key in found:
            continue
        try:
            found[key] = _work.images(
                subject,
                _root(options, subject),
                download=options.download and not options.dry_run,
            )
        except FileNotFoundError:
            if not options.dry_run or subject.data == "folder":
                raise
            found[key] = None
    return found


def _root(options: argparse.Namespace, subject: Subject) -> str | None:
    if subject.data == "digits":
        return None
    return options.root or str(Path(options.out) / "data")


def _job(
    options: argparse.Namespace,
    given: Sequence[str],
    each: Plan,
    sets: dict[tuple[str, int | None], Dataset | None],
) -> Job:
    out = Path(options.out)
    dataset = sets[each.subject.data, each.subject.limit]
    places = Places(
        out / "cards",
        out / "work",
        options.device,
        progress=not options.quiet and not options.workers and not options.scheduler,
        command=shlex.join(["python", "-m", "flatbook.reproduce", *given]),
    )
    return Job(
        each,
        places,
        out / "figures",
        "" if dataset is None else dataset.sha256,
        _root(options, each.subject),
        options.threads,
    )


def _work_through(options: argparse.Namespace, jobs: Sequence[Job]) -> int:
    counts: dict[str, int] = {}
    quiet = options.quiet or jobs[0].places.progress  # it reports as it works
    for outcome in _engine.run(
        jobs, workers=options.workers, scheduler=options.scheduler
    ):
        counts[outcome.state] = counts.get(outcome.state, 0) + 1
        if not quiet or not outcome.good:
            print(outcome, file=sys.stderr, flush=True)
        if outcome.name.startswith(("card", "figure")) and outcome.good:
            print(outcome.text)
    summary = ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
    print(f"pieces: {summary}", file=sys.stderr)
    return int(bool({_work.FAILED, _work.LEFT_OUT} & set(counts)))


def _print_plan(
    options: argparse.Namespace,
    jobs: Sequence[Job],
    sets: dict[tuple[str, int | None], Dataset | None],
) -> None:
    """A table of what is left to do, with minutes and memory."""
    seen: set[str] = set()
    total = done = 0.0
    rows = [("figures", "run", "pieces", "minutes", "GB")]
    for job in jobs:
        subject = job.plan.subject
        dataset = sets[subject.data, subject.limit]
        shape = _estimate.shape(subject, dataset)
        needs = [
            need
            for need in _estimate.needs(job, shape, known=dataset is not None)
            if need.name not in seen
        ]
        seen |= {need.name for need in needs}
        left = [need for need in needs if not need.done]
        rate = options.tflops * 1e12 if options.tflops else _rate(options, job, shape)
        minutes = sum(need.flops for need in left) / rate / 60
        memory = max((need.memory_mb for need in needs), default=0.0)
        total, done = total + minutes, done + len(needs) - len(left)
        pieces = f"{len(left)}/{len(needs)}"
        size = f"{memory / 1024:.1f}" if memory >= 100 else "< 0.1"
        row = (_figures(job), _title(job), pieces, f"{minutes:.1f}", size)
        rows.append(row)
    print(_table(rows))
    print(f"\nabout {total:.0f} minutes on one device; {done:.0f} pieces are done")
    if None in sets.values():
        print("CIFAR is not here yet: --download fetches it (160 MB each)")


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Columns of texts; two stand left, numbers right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _rate(options: argparse.Namespace, job: Job, shape: _estimate.Shape) -> float:
    return _estimate.measured_rate(job.plan.subject, shape, options.device)


def _title(job: Job) -> str:
    model = job.plan.subject.model + " (adversarial)" * job.plan.robust
    return f"{job.plan.name}, {model}, {job.plan.label}"


def _figures(job: Job) -> str:
    kind = job.plan.subject
    data = "cifar10" if kind.data in STAND_INS else kind.data
    wanted = (job.plan.name, kind.model, data, job.plan.robust)
    for entry in GRID:
        if wanted == (entry.experiment, entry.model, entry.data, entry.adversarial):
            return entry.figures
    return "none"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flatbook.reproduce",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    # fmt: off
    add("--only", nargs="+", default=[], choices=(*FIGURES, *NAMES), metavar="WHAT",
        help=f"figures ({', '.join(FIGURES)}) or experiments ({', '.join(NAMES)})")
    add("--profile", choices=profiles.NAMES, default=profiles.current(),
        help="cpu: a laptop; t4: a free Colab GPU; fast: full width, a short "
        "training; full: the paper's (default: %(default)s)")
    add("--model", nargs="+", choices=models.NAMES, default=[],
        help="these networks only (default: all of the grid)")
    add("--data", nargs="+", choices=data.NAMES, default=[],
        help="these images only (default: both CIFARs, for the profile cpu digits)")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED",
        help="default: 0 1 2; the book takes cards of three or more")
    add("--dry-run", action="store_true",
        help="only print what is left to do, with minutes and memory")
    add("--tflops", type=float, metavar="RATE",
        help="for the minutes of --dry-run (default: measured on the device)")
    add("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    add("--workers", type=int, default=0, metavar="N",
        help="processes on this machine (default: work in this one)")
    add("--scheduler", metavar="ADDRESS", help="of a Dask cluster to use instead")
    add("--threads", type=int, default=1, metavar="N",
        help="of the processor for each piece (default: 1); the last digits of the "
        "numbers depend on it")
    add("--out", default="reproduced", metavar="DIR",
        help="where everything goes (default: %(default)s)")
    add("--root", metavar="DIR",
        help="where CIFAR lies (default: data in --out), or the folder of images")
    add("--download", action="store_true", help="fetch CIFAR if it is not there")
    add("--label", metavar="TEXT", help="what the images are called on the cards")
    add("--quiet", action="store_true", help="no progress on the standard error")
    # fmt: on
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
