"""Interleaved CPU times of one thread, as ratios."""

import statistics
import time
from collections.abc import Callable, Mapping

Job = Callable[[], object]
Range = tuple[float, float, float]


def ratios(jobs: Mapping[str, Job], *, rounds: int = 7) -> dict[str, Range]:
    """Median, least and largest ratio of each job's CPU time to the first one's.

    The jobs take turns, round by round, after one unmeasured round: what else the
    machine does meanwhile hits all of them alike.
    """
    for job in jobs.values():
        job()
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            start = time.process_time()
            job()
            times[name].append(max(time.process_time() - start, 1e-9))
    first = times[next(iter(jobs))]
    return {
        name: _range([a / b for a, b in zip(own, first, strict=True)])
        for name, own in times.items()
    }


def ratio(slow: Job, fast: Job, *, rounds: int = 7) -> Range:
    """Median, least and largest ratio of CPU times, slow over fast."""
    return ratios({"fast": fast, "slow": slow}, rounds=rounds)["slow"]


def _range(values: list[float]) -> Range:
    return statistics.median(values), min(values), max(values)
