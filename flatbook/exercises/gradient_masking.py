"""Checkers of the chapter ``gradient_masking``."""

import torch

from flatbook import softmax
from flatbook.exercises._framework import (
    as_tensor,
    call,
    cases,
    exercise,
    expect_close,
    expect_expression,
    wrong,
)


@exercise("gradient_masking.scales")
def _scales(answer: object) -> None:
    """From the first scale on the true class is silent, from the second on all are."""
    found = as_tensor(answer)
    if found.shape != (2,):
        wrong(f"two scales are asked for, yours have shape {tuple(found.shape)}")
    if not torch.equal(found, found.round()):
        wrong("whole numbers are asked for")
    for which, scale, limit in zip(
        ("first", "second"), found.tolist(), (24, 150), strict=True
    ):
        exact = limit * torch.log(torch.tensor(2.0)).item() / 8
        if scale < exact:
            wrong(f"at your {which} scale the margin is still below the threshold")
        if scale - 1 >= exact:
            wrong(f"a smaller whole number than your {which} one would do")


@exercise("gradient_masking.batch")
def _batch(answer: object) -> None:
    """Every factor of e in the batch moves the threshold by one."""
    import sympy

    expect_expression(answer, 2**150 * sympy.exp(-sympy.Symbol("m")))


@exercise("gradient_masking.direction")
def _direction(answer: object) -> None:
    """Your direction is exact at every scale.

    The answer is a function (logits (N, k), labels (N,)) -> (N, k).
    """
    for case, generator in cases():
        k = 2 + case % 4
        scale = (1.0, 40.0, 2000.0)[case % 3]
        z = scale * torch.randn(5, k, generator=generator, dtype=torch.float64)
        y = torch.randint(k, (5,), generator=generator)
        leaf = z.clone().requires_grad_()
        (target,) = torch.autograd.grad(softmax.log_odds(leaf, y).sum(), leaf)
        where = f"case {case} (k = {k}, logits of about {scale:.0f})"
        found = call(answer, z, y, where=where)
        expect_close(found, target, where=where)


@exercise("gradient_masking.audit")
def _audit(answer: object) -> None:
    """An image that never moved counts for nothing.

    The answer is a function (robust (N,), stuck (N,)) -> (lowest, highest).
    """
    for case, generator in cases():
        robust, stuck = torch.rand(2, 30, generator=generator) < 0.2 + 0.05 * case
        tested = (robust & ~stuck).double().mean()
        target = torch.stack([tested, robust.double().mean()])
        where = f"case {case}"
        found = as_tensor(call(answer, robust, stuck, where=where), where)
        if found.shape == (2,) and torch.equal(found, target.flip(0)):
            wrong(f"{where}: the lower share comes first")
        expect_close(found, target, where=where)
