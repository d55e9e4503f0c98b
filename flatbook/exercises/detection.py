"""Checkers of the chapter ``detection``."""

import math
from collections.abc import Mapping

import torch

from flatbook.exercises._framework import (
    as_tensor,
    call,
    cases,
    exercise,
    expect_close,
    expect_expression,
    wrong,
)

_SHIFT = 6.0


@exercise("detection.mirrored")
def _mirrored(answer: object) -> None:
    """The attack permutes your margins, and every rule is right half the time."""
    margins = as_tensor(answer)
    if margins.ndim != 1 or len(margins) < 3:
        wrong(f"three margins are asked for, your answer has shape {_shape(margins)}")
    if float(margins.min()) <= 0:
        wrong("a margin of zero or less belongs to an image that is wrong already")
    if len(margins.unique()) < len(margins):
        wrong("your margins should all differ")
    after = (margins - _SHIFT).abs().sort().values
    strange = (after - margins.sort().values).abs() > 1e-9
    if strange.any():
        value = float(after[strange][0])
        wrong(f"the attacked sizes are {_list(after)}: {value:g} gives them away")


@exercise("detection.folds")
def _folds(answer: object) -> None:
    """Five folds may differ by this much when nothing but the draw of images does."""
    expected = math.sqrt(0.92 * 0.08 / 4000)
    got = as_tensor(answer)
    if got.numel() == 1 and abs(float(got) - expected**2) < 1e-9:
        wrong("that is the variance: take its root")
    if got.numel() == 1 and abs(float(got) / expected - math.sqrt(2)) < 1e-3:
        wrong("both versions of an image are judged: a fold makes 4,000 decisions")
    expect_close(answer, expected, tolerance=0.01)


@exercise("detection.uniform")
def _uniform(answer: object) -> None:
    """Up to three quarters, down to one half at delta = 1, and up to one."""
    import sympy

    if not isinstance(answer, Mapping) or set(answer) != {"weak", "middle", "strong"}:
        wrong('a dictionary with "weak", "middle" and "strong" is asked for')
    delta = sympy.Symbol("delta")
    half = sympy.Rational(1, 2)
    expected = {
        "weak": half + delta / 2,
        "middle": 1 - delta / 2,
        "strong": delta / 2,
    }
    for name, expression in expected.items():
        if sympy.sympify(answer[name]).equals(2 * expression - 1):
            wrong(f"{name}: that is the distance D; the accuracy is (1 + D) / 2")
        expect_expression(answer[name], expression)


@exercise("detection.stump")
def _stump(answer: object) -> None:
    """It finds the best threshold, whichever side is attacked, and copes with ties.

    The answer is a function (clean (N,), attacked (M,)) -> accuracy.
    """
    for case, generator in cases():
        clean = torch.randn(4 + case, generator=generator, dtype=torch.float64)
        attacked = torch.randn(3 + 2 * case, generator=generator, dtype=torch.float64)
        attacked += (case % 3) - 1
        if case % 2:
            clean, attacked = clean.round(), attacked.round()
        where = f"case {case} ({len(clean)} clean, {len(attacked)} attacked)"
        got = as_tensor(call(answer, clean, attacked, where=where), where)
        best = _best(clean, attacked)
        if got.numel() == 1 and float(got) < best - 1e-9:
            wrong(f"{where}: there is a better stump; are both sides of it tried?")
        if got.numel() == 1 and float(got) > best + 1e-9:
            wrong(
                f"{where}: no stump is that good; do both populations weigh the same, "
                "and do equal values stay on one side?"
            )
        expect_close(got.squeeze(), best, where=where)


def _best(clean: torch.Tensor, attacked: torch.Tensor) -> float:
    """Half of one plus the largest difference of the two distribution functions."""
    values = torch.cat([clean, attacked])
    below = [(group[:, None] <= values).double().mean(0) for group in (clean, attacked)]
    return float(1 + (below[0] - below[1]).abs().max()) / 2


def _list(values: torch.Tensor) -> str:
    return ", ".join(f"{value:g}" for value in values.tolist())


def _shape(values: torch.Tensor) -> str:
    return str(tuple(values.shape))
