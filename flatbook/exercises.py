r"""Checkers for the exercises: they say what is wrong, not the answer.

A chapter asks and the reader answers with a number, a tensor, a sympy expression or
a function:

>>> def hessian(logits):
...     p = torch.softmax(logits, 0)
...     return torch.diag(p) + torch.outer(p, p)
>>> check("softmax_hessian.hessian", hessian)
Not yet: case 1 (k = 2): entry (0, 1) of your answer has the wrong sign

A checker is a function with a name. It gets the answer and returns when it is right;
else it calls `wrong`, or a helper that does. The first line of its docstring is what
a reader with a right answer sees after "Correct: "::

    @exercise("cardano_radius.discriminant")
    def _discriminant(answer: object) -> None:
        "The cubic has one real root exactly where this is negative."
        expect_expression(answer, sympy.Symbol("b") ** 2 - 3)
"""

import difflib
import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Never

import torch
from torch import Tensor

from flatbook import radius, softmax

if TYPE_CHECKING:
    import sympy

__all__ = [
    "Verdict",
    "call",
    "cases",
    "check",
    "exercise",
    "expect_close",
    "expect_expression",
    "names",
    "wrong",
]

Checker = Callable[[object], None]

_CHECKERS: dict[str, Checker] = {}


@dataclass(frozen=True, repr=False)
class Verdict:
    """What a checker says; shows itself as its message.

    Attributes:
        ok: whether the answer is right.
        message: "Correct: ..." or "Not yet: <what is wrong>".
    """

    ok: bool
    message: str

    def __repr__(self) -> str:
        return self.message


class _WrongError(Exception):
    """The answer is not right; the message tells the reader why."""


def check(name: str, answer: object) -> Verdict:
    """Check an answer to an exercise.

    Args:
        name: "chapter.topic", one of `names`.
        answer: what the exercise asks for.

    Returns:
        A verdict that prints as "Correct: ..." or "Not yet: <what is wrong>". An
        exception in the reader's function is told, not raised.

    Raises:
        ValueError: there is no such exercise.
    """
    if name not in _CHECKERS:
        near = difflib.get_close_matches(name, names(), n=3, cutoff=0.4)
        hint = (
            f"did you mean {' or '.join(map(repr, near))}?" if near else "see names()"
        )
        raise ValueError(f"no exercise {name!r}; {hint}")
    checker = _CHECKERS[name]
    try:
        with torch.random.fork_rng(devices=[]):
            checker(answer)
    except _WrongError as reason:
        return Verdict(False, f"Not yet: {reason}")
    praise = inspect.getdoc(checker) or "This holds in every case that was tried."
    return Verdict(True, f"Correct: {praise[0].lower()}{praise.splitlines()[0][1:]}")


def names() -> list[str]:
    """The names of all exercises that have a checker."""
    return sorted(_CHECKERS)


def exercise(name: str) -> Callable[[Checker], Checker]:
    """Register a checker under the name "chapter.topic".

    Raises:
        ValueError: the name is taken or not of this form.
    """
    chapter, _, topic = name.partition(".")
    if not (chapter.isidentifier() and topic.isidentifier()):
        raise ValueError(f"name must look like chapter.topic, got {name!r}")
    if name in _CHECKERS:
        raise ValueError(f"exercise {name!r} has a checker already")

    def register(checker: Checker) -> Checker:
        _CHECKERS[name] = checker
        return checker

    return register


# --- for those who write checkers --------------------------------------------


def wrong(reason: str) -> Never:
    """End a checker: the answer is not right because of ``reason``."""
    raise _WrongError(reason)


def cases(number: int = 12, *, seed: int = 0) -> Iterator[tuple[int, torch.Generator]]:
    """Numbered cases 1 .. ``number``, each with a generator for its float64 data."""
    for case in range(1, number + 1):
        yield case, torch.Generator().manual_seed(1000 * seed + case)


def call(function: object, *arguments: object, where: str = "") -> object:
    """The reader's function at copies of the arguments.

    Ends the checker when the answer is no function, or when it raises.
    """
    if not callable(function):
        wrong(f"the answer should be a function, yours is of type {_kind(function)}")
    copies = [a.clone() if isinstance(a, Tensor) else a for a in arguments]
    try:
        return function(*copies)
    except Exception as error:  # the reader's own code may raise anything
        told = " ".join(str(error).split())[:200]
        wrong(f"{_at(where)}your function raised {type(error).__name__}: {told}")


def expect_close(
    found: object,
    expected: object,
    *,
    where: str = "",
    tolerance: float = 1e-8,
    floor: float = 0.0,
) -> None:
    """End the checker unless two numbers or tensors agree.

    Args:
        found: the reader's number, array or tensor.
        expected: what is right; never shown.
        where: which case this is.
        tolerance: largest difference, relative to the largest entry expected
            or to ``floor``, whichever is more.
        floor: the size below which only the absolute difference counts.
    """
    target = torch.as_tensor(expected, dtype=torch.float64)
    got = _tensor(found, where)
    if got.shape != target.shape:
        shapes = f"{tuple(got.shape)}, expected {tuple(target.shape)}"
        wrong(f"{_at(where)}your answer has shape {shapes}")
    if not torch.isfinite(got).all():
        wrong(f"{_at(where)}your answer is not finite (overflow, or 0 / 0?)")
    allowed = tolerance * max(float(target.abs().max()), floor)
    if float((got - target).abs().max()) > allowed:
        wrong(_at(where) + _difference(got, target, allowed))


def expect_expression(found: object, expected: "sympy.Expr") -> None:
    """End the checker unless two sympy expressions are equal.

    Args:
        found: the reader's expression, or a text that sympy understands.
        expected: what is right; never shown.
    """
    import sympy

    try:
        got = sympy.sympify(found)
    except (sympy.SympifyError, TypeError, SyntaxError):
        got = None
    if not isinstance(got, sympy.Expr):
        wrong(f"the answer should be an expression, yours is of type {_kind(found)}")
    strange = sorted(map(str, got.free_symbols - expected.free_symbols))
    missing = sorted(map(str, expected.free_symbols - got.free_symbols))
    if sympy.simplify(got - expected) == 0:
        return
    if strange:
        wrong(f"your expression should not contain {', '.join(strange)}")
    if sympy.simplify(got + expected) == 0:
        wrong("your expression has the wrong sign")
    ratio = sympy.simplify(got / expected) if expected != 0 else sympy.Symbol("x")
    if ratio.is_number:
        wrong(f"your expression is too large by the constant factor {ratio}")
    if missing:
        wrong(f"your expression does not depend on {', '.join(missing)}")
    wrong("your expression is not equal to what is asked; compare both at a point")


def _kind(value: object) -> str:
    return type(value).__name__


def _at(where: str) -> str:
    return f"{where}: " if where else ""


def _tensor(found: object, where: str) -> Tensor:
    try:
        dtype = None if hasattr(found, "dtype") else torch.float64
        got = torch.as_tensor(found, dtype=dtype)
    except (TypeError, ValueError, RuntimeError):
        wrong(f"{_at(where)}your answer should be numbers, not {_kind(found)}")
    if got.is_complex():
        wrong(f"{_at(where)}your answer is complex")
    if got.dtype in (torch.float32, torch.float16, torch.bfloat16):
        short = str(got.dtype).removeprefix("torch.")
        wrong(f"{_at(where)}your answer is {short}: keep the float64 of the input")
    return got.detach().to(torch.float64)


def _difference(got: Tensor, target: Tensor, allowed: float) -> str:
    """What distinguishes a wrong tensor from the right one, in words."""

    def near(other: Tensor) -> bool:
        return float((other - target).abs().max()) <= allowed

    if near(-got):
        return "your answer has the wrong sign"
    norm = float((target * target).sum())
    factor = float((got * target).sum()) / norm if norm else 0.0
    if factor and near(got / factor):
        return f"your answer is too large by the constant factor {factor:.4g}"
    if got.ndim == 2 and got.shape[0] == got.shape[1] and near(got.T):
        return "your answer is the transpose of what is asked"
    worst = (got - target).abs()
    signs = (got * target < 0) & (worst > allowed)
    if signs.any():
        return f"{_entry(signs.to(worst.dtype))} has the wrong sign"
    return f"{_entry(worst)} is wrong"


def _entry(size: Tensor) -> str:
    """The name of the largest entry."""
    if size.ndim == 0:
        return "your answer"
    index = torch.unravel_index(size.argmax(), size.shape)
    place = ", ".join(str(int(i)) for i in index)
    return f"entry ({place}) of your answer"


# --- the checkers ----------------------------------------------------------------


@exercise("linear_model.rank_one")
def _rank_one(answer: object) -> None:
    """Your dW moves the output exactly as v does, and no smaller one would.

    The answer is a function (W, x, v) -> dW with weights W (k, d), x and v (d,).
    """
    for case, generator in cases():
        k, d = 1 + case % 3, 2 + case % 4
        weight = torch.randn(k, d, generator=generator, dtype=torch.float64)
        x, v = torch.randn(2, d, generator=generator, dtype=torch.float64)
        v = v * (0.0 if case == 5 else 1.0)
        where = f"case {case} (k = {k}, d = {d})"
        change = _tensor(call(answer, weight, x, v, where=where), where)
        if change.shape != weight.shape:
            shapes = f"{tuple(change.shape)}, W has {tuple(weight.shape)}"
            wrong(f"{where}: dW has shape {shapes}")
        if not torch.isfinite(change).all():
            wrong(f"{where}: dW is not finite")
        moved = weight @ v
        if float((change @ x - moved).norm()) > 1e-9 * (1 + float(moved.norm())):
            wrong(f"{where}: (W + dW) x and W (x + v) are not the same")
        least = float(moved.norm() / x.norm())
        if float(change.norm()) > least * (1 + 1e-9) + 1e-12:
            wrong(f"{where}: dW does it, but a dW of smaller norm does too")


@exercise("softmax_hessian.hessian")
def _hessian(answer: object) -> None:
    """Your Hessian agrees in every case, also for confident predictions.

    The answer is a function logits (k,) -> (k, k).
    """
    for case, generator in cases():
        k = 2 + (case - 1) % 4
        logits = torch.randn(k, generator=generator, dtype=torch.float64)
        logits = logits * (20.0 if case > 6 else 1.0)
        where = f"case {case} (k = {k})"
        if case > 9:
            logits = logits + 1000.0
            where = f"case {case} (k = {k}, logits near 1000)"
        expected = softmax.covariance(logits[None])[0]
        found = call(answer, logits, where=where)
        expect_close(found, expected, where=where, floor=1.0)


# intro


@exercise("intro.peak")
def _peak(answer: object) -> None:
    """Your x solves the equation to ten digits."""
    x = float(_tensor(answer, "").reshape(()))
    if x <= 0:
        wrong("the margin and the scale are positive, so x is too")
    error = x * math.tanh(x / 2) - 2
    if abs(error) > 1e-9:
        size = "small" if error < 0 else "large"
        wrong(f"x tanh(x/2) misses 2 by {abs(error):.1g}: x is too {size}")


@exercise("intro.flip_radius")
def _flip_radius(answer: object) -> None:
    """Your radius is the distance to the nearest flip, in the edge cases too.

    The answer is a function (weight (k, d), logits (N, k), labels (N,)) -> (N,).
    """
    for case, generator in cases():
        k, d = 2 + case % 4, 1 + case % 5
        weight = torch.randn(k, d, generator=generator, dtype=torch.float64)
        phi = torch.randn(6, d, generator=generator, dtype=torch.float64)
        bias = torch.randn(k, generator=generator, dtype=torch.float64)
        where = f"case {case} (k = {k})"
        if case > 8:
            weight[-1] = weight[0]
            where = f"case {case} (k = {k}, two equal rows)"
        logits = phi @ weight.T + bias
        labels = logits.argmax(1)
        if case % 3 == 0:
            labels = (labels + 1) % k
            where += ", wrong predictions"
        expected = radius.flip_radius(weight, logits, labels)
        found = _tensor(call(answer, weight, logits, labels, where=where), where)
        if found.shape == expected.shape and bool(
            (torch.isinf(found) != torch.isinf(expected)).any()
        ):
            wrong(f"{where}: the radius is infinite where no other class can win")
        finite = torch.isfinite(expected)
        if found.shape == expected.shape:
            found, expected = found[finite], expected[finite]
        if len(expected):
            expect_close(found, expected, where=where, floor=1e-3)


# softmax_hessian


@exercise("softmax_hessian.eigenvalues")
def _eigenvalues(answer: object) -> None:
    """Your three eigenvalues of P are those of the logits (log 2, 0, 0)."""
    found = _tensor(answer, "").flatten()
    if len(found) != 3:
        wrong(f"P has 3 eigenvalues, you gave {len(found)}")
    if float(found.abs().min()) > 1e-9:
        wrong("P takes one vector to zero, so one eigenvalue is known at once")
    logits = torch.tensor([[2.0, 1.0, 1.0]], dtype=torch.float64).log()
    expected = torch.linalg.eigvalsh(softmax.covariance(logits)[0])
    excess = float(found.sum() - expected.sum())
    if abs(excess) > 1e-6:
        size = "large" if excess > 0 else "small"
        wrong(f"eigenvalues sum to the trace, and the sum of yours is too {size}")
    if float((found.sort().values - expected).abs().max()) > 1e-6:
        wrong("the sum is right, the eigenvalues are not: use a symmetry of p")


@exercise("softmax_hessian.trace")
def _trace(answer: object) -> None:
    """Your trace keeps the digits of its type at every confidence.

    The answer is a function (features (N, d), logits (N, k)) -> (N,), here in float32.
    """
    for case, generator in cases():
        gap, k = (0.0, 1.0, 8.0, 20.0, 40.0, 60.0)[(case - 1) % 6], 1 + case % 5
        features = torch.randn(3, 1 + case % 4, generator=generator)
        logits = torch.randn(3, k + 1, generator=generator)
        logits[:, case % (k + 1)] = logits.amax(1) + gap
        where = f"case {case} (k = {k + 1}, float32, gap {gap:g})"
        exact = features.double().square().sum(1) * softmax.trace_p(logits.double())
        found = call(answer, features, logits, where=where)
        if not isinstance(found, Tensor) or found.shape != exact.shape:
            shape = tuple(getattr(found, "shape", ()))
            wrong(f"{where}: a tensor of shape (3,) is expected, yours has {shape}")
        kept = found.detach().double() / exact
        if not float((kept - 1).abs().max()) <= 1e-3:
            worst = float(kept[(kept - 1).abs().argmax()])
            wrong(f"{where}: your trace is {worst:.3g} times what it should be")


# cardano_radius


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
        got = float(_tensor(found, where).reshape(-1)[0])
        error = abs(got / radius.cubic_radius(eps, *terms) - 1)
        if not error <= 1e-10:
            wrong(f"{where}: the relative error of your root is {error:.1g}")


# linear_model


@exercise("linear_model.with_bias")
def _with_bias(answer: object) -> None:
    """Your pair does it with the least norm, also at x = 0.

    The answer is a function (W, x, v) -> (dW (k, d), db (k,)).
    """
    for case, generator in cases():
        k, d = 1 + case % 3, 1 + case % 4
        weight = torch.randn(k, d, generator=generator, dtype=torch.float64)
        x, v = torch.randn(2, d, generator=generator, dtype=torch.float64)
        x = x * (0.0 if case > 9 else 1.0)
        where = f"case {case} (k = {k}, d = {d}{', x = 0' if case > 9 else ''})"
        pair = call(answer, weight, x, v, where=where)
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            wrong(f"{where}: return two tensors, dW and db")
        change, shift = (_tensor(part, where) for part in pair)
        if change.shape != weight.shape or shift.shape != (k,):
            shapes = f"{tuple(change.shape)} and {tuple(shift.shape)}"
            wrong(
                f"{where}: dW and db have shapes {shapes}, expected {k, d} and {(k,)}"
            )
        moved = weight @ v
        both = torch.cat([change, shift[:, None]], 1)
        gap = both @ torch.cat([x, x.new_ones(1)]) - moved
        _least(both, gap, moved / (1 + x @ x).sqrt(), where)


@exercise("linear_model.batch")
def _batch(answer: object) -> None:
    """Your D serves all samples at once, and no smaller one would.

    The answer is a function (W (k, d), X (d, n), V (d, n)) -> D (k, d), where the
    columns of X are linearly independent.
    """
    for case, generator in cases():
        k, n = 1 + case % 3, 1 + case % 4
        d = n + case % 3
        weight = torch.randn(k, d, generator=generator, dtype=torch.float64)
        x, v = torch.randn(2, d, n, generator=generator, dtype=torch.float64)
        where = f"case {case} (k = {k}, d = {d}, n = {n})"
        change = _tensor(call(answer, weight, x, v, where=where), where)
        if change.shape != weight.shape:
            shapes = f"{tuple(change.shape)}, W has {tuple(weight.shape)}"
            wrong(f"{where}: D has shape {shapes}")
        moved = weight @ v
        _least(change, change @ x - moved, moved @ torch.linalg.pinv(x), where)


def _least(change: Tensor, gap: Tensor, best: Tensor, where: str) -> None:
    """End the checker unless a change hits its target with the norm of the best."""
    if not torch.isfinite(change).all():
        wrong(f"{where}: your answer is not finite")
    if float(gap.norm()) > 1e-8 * (1 + float(best.norm())):
        wrong(f"{where}: moving the weights and moving the input differ")
    if float(change.norm()) > float(best.norm()) * (1 + 1e-8):
        wrong(f"{where}: it does it, but a smaller change does too")


# uncanny_valley


@exercise("uncanny_valley.no_tie")
def _no_tie(answer: object) -> None:
    """Nothing ties, one class has more than half, and it is sharper than a tie."""
    p = _tensor(answer, "")
    if p.shape != (3,):
        wrong(f"three probabilities are asked for, yours have shape {tuple(p.shape)}")
    if float(p.min()) < 0 or abs(float(p.sum()) - 1) > 1e-9:
        wrong("your numbers are not probabilities: at least 0, and 1 together")
    if float(p[0]) <= 0.5:
        wrong("the first probability should be larger than one half")
    trace = 1 - float(p.square().sum())
    if trace <= 0.5 + 1e-12:
        wrong(f"tr P is {trace:.4g} there, a tie of two classes already has 0.5")


@exercise("uncanny_valley.slopes")
def _slopes(answer: object) -> None:
    """The flatter the two points, the more their slopes differ."""
    import sympy

    root = sympy.sqrt(1 - 2 * sympy.Symbol("tau"))
    expect_expression(answer, (1 + root) / (1 - root))


@exercise("uncanny_valley.sharpest")
def _sharpest(answer: object) -> None:
    """Your step is the sharpest on every path, however confident the network.

    The answer is a function (features (T + 1, d), logits (T + 1, k)) -> step.
    """
    for case, generator in cases():
        k, steps = 2 + case % 4, torch.arange(12)
        features = torch.randn(12, 5, generator=generator, dtype=torch.float64)
        features[-1] *= 0.01
        floor = (0.0, 40.0, 800.0)[case % 3]
        logits = torch.randn(12, k, generator=generator, dtype=torch.float64)
        logits[:, 0] += floor + 2 * (steps - 3 - case % 6).abs()
        size = 2 * torch.linalg.vector_norm(features, dim=1).log()
        trace = size + softmax.log_trace_p(logits)
        where = f"case {case} (k = {k}, gaps from about {floor:.0f} on)"
        step = _tensor(call(answer, features, logits, where=where), where)
        if step.numel() != 1 or float(step) not in range(12):
            wrong(f"{where}: your answer should be a step from 0 to 11")
        if float(trace[int(step)]) < float(trace.max()) - 1e-9:
            wrong(f"{where}: another step is sharper than step {int(step)}")
