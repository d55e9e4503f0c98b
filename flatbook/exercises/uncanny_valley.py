"""Checkers of the chapter ``uncanny_valley``."""

import torch

from flatbook import softmax
from flatbook.exercises._framework import (
    as_tensor,
    call,
    cases,
    exercise,
    expect_expression,
    wrong,
)


@exercise("uncanny_valley.no_tie")
def _no_tie(answer: object) -> None:
    """Nothing ties, one class has more than half, and it is sharper than a tie."""
    p = as_tensor(answer)
    if p.shape != (3,):
        wrong(f"three probabilities are asked for, yours have shape {tuple(p.shape)}")
    if float(p.min()) < 0 or abs(float(p.sum()) - 1) > 1e-9:
        wrong("your numbers are not probabilities: at least 0, and 1 together")
    if float(p[0]) <= 0.5:
        wrong("the first probability should be larger than one half")
    trace = 1 - float(p.square().sum())
    if trace <= 0.5 + 1e-12:
        wrong(f"tr P is {trace:.4g} there, a tie of two classes already has 0.5")


@exercise("uncanny_valley.slopes")
def _slopes(answer: object) -> None:
    """The flatter the two points, the more their slopes differ."""
    import sympy

    root = sympy.sqrt(1 - 2 * sympy.Symbol("tau"))
    expect_expression(answer, (1 + root) / (1 - root))


@exercise("uncanny_valley.sharpest")
def _sharpest(answer: object) -> None:
    """Your step is the sharpest on every path, however confident the network.

    The answer is a function (features (T + 1, d), logits (T + 1, k)) -> step.
    """
    for case, generator in cases():
        k, steps = 2 + case % 4, torch.arange(12)
        features = torch.randn(12, 5, generator=generator, dtype=torch.float64)
        features[-1] *= 0.01
        floor = (0.0, 40.0, 800.0)[case % 3]
        logits = torch.randn(12, k, generator=generator, dtype=torch.float64)
        logits[:, 0] += floor + 2 * (steps - 3 - case % 6).abs()
        size = 2 * torch.linalg.vector_norm(features, dim=1).log()
        trace = size + softmax.log_trace_p(logits)
        where = f"case {case} (k = {k}, gaps from about {floor:.0f} on)"
        step = as_tensor(call(answer, features, logits, where=where), where)
        if step.numel() != 1 or float(step) not in range(12):
            wrong(f"{where}: your answer should be a step from 0 to 11")
        if float(trace[int(step)]) < float(trace.max()) - 1e-9:
            wrong(f"{where}: another step is sharper than step {int(step)}")
