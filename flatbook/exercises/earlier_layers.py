"""Checkers of the chapter ``earlier_layers``."""

import math

import torch
from torch import Tensor

from flatbook.exercises._framework import (
    as_tensor,
    call,
    cases,
    exercise,
    expect_close,
    expect_expression,
    wrong,
)

_SIZE, _PROBES = 9, 800


@exercise("earlier_layers.by_hand")
def _by_hand(answer: object) -> None:
    """Here the last layer is the sharpest, and times the squared weights both tie."""
    traces = as_tensor(answer)
    if traces.shape != (3,):
        wrong(f"three traces are asked for, yours have shape {tuple(traces.shape)}")
    names = ("the input", "the first layer", "the last layer")
    for name, found, expected in zip(names, traces, (4.5, 1.0, 9.0), strict=True):
        expect_close(found, expected, where=name)


@exercise("earlier_layers.rescaled")
def _rescaled(answer: object) -> None:
    """The order of two layers can be turned round without changing the function."""
    import sympy

    expect_expression(answer, sympy.Symbol("c") ** -4)


@exercise("earlier_layers.passes")
def _passes(answer: object) -> None:
    """For a tenth that is 401 passes, where the exact trace takes k - 1."""
    import sympy

    expect_expression(answer, 1 + 4 / sympy.Symbol("epsilon") ** 2)


@exercise("earlier_layers.estimate")
def _estimate(answer: object) -> None:
    """Mean and standard error are right, from one product a probe.

    The answer is a function (product, size, probes, generator) -> (mean, error).
    """
    for case, generator in cases(6):
        where = f"case {case}"
        diagonal = torch.arange(_SIZE, dtype=torch.float64) - case
        mean, error = _answered(answer, torch.diag(diagonal), 5, generator, where)
        at = f"{where}, a diagonal matrix"
        if abs(error) > 1e-9 and abs(mean - float(diagonal.sum())) > 1e-9:
            wrong(f"{at}: signs know its trace exactly; are your probes signs?")
        expect_close(mean, diagonal.sum(), where=at, floor=1.0)
        half = torch.randn(_SIZE, 2, generator=generator, dtype=torch.float64)
        hessian = half @ half.T
        mean, error = _answered(answer, hessian, _PROBES, generator, where)
        noise = 2 * (hessian.square().sum() - hessian.diagonal().square().sum())
        expected = math.sqrt(float(noise) / _PROBES)
        if abs(mean - float(hessian.trace())) > 6 * expected:
            wrong(f"{where}: your mean is far from the trace")
        if not 0.7 < error / expected < 1.4:
            factor = f"{error / expected:.3g} times"
            wrong(f"{where}: your standard error is {factor} what it should be")


def _answered(
    answer: object, hessian: Tensor, probes: int, source: torch.Generator, where: str
) -> tuple[float, float]:
    """What the reader's function says about a matrix, and how often it asked."""
    asked = []

    def product(v: Tensor) -> Tensor:
        asked.append(v)
        return hessian @ v

    found = call(answer, product, _SIZE, probes, source, where=where)
    if not isinstance(found, tuple | list) or len(found) != 2:
        wrong(f"{where}: your function should return a mean and a standard error")
    if len(asked) != probes:
        wrong(f"{where}: {len(asked)} products for {probes} probes")
    mean, error = (as_tensor(part, where) for part in found)
    if mean.numel() != 1 or error.numel() != 1:
        wrong(f"{where}: your mean and standard error should be single numbers")
    return float(mean), float(error)
