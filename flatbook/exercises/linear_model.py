"""Checkers of the chapter ``linear_model``."""

import torch
from torch import Tensor

from flatbook.exercises._framework import (
    as_tensor,
    call,
    cases,
    exercise,
    expect_close,
    wrong,
)


@exercise("linear_model.rank_one")
def _rank_one(answer: object) -> None:
    """Your dW moves the output exactly as v does, and no smaller one would.

    The answer is a function (W, x, v) -> dW with weights W (k, d), x and v (d,).
    """
    for case, generator in cases():
        k, d = 1 + case % 3, 2 + case % 4
        weight = torch.randn(k, d, generator=generator, dtype=torch.float64)
        x, v = torch.randn(2, d, generator=generator, dtype=torch.float64)
        v = v * (0.0 if case == 5 else 1.0)
        where = f"case {case} (k = {k}, d = {d})"
        change = as_tensor(call(answer, weight, x, v, where=where), where)
        if change.shape != weight.shape:
            shapes = f"{tuple(change.shape)}, W has {tuple(weight.shape)}"
            wrong(f"{where}: dW has shape {shapes}")
        if not torch.isfinite(change).all():
            wrong(f"{where}: dW is not finite")
        moved = weight @ v
        if float((change @ x - moved).norm()) > 1e-9 * (1 + float(moved.norm())):
            wrong(f"{where}: (W + dW) x and W (x + v) are not the same")
        least = float(moved.norm() / x.norm())
        if float(change.norm()) > least * (1 + 1e-9) + 1e-12:
            wrong(f"{where}: dW does it, but a dW of smaller norm does too")


@exercise("linear_model.with_bias")
def _with_bias(answer: object) -> None:
    """Your pair does it with the least norm, also at x = 0.

    The answer is a function (W, x, v) -> (dW (k, d), db (k,)).
    """
    for case, generator in cases():
        k, d = 1 + case % 3, 1 + case % 4
        weight = torch.randn(k, d, generator=generator, dtype=torch.float64)
        x, v = torch.randn(2, d, generator=generator, dtype=torch.float64)
        x = x * (0.0 if case > 9 else 1.0)
        where = f"case {case} (k = {k}, d = {d}{', x = 0' if case > 9 else ''})"
        pair = call(answer, weight, x, v, where=where)
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            wrong(f"{where}: return two tensors, dW and db")
        change, shift = (as_tensor(part, where) for part in pair)
        if change.shape != weight.shape or shift.shape != (k,):
            shapes = f"{tuple(change.shape)} and {tuple(shift.shape)}"
            wrong(
                f"{where}: dW and db have shapes {shapes}, expected {k, d} and {(k,)}"
            )
        moved = weight @ v
        both = torch.cat([change, shift[:, None]], 1)
        gap = both @ torch.cat([x, x.new_ones(1)]) - moved
        _least(both, gap, moved / (1 + x @ x).sqrt(), where)


@exercise("linear_model.batch")
def _batch(answer: object) -> None:
    """Your D serves all samples at once, and no smaller one would.

    The answer is a function (W (k, d), X (d, n), V (d, n)) -> D (k, d), where the
    columns of X are linearly independent.
    """
    for case, generator in cases():
        k, n = 1 + case % 3, 1 + case % 4
        d = n + case % 3
        weight = torch.randn(k, d, generator=generator, dtype=torch.float64)
        x, v = torch.randn(2, d, n, generator=generator, dtype=torch.float64)
        where = f"case {case} (k = {k}, d = {d}, n = {n})"
        change = as_tensor(call(answer, weight, x, v, where=where), where)
        if change.shape != weight.shape:
            shapes = f"{tuple(change.shape)}, W has {tuple(weight.shape)}"
            wrong(f"{where}: D has shape {shapes}")
        moved = weight @ v
        _least(change, change @ x - moved, moved @ torch.linalg.pinv(x), where)


def _least(change: Tensor, gap: Tensor, best: Tensor, where: str) -> None:
    """End the checker unless a change hits its target with the norm of the best."""
    if not torch.isfinite(change).all():
        wrong(f"{where}: your answer is not finite")
    if float(gap.norm()) > 1e-8 * (1 + float(best.norm())):
        wrong(f"{where}: moving the weights and moving the input differ")
    if float(change.norm()) > float(best.norm()) * (1 + 1e-8):
        wrong(f"{where}: it does it, but a smaller change does too")


@exercise("linear_model.others")
def _others(answer: object) -> None:
    """Your change of the logits is that of the smallest dW, for every other sample.

    The answer is a function (W (k, d), x (d,), v (d,), X (n, d)) -> (n, k).
    """
    for case, generator in cases():
        k, d, n = 2 + case % 3, 2 + case % 4, 1 + case % 5
        weight = torch.randn(k, d, generator=generator, dtype=torch.float64)
        x, v = torch.randn(2, d, generator=generator, dtype=torch.float64)
        other = torch.randn(n, d, generator=generator, dtype=torch.float64)
        if case % 3 == 0:
            other[-1] = x
        where = f"case {case} (k = {k}, d = {d}, n = {n})"
        found = as_tensor(call(answer, weight, x, v, other, where=where), where)
        change = torch.linalg.lstsq(x[None], (weight @ v)[None]).solution.T  # (k, d)
        if found.shape == (n, k) and case % 3 == 0:
            gap = float((found[-1] - weight @ v).norm())
            if gap > 1e-8 * (1 + float((weight @ v).norm())):
                wrong(f"{where}: the last of the others is x, which has to move by W v")
        expect_close(found, other @ change.T, where=where)
