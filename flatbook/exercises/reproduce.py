"""Checkers of the chapter ``reproduce``."""

import random
from collections.abc import Iterable

from flatbook.exercises._framework import (
    as_tensor,
    call,
    cases,
    exercise,
    wrong,
)

_NETWORKS = 126
_WORDS = ("agrees", "agrees in part", "does not agree", "not yet run")
_FIGURE_13 = {"zero-at-one", "recovers", "unattackable", "sharpness-tracks", "transfer"}
_ROUNDED = {"recovers", "sharpness-tracks"}
_ROBUST = {"fig12", "d2"}

Part = tuple[float | None, float, float]


@exercise("reproduce.networks")
def _networks(answer: object) -> None:
    """Runs that need the same network share it, and so do the seeds' other runs."""
    got = as_tensor(answer)
    if got.numel() != 1:
        wrong("one number is asked for")
    count = float(got)
    if count == _NETWORKS / 3:
        wrong("that is for one seed; the grid has three")
    if count > _NETWORKS:
        wrong("too many: which runs need the very same network?")
    if count < _NETWORKS:
        wrong("too few: the valley has networks of five losses, D.2 two adversaries")


@exercise("reproduce.rounding")
def _rounding(answer: object) -> None:
    """In exact arithmetic there is nothing to recover, and nothing to track."""
    given = _names(answer)
    unknown = sorted(given - _FIGURE_13)
    if unknown:
        wrong(f"{unknown[0]!r} is no statement about figure 13: {_list(_FIGURE_13)}")
    if "transfer" in given:
        wrong("'transfer': predictions alone are compared, and no gradient is taken")
    if "zero-at-one" in given:
        wrong("'zero-at-one': at s = 1 no gradient of these networks is rounded")
    if "unattackable" in given:
        wrong("'unattackable' fails already; would exact gradients make it hold?")
    if given != _ROUNDED:
        wrong("one is missing: which number is read off the same curve?")


@exercise("reproduce.stale")
def _stale(answer: object) -> None:
    """Only where a network is trained against it does the adversary appear."""
    given = _names(answer)
    for name in sorted(given - _ROBUST):
        wrong(f"{name!r}: its networks are trained without an adversary")
    if given != _ROBUST:
        wrong("not all: look for every run with an adversarially trained network")


@exercise("reproduce.verdict")
def _verdict(answer: object) -> None:
    """Closed bounds, missing numbers left out, and nothing is made of nothing.

    The answer is a function of a list of (number or None, low, high).
    """
    for case, _ in cases(24):
        parts = _parts(random.Random(case))
        got = call(answer, list(parts), where=f"case {case}")
        if got not in _WORDS:
            wrong(f"case {case}: a verdict is one of {', '.join(_WORDS)}, not {got!r}")
        if got != _expected(parts):
            wrong(f"case {case}: {parts} is not {got!r}{_hint(parts)}")


def _parts(source: random.Random) -> list[Part]:
    """Between none and four parts, with numbers on the bounds and missing ones."""
    numbers = (0.0, 0.5, 1.0, 2.0)
    parts: list[Part] = []
    for _ in range(source.randrange(5)):
        low, high = sorted((source.choice(numbers), 1.0))
        parts.append((source.choice((None, *numbers)), low, high))
    return parts


def _expected(parts: Iterable[Part]) -> str:
    holds = [low <= number <= high for number, low, high in parts if number is not None]
    if not holds:
        return "not yet run"
    return "agrees" if all(holds) else _WORDS[1 if any(holds) else 2]


def _hint(parts: list[Part]) -> str:
    if not parts or all(number is None for number, _, _ in parts):
        return ": there is no number to judge"
    if any(number is None for number, _, _ in parts):
        return ": a number that is missing does not count"
    if any(number in (low, high) for number, low, high in parts):
        return ": is a number on a bound within it?"
    return ""


def _names(answer: object) -> set[str]:
    """The answer as a set of texts."""
    if isinstance(answer, str) or not isinstance(answer, Iterable):
        wrong('a set of names is asked for, such as {"transfer"}')
    names = set(answer)
    if not all(isinstance(name, str) for name in names):
        wrong("names are texts")
    return names


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
