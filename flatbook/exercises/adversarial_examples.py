"""Checkers of the chapter ``adversarial_examples``."""

import math

import torch
from torch import Tensor

from flatbook.exercises._framework import as_tensor, call, cases, exercise, wrong


@exercise("adversarial_examples.thresholds")
def _thresholds(answer: object) -> None:
    """Below your first number no flip is possible, from your second on it is certain.

    The answer is a function (loss, k) -> (safe, sure) of the loss at x and the number
    of classes.
    """
    for case, generator in cases():
        k = 2 + case % 5
        loss = math.log(k) * float(torch.rand(1, generator=generator))
        where = f"case {case} (k = {k}, loss {loss:.3f})"
        safe, sure = _pair(call(answer, loss, k, where=where), where)
        right = math.log(2) - loss, math.log(k) - loss
        if _near(safe, math.log(2)) and _near(sure, math.log(k)):
            wrong(f"{where}: these are losses at ξ; asked is the increase from x")
        if _near(safe, right[1]) and _near(sure, right[0]) and k > 2:
            wrong(f"{where}: your numbers stand in the wrong order")
        _compare(safe, right[0], f"{where}: your first number", "a flip")
        _compare(sure, right[1], f"{where}: your second number", "no flip", up=True)


@exercise("adversarial_examples.top_r")
def _top_r(answer: object) -> None:
    """Your two numbers are the thresholds for the first r places.

    The answer is a function (r, k) -> (safe, sure), 1 <= r < k.
    """
    for r, k in [(1, 2), (1, 3), (1, 10), (2, 3), (2, 10), (5, 10), (5, 1000)]:
        where = f"r = {r}, k = {k}"
        safe, sure = _pair(call(answer, r, k, where=where), where)
        what = f"class y outside the first {r}"
        _compare(safe, math.log(r + 1), f"{where}: your first number", what)
        if r > 1 and sure != math.inf:
            wrong(
                f"{where}: class y can be second with a loss above your second "
                "number: let one rival take nearly everything"
            )
        if r == 1:
            which = f"{where}: your second number"
            _compare(sure, math.log(k), which, "class y in the first place", up=True)


@exercise("adversarial_examples.quieter")
def _quieter(answer: object) -> None:
    """Your flips lower the loss wherever that is possible, and nowhere else.

    The answer is a function p (k,) -> p' (k,) or None; class 0 leads in p.
    """
    for case, generator in cases(24):
        p, where = _led_by_zero(case, generator)
        found = call(answer, p, where=where)
        if found is None:
            if float(p[0]) < 0.5:
                wrong(f"{where}: there is such a p', but your function returns None")
            continue
        moved = as_tensor(found, where)
        if moved.shape != p.shape:
            wrong(f"{where}: p' has shape {tuple(moved.shape)}, p has {tuple(p.shape)}")
        total = float(moved.sum())
        if not bool((moved > 0).all()) or not _near(total, 1.0):
            wrong(f"{where}: p' must be positive with sum 1; its sum is {total:.6g}")
        if float(moved[0]) > float(moved[1:].max()):
            wrong(f"{where}: class 0 still leads in p': this is no flip")
        if float(moved[0]) <= float(p[0]):
            wrong(f"{where}: p'_0 is not above p_0: the loss does not fall")


def _led_by_zero(case: int, generator: torch.Generator) -> tuple[Tensor, str]:
    """Probabilities led by class 0, in every second case by more than one half."""
    k = 3 + case % 4
    lead = 0.5 + 0.4 * float(torch.rand(1, generator=generator))
    if case % 2:
        lead = 1 / k + (0.5 - 1 / k) * float(torch.rand(1, generator=generator))
    if case in (2, 3):
        lead = 0.5 if case == 2 else 0.4999
    even = (1 - lead) / (k - 1)  # below the lead; perturbed and still below
    noise = torch.rand(k - 1, generator=generator, dtype=torch.float64) - 0.5
    room = min(even, lead - even) * 0.9
    rest = even + (noise - noise.mean()) * room
    p = torch.cat([rest.new_tensor([lead]), rest])
    return p, f"case {case} (k = {k}, p_0 = {lead:.4f})"


def _pair(found: object, where: str) -> tuple[float, float]:
    if not isinstance(found, tuple | list) or len(found) != 2:
        wrong(f"{where}: return two numbers, (safe, sure)")
    try:
        first, second = (float(value) for value in found)
    except (TypeError, ValueError):
        wrong(f"{where}: return two numbers, (safe, sure)")
    if math.isnan(first) or math.isnan(second):
        wrong(f"{where}: your answer is not a number")
    return first, second


def _near(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)


def _compare(
    found: float, best: float, which: str, seen: str, *, up: bool = False
) -> None:
    """End the checker unless a threshold is valid and cannot be improved."""
    if _near(found, best):
        return
    if (found > best) != up:
        side = "above" if up else "below"
        wrong(f"{which} promises too much: there is {seen} {side} it")
    side = "smaller" if up else "larger"
    wrong(f"{which} is valid, but a {side} one is too")
