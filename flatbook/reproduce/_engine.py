"""The list of runs as a graph of pieces, given to Dask.

Dask does all scheduling: which piece may start, where, and what to do when a worker
dies. It was chosen over joblib because the pieces depend on each other (a measurement
needs its networks, a card its seeds), which joblib can only express as one barrier
after another, and because the death of a worker ends a joblib call, whereas Dask gives
the piece to another worker. The same graph runs in this process, on workers of this
machine, and on whatever a Dask scheduler speaks for: Slurm and PBS through
dask-jobqueue, several GPUs through dask-cuda, Kubernetes, or Ray through its own Dask
scheduler. Rocklin, Dask: parallel computation with blocked algorithms and task
scheduling, 2015.

All processes must see the folders of the jobs. A piece may run twice (Dask repeats
those of a dead worker); it then finds its result or goes on from a checkpoint.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatbook.reproduce import _work
from flatbook.reproduce._work import FAILED, Job, Outcome

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["graph", "run"]


def graph(jobs: Sequence[Job]) -> list[Any]:
    """The pieces of all jobs as delayed calls that know what they need.

    A network that several jobs need is one piece. Nothing is computed.

    Returns:
        ``dask.delayed`` objects, every piece before those that need it.
    """
    from dask import delayed

    pieces: dict[str, Any] = {}

    def piece(function: Any, name: str, *arguments: object) -> Any:  # noqa: ANN401
        if name not in pieces:
            call = delayed(function, pure=False)
            pieces[name] = call(*arguments, dask_key_name=name)
        return pieces[name]

    for job in jobs:
        stem, measured = job.plan.stem, []
        for seed in job.plan.seeds:
            trained = [
                piece(
                    _work.train,
                    f"train-{job.checkpoint(seed, variant).stem}",
                    *(job, seed, variant),
                )
                for variant in job.plan.variants
            ]
            name = f"measure-{stem}-{seed}"
            measured.append(piece(_work.measure, name, job, seed, *trained))
        filed = piece(_work.card, f"card-{stem}", job, *measured)
        piece(_work.draw, f"figure-{stem}", job, filed)
    return list(pieces.values())


def run(
    jobs: Sequence[Job],
    *,
    workers: int = 0,
    scheduler: str | None = None,
    folder: str | Path | None = None,
) -> Iterator[Outcome]:
    """Do the jobs and yield the outcome of each piece as it is known.

    Args:
        jobs: what is to be done.
        workers: processes on this machine; 0 works in this process.
        scheduler: address of a running Dask scheduler, for example
            ``"tcp://node1:8786"``; its workers are used instead.
        folder: for the files of local workers (default: of the first job's work).

    Raises:
        ModuleNotFoundError: Dask, or for workers distributed, is not installed.
        OSError: no scheduler answers at this address.
    """
    pieces = graph(jobs)
    if not workers and scheduler is None:
        import dask

        yield from dask.compute(*pieces, scheduler="synchronous")
        return
    place = Path(folder or jobs[0].places.work)
    with _client(workers, scheduler, place) as client:
        yield from _gather(client, pieces)


@contextmanager
def _client(workers: int, scheduler: str | None, folder: Path) -> Iterator["Client"]:
    from distributed import Client, LocalCluster

    if scheduler is not None:
        with Client(scheduler) as client:
            yield client
        return
    place = str((folder / "dask").resolve())
    local = LocalCluster(
        n_workers=workers,
        threads_per_worker=1,  # one piece at a time: torch has threads of its own
        memory_limit=None,  # the operating system's business, as without Dask
        local_directory=place,
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,  # a dead worker is replaced, and that is all
    )
    with local as cluster, Client(cluster) as client:
        yield client


def _gather(client: "Client", pieces: Sequence[Any]) -> Iterator[Outcome]:
    """Outcomes as they come; a piece whose workers died too often has failed."""
    from distributed import as_completed

    for future in as_completed(client.compute(pieces)):
        if future.status == "finished":
            yield future.result()
        else:
            error = future.exception()
            text = f"{type(error).__name__}: {error}"
            yield Outcome(str(future.key), FAILED, 0.0, text.splitlines()[0])
