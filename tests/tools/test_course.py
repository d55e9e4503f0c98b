"""Stubs fail their checkers by name, solutions pass, and the format is nbgrader's."""

import ast
import json
import re

import pytest
import torch

from flatbook.exercises import check, names
from tools import contents, course, exercises, plain
from tools.answers import answers
from tools.answers import names as names_in

NOTEBOOKS = contents.notebooks()
KNOWN = plain.links()
KEYS = {"schema_version", "grade", "locked", "solution", "task", "grade_id", "points"}
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


@pytest.fixture(autouse=True)
def settings():
    """What a notebook sets ends with it."""
    before = torch.get_default_dtype()
    yield
    torch.set_default_dtype(before)


@pytest.fixture(scope="module")
def made():
    """Path -> the student's and the instructor's notebook."""
    return {path: course.notebooks(path, KNOWN) for path in NOTEBOOKS}


def grading(cell):
    return cell["metadata"].get("nbgrader", {})


def run(notebook):
    """Run the code cells as nbgrader does, on after errors: id -> error or None."""
    space, errors = {"get_ipython": lambda: None}, {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            try:
                exec(compile(cell["source"], cell["id"], "exec"), space)
                errors[cell["id"]] = None
            except Exception as error:
                errors[cell["id"]] = error
    return errors


def checks(notebook):
    """Id -> the name of the checker, for the cells that check."""
    return {
        cell["id"]: re.search(r'check\("([\w.]+)"', cell["source"])[1]
        for cell in notebook["cells"]
        if cell["cell_type"] == "code" and grading(cell).get("grade")
    }


@every_notebook
def test_every_solution_passes(made, path, capsys):
    notebook = made[path]["instructor"]
    errors = run(notebook)
    assert [error for error in errors.values() if error] == []
    assert capsys.readouterr().out.count("Correct: ") == len(checks(notebook)) >= 2


@every_notebook
def test_a_checking_cell_can_run_twice(made, path):
    for cell in made[path]["student"]["cells"]:
        if cell["id"] in checks(made[path]["student"]):
            (given,) = re.findall(r"check\(\"[\w.]+\", (\w+)\)", cell["source"])
            assert given not in names_in(ast.parse(cell["source"]))[0]


@every_notebook
def test_every_stub_fails_its_checker_by_name(made, path, capsys):
    notebook = made[path]["student"]
    errors = run(notebook)
    told = capsys.readouterr().out.splitlines()
    names_of = checks(notebook)
    assert len(told) == len(names_of)
    for (cell, name), line in zip(names_of.items(), told, strict=True):
        assert isinstance(errors[cell], AssertionError)
        assert line.startswith("Not yet: ")
        assert name in line
    raised = [e for e in errors.values() if isinstance(e, NotImplementedError)]
    assert {str(error) for error in raised} <= set(names_of.values())
    assert errors["imports"] is None


def test_every_checker_is_in_one_notebook(made):
    used = [n for nbs in made.values() for n in checks(nbs["student"]).values()]
    assert sorted(used) == names()


@every_notebook
def test_the_student_gets_hints_and_no_solution(made, path):
    notebook = made[path]["student"]
    text = "\n".join(cell["source"] for cell in notebook["cells"])
    cells = contents.cells(path)
    for exercise in exercises.read(cells):
        assert plain.plain(exercise.hint, KNOWN) in text
        answer = plain.plain(exercise.answer, KNOWN)
        lines = [line for line in answer.splitlines() if len(line) > 20]
        assert [line for line in lines if line in text] == []
        code = "\n".join(contents.text(cells[n]) for n in exercise.code)
        lines = [x.strip() for x in code.splitlines() if re.match(r"\s+\S|\w+ =", x)]
        assert [x for x in lines if len(x) > 8 and x in text] == []


@every_notebook
def test_no_trained_network_is_needed(made, path):
    (imports,) = (c for c in made[path]["student"]["cells"] if c["id"] == "imports")
    rest = [
        ast.unparse(node)
        for node in ast.parse(imports["source"]).body
        if not isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert rest in ([], ["torch.set_default_dtype(torch.float64)"])
    assert not re.search(r"experiments|checkpoints", imports["source"])


@every_notebook
def test_nothing_of_myst_is_left(made, path):
    for notebook in made[path].values():
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                found = re.search(
                    r"^:::|\{\w+:\w+\}`|\]\(#|\\(norm|E|R|Var|tr)\b",
                    cell["source"],
                    re.M,
                )
                assert found is None, cell["source"]


@every_notebook
@pytest.mark.parametrize("kind", ["student", "instructor"])
def test_metadata_is_nbgraders(made, path, kind):
    """The rules of nbgrader's schema 3 and of its validator."""
    cells = made[path][kind]["cells"]
    given = [grading(cell) for cell in cells]
    assert all(set(g) | {"points"} == KEYS for g in given)
    assert all(g["schema_version"] == 3 and g["task"] is False for g in given)
    ids = [g["grade_id"] for g in given]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-zA-Z0-9_\-]+", name) for name in ids)
    for cell, g in zip(cells, given, strict=True):
        assert g["grade"] or g["solution"] or g["locked"]
        assert ("points" in g) == g["grade"]
        assert not (g["locked"] and g["solution"])
        if cell["cell_type"] == "markdown":
            assert g["grade"] == g["solution"]
    assert len({cell["id"] for cell in cells}) == len(cells)


@every_notebook
def test_both_notebooks_have_the_same_cells(made, path):
    student, instructor = (made[path][kind]["cells"] for kind in made[path])
    for one, other in zip(student, instructor, strict=True):
        same = one["source"] == other["source"]
        assert one | {"source": ""} == other | {"source": ""}
        assert same != grading(one)["solution"]


@every_notebook
def test_points_follow_the_level(made, path):
    found = exercises.read(contents.cells(path))
    cells = {cell["id"]: cell for cell in made[path]["student"]["cells"]}
    for exercise in found:
        words = cells.get(f"{exercise.label.removeprefix('ex-')}-words")
        if words and not exercise.code:
            assert grading(words)["points"] == course.POINTS[exercise.level]


def test_a_stub_keeps_what_is_asked_and_drops_what_is_not():
    code = {
        0: "import math\nbase = 2",
        1: "a = 3\nhelp = a\n\n\ndef f(x, y, steps=5):\n    return base * help",
        2: 'print(check("c.one", f))\nprint(a)',
        3: 'check("c.two", math.log(base))',
    }
    setup, (one, two) = answers(code, [(1, 2), (3,)])
    assert [s.source for s in setup] == ["import math", "base = 2"]
    assert course.stub(one) == ('def f(x, y):\n    raise NotImplementedError("c.one")')
    assert course.stub(two) == 'answer = ...\nraise NotImplementedError("c.two")'
    assert course.solution(one).startswith("a = 3\nhelp = a\n\n\ndef f(x, y, steps=5)")
    assert course.solution(two) == "answer = math.log(base)"
    assert [s.source for s in one.shown] == ["print(a)"]


def test_a_local_name_keeps_no_global():
    code = {0: "x = 1", 1: "def f():\n    x = 2\n    return x", 2: 'check("c.f", f)'}
    setup, _ = answers(code, [(1, 2)])
    assert setup == []


def test_a_changed_entry_is_kept():
    code = {0: "x = [1]\nx[0] = 2\nx = x + x", 1: 'check("c.x", x)'}
    setup, _ = answers(code, [(1,)])
    assert len(setup) == 3


def test_no_answer_is_told():
    verdict = check("detection.folds", ...)
    assert not verdict.ok
    assert verdict.message == "Not yet: there is no answer to detection.folds so far"


def test_files_are_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(course, "COURSE", tmp_path / "course")
    monkeypatch.setattr(contents, "notebooks", lambda *_: NOTEBOOKS[:1])
    monkeypatch.setattr(course, "links", lambda: KNOWN)
    assert course.main() == 0
    name = NOTEBOOKS[0].stem
    for kind in ("student", "instructor"):
        path = tmp_path / "course" / kind / name / f"{name}.ipynb"
        assert json.loads(path.read_text(encoding="utf8"))["nbformat"] == 4
    compile((tmp_path / "course" / "nbgrader_config.py").read_text(), "config", "exec")
