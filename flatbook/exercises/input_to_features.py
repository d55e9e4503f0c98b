"""Checkers of the chapter ``input_to_features``."""

import math

import torch
from torch import Tensor

from flatbook.exercises._framework import (
    as_tensor,
    call,
    cases,
    exercise,
    expect_expression,
    wrong,
)


@exercise("input_to_features.blocks")
def _blocks(answer: object) -> None:
    """These are the constants that the rules give.

    The answer is a function (c, n) -> constants of a residual block, of a dense layer,
    and of n dense layers in a row.
    """
    for c, n in ((0.0, 3), (1.0, 1), (2.0, 2), (0.5, 58)):
        where = f"c = {c}, n = {n}"
        got = call(answer, c, n, where=where)
        if not isinstance(got, tuple | list) or len(got) != 3:
            wrong(f"{where}: return three numbers")
        found = as_tensor([float(v) for v in got], where)
        right = (1 + c, math.sqrt(1 + c * c), (1 + c * c) ** (n / 2))
        parts = ("the residual block", "the dense layer", "the dense layers in a row")
        for part, value, expected in zip(parts, found.tolist(), right, strict=True):
            if value < expected * (1 - 1e-9):
                wrong(f"{where}: {part} can stretch more than {value:.4g}")
            if value > expected * (1 + 1e-9):
                wrong(f"{where}: {part} has a smaller bound than {value:.4g}")


@exercise("input_to_features.second_difference")
def _second_difference(answer: object) -> None:
    """This is the largest eigenvalue of the second difference on N pixels.

    The answer is a sympy expression in N.
    """
    import sympy

    size = sympy.Symbol("N", positive=True)
    right = 2 + 2 * sympy.cos(sympy.pi / (size + 1))
    try:
        got = sympy.sympify(answer, locals={"N": size})
    except (sympy.SympifyError, TypeError, SyntaxError):
        got = None
    if not isinstance(got, sympy.Expr) or len(got.free_symbols) > 1:
        expect_expression(answer, right)
        return
    got = got.subs(dict.fromkeys(got.free_symbols, size))
    if got == 4:
        wrong("this is the bound on a torus with an even number of pixels")
    gaps = [abs(sympy.N((got - right).subs(size, n))) for n in range(1, 9)]
    if not gaps[0] < 1e-9:
        wrong("a row of one pixel is multiplied by 2; check your answer for N = 1")
    if not all(gap < 1e-9 for gap in gaps):
        expect_expression(got, right)


@exercise("input_to_features.conv_norm")
def _conv_norm(answer: object) -> None:
    """Your norm has six digits, for one channel and for several.

    The answer is a function (kernel (c_out, c_in, k, k), size) -> norm.
    """
    for case, generator in cases(8):
        k, size = (1, 3, 5)[case % 3], 2 + case
        shape = (1 + case % 2, 1 + case % 3, k, k)
        kernel = torch.randn(shape, generator=generator, dtype=torch.float64)
        where = f"case {case} ({size} x {size} pixels, k = {k})"
        found = as_tensor(call(answer, kernel, size, where=where), where)
        if found.numel() != 1 or not torch.isfinite(found).all():
            wrong(f"{where}: your answer should be one finite number")
        _compare(found.item(), kernel, size, where)


def _compare(found: float, kernel: Tensor, size: int, where: str) -> None:
    """End the checker unless a number is the norm of a convolution."""
    inputs, pad = kernel.shape[1], kernel.shape[-1] // 2
    pixels = torch.eye(inputs * size * size, dtype=kernel.dtype)
    pixels = pixels.view(-1, inputs, size, size)
    matrix = torch.conv2d(pixels, kernel, padding=pad).flatten(1)
    values = torch.linalg.svdvals(matrix)
    if abs(found / values[0].item() - 1) <= 1e-6:
        return
    reshaped = torch.linalg.matrix_norm(kernel.flatten(1), 2).item()
    if math.isclose(found, reshaped, rel_tol=1e-6):
        wrong(f"{where}: this is the norm of the reshaped kernel")
    if math.isclose(found, values[0].item() ** 2, rel_tol=1e-6):
        wrong(f"{where}: this is the square of the norm")
    if math.isclose(found, values.square().sum().sqrt().item(), rel_tol=1e-6):
        wrong(f"{where}: this is the Frobenius norm")
    if found > values[0].item():
        wrong(f"{where}: no image is stretched that much")
    wrong(f"{where}: some image is stretched more (more steps?)")
