"""Checkers of the chapter ``what_flatness_guarantees``."""

import math

import torch

from flatbook import curvature, scaling
from flatbook.exercises._framework import (
    as_tensor,
    call,
    cases,
    exercise,
    expect_expression,
    wrong,
)


@exercise("what_flatness_guarantees.pencil")
def _pencil(answer: object) -> None:
    """The radius stays, and the sharpness has moved by nearly one half."""
    got = as_tensor(answer)
    if got.shape != (2,):
        wrong(f"two numbers are asked for, yours have shape {tuple(got.shape)}")
    near, flat = got.tolist()
    if not math.isclose(near, 0.3 * math.log(9), rel_tol=1e-3):
        if math.isclose(near, 0.6 * math.log(9), rel_tol=1e-3):
            wrong("the doubled head has the same decision boundary")
        wrong(
            "the first number is not log(p_y / p_j) times the root that belongs to it"
        )
    if math.isclose(flat, 4.0, rel_tol=1e-3):
        wrong("the probabilities of the doubled head are not 9/10 and 1/10")
    if math.isclose(flat, 225 / 1681, rel_tol=1e-3):
        wrong("the rows of the doubled head are twice as far apart")
    if not math.isclose(flat, 900 / 1681, rel_tol=1e-3):
        wrong("the second number is not the flatness of the doubled head")


@exercise("what_flatness_guarantees.ratio")
def _ratio(answer: object) -> None:
    """Nothing is lost at infinite temperature, and a factor sqrt(2/k) at zero."""
    import sympy

    x, k = sympy.symbols("x k")
    square = 2 * (sympy.exp(x) + k - 1) / (k * (sympy.exp(x) + 1))
    try:
        got = sympy.sympify(answer)
        points = [(0.3, 2), (1.7, 3), (4.0, 10), (9.0, 50)]
        gaps = [
            (got.subs({x: a, k: n}) - sympy.sqrt(square.subs({x: a, k: n}))).evalf()
            for a, n in points
        ]
        if all(gap.is_number and abs(gap) < 1e-9 for gap in gaps):
            return
    except (AttributeError, TypeError, sympy.SympifyError):
        pass
    expect_expression(answer, sympy.sqrt(square))


@exercise("what_flatness_guarantees.peak")
def _peak(answer: object) -> None:
    """Your peak is the highest over all scales, and scaling cannot change it.

    The answer is a function (weight (k, d), features (d,), logits (k,)) -> number.
    """
    for case, generator in cases():
        k, spread = 2 + case % 5, 10.0 ** ((case % 3) - 1)
        weight = torch.randn(k, 3, generator=generator, dtype=torch.float64)
        features = torch.randn(3, generator=generator, dtype=torch.float64)
        logits = spread * torch.randn(k, generator=generator, dtype=torch.float64)
        where, scale = f"case {case} (k = {k})", 1.0
        if case % 4 == 0:
            where, scale = f"{where}, head times 1000", 1000.0
        elif case % 4 == 1:
            where = f"{where}, a far class with a long row"
            weight[-1] *= 30
            logits[-1] = logits.min() - 300 * spread
        weight, logits = scale * weight, scale * logits
        got = as_tensor(call(answer, weight, features, logits, where=where), where)
        if got.numel() != 1:
            wrong(f"{where}: your answer should be one number")
        _compare(got.item(), weight, features[None], logits[None], where)


def _compare(
    got: float,
    weight: torch.Tensor,
    features: torch.Tensor,
    logits: torch.Tensor,
    where: str,
) -> None:
    peak = scaling.peak_sharpness(weight, features, logits).item()
    if math.isclose(got, peak, rel_tol=0.01):
        return
    one = curvature.relative_flatness(weight, features, logits).item()
    if math.isclose(got, one, rel_tol=1e-6):
        wrong(f"{where}: this is the sharpness at the scale s = 1")
    if math.isclose(got * float(features.square().sum()), peak, rel_tol=0.01):
        wrong(f"{where}: the factor of the features is missing")
    if not got < peak:
        wrong(f"{where}: your number is above the sharpness at every scale")
    wrong(f"{where}: at another scale the head is {peak / got:.3g} times as sharp")
