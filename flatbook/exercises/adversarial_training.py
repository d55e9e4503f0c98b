"""Checkers of the chapter ``adversarial_training``."""

import math

import torch

from flatbook.exercises._framework import (
    as_tensor,
    call,
    cases,
    exercise,
    expect_expression,
    wrong,
)

_TOLERANCE = 0.1


def _reach(margin: float, flip: float) -> float:
    """Distance at which the loss has risen by the tolerance, on a straight way."""
    odds = math.expm1(_TOLERANCE + math.log1p(math.exp(-margin)))
    return flip * (1 + math.log(odds) / margin)


@exercise("adversarial_training.two_orders")
def _two_orders(answer: object) -> None:
    """Your second network flips later and its loss rises earlier."""
    values = as_tensor(answer)
    if values.shape != (4,):
        wrong(f"four numbers are asked for, yours have shape {tuple(values.shape)}")
    if float(values.min()) <= 0:
        wrong("log-odds and distances should be positive")
    if float(values.max()) > 500:
        wrong("keep the numbers below 500, or the exponentials overflow")
    m_a, flip_a, m_b, flip_b = values.tolist()
    if flip_b <= flip_a:
        wrong("the second network should flip at the larger distance")
    first, second = _reach(m_a, flip_a), _reach(m_b, flip_b)
    if second >= first:
        wrong(
            f"its loss has risen by 0.1 at distance {second:.4g}, that of the first "
            f"network at {first:.4g}: that is the same order again"
        )


@exercise("adversarial_training.reach")
def _reach_formula(answer: object) -> None:
    """At the tolerance log 2 minus the loss it is the distance to the flip."""
    import sympy

    m, flip, eps = sympy.symbols("m D epsilon")
    level = -sympy.log(sympy.exp(eps) * (1 + sympy.exp(-m)) - 1)
    expect_expression(answer, flip * (1 - level / m))


@exercise("adversarial_training.scale")
def _scale(answer: object) -> None:
    """Your factor reaches the confidence in every case.

    The answer is a function (logits (N, k), confidence) -> factor.
    """
    for case, generator in cases():
        k = 2 + case % 4
        logits = torch.randn(30, k, generator=generator, dtype=torch.float64)
        logits *= (1.0, 8.0, 60.0)[case % 3]
        goal = (0.99, 0.8, 1 / k + 0.02)[case % 3]
        where = f"case {case} (k = {k}, mean confidence {goal:.3g} asked for)"
        factor = as_tensor(call(answer, logits, goal, where=where), where)
        if factor.numel() != 1 or not 0 < float(factor) < math.inf:
            wrong(f"{where}: your answer should be one positive number")
        found = float((float(factor) * logits).softmax(1).amax(1).mean())
        if abs(found - goal) > 1e-3:
            wrong(f"{where}: with your factor it is {found:.4f}")
