"""Interleaved times of one thread or one GPU, and their ratios."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Job = Callable[[], object]
Clock = Callable[[], float]
Range = tuple[float, float, float]


@dataclass(frozen=True)
class Times:
    """Seconds of one job.

    Attributes:
        first: of the call before those that count; a compiler works in it.
        rounds: of the calls that count.
    """

    first: float
    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Of the rounds."""
        return statistics.median(self.rounds)


def clock(device: torch.device) -> Clock:
    """CPU time of the process, or wall time once a GPU has finished."""
    if device.type != "cuda":
        return time.process_time

    def finished() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return finished


def times(
    jobs: Mapping[str, Job], *, rounds: int = 7, now: Clock = time.process_time
) -> dict[str, Times]:
    """Seconds of each job.

    The jobs take turns, round by round, after one round that does not count: what
    else the machine does meanwhile hits all of them alike.
    """
    seen: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds + 1):
        for name, job in jobs.items():
            start = now()
            job()
            seen[name].append(max(now() - start, 1e-9))
    return {name: Times(own[0], tuple(own[1:])) for name, own in seen.items()}


def against(own: Times, first: Times) -> Range:
    """Median, least and largest ratio of two jobs' times, round by round."""
    pairs = zip(own.rounds, first.rounds, strict=True)
    return _range([a / b for a, b in pairs])


def ratios(jobs: Mapping[str, Job], *, rounds: int = 7) -> dict[str, Range]:
    """Median, least and largest ratio of each job's CPU time to the first one's."""
    seen = times(jobs, rounds=rounds)
    first = seen[next(iter(jobs))]
    return {name: against(own, first) for name, own in seen.items()}


def ratio(slow: Job, fast: Job, *, rounds: int = 7) -> Range:
    """Median, least and largest ratio of CPU times, slow over fast."""
    return ratios({"fast": fast, "slow": slow}, rounds=rounds)["slow"]


def _range(values: list[float]) -> Range:
    return statistics.median(values), min(values), max(values)
