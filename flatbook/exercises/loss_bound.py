"""Checkers of the chapter ``loss_bound``."""

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from flatbook.exercises._framework import (
    as_tensor,
    call,
    cases,
    exercise,
    expect_close,
    wrong,
)


@exercise("loss_bound.pencil")
def _pencil(answer: object) -> None:
    """Your rise and fall are those of two equal logits within rho = log 3.

    The answer is [rise, fall].
    """
    rise, fall = math.log(2), math.log(3 / 2)
    got = as_tensor(answer).flatten()
    if len(got) != 2:
        wrong(f"the answer should be two numbers, [rise, fall], yours has {len(got)}")
    if (got < 0).any():
        wrong("give both as positive amounts")
    if torch.allclose(got, got.new_tensor([fall, rise]), rtol=1e-3):
        wrong("rise and fall are interchanged; the loss is convex")
    if abs(got[0].item() - (math.log(3) / 2 + math.log(3) ** 2 / 8)) < 1e-3:
        wrong("this rise is the quadratic bound, not the rise itself")
    for name, value, right in zip(("rise", "fall"), got, (rise, fall), strict=True):
        expect_close(value, right, where=name, tolerance=1e-3)


@exercise("loss_bound.threshold")
def _threshold(answer: object) -> None:
    """Your s is where the curvature term stops being a bound on the circle.

    The answer is the positive root of sinh s = 2 s, to six digits.
    """
    got = as_tensor(answer)
    if got.numel() != 1:
        wrong("the answer should be one number")
    s = got.item()
    if not s > 0.1:
        wrong("the root that is asked for is positive, and not 0")
    if s > 50 or abs(math.sinh(s) / (2 * s) - 1) > 1e-5:
        side = "large" if s > 50 or math.sinh(s) > 2 * s else "small"
        wrong(f"at your s the two sides differ: it is too {side}")


@exercise("loss_bound.worst_move")
def _worst_move(answer: object) -> None:
    """Your move is as long as allowed, and no better one was found.

    The answer is a function (W, z, y, rho) of one sample -> v of shape (d,).
    """
    for case, generator in cases(60):
        k, d = 2 + case % 5, 1 + case % 3
        weight = 2 * torch.randn(k, d, generator=generator, dtype=torch.float64)
        z = 3 * torch.randn(k, generator=generator, dtype=torch.float64)
        far = torch.rand((), generator=generator, dtype=torch.float64)
        y, rho = case % k, 3 * far.item()
        where = f"case {case} (k = {k}, d = {d}, rho = {rho:.2f})"
        move = as_tensor(call(answer, weight, z, y, rho, where=where), where)
        if move.shape != (d,):
            wrong(f"{where}: your v has shape {tuple(move.shape)}, expected ({d},)")
        if not move.norm() <= rho * (1 + 1e-9):
            wrong(f"{where}: your v is longer than rho: {move.norm():.3f}")
        found = _rise(weight, z, y, move[None]).item()
        best = _best(weight, z, y, rho)
        if found < best * (1 - 1e-4):
            wrong(f"{where}: your v raises the loss by {found:.4g}, another by more")


def _rise(weight: Tensor, z: Tensor, y: int, moves: Tensor) -> Tensor:
    """(M,) rise of the loss for moves (M, d)."""
    u = moves @ (weight - weight[y]).T
    return (z.log_softmax(0) + u).logsumexp(1)


def _best(weight: Tensor, z: Tensor, y: int, rho: float) -> float:
    """The largest rise that ascents from all rows find."""
    moves = rho * normalize(weight - weight[y])
    for _ in range(60):
        slope = (z + moves @ weight.T).softmax(1) @ weight - weight[y]
        moves = rho * normalize(slope)
    return _rise(weight, z, y, moves).max().item()
