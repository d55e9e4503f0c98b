"""Checkers of the chapter ``third_derivative``."""

import math

import torch
from torch import Tensor

from flatbook import radius, softmax
from flatbook.exercises._framework import (
    as_tensor,
    call,
    cases,
    exercise,
    expect_expression,
    wrong,
)


@exercise("third_derivative.entries")
def _entries(answer: object) -> None:
    """Your four entries are those of the third cumulant at (1/2, 1/4, 1/4).

    The answer has four numbers: T_000, T_011, T_012 and T_111.
    """
    found = as_tensor(answer).flatten()
    if len(found) != 4:
        wrong(f"four entries are asked for, you gave {len(found)}")
    p = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64)
    third = softmax.third_derivative(p.log())[0]
    places = ((0, 0, 0), (0, 1, 1), (0, 1, 2), (1, 1, 1))
    for place, value in zip(places, found.tolist(), strict=True):
        right, name = float(third[place]), "T_" + "".join(map(str, place))
        if abs(value - right) <= 1e-9:
            continue
        if place == (0, 0, 0):
            wrong(f"{name} is wrong: how does p (1 - p) change at its maximum?")
        if abs(value + right) <= 1e-9:
            wrong(f"{name} has the wrong sign")
        if abs(value - 2 * right) <= 1e-9:
            wrong(f"{name} is twice what it should be")
        wrong(f"{name} is wrong; the entries T_0jo sum to zero over o")


@exercise("third_derivative.rise")
def _rise(answer: object) -> None:
    """Your bound holds whatever the loss, the step and the number of classes.

    The answer is an expression in V and R: what the rise may exceed the slope by.
    """
    import sympy

    v, r = sympy.symbols("V R")
    if isinstance(answer, str):
        answer = sympy.sympify(answer, locals={"e": sympy.E})
    if isinstance(answer, sympy.Basic):  # symbols of any assumptions, by their names
        plain = {s: sympy.Symbol(str(s)) for s in answer.free_symbols}
        answer = answer.xreplace(plain)
    right = v * (sympy.exp(r) - 1 - r) / r**2
    slope = v * (sympy.exp(r) - 1) / r
    if isinstance(answer, sympy.Expr) and sympy.simplify(answer - slope) == 0:
        wrong("this bounds the slope at the end of the step: integrate once more")
    expect_expression(answer, right)


@exercise("third_derivative.no_flip_within")
def _no_flip_within(answer: object) -> None:
    """Flatness alone guarantees your distance, at every confidence.

    The answer is a function (weight (k, d), logits (N, k)) -> (N,).
    """
    for case, generator in cases(18):
        k, d = 2 + case % 5, 1 + case % 4
        scale = (1.0, 30.0, 2000.0)[case % 3]
        weight = torch.randn(k, d, generator=generator, dtype=torch.float64)
        logits = torch.randn(8, k, generator=generator, dtype=torch.float64)
        logits = logits * scale
        where = f"case {case} (k = {k}, logits of size {scale:g})"
        _judge(call(answer, weight, logits, where=where), weight, logits, where)


def _judge(answer: object, weight: Tensor, logits: Tensor, where: str) -> None:
    """End the checker unless 0 <= the corollary <= the answer <= the flip radius."""
    found, size = as_tensor(answer, where), len(logits)
    if found.shape != (size,):
        wrong(
            f"{where}: your answer has shape {tuple(found.shape)}, expected {(size,)}"
        )
    if not torch.isfinite(found).all():
        wrong(f"{where}: your answer is not finite (has the trace underflowed to 0?)")
    if bool((found < 0).any()):
        wrong(f"{where}: a distance is negative; what holds where tr P >= 1/2?")
    diameter = torch.cdist(weight, weight).max()
    least = (-math.log(2) - softmax.log_trace_p(logits)).clamp_min(0) / diameter
    flip = radius.flip_radius(weight, logits, logits.argmax(1))
    if bool((found > flip * (1 + 1e-9) + 1e-12).any()):
        wrong(f"{where}: there is a flip nearer than your distance")
    if bool((found < least * (1 - 1e-9) - 1e-12).any()):
        wrong(f"{where}: true, but the corollary guarantees more")
