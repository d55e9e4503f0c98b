r"""Formulas as printed in the paper, wrong ones included, to be refuted.

Proposition 12 of arXiv 2510.14231 prints a root of its cubic

.. math:: \epsilon = \frac\kappa2 \Delta^2 + \frac{kmL^3}{24} \Delta^3,
          \qquad \delta = \frac rL \Delta,

three times, and no version solves it. `DISPLAYS` holds the three, letter by letter;
`printed_radius` evaluates one; `Ledger` keeps what is printed beside what sympy
derives. For a radius that is right use :func:`flatbook.radius.cubic_radius`.

Its cubic comes from Proposition 8, a bound on the rise of the loss that does not hold:
`printed_rise`. For bounds that do, :func:`flatbook.radius.loss_increase_bounds`.

The third derivative of cross-entropy in the logits is printed in three ways too, one
in appendix C.2 and two in C.4, all wrong: `printed_third`. The right one is
:func:`flatbook.softmax.third_derivative`.

>>> values = dict(k=2, m=1, lipschitz=1.0, r=1.0, kappa=1.0, eps=0.1)
>>> round(printed_radius("outside", **values), 3)       # the root is 0.4319...
4.434
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import sympy as sp
from torch import Tensor

from flatbook.symbolic import eps

__all__ = [
    "DISPLAYS",
    "LAST",
    "THIRD",
    "Display",
    "L",
    "Ledger",
    "Line",
    "k",
    "kappa",
    "m",
    "printed_radius",
    "printed_rise",
    "printed_third",
    "r",
]

k, m, L, r, kappa = sp.symbols("k m L r kappa", positive=True)

_n = k * m
_inner = (  # what the first and the second version have under the square root
    -(2**7) * _n**6 * L**18 / (27 * kappa**6),
    eps**2 / kappa**2,
    -(2**4) * eps * _n**3 * L**9 / (27 * kappa**4),
)
_moved = -(8 * r**3 * _n**3 * L**9 + 27 * eps) / (27 * L**3 * kappa)
_square = r**6 * eps**2 / (L**6 * kappa**2)
_mixed = r**6 * eps * _n**3 * L ** sp.Rational(3, 2) / (27 * kappa**4)


class Display(NamedTuple):
    r"""One version, :math:`f(\sqrt[3]{u + \sqrt v} + \sqrt[3]{u - \sqrt v})` + `LAST`.

    Attributes:
        f: the factor in front.
        u: beside the square root.
        v: under it.
    """

    f: sp.Expr
    u: sp.Expr
    v: sp.Expr


# Wrong: the sign of epsilon, two powers of kappa, the 24 of the cubic, the sixth powers
# under the root and the sign of LAST; "inside" and "statement" also the powers of L and
# r. The statement has 27/27 and 24 where the last line of its proof has 2^7/27 and 2^4.
DISPLAYS = {
    "outside": Display(
        r / L, -(8 * _n**3 * L**9 + 27 * eps) / (27 * kappa), sp.Add(*_inner)
    ),
    "inside": Display(
        sp.Integer(1),
        _moved,
        -(2**7) * r**6 * _n**6 * L**3 / (27 * kappa**6) + _square - 2**4 * _mixed,
    ),
    "statement": Display(
        sp.Integer(1),
        _moved,
        -sp.Rational(27, 27) * r**6 * _n**6 * L**3 / kappa**6 + _square - 24 * _mixed,
    ),
}
LAST = 2 * r * k * m * L**2 / (72 * kappa)


def printed_radius(
    display: str,
    *,
    k: int,
    m: int,
    lipschitz: float,
    r: float,
    kappa: float,
    eps: float,
) -> float:
    """Input radius by a printed formula; wrong, and negative for some values.

    A cube root of a real number is the real one. Where the square root is imaginary,
    the two cube roots are conjugate and their sum is real.

    Args:
        display: one of `DISPLAYS`: "outside" (r/L in front of the roots), "inside" or
            "statement".
        k: classes.
        m: features.
        lipschitz: Lipschitz constant L of the features, > 0.
        r: smallest norm of the features, > 0.
        kappa: relative sharpness, > 0.
        eps: tolerated rise of the loss, > 0.

    Raises:
        ValueError: unknown display, or a value that is not positive and finite.
    """
    if display not in DISPLAYS:
        raise ValueError(f"display must be one of {list(DISPLAYS)}, got {display!r}")
    values = {"k": k, "m": m, "L": lipschitz, "r": r, "kappa": kappa, "epsilon": eps}
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value!r}")
    names = {str(symbol): symbol for symbol in _SYMBOLS}
    at = {names[name]: value for name, value in values.items()}
    f, u, v, last = (complex(e.subs(at)) for e in (*DISPLAYS[display], LAST))
    roots = _cube_root(u + v**0.5) + _cube_root(u - v**0.5)
    return (f * roots + last).real


_SYMBOLS = (k, m, L, r, kappa, eps)


def _cube_root(x: complex) -> complex:
    return math.cbrt(x.real) if x.imag == 0 else x ** (1 / 3)


# Two of C.4: by the cases i = j and i != j, and the last line, "->"; one of C.2.
THIRD = ("C.4 cases", "C.4 tensor", "C.2")


def printed_rise(
    delta: float | Tensor,
    *,
    k: int,
    m: int,
    kappa: float | Tensor,
    lipschitz: float = 1.0,
    r: float | Tensor = 1.0,
) -> float | Tensor:
    r"""The printed bound on the rise of the loss at an input distance; wrong.

    Proposition 8: :math:`\frac{\delta^2}{2r^2}L^2\kappa + \frac{\delta^3}{24r^3}kmL^6`.

    Args:
        delta: distance in the input; numbers and tensors broadcast.
        k: classes.
        m: features.
        kappa: relative sharpness.
        lipschitz: Lipschitz constant L of the features.
        r: smallest norm of the features.

    Example:
        >>> round(printed_rise(2.0, k=2, m=1, kappa=0.00908), 3)  # the truth: 9.999
        0.685
    """
    step = delta / r
    return step**2 / 2 * lipschitz**2 * kappa + step**3 / 24 * k * m * lipschitz**6


def printed_third(
    display: str, p: Sequence[sp.Expr], j: int, i: int, o: int
) -> sp.Expr:
    r"""Entry (j, i, o) of the third derivative in the logits, by a printed formula.

    Wrong wherever i = j, where the derivative of :math:`p_i^2` has lost its factor
    :math:`p_i` or the formula for i != j stands; C.2 also permutes its indices.

    Args:
        display: one of `THIRD`.
        p: k probabilities, numbers or symbols.
        j: first index, with i and o in 0 .. k-1.
        i: second index, in print an l.
        o: third index.

    Raises:
        ValueError: unknown display.

    Example:
        >>> p = sp.Rational(3, 4), sp.Rational(1, 4)
        >>> printed_third("C.4 cases", p, 1, 1, 1)      # 3/32, rightly
        -3/16
    """
    if display not in THIRD:
        raise ValueError(f"display must be one of {THIRD}, got {display!r}")
    if display == "C.4 cases" and i == j:
        return -p[o] * (int(o == i) - p[i])
    first, second = (i, j) if display.startswith("C.4") else (j, i)
    at_i, at_j = int(o == first) - p[i], int(o == second) - p[j]
    return -p[o] * (p[j] * at_i + p[i] * at_j)


class Line(NamedTuple):
    """One line of a `Ledger`; it is right if the difference is 0."""

    name: str
    printed: sp.Expr
    derived: sp.Expr
    difference: sp.Expr


class Ledger:
    """Printed against derived, line by line; shows itself as a table.

    Attributes:
        lines: all comparisons so far.

    Example:
        >>> ledger = Ledger()
        >>> x = sp.Symbol("x")
        >>> ledger.compare("square", x**2 + 1, (x + 1) ** 2)
        -2*x
        >>> ledger
        square  wrong  (slip 1)
    """

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def compare(self, name: str, printed: sp.Expr, derived: sp.Expr) -> sp.Expr:
        """Note a line and return printed minus derived, in the shorter of two forms."""
        simple = sp.simplify(printed - derived)
        difference = min(sp.factor(simple), sp.expand(simple), key=sp.count_ops)
        self.lines.append(Line(name, printed, derived, difference))
        return difference

    def _marks(self) -> list[str]:
        """Nothing for a right line, the number of the slip for a wrong one."""
        count = 0
        marks = []
        for line in self.lines:
            count += line.difference != 0
            marks.append(str(count) if line.difference != 0 else "")
        return marks

    def __repr__(self) -> str:
        width = max((len(line.name) for line in self.lines), default=0)
        return "\n".join(
            f"{line.name:{width}}  " + (f"wrong  (slip {mark})" if mark else "right")
            for line, mark in zip(self.lines, self._marks(), strict=True)
        )

    def _repr_latex_(self) -> str:
        rows = [r"\text{line} & \text{slip} & \text{printed} & \text{derived}"]
        for line, mark in zip(self.lines, self._marks(), strict=True):
            slip = rf"\mathbf{{{mark}}}" if mark else r"\text{–}"
            cells = (sp.latex(line.printed), sp.latex(line.derived))
            rows.append(" & ".join([rf"\text{{{line.name}}}", slip, *cells]))
        body = r" \\[1.3ex] ".join(rows)
        return rf"$\displaystyle \begin{{array}}{{lcll}} {body} \end{{array}}$"
