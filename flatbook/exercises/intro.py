"""Checkers of the chapter ``intro``."""

import math

import torch

from flatbook import radius
from flatbook.exercises._framework import (
    as_tensor,
    call,
    cases,
    exercise,
    expect_close,
    wrong,
)


@exercise("intro.peak")
def _peak(answer: object) -> None:
    """Your x solves the equation to ten digits."""
    x = float(as_tensor(answer).reshape(()))
    if x <= 0:
        wrong("the margin and the scale are positive, so x is too")
    error = x * math.tanh(x / 2) - 2
    if abs(error) > 1e-9:
        size = "small" if error < 0 else "large"
        wrong(f"x tanh(x/2) misses 2 by {abs(error):.1g}: x is too {size}")


@exercise("intro.flip_radius")
def _flip_radius(answer: object) -> None:
    """Your radius is the distance to the nearest flip, in the edge cases too.

    The answer is a function (weight (k, d), logits (N, k), labels (N,)) -> (N,).
    """
    for case, generator in cases():
        k, d = 2 + case % 4, 1 + case % 5
        weight = torch.randn(k, d, generator=generator, dtype=torch.float64)
        phi = torch.randn(6, d, generator=generator, dtype=torch.float64)
        bias = torch.randn(k, generator=generator, dtype=torch.float64)
        where = f"case {case} (k = {k})"
        if case > 8:
            weight[-1] = weight[0]
            where = f"case {case} (k = {k}, two equal rows)"
        logits = phi @ weight.T + bias
        labels = logits.argmax(1)
        if case % 3 == 0:
            labels = (labels + 1) % k
            where += ", wrong predictions"
        expected = radius.flip_radius(weight, logits, labels)
        found = as_tensor(call(answer, weight, logits, labels, where=where), where)
        if found.shape == expected.shape and bool(
            (torch.isinf(found) != torch.isinf(expected)).any()
        ):
            wrong(f"{where}: the radius is infinite where no other class can win")
        finite = torch.isfinite(expected)
        if found.shape == expected.shape:
            found, expected = found[finite], expected[finite]
        if len(expected):
            expect_close(found, expected, where=where, floor=1e-3)


@exercise("intro.agree")
def _agree(answer: object) -> None:
    """These depend on the order of the logits and on distances in feature space only.

    The answer is a collection of names out of the five of the exercise.
    """
    known = {"predictions", "confidence", "tr P", "kappa", "rho_flip"}
    if isinstance(answer, str) or not isinstance(answer, list | tuple | set):
        wrong("the answer should be a list of names")
    strange = [name for name in answer if name not in known]
    if strange:
        wrong(f"{strange[0]!r} is none of {', '.join(sorted(map(repr, known)))}")
    if set(answer) - {"predictions", "rho_flip"}:
        wrong("not all of these agree: what do smaller logits do to the softmax?")
    if len(set(answer)) < 2:
        wrong("these do agree, and they are not all")
