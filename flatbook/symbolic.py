r"""The derivations of the book in sympy, exact and free of any tensor code.

Three families. The *head*: cross-entropy of k symbolic logits, its gradient, Hessian
and third derivative, to be compared with :mod:`flatbook.softmax`. *Losses* as curves
over cross-entropy, and what becomes of them where a class is certain, to be compared
with :mod:`flatbook.losses`. The *cubic* ``c D + b
D**2 + a D**3 = eps``: the depressed form of the textbook, the reciprocal form that the
package computes with, and the discriminant that tells its branches apart, to be
compared with :mod:`flatbook.radius`.

>>> z = logits(2)
>>> hessian(2).subs({z[0]: 0, z[1]: 0})
Matrix([
[ 1/4, -1/4],
[-1/4,  1/4]])
"""

from collections.abc import Callable, Sequence

import sympy as sp
import torch
from torch import Tensor

__all__ = [
    "a",
    "alpha",
    "b",
    "beta",
    "branch_threshold",
    "c",
    "cross_entropy",
    "cubic",
    "cumulant",
    "curvature_terms",
    "depressed",
    "discriminant",
    "eps",
    "gradient",
    "hessian",
    "logits",
    "pi",
    "probabilities",
    "reciprocal_root",
    "satisfies_a",
    "third_derivative",
    "to_torch",
    "vertex_limits",
    "x",
]

D = sp.Symbol("D", positive=True)
eps = sp.Symbol("epsilon", positive=True)
a, b, c = sp.symbols("a b c", nonnegative=True)
alpha, beta, t = sp.symbols("alpha beta t", real=True)
x = sp.Symbol("x", positive=True)
pi = sp.Symbol("pi", positive=True)


# --- the head ---------------------------------------------------------------


def logits(k: int) -> tuple[sp.Symbol, ...]:
    """The k real symbols z_0 ... z_{k-1}.

    Raises:
        ValueError: k is not an integer >= 2.
    """
    if not isinstance(k, int) or k < 2:
        raise ValueError(f"k must be an integer >= 2, got {k!r}")
    return sp.symbols(f"z:{k}", real=True)


def probabilities(k: int) -> sp.Matrix:
    """The softmax of :func:`logits`, a column of k expressions."""
    weights = [sp.exp(v) for v in logits(k)]
    return sp.Matrix([w / sum(weights) for w in weights])


def cross_entropy(k: int, label: int) -> sp.Expr:
    """Cross-entropy log(sum exp z) - z_label.

    Raises:
        ValueError: label is not in 0 .. k-1.
    """
    z = logits(k)
    if label not in range(k):
        raise ValueError(f"label must be in 0 .. {k - 1}, got {label!r}")
    return sp.log(sum(sp.exp(v) for v in z)) - z[label]


def gradient(k: int, label: int) -> sp.Matrix:
    """First derivative of cross-entropy in the logits, by differentiation: (k, 1)."""
    z = logits(k)
    return sp.Matrix([sp.diff(cross_entropy(k, label), v) for v in z])


def hessian(k: int) -> sp.Matrix:
    """Second derivative of cross-entropy in the logits: (k, k), free of the label."""
    z = logits(k)
    return sp.Matrix(k, k, lambda i, j: sp.diff(cross_entropy(k, 0), z[i], z[j]))


def third_derivative(k: int) -> sp.ImmutableDenseNDimArray:
    """Third derivative of cross-entropy in the logits: (k, k, k)."""
    z = logits(k)
    entries = [
        sp.diff(hessian(k)[i, j], v) for i in range(k) for j in range(k) for v in z
    ]
    return sp.ImmutableDenseNDimArray(entries, (k, k, k))


def cumulant(p: Sequence[sp.Expr], j: int, i: int, o: int) -> sp.Expr:
    r"""Entry of the third cumulant of a one-hot draw from p.

    .. math::
        T_{jio} = \delta_{ji}\delta_{io}p_j - \delta_{ji}p_jp_o - \delta_{jo}p_jp_i
                  - \delta_{io}p_ip_j + 2p_jp_ip_o
    """
    d = sp.KroneckerDelta
    first = d(j, i) * d(i, o) * p[j] + 2 * p[j] * p[i] * p[o]
    pairs = d(j, i) * p[j] * p[o] + d(j, o) * p[j] * p[i] + d(i, o) * p[i] * p[j]
    return first - pairs


# --- losses -----------------------------------------------------------------

# A loss is a sum of curves over x_j = -log p_j: `true` for the true class and `other`
# for every other one. Cross-entropy is (x, 0), the Brier score
# ((1 - exp(-x))**2, exp(-2*x)).


def curvature_terms(true: sp.Expr, other: sp.Expr = sp.S.Zero) -> tuple[sp.Expr, ...]:
    r"""The second derivatives h_y and h_j of a loss in its probabilities.

    Args:
        true: curve of the true class over `x`.
        other: curve of every other class over `x`.

    Returns:
        Both in `pi`, which stands for p_y and for p_j.

    Example:
        >>> curvature_terms(x)                        # cross-entropy
        (pi**(-2), 0)
    """
    terms = [sp.sympify(f).subs(x, -sp.log(pi)) for f in (true, other)]
    return tuple(sp.simplify(sp.diff(f, pi, 2)) for f in terms)


def satisfies_a(true: sp.Expr, other: sp.Expr = sp.S.Zero) -> bool:
    r"""Whether assumption (A) of the paper's Lemma 12 holds.

    It asks for a bound on :math:`p_y^2 h_y = f'' + f'` from above, and one on
    :math:`|h_j|`. Both are continuous inside (0, 1), so the limits at its ends decide.

    Args:
        true: curve of the true class over `x`.
        other: curve of every other class over `x`.

    Example:
        >>> satisfies_a(x), satisfies_a(x**2)
        (True, False)
    """
    scaled = [sp.diff(sp.sympify(f), x, 2) + sp.diff(f, x) for f in (true, other)]
    above = [_limit(scaled[0], end) for end in (0, sp.oo)]
    sides = [_limit(sp.exp(2 * x) * scaled[1], end) for end in (0, sp.oo)]
    return all(_top(v) < sp.oo for v in [*above, *map(sp.Abs, sides)])


def vertex_limits(true: sp.Expr, other: sp.Expr = sp.S.Zero) -> dict[str, sp.Expr]:
    r"""What is left of slope and curvature where one of three classes is certain.

    By theorem ``thm-vertex-collapse`` the gradient in the logits tends to
    :math:`\sum_{j\ne v} f_j'(\infty)(e_v - e_j)` and the Hessian to :math:`\sum_{j\ne
    v} f_j''(\infty)(e_v - e_j)(e_v - e_j)^\top`, if the certain class's own curve is
    regular at 0.

    Args:
        true: curve of the true class over `x`.
        other: curve of every other class over `x`.

    Returns:
        Frobenius norms: "right" and "wrong" of the Hessian where the true class, or
        another one, is certain, "slope right" and "slope wrong" of the gradient. A
        limit that does not exist is an interval (sympy's ``AccumBounds``).

    Raises:
        ValueError: a curve is not regular at 0.

    Example:
        >>> vertex_limits(x)                          # cross-entropy: flat, and steep
        {'right': 0, 'wrong': 0, 'slope right': 0, 'slope wrong': sqrt(2)}
    """
    true, other = sp.sympify(true), sp.sympify(other)
    for curve in (true, other):
        ends = [_limit(x**n * sp.diff(curve, x, n), 0) for n in (1, 2)]
        if any(end != 0 for end in ends):
            raise ValueError(f"{curve} is not regular at 0: {ends}, expected zeros")
    result: dict[str, sp.Expr] = {}
    for name, order in (("", 2), ("slope ", 1)):
        far = [_limit(sp.diff(f, x, order), sp.oo) for f in (true, other)]
        result[f"{name}right"] = _norm([far[1], far[1]], order)
        result[f"{name}wrong"] = _norm([far[0], far[1]], order)
    return dict(sorted(result.items(), key=lambda pair: "slope" in pair[0]))


def _limit(expression: sp.Expr, end: sp.Expr | int) -> sp.Expr:
    return sp.limit(sp.expand(expression), x, end)


def _top(value: sp.Expr) -> sp.Expr:
    return value.max if isinstance(value, sp.AccumBounds) else value


def _norm(weights: Sequence[sp.Expr], order: int) -> sp.Expr:
    """Norm of the sum over two j of w d, or of w d d^T, with d = e_v - e_j."""
    one, two = weights
    square = one**2 + two**2 + (one + two) ** 2
    return sp.sqrt(square if order == 1 else square + 2 * one**2 + 2 * two**2)


# --- the cubic --------------------------------------------------------------


def cubic() -> sp.Expr:
    """The polynomial a D^3 + b D^2 + c D - eps, whose positive root is the radius."""
    return a * D**3 + b * D**2 + c * D - eps


def depressed() -> tuple[sp.Expr, sp.Expr]:
    """The pair (p, q) of t^3 + p t + q after D = t - alpha/3.

    The monic cubic is D^3 + alpha D^2 - beta, that is alpha = b/a, beta = eps/a, c = 0.
    """
    monic = sp.expand((D**3 + alpha * D**2 - beta).subs(D, t - alpha / 3))
    polynomial = sp.Poly(monic, t)
    return polynomial.coeff_monomial(t), polynomial.coeff_monomial(1)


def discriminant() -> sp.Expr:
    """Discriminant of the cubic in D: > 0 for the cosine branch, < 0 for cosh."""
    return sp.discriminant(cubic(), D)


def branch_threshold() -> sp.Expr:
    """The value of a, for c = 0, at which the discriminant changes sign."""
    square = sp.Symbol("x")
    at_c_zero = sp.expand(discriminant().subs(c, 0) / eps).subs(a**2, square)
    (solution,) = sp.solve(at_c_zero, square)
    return sp.sqrt(solution)


def reciprocal_root() -> tuple[sp.Expr, sp.Expr]:
    r"""Both closed forms of the root, from the cubic for 1/D (``thm-cubic-radius``).

    Returns:
        ``(one_real, three_real)``: with radicals for a negative discriminant, with a
        cosine for a positive one. Every summand inside is non-negative.
    """
    g = b / (3 * eps) + (c / (3 * eps)) ** 2
    h = a / (2 * eps) + b * c / (6 * eps**2) + (c / (3 * eps)) ** 3
    u = sp.cbrt(h + sp.sqrt(h**2 - g**3))
    third = sp.acos(h / g ** sp.Rational(3, 2)) / 3
    shift = c / (3 * eps)
    return 1 / (shift + u + g / u), 1 / (shift + 2 * sp.sqrt(g) * sp.cos(third))


# --- bridge -----------------------------------------------------------------


def to_torch(
    expression: sp.Expr | sp.Matrix, symbols: Sequence[sp.Symbol]
) -> Callable[..., Tensor]:
    """A function of float64 tensors that evaluates the expression elementwise.

    Args:
        expression: a sympy expression, or a matrix of them.
        symbols: its symbols, in the order of the function's arguments.

    Returns:
        A function; a matrix (m, n) gives the shape (..., m, n).

    Raises:
        ValueError: the expression has a symbol that is not listed.

    Example:
        >>> x = sp.Symbol("x")
        >>> to_torch(x**2, [x])(torch.tensor([2.0, 3.0]))
        tensor([4., 9.], dtype=torch.float64)
    """
    missing = expression.free_symbols - set(symbols)
    if missing:
        raise ValueError(f"symbols must list {sorted(map(str, missing))} too")
    entries = (
        list(expression) if isinstance(expression, sp.MatrixBase) else [expression]
    )
    functions = [sp.lambdify(list(symbols), e, "numpy", cse=True) for e in entries]

    def evaluate(*values: Tensor) -> Tensor:
        arrays = [torch.as_tensor(v, dtype=torch.float64).numpy() for v in values]
        shape = torch.broadcast_shapes(*(v.shape for v in arrays))
        results = [torch.as_tensor(f(*arrays), dtype=torch.float64) for f in functions]
        stacked = torch.stack([r.expand(shape) for r in results], -1)
        if isinstance(expression, sp.MatrixBase):
            return stacked.reshape(*shape, *expression.shape)
        return stacked[..., 0]

    return evaluate
