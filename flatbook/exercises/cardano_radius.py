"""Checkers of the chapter ``cardano_radius``."""

from fractions import Fraction

import torch

from flatbook import radius
from flatbook.exercises._framework import (
    as_tensor,
    call,
    cases,
    exercise,
    expect_expression,
    wrong,
)


@exercise("cardano_radius.slope")
def _slope(answer: object) -> None:
    """Your derivative is that of the root, wherever c D + b D^2 + a D^3 = epsilon.

    The answer is an expression in D, a, b and c.
    """
    import sympy

    big_d, a, b, c = sympy.symbols("D a b c")
    if isinstance(answer, sympy.Basic):  # symbols of any assumptions, by their names
        plain = {s: sympy.Symbol(str(s)) for s in answer.free_symbols}
        answer = answer.xreplace(plain)
    expect_expression(answer, -(big_d**2) / (c + 2 * b * big_d + 3 * a * big_d**2))


@exercise("cardano_radius.root")
def _root(answer: object) -> None:
    """Your root keeps its digits over sixty decades, and with terms absent.

    The answer is a function (eps, c, b, a) of four numbers -> the positive root.
    """
    absent = {5: (0,), 6: (1,), 7: (2,), 8: (0, 1), 9: (0, 2), 10: (1, 2)}
    for case, generator in cases(40):
        wide = 60 if case > 10 else 2
        spread = torch.rand(4, generator=generator, dtype=torch.float64) - 0.5
        eps, *terms = (10 ** (wide * spread)).tolist()
        for place in absent.get(case, ()):
            terms[place] = 0.0
        given = ", ".join(f"{v:.1e}" for v in (eps, *terms))
        where = f"case {case} (eps, c, b, a = {given})"
        found = call(answer, eps, *terms, where=where)
        got = float(as_tensor(found, where).reshape(-1)[0])
        error = abs(got / radius.cubic_radius(eps, *terms) - 1)
        if not error <= 1e-10:
            wrong(f"{where}: the relative error of your root is {error:.1g}")


@exercise("cardano_radius.two_terms")
def _two_terms(answer: object) -> None:
    """Your root solves c D + b D^2 = epsilon to ten digits, however small b or c is.

    The answer is a function (eps, c, b) of three numbers -> the positive root; one of
    c and b may be zero. It is put back into the equation in exact arithmetic.
    """
    for case, generator in cases(20):
        wide = 40 if case > 6 else 2
        spread = torch.rand(3, generator=generator, dtype=torch.float64) - 0.5
        eps, c, b = (10 ** (wide * spread)).tolist()
        c, b = (0.0 if case == 5 else c), (0.0 if case == 6 else b)
        where = f"case {case} (eps, c, b = {eps:.1e}, {c:.1e}, {b:.1e})"
        got = float(
            as_tensor(call(answer, eps, c, b, where=where), where).reshape(-1)[0]
        )
        if not 0 < got < float("inf"):
            wrong(f"{where}: your root is {got}, expected a positive number")
        root = Fraction(got)
        left = Fraction(c) * root + Fraction(b) * root**2
        error = float(left / Fraction(eps) - 1)
        if abs(error) > 1e-10:
            lost = "large" if error > 0 else "small"
            wrong(f"{where}: put back, your root makes the left side too {lost}")
