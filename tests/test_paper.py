"""The printed formulas, typed a second time in plain numbers, and the ledger."""

import cmath
import math
from itertools import product

import pytest
import sympy as sp

from flatbook import paper, radius, symbolic

ROWS = [  # k, m, lipschitz, r, kappa, eps; root; the version with r/L outside
    ((2, 1, 1.0, 1.0, 1.0, 0.1), 0.4319, 4.434),
    ((2, 1, 1.0, 1.0, 0.01, 0.1), 1.043, 454.5),
    ((10, 512, 1.0, 5.0, 3.0, 0.1), 0.3770, 17837),
    ((2, 1, 0.1, 1.0, 1.0, 0.1), 4.472, -5.864),
]


def named(row):
    return dict(zip(("k", "m", "lipschitz", "r", "kappa", "eps"), row, strict=True))


def typed_again(display, row):
    k, m, lipschitz, r, kappa, eps = row
    km, big = k * m, lipschitz
    if display == "outside":
        front = r / big
        head = -(8 * km**3 * big**9 + 27 * eps) / (27 * kappa)
        inner = -(2**7) * km**6 * big**18 / (27 * kappa**6)
        inner += eps**2 / kappa**2 - 2**4 * eps * km**3 * big**9 / (27 * kappa**4)
    else:
        sixth, third = (1, 24) if display == "statement" else (128 / 27, 16)
        front = 1
        head = -(8 * r**3 * km**3 * big**9 + 27 * eps) / (27 * big**3 * kappa)
        inner = -sixth * r**6 * km**6 * big**3 / kappa**6
        inner += r**6 * eps**2 / (big**6 * kappa**2)
        inner -= third * r**6 * eps * km**3 * big**1.5 / (27 * kappa**4)
    root = cmath.sqrt(inner)
    total = 0
    for value in (head + root, head - root):
        if value.imag:
            total += value ** (1 / 3)
        else:
            total += math.copysign(abs(value) ** (1 / 3), value.real)
    return (front * total + 2 * r * km * big**2 / (72 * kappa)).real


@pytest.mark.parametrize(("row", "root", "printed"), ROWS)
def test_the_rows_of_the_book(row, root, printed):
    k, m, big, r, kappa, eps = row
    got = radius.cubic_radius(eps, 0.0, kappa / 2, k * m * big**3 / 24) * r / big
    assert got == pytest.approx(root, rel=5e-4)
    assert paper.printed_radius("outside", **named(row)) == pytest.approx(
        printed, rel=5e-4
    )
    for display in paper.DISPLAYS:
        found = paper.printed_radius(display, **named(row))
        assert found == pytest.approx(typed_again(display, row), rel=1e-9)
        assert abs(found / got - 1) > 0.5


def test_the_proof_differs_from_the_statement():
    outside, inside, statement = paper.DISPLAYS.values()
    assert statement.u == inside.u
    assert statement.v != inside.v
    same = {paper.L: 1, paper.r: 1}
    assert outside.u.subs(same) == inside.u.subs(same)
    assert outside.v.subs(same) == inside.v.subs(same)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"display": "proof"}, "'proof'"),
        ({"kappa": 0.0}, "kappa must be positive and finite, got 0.0"),
        ({"eps": math.inf}, "epsilon must .* got inf"),
        ({"lipschitz": -1.0}, "L must .* got -1.0"),
    ],
)
def test_bad_input_is_named(change, message):
    values = {"display": "inside", **named(ROWS[0][0]), **change}
    with pytest.raises(ValueError, match=message):
        paper.printed_radius(values.pop("display"), **values)


def third_again(display, y, j, l, o):  # noqa: E741  (the letters of the paper)
    """C.2 and C.4 letter by letter."""

    def one(a, b):
        return 1 if a == b else 0

    if display == "C.2":
        return -(y[j] * y[o] * (one(o, j) - y[l]) + y[l] * y[o] * (one(o, l) - y[j]))
    if display == "C.4 cases" and l == j:
        return -y[o] * (one(o, l) - y[l])
    return -(y[j] * y[o] * (one(o, l) - y[l]) + y[l] * y[o] * (one(o, j) - y[j]))


@pytest.mark.parametrize(
    ("display", "wrong"),
    [("C.4 cases", (4, 9, 16)), ("C.4 tensor", (4, 9, 16)), ("C.2", (8, 21, 40))],
)
def test_printed_third_derivatives(display, wrong):
    for k, count in zip((2, 3, 4), wrong, strict=True):
        free = sp.symbols(f"p:{k - 1}")
        p = (*free, 1 - sum(free))
        places, missed = list(product(range(k), repeat=3)), set()
        for at in places:
            printed = paper.printed_third(display, p, *at)
            assert sp.expand(printed - third_again(display, p, *at)) == 0
            if sp.expand(printed - symbolic.cumulant(p, *at)) != 0:
                missed.add(at)
        assert len(missed) == count
        if display != "C.2":
            assert missed == {at for at in places if at[0] == at[1]}
    with pytest.raises(ValueError, match="'C.3'"):
        paper.printed_third("C.3", p, 0, 0, 0)


def test_ledger():
    x = sp.Symbol("x")
    ledger = paper.Ledger()
    assert repr(ledger) == ""
    assert ledger.compare("right", (x + 1) ** 2, x**2 + 2 * x + 1) == 0
    assert ledger.compare("sign", x, -x) == 2 * x
    assert ledger.compare("power", x**2, x**3) == x**2 - x**3
    words = [line.split() for line in repr(ledger).splitlines()]
    assert [w[1] for w in words] == ["right", "wrong", "wrong"]
    assert words[2][-2:] == ["(slip", "2)"]
    table = ledger._repr_latex_()
    assert table.count(r"\mathbf") == 2
    assert r"x^{3}" in table


def test_printed_rise_is_the_cubic_that_is_solved():
    for row, _, _ in ROWS:
        given = named(row)
        eps = given.pop("eps")
        k, m, big, r, kappa = (given[n] for n in ("k", "m", "lipschitz", "r", "kappa"))
        root = radius.cubic_radius(eps, 0, kappa / 2, k * m * big**3 / 24)
        rise = paper.printed_rise(root * r / big, **given)
        assert rise == pytest.approx(eps, rel=1e-12)
        assert paper.printed_rise(0.0, **given) == 0
