"""Checkers of the chapter ``curvature_backwards``."""

import math

import sympy
import torch
from torch import Tensor, nn
from torch.autograd.functional import hessian

from flatbook.exercises._framework import (
    as_tensor,
    call,
    cases,
    exercise,
    expect_expression,
    wrong,
)


@exercise("curvature_backwards.blocks")
def _blocks(answer: object) -> None:
    """Both blocks and the cross term are right; only the last knows the label."""
    found = as_tensor(answer).flatten()
    if len(found) != 3:
        wrong(f"three numbers are asked, you gave {len(found)}")
    log3 = math.log(3.0)

    def loss(w: Tensor) -> Tensor:
        return nn.functional.softplus(w[0] * w[1])

    point = torch.tensor([1.0, log3], dtype=torch.float64)
    h = torch.as_tensor(hessian(loss, point))
    first, second, mixed = h[0, 0], h[1, 1], h[0, 1]
    near = (found - torch.stack([first, second, mixed])).abs() < 1e-6
    if bool(near.all()):
        return
    if (found[:2] - torch.stack([second, first])).abs().max() < 1e-6:
        wrong("the diagonal entries are exchanged: whose slope does w_1 scale?")
    if not near[0] or not near[1]:
        which = "first" if not near[0] else "second"
        wrong(f"the {which} number is wrong: moving one weight moves z_1 in a line")
    missing = float(found[2] - (mixed - 3 / 4))
    if abs(missing) < 1e-6:
        wrong("the mixed entry is that of J^T P J: z_1 itself has a mixed derivative")
    if abs(missing + 1 / 4) < 1e-6:
        wrong("the mixed entry is right for the other label")
    wrong("the mixed entry is wrong: the product rule gives two terms")


@exercise("curvature_backwards.variance")
def _variance(answer: object) -> None:
    """A draw is exact at the boundary and hopeless at a confident prediction."""
    q, d = sympy.symbols("q D")
    expect_expression(answer, q * (1 - q) * (1 - 2 * q) ** 2 * d**2)


@exercise("curvature_backwards.trace")
def _trace(answer: object) -> None:
    """Your trace is that of the dense Hessian in every case, confident or not.

    The answer is a function (model, x (m,)) -> number.
    """
    for case, generator in cases():
        gap, k = (1.0, 1.0, 12.0, 40.0)[(case - 1) % 4], 2 + case % 4
        where = f"case {case} (k = {k}{', confident' if gap > 1 else ''})"
        model, x = _network(generator, k, gap)
        rows = [_slope(model, x, j) for j in range(k)]
        p = model(x[None])[0].detach().softmax(0)
        pairs = [(i, j) for i in range(k) for j in range(i)]
        expected = sum(
            float(p[i] * p[j] * (rows[i] - rows[j]).square().sum()) for i, j in pairs
        )
        found = as_tensor(call(answer, model, x, where=where), where)
        if found.numel() != 1:
            wrong(f"{where}: one number is expected, yours has {tuple(found.shape)}")
        _compare(float(found), expected, where, p, rows)


def _network(
    generator: torch.Generator, k: int, gap: float
) -> tuple[nn.Module, Tensor]:
    """A ReLU network whose largest logit leads by about `gap`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(1000, (), generator=generator)))
        head = nn.Linear(8, k)
        model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), head).double()
    x = torch.randn(5, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        top = int(model(x[None]).argmax())
        head.bias[top] += gap
    return model, x


def _slope(model: nn.Module, x: Tensor, j: int) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(model(x[None])[0, j], x)[0]


def _compare(
    found: float, expected: float, where: str, p: Tensor, rows: list[Tensor]
) -> None:
    def near(value: float) -> bool:
        return abs(found - value) <= 1e-6 * abs(value)

    if near(expected):
        return
    squares = torch.stack([r.square().sum() for r in rows])
    if near(float((p * squares).sum())):
        wrong(f"{where}: these are the gradients of the logits, seen from 0, not "
              "from their mean")  # fmt: skip
    if near(float((p * (1 - p) * squares).sum())):
        wrong(f"{where}: P has entries off its diagonal too")
    if near(2 * expected):
        wrong(f"{where}: every pair of classes is counted twice")
    if p.max() > 0.999 and abs(found / expected - 1) < 0.5:
        wrong(f"{where}: only the first digits are right: a small difference of "
              "large numbers?")  # fmt: skip
    wrong(f"{where}: your trace is {found / expected:.6g} times what it should be")
