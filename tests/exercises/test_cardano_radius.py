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


def two_terms(eps, c, b):
    return 2 / (c / eps + np.hypot(c / eps, 2 * np.sqrt(b / eps)))


def cancelling(eps, c, b):
    return (np.sqrt(c * c + 4 * b * eps) - c) / (2 * b) if b else eps / c


def test_right_two_terms():
    assert check("cardano_radius.two_terms", two_terms).ok


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (cancelling, "case [78] .*put back"),
        (lambda eps, c, b: eps / c if c else 1.0, "case 1 .*left side too large"),
        (lambda eps, c, b: two_terms(eps, 2 * c, b), "case 1 .*left side too small"),
        (lambda eps, c, b: -two_terms(eps, c, b), "expected a positive number"),
        (lambda eps, c, b: two_terms(eps, c, b) / b, "case 1 .*too large"),
        (lambda eps, c, b: eps / c if b == 0 else two_terms(eps, c, 2 * b), "small"),
    ],
)
def test_wrong_two_terms(answer, message):
    verdict = check("cardano_radius.two_terms", answer)
    assert not verdict.ok
    with pytest.raises(ValueError, match=message):
        raise ValueError(verdict.message)
