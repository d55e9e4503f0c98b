r"""The exercises of a notebook: what is asked, the hint, and the solution.

One exercise of the book looks like this, with the solution's code in cells of its own::

    :::{exercise} Derive: free the bias
    :label: ex-linear-model-bias

    Let the bias move too. ...
    :::

    :::{dropdown} Hint
    Append a coordinate ...
    :::

    :::{solution-start} ex-linear-model-bias
    :label: sol-linear-model-bias
    :class: dropdown
    :::

    A bias is a weight ...
                                (code cells)
    :::{solution-end}
    :::

A solution without code is one block, ``:::{solution} LABEL``. `read` finds all of
this in the cells of a notebook; what is not written so is not found, and
``tests/book/test_exercises.py`` sees that nothing is missing.
"""

import re
from dataclasses import dataclass

from tools import contents

LEVELS = ("Check your understanding", "Derive", "Build")
MARK = "\0"  # stands for a code cell, with its number, in the text of all cells
EXERCISE = re.compile(
    r"^:::\{exercise\} (?P<title>[^\n]+)\n:label: (?P<label>[\w-]+)\n(?P<text>.*?)^:::$"
    r"(?:\s*^:::\{dropdown\} Hint\n(?P<hint>.*?)^:::$)?",
    re.M | re.S,
)
SOLUTION = re.compile(
    r"^:::\{solution(?:-start\} (?P<label>[\w-]+)\n(?::[^\n]*\n)*?:::$(?P<body>.*?)"
    r"^:::\{solution-end\}\n:::$"
    r"|\} (?P<short>[\w-]+)\n(?::[^\n]*\n)*(?P<block>.*?)^:::$)",
    re.M | re.S,
)


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    Attributes:
        label: its name in the book, such as ``ex-intro-peak``.
        title: its level, and after a colon its topic if it has one.
        text: what is asked (MyST).
        hint: what helps (MyST), empty where there is none.
        answer: the text of the solution (MyST), without its code.
        code: numbers of the solution's code cells in the notebook.
        inside: whether exercise, hint and solution follow one another directly.
    """

    label: str
    title: str
    text: str
    hint: str
    answer: str
    code: tuple[int, ...]
    inside: bool

    @property
    def level(self) -> str:
        """The part of the title that names the level."""
        return self.title.partition(":")[0]


def flat(cells: list[dict]) -> str:
    """The text of all cells, with a mark in the place of every code cell."""
    return "\n\n".join(
        contents.text(cell) if cell["cell_type"] == "markdown" else f"{MARK}{n}{MARK}"
        for n, cell in enumerate(cells)
    )


def read(cells: list[dict]) -> list[Exercise]:
    """The exercises among the cells of a notebook, in their order.

    Raises:
        ValueError: an exercise has no solution, or a solution no exercise.
    """
    text = flat(cells)
    solutions = {m["label"] or m["short"]: m for m in SOLUTION.finditer(text)}
    found = [_one(m, solutions.pop(m["label"], None)) for m in EXERCISE.finditer(text)]
    if solutions:
        raise ValueError(f"solutions without an exercise: {', '.join(solutions)}")
    return found


def _one(head: re.Match[str], solution: re.Match[str] | None) -> Exercise:
    if solution is None:
        raise ValueError(f"exercise {head['label']} has no solution")
    body = solution["body"] or solution["block"] or ""
    between = solution.string[head.end() : solution.start()]
    return Exercise(
        label=head["label"],
        title=head["title"].strip(),
        text=head["text"].strip(),
        hint=(head["hint"] or "").strip(),
        answer=re.sub(rf"(\s*{MARK}\d+{MARK}\s*)+", "\n\n", body).strip(),
        code=tuple(int(n) for n in re.findall(rf"{MARK}(\d+){MARK}", body)),
        inside=not between.strip(),
    )
