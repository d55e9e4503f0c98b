"""Checkers accept right answers, tell wrong ones apart and never give one away."""

import numpy as np
import pytest
import sympy
import torch

from flatbook import exercises, softmax
from flatbook.exercises import check


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(exercises, "_CHECKERS", dict(exercises._CHECKERS))


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
    @exercises.exercise("chapter.number")
    def _number(answer):
        """One half."""
        exercises.expect_close(answer, 0.5)

    assert "chapter.number" in exercises.names()
    assert check("chapter.number", 0.5).message == "Correct: one half."
    assert check("chapter.number", torch.tensor(0.5, dtype=torch.float64)).ok
    message = check("chapter.number", 0.7).message
    assert message.startswith("Not yet: ")
    assert "0.5" not in message
    with pytest.raises(ValueError, match="has a checker already"):
        exercises.exercise("chapter.number")
    with pytest.raises(ValueError, match="chapter.topic"):
        exercises.exercise("number")


def test_mistakes_in_a_checker_are_not_blamed_on_the_reader(registry):
    @exercises.exercise("chapter.broken")
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
    with pytest.raises(exercises._WrongError, match=message):
        exercises.expect_close(found, MATRIX)
    exercises.expect_close(MATRIX * (1 + 1e-10), MATRIX)


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
    ],
)
def test_expect_expression_says_what_is_wrong(found, message):
    with pytest.raises(exercises._WrongError, match=message):
        exercises.expect_expression(found, a + b**2)


def test_expect_expression_accepts_other_forms():
    exercises.expect_expression((a + b) ** 2 - 2 * a * b, a**2 + b**2)
    exercises.expect_expression("a**2 + b*b", a**2 + b**2)


def typed_trace(features, logits):
    p = logits.softmax(1)
    return features.square().sum(1) * (p * (1 - p)).sum(1)


def pair_trace(features, logits):
    p = logits.softmax(1)
    pairs = p[:, :, None] * p[:, None, :]
    pairs.diagonal(dim1=1, dim2=2).zero_()
    return features.square().sum(1) * pairs.sum((1, 2))


def test_right_eigenvalues_and_trace():
    assert check("softmax_hessian.eigenvalues", [3 / 8, 0, 1 / 4]).ok
    assert check("softmax_hessian.trace", pair_trace).ok


@pytest.mark.parametrize(
    ("topic", "answer", "message"),
    [
        ("eigenvalues", [0, 5 / 8], "3 eigenvalues, you gave 2"),
        ("eigenvalues", [1 / 8, 1 / 4, 1 / 4], "one vector to zero"),
        ("eigenvalues", [0, 1 / 4, 1 / 2], "sum of yours is too large"),
        ("eigenvalues", [0, 5 / 16, 5 / 16], "use a symmetry"),
        ("trace", typed_trace, "gap 20.*0.5 times"),
        ("trace", lambda f, z: pair_trace(f, z).sum(), r"shape \(3,\)"),
        ("trace", lambda f, z: pair_trace(f, z) / 0, "inf times"),
    ],
)
def test_wrong_eigenvalues_and_trace(topic, answer, message):
    verdict = check(f"softmax_hessian.{topic}", answer)
    assert not verdict.ok
    with pytest.raises(ValueError, match=message):
        raise ValueError(verdict.message)


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


def with_bias(weight, x, v):
    one = torch.cat([x, x.new_ones(1)])
    both = torch.outer(weight @ v, one) / (one @ one)
    return both[:, :-1], both[:, -1]


def batch(weight, x, v):
    return torch.linalg.lstsq(x.mT, (weight @ v).mT, driver="gelsd").solution.mT


def test_right_changes_of_weights():
    assert check("linear_model.with_bias", with_bias).ok
    assert check("linear_model.batch", batch).ok


@pytest.mark.parametrize(
    ("topic", "answer", "message"),
    [
        ("with_bias", rank_one, "two tensors"),
        ("with_bias", lambda w, x, v: (w, v.new_ones(9)), "have shapes"),
        ("with_bias", lambda w, x, v: (0 * w, w @ v), "case 1 .*smaller change"),
        ("with_bias", lambda w, x, v: (rank_one(w, x, v), w @ v), "differ"),
        (
            "with_bias",
            lambda w, x, v: (
                with_bias(w, x, v) if x.any() else (rank_one(w, x, v), 0 * w @ v)
            ),
            "x = 0.*not finite",
        ),
        ("batch", lambda w, x, v: w @ v, "D has shape"),
        ("batch", lambda w, x, v: w @ v @ x.T, "moving the input differ"),
        ("batch", lambda w, x, v: batch(w, x, v) / 0, "not finite"),
    ],
)
def test_wrong_changes_of_weights(topic, answer, message):
    verdict = check(f"linear_model.{topic}", answer)
    assert not verdict.ok
    with pytest.raises(ValueError, match=message):
        raise ValueError(verdict.message)


def test_a_batch_change_with_a_needless_part_is_too_large():
    def answer(weight, x, v):
        rest = torch.eye(len(x), dtype=x.dtype) - x @ torch.linalg.pinv(x)
        return batch(weight, x, v) + weight @ rest

    assert "smaller change" in check("linear_model.batch", answer).message


def sharpest(features, logits):
    log_p = logits.log_softmax(1)
    pairs = log_p[:, :, None] + log_p[:, None, :]
    pairs.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
    size = features.square().sum(1).log()
    return (size + pairs.flatten(1).logsumexp(1)).argmax()


def test_right_walks():
    assert check("uncanny_valley.no_tie", [0.6, 0.2, 0.2]).ok
    assert check("uncanny_valley.slopes", "(1 + sqrt(1 - 2*tau))**2 / (2*tau)").ok
    assert check("uncanny_valley.sharpest", sharpest).ok
    assert check("uncanny_valley.sharpest", lambda f, z: int(sharpest(f, z))).ok


@pytest.mark.parametrize(
    ("topic", "answer", "message"),
    [
        ("no_tie", [0.5, 0.25, 0.25], "larger than one half"),
        ("no_tie", [0.9, 0.05, 0.05], "tr P is 0.185 there"),
        ("no_tie", [0.9, 0.2, -0.1], "not probabilities"),
        ("no_tie", [0.6, 0.4], r"have shape \(2,\)"),
        ("slopes", "2 / tau", "not equal to what is asked"),
        ("slopes", "(1 + sqrt(1 - 2*tau)) / (1 - sqrt(1 - 2*tau)) * 2", "factor 2"),
        ("sharpest", lambda f, z: (1 - z.softmax(1).amax(1)).argmax(), "is sharper"),
        (
            "sharpest",
            lambda f, z: (f.square().sum(1) * softmax.trace_p(z)).argmax(),
            "gaps from about 800 on.* is sharper",
        ),
        ("sharpest", lambda f, z: 12, "a step from 0 to 11"),
        ("sharpest", lambda f, z: f, "a step from 0 to 11"),
    ],
)
def test_wrong_walks(topic, answer, message):
    verdict = check(f"uncanny_valley.{topic}", answer)
    assert not verdict.ok
    with pytest.raises(ValueError, match=message):
        raise ValueError(verdict.message)
