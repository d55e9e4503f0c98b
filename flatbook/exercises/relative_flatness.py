"""Checkers of the chapter ``relative_flatness``."""

import torch
from torch import Tensor

from flatbook import curvature
from flatbook.exercises._framework import (
    as_tensor,
    call,
    cases,
    exercise,
    expect_close,
    wrong,
)

_CHAIN = ("|phi|^2 lambda", "kappa_P", "the bound with the centred head", "kappa")


@exercise("relative_flatness.chain")
def _chain(answer: object) -> None:
    """Your four numbers are those of the head, from the worst case up to kappa."""
    found = as_tensor(answer).flatten()
    if len(found) != 4:
        wrong(f"four numbers are asked for, you gave {len(found)}")
    if bool((found.diff() < 0).any()):
        at = int((found.diff() < 0).nonzero()[0])
        wrong(f"{_CHAIN[at]} cannot be larger than {_CHAIN[at + 1]}")
    expected = torch.tensor([12.5, 18.75, 31.25, 46.875], dtype=torch.float64)
    off = (found - expected).abs() > 1e-6
    if off.any():
        at = int(off.nonzero()[0])
        size = "large" if found[at] > expected[at] else "small"
        wrong(f"{_CHAIN[at]} is too {size}")


@exercise("relative_flatness.signs")
def _signs(answer: object) -> None:
    """Your mean over the signs is exact, also for confident predictions.

    The answer is a function (weight (k, d), features (N, d), logits (N, k)) -> (N,).
    """
    for case, weight, features, logits, where in _heads():
        columns = _columns(weight, logits)
        expected = (features.square() * columns).sum(1)
        found = _value(answer, weight, features, logits, where)
        if case <= 8:
            _unmoved(answer, found, (weight, features, logits), where)
        elif not torch.allclose(found, expected, rtol=1e-6, atol=0):
            kept = found / expected
            worst = float(kept[(kept - 1).abs().argmax()])
            wrong(f"{where}: your mean is {worst:.3g} times what it should be")
        expect_close(found, expected, where=where)


@exercise("relative_flatness.least")
def _least(answer: object) -> None:
    """Some rescaling of the neurons reaches your value, and none goes below it.

    The answer is a function (weight (k, d), features (N, d), logits (N, k)) -> (N,).
    """
    for _, weight, features, logits, where in _heads():
        columns = _columns(weight, logits)
        expected = (features.abs() * columns.sqrt()).sum(1).square()
        found = _value(answer, weight, features, logits, where)
        if bool((found < expected * (1 - 1e-8)).any()):
            wrong(f"{where}: no rescaling of the neurons gets as low as your value")
        if bool((found > expected * (1 + 1e-8)).any()):
            wrong(f"{where}: some rescaling of the neurons goes below your value")


def _heads() -> list[tuple[int, Tensor, Tensor, Tensor, str]]:
    """Random heads with at least two features; the last four are confident."""
    heads = []
    for case, generator in cases():
        k, d = 2 + case % 4, 2 + case % 3
        weight = torch.randn(k, d, generator=generator, dtype=torch.float64)
        features = torch.randn(3, d, generator=generator, dtype=torch.float64)
        logits = torch.randn(3, k, generator=generator, dtype=torch.float64)
        where = f"case {case} (k = {k}, d = {d})"
        if case > 8:
            logits[:, case % k] += 40.0
            where = f"case {case} (k = {k}, d = {d}, a gap of about 40)"
        heads.append((case, weight, features, logits, where))
    return heads


def _columns(weight: Tensor, logits: Tensor) -> Tensor:
    """The diagonal (N, d) of W^T P W: the variance of each column of the head."""
    rows = curvature.centred_rows(weight, logits)
    return (logits.softmax(1)[:, :, None] * rows.square()).sum(1)


def _value(
    answer: object, weight: Tensor, features: Tensor, logits: Tensor, where: str
) -> Tensor:
    found = as_tensor(call(answer, weight, features, logits, where=where), where)
    if found.shape != (len(features),):
        shape = tuple(found.shape)
        wrong(f"{where}: one number for each of 3 samples, yours has shape {shape}")
    if not torch.isfinite(found).all():
        wrong(f"{where}: your answer is not finite")
    return found


def _unmoved(
    answer: object, before: Tensor, head: tuple[Tensor, Tensor, Tensor], where: str
) -> None:
    """End the checker where a move that changes no prediction changes the answer."""
    weight, features, logits = head
    scale = torch.linspace(0.5, 2, features.shape[1], dtype=torch.float64)
    moves = {
        "W + 1 v^T": (weight + scale, features),
        "W D and phi / D": (weight * scale, features / scale),
    }
    for name, (w, phi) in moves.items():
        after = _value(answer, w, phi, logits, where)
        if not torch.allclose(after, before, rtol=1e-6, atol=1e-30):
            wrong(f"{where}: your answer is another one for {name}")
