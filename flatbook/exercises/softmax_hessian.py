"""Checkers of the chapter ``softmax_hessian``."""

import torch
from torch import Tensor

from flatbook import softmax
from flatbook.exercises._framework import (
    as_tensor,
    call,
    cases,
    exercise,
    expect_close,
    wrong,
)


@exercise("softmax_hessian.hessian")
def _hessian(answer: object) -> None:
    """Your Hessian agrees in every case, also for confident predictions.

    The answer is a function logits (k,) -> (k, k).
    """
    for case, generator in cases():
        k = 2 + (case - 1) % 4
        logits = torch.randn(k, generator=generator, dtype=torch.float64)
        logits = logits * (20.0 if case > 6 else 1.0)
        where = f"case {case} (k = {k})"
        if case > 9:
            logits = logits + 1000.0
            where = f"case {case} (k = {k}, logits near 1000)"
        expected = softmax.covariance(logits[None])[0]
        found = call(answer, logits, where=where)
        expect_close(found, expected, where=where, floor=1.0)


@exercise("softmax_hessian.eigenvalues")
def _eigenvalues(answer: object) -> None:
    """Your three eigenvalues of P are those of the logits (log 2, 0, 0)."""
    found = as_tensor(answer).flatten()
    if len(found) != 3:
        wrong(f"P has 3 eigenvalues, you gave {len(found)}")
    if float(found.abs().min()) > 1e-9:
        wrong("P takes one vector to zero, so one eigenvalue is known at once")
    logits = torch.tensor([[2.0, 1.0, 1.0]], dtype=torch.float64).log()
    expected = torch.linalg.eigvalsh(softmax.covariance(logits)[0])
    excess = float(found.sum() - expected.sum())
    if abs(excess) > 1e-6:
        size = "large" if excess > 0 else "small"
        wrong(f"eigenvalues sum to the trace, and the sum of yours is too {size}")
    if float((found.sort().values - expected).abs().max()) > 1e-6:
        wrong("the sum is right, the eigenvalues are not: use a symmetry of p")


@exercise("softmax_hessian.trace")
def _trace(answer: object) -> None:
    """Your trace keeps the digits of its type at every confidence.

    The answer is a function (features (N, d), logits (N, k)) -> (N,), here in float32.
    """
    for case, generator in cases():
        gap, k = (0.0, 1.0, 8.0, 20.0, 40.0, 60.0)[(case - 1) % 6], 1 + case % 5
        features = torch.randn(3, 1 + case % 4, generator=generator)
        logits = torch.randn(3, k + 1, generator=generator)
        logits[:, case % (k + 1)] = logits.amax(1) + gap
        where = f"case {case} (k = {k + 1}, float32, gap {gap:g})"
        exact = features.double().square().sum(1) * softmax.trace_p(logits.double())
        found = call(answer, features, logits, where=where)
        if not isinstance(found, Tensor) or found.shape != exact.shape:
            shape = tuple(getattr(found, "shape", ()))
            wrong(f"{where}: a tensor of shape (3,) is expected, yours has {shape}")
        kept = found.detach().double() / exact
        if not float((kept - 1).abs().max()) <= 1e-3:
            worst = float(kept[(kept - 1).abs().argmax()])
            wrong(f"{where}: your trace is {worst:.3g} times what it should be")
