"""Checkers accept the solutions and name the typical mistakes."""

import numpy as np
import pytest
import sympy

from flatbook.exercises import check


def newton_root(eps, c, b, a):
    sizes = zip((c, b, a), (1, 2, 3), strict=True)
    x = min((eps / v) ** (1 / n) for v, n in sizes if v > 0)
    for _ in range(40):
        x -= (((a * x + b) * x + c) * x - eps) / ((3 * a * x + 2 * b) * x + c)
    return x


def textbook_root(eps, c, b, a):
    roots = np.roots([a, b, c, -eps])
    return roots.real[roots.imag == 0].max()


def test_right_slope_and_root():
    d, a, b, c = sympy.symbols("D a b c", positive=True)
    assert check("cardano_radius.slope", -d / (c / d + 2 * b + 3 * a * d)).ok
    assert check("cardano_radius.slope", "-D**2/(3*D**2*a + 2*D*b + c)").ok
    assert check("cardano_radius.root", newton_root).ok


@pytest.mark.parametrize(
    ("topic", "answer", "message"),
    [
        ("slope", "D**2/(3*D**2*a + 2*D*b + c)", "wrong sign"),
        ("slope", "-D**2/(3*D**2*a + 2*D*b + epsilon)", "should not contain epsilon"),
        ("slope", "-D**2/(3*D**2*a + 2*D*b)", "does not depend on c"),
        ("slope", newton_root, "should be an expression"),
        ("root", lambda eps, c, b, a: newton_root(eps, 0, b, a), "case 1 .*error"),
        ("root", lambda eps, c, b, a: eps / c, "case 1 .*relative error"),
        ("root", textbook_root, "case 11 .*relative error of your root is"),
        ("root", lambda eps, c, b, a: 1j, "not complex"),
        ("root", 0.4, "should be a function"),
    ],
)
def test_wrong_slope_and_root(topic, answer, message):
    verdict = check(f"cardano_radius.{topic}", answer)
    assert not verdict.ok
    with pytest.raises(ValueError, match=message):
        raise ValueError(verdict.message)
