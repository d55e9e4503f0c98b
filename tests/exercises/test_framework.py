"""Checkers accept right answers, tell wrong ones apart and never give one away."""

from pathlib import Path

import numpy as np
import pytest
import sympy
import torch

from flatbook.exercises import _framework, check


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(_framework, "_CHECKERS", dict(_framework._CHECKERS))


def rank_one(weight, x, v):
    return torch.outer(weight @ v, x) / (x @ x)


def hessian(logits):
    p = torch.softmax(logits, 0)
    return torch.diag(p) - torch.outer(p, p)


@pytest.mark.parametrize(
    ("name", "answer"),
    [("linear_model.rank_one", rank_one), ("softmax_hessian.hessian", hessian)],
)
def test_right_answers(name, answer):
    verdict = check(name, answer)
    assert verdict.ok
    assert repr(verdict).startswith("Correct: ")
    assert repr(verdict) == verdict.message
    assert not hasattr(verdict, "_repr_html_")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda weight, x, v: weight @ v, r"dW has shape \(2,\), W has \(2, 3\)"),
        (lambda weight, x, v: -rank_one(weight, x, v), "are not the same"),
        (lambda weight, x, v: 2 * rank_one(weight, x, v), "are not the same"),
        (
            lambda weight, x, v: torch.outer(weight @ v, v) / (v @ x),
            "case 1 .*smaller norm",
        ),
        (lambda weight, x, v: rank_one(weight, x, v) / 0, "dW is not finite"),
        (lambda weight, x, v: None, "numbers, not NoneType"),
        (lambda weight, x: x, "your function raised TypeError"),
        (lambda weight, x, v: rank_one(weight, x, v).float(), "float32: keep the"),
        (0.5, "should be a function, yours is of type float"),
    ],
)
def test_wrong_rank_one(answer, message):
    verdict = check("linear_model.rank_one", answer)
    assert not verdict.ok
    assert verdict.message.startswith("Not yet: ")
    with pytest.raises(ValueError, match=message):
        raise ValueError(verdict.message)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda z: -hessian(z), "has the wrong sign"),
        (lambda z: 2 * hessian(z), "too large by the constant factor 2$"),
        (lambda z: torch.softmax(z, 0), r"shape \(2,\), expected \(2, 2\)"),
        (lambda z: torch.diag(torch.softmax(z, 0)), r"entry \(\d, \d\).* is wrong"),
        (
            lambda z: (
                torch.diag(torch.exp(z) / torch.exp(z).sum())
                - torch.outer(torch.exp(z), torch.exp(z)) / torch.exp(z).sum() ** 2
            ),
            "logits near 1000.*not finite",
        ),
        (lambda z: z.missing, "raised AttributeError"),
    ],
)
def test_wrong_hessian(answer, message):
    verdict = check("softmax_hessian.hessian", answer)
    assert not verdict.ok
    with pytest.raises(ValueError, match=message):
        raise ValueError(verdict.message)


def test_answers_cannot_change_the_cases_or_the_random_state():
    def destructive(logits):
        result = hessian(logits)
        logits.zero_()
        torch.manual_seed(1)
        return result

    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    assert check("softmax_hessian.hessian", destructive).ok
    assert torch.equal(torch.random.get_rng_state(), before)


def test_numpy_answers_count():
    def answer(logits):
        p = np.exp(logits.numpy() - logits.numpy().max())
        p /= p.sum()
        return np.diag(p) - np.outer(p, p)

    assert check("softmax_hessian.hessian", answer).ok


def test_unknown_exercise_lists_close_names():
    with pytest.raises(ValueError, match=r"did you mean 'softmax_hessian.hessian'"):
        check("softmax_hesian.hessian", hessian)
    with pytest.raises(ValueError, match=r"see names\(\)"):
        check("zzz", hessian)


def test_adding_a_checker_takes_a_decorator(registry):
    @_framework.exercise("chapter.number")
    def _number(answer):
        """One half."""
        _framework.expect_close(answer, 0.5)

    assert "chapter.number" in _framework.names()
    assert check("chapter.number", 0.5).message == "Correct: one half."
    assert check("chapter.number", torch.tensor(0.5, dtype=torch.float64)).ok
    message = check("chapter.number", 0.7).message
    assert message.startswith("Not yet: ")
    assert "0.5" not in message
    with pytest.raises(ValueError, match="has a checker already"):
        _framework.exercise("chapter.number")
    with pytest.raises(ValueError, match="chapter.topic"):
        _framework.exercise("number")


def test_mistakes_in_a_checker_are_not_blamed_on_the_reader(registry):
    @_framework.exercise("chapter.broken")
    def _broken(answer):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        check("chapter.broken", 1)


MATRIX = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (MATRIX.T, "transpose"),
        (MATRIX * 3, "constant factor 3"),
        (MATRIX + torch.eye(2), r"entry \(0, 0\) of your answer is wrong"),
        (MATRIX * torch.tensor([[1.0, 1.0], [1.0, -1.0]]), r"entry \(1, 1\).*sign"),
        (MATRIX + 1j, "complex"),
        (1j, "numbers, not complex"),
        (torch.zeros(2, 2, dtype=torch.float64), "is wrong"),
    ],
)
def test_expect_close_says_what_is_wrong(found, message):
    with pytest.raises(_framework._WrongError, match=message):
        _framework.expect_close(found, MATRIX)
    _framework.expect_close(MATRIX * (1 + 1e-10), MATRIX)


a, b = sympy.symbols("a b")


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (-a - b**2, "wrong sign"),
        (2 * a + 2 * b**2, "constant factor 2"),
        (a + sympy.Symbol("c"), "should not contain c"),
        (a, "does not depend on b"),
        (a + b, "not equal"),
        ("a +", "should be an expression, yours is of type str"),
        (None, "should be an expression"),
        (torch.ones(2), "should be an expression, yours is of type Tensor"),
    ],
)
def test_expect_expression_says_what_is_wrong(found, message):
    with pytest.raises(_framework._WrongError, match=message):
        _framework.expect_expression(found, a + b**2)


def test_expect_expression_accepts_other_forms():
    _framework.expect_expression((a + b) ** 2 - 2 * a * b, a**2 + b**2)
    _framework.expect_expression("a**2 + b*b", a**2 + b**2)


def test_every_chapters_module_is_loaded():
    folder = Path(_framework.__file__).parent
    modules = {path.stem for path in folder.glob("*.py") if path.stem[0] != "_"}
    assert modules == {name.partition(".")[0] for name in _framework.names()}
