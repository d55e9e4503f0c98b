"""Checkers of the chapter ``input_to_features``."""

import copy
import math
from itertools import pairwise

import torch
from torch import Tensor, nn

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


@exercise("input_to_features.fold")
def _fold(answer: object) -> None:
    """Your copy computes the same, and no batch normalisation in it stretches.

    The answer is a function (layers: nn.Sequential) -> nn.Sequential; layers is in
    evaluation mode and without gradients.
    """
    for case, generator in cases(8):
        layers = _normalised(case, generator)
        before = copy.deepcopy(layers.state_dict())
        where = f"case {case} ({'with' if case % 2 else 'without'} biases)"
        found = call(answer, layers, where=where)
        if not isinstance(found, nn.Module):
            wrong(f"{where}: return a module, yours is of type {type(found).__name__}")
        if any((before[n] != v).any() for n, v in layers.state_dict().items()):
            wrong(f"{where}: the layers that were given have changed; fold a copy")
        for name, bn in found.named_modules():
            if isinstance(bn, nn.BatchNorm2d):
                assert bn.running_var is not None
                spread = bn.weight.square() - bn.running_var - bn.eps
                if float(spread.abs().max()) > 1e-9 or bool((bn.weight < 0).any()):
                    wrong(f"{where}: layer {name} still multiplies its channels")
        x = torch.randn(2, 2, 5, 5, generator=generator, dtype=torch.float64)
        gap = call(found, x, where=where) - layers(x)
        still = call(found, 0 * x, where=where) - layers(0 * x)
        if float(gap.abs().max()) > 1e-9:
            shifts = float((gap - still).abs().max()) <= 1e-9
            why = "only shifts are wrong" if shifts else "the output is another one"
            wrong(f"{where}: not the same function: {why}")


def _normalised(case: int, generator: torch.Generator) -> nn.Sequential:
    """Convolution, batch normalisation with random statistics, and one more of both."""
    layers = nn.Sequential()
    widths = (2, 3, 2 + case % 2)
    for rows, columns in pairwise(widths):
        layers.append(nn.Conv2d(rows, columns, 3, bias=bool(case % 2)))
        layers.append(nn.BatchNorm2d(columns))
        if case > 4:
            layers.append(nn.ReLU())
    layers.double().eval().requires_grad_(False)
    for name, value in layers.state_dict().items():
        if value.is_floating_point():
            drawn = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            value.copy_(drawn.square() + 0.1 if "var" in name else drawn)
    return layers
