"""Every exercise has a level, a hint and a solution, and every chapter all levels."""

import re

import pytest

from flatbook.exercises import names
from tools import contents, exercises

NOTEBOOKS = contents.notebooks()
BROKEN = (":::{exercise} Derive\n:label: ex-a\n\nProve it.\n:::\n", "# No more")
CHECK = re.compile(r"\bcheck\(\s*\"([\w.]+)\"")
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def asked(path):
    return exercises.read(contents.cells(path))


@every_notebook
def test_what_is_written_is_found(path):
    text = exercises.flat(contents.cells(path))
    assert len(asked(path)) == text.count(":::{exercise") >= 3
    assert len(asked(path)) == text.count("{dropdown} Hint")


@every_notebook
def test_titles_begin_with_a_level(path):
    titles = [e.title for e in asked(path)]
    assert [t for t in titles if t.partition(": ")[0] not in exercises.LEVELS] == []


@every_notebook
def test_every_level_is_there_and_in_order(path):
    levels = [exercises.LEVELS.index(e.level) for e in asked(path)]
    assert set(levels) == {0, 1, 2}
    assert levels[0] == 0


@every_notebook
def test_every_exercise_has_a_hint_and_a_solution(path):
    for exercise in asked(path):
        assert exercise.hint, exercise.label
        assert exercise.answer or exercise.code, exercise.label
        assert exercise.inside, f"{exercise.label}: something before the solution"


@every_notebook
def test_hints_stand_in_their_own_dropdown(path):
    for exercise in asked(path):
        assert not re.search(r"\bhint\b", exercise.text, re.I), exercise.label


@every_notebook
def test_a_hint_is_not_the_solution(path):
    """No sentence of the solution stands in the hint."""
    for exercise in asked(path):
        said = re.split(r"(?<=[.?!:])\s+", " ".join(exercise.answer.split()))
        hint = " ".join(exercise.hint.split())
        assert [s for s in said if len(s) > 30 and s in hint] == [], exercise.label


@every_notebook
def test_exercises_name_the_checkers_of_their_solutions(path):
    cells = contents.cells(path)
    for exercise in asked(path):
        code = "\n".join(contents.text(cells[n]) for n in exercise.code)
        used = CHECK.findall(code)
        assert [name for name in used if name not in exercise.text] == []
        assert set(CHECK.findall(exercise.text)) <= set(used)


def test_every_checker_has_its_exercise():
    code = [contents.text(c) for p in NOTEBOOKS for c in contents.cells(p, "code")]
    assert sorted(CHECK.findall("\n".join(code))) == names()


def test_an_exercise_without_a_solution_is_told():
    cells = [{"cell_type": "markdown", "source": text} for text in BROKEN]
    with pytest.raises(ValueError, match="ex-a has no solution"):
        exercises.read(cells)


def test_a_missing_hint_is_seen():
    end = ":::{solution} ex-a\n:class: dropdown\n\nObvious.\n:::"
    cells = [{"cell_type": "markdown", "source": text} for text in (BROKEN[0], end)]
    (exercise,) = exercises.read(cells)
    assert (exercise.hint, exercise.answer) == ("", "Obvious.")
    assert exercise.inside


def test_something_between_is_seen():
    hint = ":::{dropdown} Hint\nTry.\n:::"
    end = ":::{solution} ex-a\n:class: dropdown\n\nObvious.\n:::"
    texts = (BROKEN[0], hint, "By the way.", end)
    cells = [{"cell_type": "markdown", "source": text} for text in texts]
    assert not exercises.read(cells)[0].inside
    assert exercises.read([*cells[:2], cells[3]])[0].inside


def test_a_solution_without_an_exercise_is_told():
    end = ":::{solution} ex-b\n:class: dropdown\n\nObvious.\n:::"
    with pytest.raises(ValueError, match="without an exercise: ex-b"):
        exercises.read([{"cell_type": "markdown", "source": end}])
