"""Checkers of the chapter ``loss_geometry``."""

import math

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


@exercise("loss_geometry.rises")
def _rises(answer: object) -> None:
    """One rise is nearly the loss at the end, the other nearly a straight line."""
    found = as_tensor(answer)
    if found.shape != (2,):
        wrong(f"two numbers are asked for, yours have shape {tuple(found.shape)}")
    start = math.log1p(math.exp(-30))
    ends = {"first": math.log1p(math.exp(-10)), "second": math.log1p(math.exp(20))}
    for value, (name, end) in zip(found.tolist(), ends.items(), strict=True):
        rise = end - start
        if abs(value - rise) > 0.01 * rise:
            side = "small" if value < rise else "large"
            wrong(f"the {name} rise, {value:.3g}, is too {side}")


@exercise("loss_geometry.radius")
def _radius(answer: object) -> None:
    """The distance at which the loss of two classes has risen by epsilon."""
    import sympy as sp

    m, s, epsilon = sp.symbols("m s epsilon")
    level = sp.log(sp.exp(epsilon) * (1 + sp.exp(-s * m)) - 1)
    expect_expression(answer, m + level / s)


@exercise("loss_geometry.take_off")
def _take_off(answer: object) -> None:
    """Your step is right on every path, at every scale.

    The answer is a function (margins (T + 1,), s, rise) -> step.
    """
    for case, generator in cases():
        s = (0.3, 1.0, 1e4)[case % 3]
        margins = torch.randn(9, generator=generator, dtype=torch.float64)
        margins[0] = 2 + margins[0].abs()
        margins[1:] += 2 - case % 4 * torch.arange(8)
        where = f"case {case} (s = {s:g})"
        found = as_tensor(call(answer, margins, s, 0.1, where=where), where)
        if found.numel() != 1:
            wrong(f"{where}: your answer should be one number")
        expected = _exact(margins.tolist(), s, 0.1)
        if math.isinf(expected) != bool(found.isinf()):
            never = "never" if math.isinf(expected) else f"at step {expected:.3f}"
            wrong(f"{where}: the loss rises that much {never}")
        if math.isfinite(expected):
            expect_close(found.double().reshape(()), expected, where=where)


def _exact(margins: list[float], s: float, rise: float) -> float:
    """The step at which -s m reaches the log-odds of the start plus the rise."""
    start = math.log1p(math.exp(-s * margins[0])) if s * margins[0] < 700 else 0.0
    level = -math.log(math.expm1(rise + start)) / s
    for t in range(1, len(margins)):
        before, after = margins[t - 1], margins[t]
        if after <= level:
            return t - 1 + (before - level) / (before - after)
    return math.inf
