"""Checkers of the chapter ``confidence_collapse``."""

import math

import torch

from flatbook import scaling
from flatbook.exercises._framework import (
    as_tensor,
    call,
    cases,
    exercise,
    expect_expression,
    wrong,
)

_ENDS = ("basin", "ramp", "curved")
_CURVES = ("log(1 + x)", "x + exp(-x)", "sqrt(1 + x^2) + x^2 / 2")
_ASK = {
    "ramp": "what does its slope tend to",
    "basin": "what does its slope tend to",
    "curved": "what does its second derivative tend to",
}


@exercise("confidence_collapse.curves")
def _curves(answer: object) -> None:
    """You read slope and curvature of the mistake off the curve."""
    if not isinstance(answer, list | tuple) or len(answer) != len(_ENDS):
        wrong("three words are asked for, one for each loss")
    for curve, found, expected in zip(_CURVES, answer, _ENDS, strict=True):
        if found not in _ENDS:
            wrong(f'{curve}: say "ramp", "basin" or "curved", not {found!r}')
        if found != expected:
            asked = _ASK[expected if expected == "curved" else found]
            wrong(f"{curve} is not {found!r}: {asked} as x grows?")


@exercise("confidence_collapse.uniform")
def _uniform(answer: object) -> None:
    """The mean trace falls like 1/s only, so s times it settles."""
    import sympy

    a, s = sympy.symbols("a s")
    if isinstance(answer, str | sympy.Expr):
        found = sympy.sympify(answer)
        plain = {v: sympy.Symbol(v.name) for v in found.free_symbols}
        answer = found.subs(plain).rewrite(sympy.exp)
    expect_expression(answer, (sympy.tanh(a * s / 2) / (a * s)).rewrite(sympy.exp))


@exercise("confidence_collapse.disguise")
def _disguise(answer: object) -> None:
    """Any network is as flat as you please, and predicts what it did.

    The answer is a function (weight (k, d), features (N, d), logits (N, k), wanted)
    -> s.
    """
    for case, generator in cases():
        k, wanted = 2 + case % 4, (1e-3, 1e-30, 1e-200)[case % 3]
        weight = torch.randn(k, 5, generator=generator, dtype=torch.float64)
        features = torch.randn(21, 5, generator=generator, dtype=torch.float64)
        head = weight, features, features @ weight.T
        where = f"case {case} (k = {k}, wanted {wanted:g})"
        s = as_tensor(call(answer, *head, wanted, where=where), where)
        if s.numel() != 1 or not math.isfinite(float(s)) or float(s) < 1:
            wrong(f"{where}: your answer should be one factor s >= 1")
        found = float(scaling.log_sharpness(*head, [float(s)]).median())
        if abs(found - math.log(wanted)) > 1e-3:
            size = "large" if found < math.log(wanted) else "small"
            wrong(
                f"{where}: your s is too {size}, the median of kappa is "
                f"e^{found:.4g} and should be e^{math.log(wanted):.4g}"
            )
