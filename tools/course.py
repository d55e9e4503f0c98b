"""The exercises as assignments: notebooks to hand out, to collect and to grade.

    python -m tools.course     write them into _build/course

For every chapter there are two notebooks in the format of nbgrader (cell metadata,
schema version 3), made from the same source as the page:

* ``student/CHAPTER/CHAPTER.ipynb``: what is asked, hints, stubs that raise
  `NotImplementedError` with the name of the exercise, and locked cells that check.
* ``instructor/CHAPTER/CHAPTER.ipynb``: the same cells with the solutions in them.

They hold the exercises and no chapter: grading runs a notebook once for each student,
and no answer needs a trained network. Points: 1 to check one's understanding, 2 to
derive, 3 to build, for every checker; 1 for the words beside it, or all points where
nothing but words is asked, to be given by hand. The folder is a course of nbgrader::

    cd _build/course
    nbgrader generate_assignment linear_model     # from student/ to release/
    nbgrader autograde linear_model               # from submitted/ to autograded/
"""

import ast
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from tools import contents, exercises
from tools.answers import IMPORTS, Answer, Statement, answers
from tools.contents import ROOT
from tools.exercises import Exercise
from tools.nb import META
from tools.plain import links, page, plain

COURSE = ROOT / "_build" / "course"
POINTS = dict(zip(exercises.LEVELS, (1, 2, 3), strict=True))
ALWAYS = (  # for the students, whatever the solutions need
    "import math",
    "import torch",
    "from flatbook import exercises",
    "from flatbook.exercises import check",
)
CONFIG = '''"""A course of nbgrader: the students' notebooks are its source."""

c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "flatbook"
c.CourseDirectory.source_directory = "student"
c.ClearSolutions.enabled = False  # they have their stubs already
'''
HEAD = """# Exercises: {title}

They belong to [this chapter]({url}). Write your answers into the cells
that raise `NotImplementedError` or say *Your answer*. The cell behind an answer checks
it, says what is wrong, and gives the points. Run all cells before you hand it in."""
CHECK = """from flatbook.exercises import check

told = check("{name}", {answer})
print(told)
assert told.ok"""
WORDS = "*Your answer in words and formulas:*"


@dataclass(frozen=True)
class Task:
    """One exercise in plain Markdown, with the code of its solution."""

    number: int
    exercise: Exercise
    code: Answer
    text: str
    hint: str
    answer: str

    @property
    def name(self) -> str:
        """The exercise's name for nbgrader: its label without the prefix."""
        return self.exercise.label.removeprefix("ex-")

    @property
    def points(self) -> int:
        """Points for each checker, or for the words where there is none."""
        return POINTS[self.exercise.level]


# --- cells -------------------------------------------------------------------


def cell(kind: str, name: str, source: str, **nbgrader: object) -> dict:
    """A notebook cell; keywords go into nbgrader's metadata, without: not its own."""
    metadata = {}
    if nbgrader:
        given = {"grade": False, "locked": False, "solution": False, "task": False}
        version = {"schema_version": 3, "grade_id": name}
        metadata["nbgrader"] = given | nbgrader | version
    new = {"cell_type": kind, "id": name[-64:], "metadata": metadata, "source": source}
    return new | ({"execution_count": None, "outputs": []} if kind == "code" else {})


def asked(task: Task) -> dict:
    """What is asked, with the hint folded."""
    heading = f"## Exercise {task.number}. {task.exercise.title}"
    hint = f"<details>\n<summary>Hint</summary>\n\n{task.hint}\n\n</details>"
    text = f"{heading}\n\n{task.text}\n\n{hint}"
    return cell("markdown", f"{task.name}-asked", text, locked=True)


def graded(task: Task) -> list[dict]:
    """A locked cell for each checker: it prints the verdict, and raises if wrong."""
    return [
        cell(
            "code",
            f"check-{name.replace('.', '-')}",
            CHECK.format(name=name, answer=variable(task.code, answer)),
            **{"grade": True, "locked": True, "points": task.points},
        )
        for name, answer in task.code.checks
    ]


def words(task: Task, source: str) -> dict:
    """A cell for text, graded by hand."""
    points = 1 if task.code.checks else task.points
    options = {"grade": True, "solution": True, "points": points}
    return cell("markdown", f"{task.name}-words", source, **options)


def student(task: Task) -> list[dict]:
    """The cells of an exercise to hand out."""
    new = [asked(task)]
    if task.answer:
        new.append(words(task, WORDS))
    if task.code.checks:
        new.append(cell("code", task.name, stub(task.code), solution=True))
    return new + graded(task)


def instructor(task: Task) -> list[dict]:
    """The same cells with their solutions."""
    solved = {f"{task.name}-words": task.answer, task.name: solution(task.code)}
    return [
        {**given, "source": solved.get(given["id"], given["source"])}
        for given in student(task)
    ]


# --- code --------------------------------------------------------------------


def function(code: Answer, answer: ast.expr) -> ast.FunctionDef | None:
    """The definition of the function that a checker gets, if it gets one."""
    wanted = answer.id if isinstance(answer, ast.Name) else None
    nodes = (statement.node for statement in code.needed)
    defined = (node for node in nodes if isinstance(node, ast.FunctionDef))
    return next((node for node in defined if node.name == wanted), None)


def variable(code: Answer, answer: ast.expr) -> str:
    """The name under which the answer is handed to the checker."""
    return answer.id if isinstance(answer, ast.Name) else "answer"


def stub(code: Answer) -> str:
    """Code in the place of a solution: every answer raises with its exercise's name."""
    parts = []
    for name, answer in code.checks:
        error = f'raise NotImplementedError("{name}")'
        if (found := function(code, answer)) is None:
            parts.append(f"{variable(code, answer)} = ...\n{error}")
        else:  # arguments with a default belong to the solution
            arguments = found.args.args[: -len(found.args.defaults) or None]
            given = ", ".join(a.arg for a in arguments)
            parts.append(f"def {found.name}({given}):\n    {error}")
    return "\n\n\n".join(parts)


def solution(code: Answer) -> str:
    """The code of a solution, up to the answers."""
    last = [
        f"answer = {ast.unparse(answer)}"
        for _, answer in code.checks
        if not isinstance(answer, ast.Name)
    ]
    return "\n".join([listing(code.needed), *last]).strip("\n")


def listing(code: list[Statement]) -> str:
    """Statements as they are written in a notebook."""
    text, wide = "", True
    for statement in code:
        before, wide = wide, isinstance(statement.node, ast.FunctionDef | ast.ClassDef)
        text += ("\n\n\n" if before or wide else "\n") + statement.source
    return text.strip("\n")


# --- notebooks ---------------------------------------------------------------


def tasks(cells: list[dict], known: dict[str, str]) -> tuple[str, list[Task]]:
    """The first cell of code, and the exercises of a chapter's cells."""
    found = exercises.read(cells)
    code = {
        n: contents.text(c)
        for n, c in enumerate(cells)
        if c["cell_type"] == "code" and "colab-setup" not in contents.tags(c)
    }
    setup, parts = answers(code, [exercise.code for exercise in found])
    listed = [
        Task(
            number,
            exercise,
            part,
            text=plain(exercise.text, known),
            hint=plain(exercise.hint, known),
            answer=(plain(exercise.answer, known) + demonstration(part)).strip(),
        )
        for number, (exercise, part) in enumerate(zip(found, parts, strict=True), 1)
    ]
    return opening(setup), listed


def opening(setup: list[Statement]) -> str:
    """The first cell: imports in the usual order, then what else the chapter sets."""
    imports = [s for s in setup if isinstance(s.node, IMPORTS)]
    rest = listing([s for s in setup if s not in imports])
    lines = sorted({*ALWAYS, *(s.source for s in imports)}, key=_place)
    return "\n".join(lines) + f"\n\n{rest}" * bool(rest)


def _place(line: str) -> tuple[bool, bool, str]:
    return "flatbook" in line, line.startswith("from"), line


def demonstration(code: Answer) -> str:
    """What a solution shows beyond its answer, as text: it may need the chapter."""
    if not code.shown:
        return ""
    return f"\n\nIn the chapter:\n\n```python\n{listing(code.shown)}\n```"


def notebooks(path: Path, known: dict[str, str]) -> dict[str, dict]:
    """The student's and the instructor's notebook of a chapter."""
    cells = contents.cells(path)
    setup, listed = tasks(cells, known)
    title = contents.text(cells[0]).splitlines()[0].removeprefix("# ")
    head = HEAD.format(title=title, url=page(path.stem))
    colab = next(c for c in cells if "colab-setup" in contents.tags(c))
    start = [
        cell("markdown", "head", head, locked=True),
        cell("code", "colab", contents.text(colab), locked=True),
        cell("code", "imports", setup, locked=True),
    ]
    form = {"metadata": META, "nbformat": 4, "nbformat_minor": 5}
    return {
        folder: {"cells": start + [c for task in listed for c in make(task)], **form}
        for folder, make in (("student", student), ("instructor", instructor))
    }


def main() -> int:
    """Write both notebooks of every chapter."""
    shutil.rmtree(COURSE, ignore_errors=True)
    known = links()
    for path in contents.notebooks():
        for folder, notebook in notebooks(path, known).items():
            target = COURSE / folder / path.stem / path.name
            target.parent.mkdir(parents=True)
            text = json.dumps(notebook, indent=1, ensure_ascii=False)
            target.write_text(text + "\n", encoding="utf8")
    (COURSE / "nbgrader_config.py").write_text(CONFIG, encoding="utf8")
    print(f"{len(contents.notebooks())} chapters, in {COURSE}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
