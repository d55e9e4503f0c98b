"""How an answer is checked: the registry and the helpers of the checkers.

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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Never

import torch
from torch import Tensor

if TYPE_CHECKING:
    import sympy

__all__ = [
    "Verdict",
    "as_tensor",
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
        exception in the reader's function is told, not raised. The answer ``...`` is
        none yet.

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
    if answer is ...:
        return Verdict(False, f"Not yet: there is no answer to {name} so far")
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
    got = as_tensor(found, where)
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
    except (sympy.SympifyError, TypeError, ValueError, SyntaxError):
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


def as_tensor(found: object, where: str = "") -> Tensor:
    """The reader's numbers in float64; ends the checker when they are no such thing."""
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
