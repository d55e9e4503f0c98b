"""The steps behind ``make book`` and ``make test``: what each does and how long.

Every step is a list of commands, run one after another; the first that fails ends
the run and is named. Steps find out by themselves what is already done.

Runs in the system's Python, so it imports the standard library only.
"""

import os
import subprocess
import sys
import time
from dataclasses import dataclass

from tools.environment import ROOT, interpreter

INDEX = ROOT / "_build" / "html" / "index.html"
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
Command = tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """A title, what it is for, and its commands (arguments after the Python)."""

    title: str
    purpose: str
    commands: tuple[Command, ...]
    system_python: bool = False


SETUP = Step(
    "environment",
    "the pinned packages and flatbook in .venv",
    (("-m", "tools.environment"),),
    system_python=True,
)
OFFLINE = Step(
    "offline runtime",
    "MathJax and the widgets beside the pages, where npm can fetch them",
    (("-m", "tools.vendor"),),
)
STYLE = Step(
    "style",
    "lint and format of code and notebooks",
    (
        ("-m", "ruff", "check", "."),
        ("-m", "ruff", "format", "--check", "."),
        ("-m", "tools.nb", "check"),
    ),
)
TYPES = Step("types", "annotations agree with the code", (("-m", "mypy"),))
UNITS = Step(
    "unit tests",
    "functions, doctests and the theorems of the book",
    (
        (
            *("-m", "pytest", "-q", "-n", "2", "--dist", "loadfile"),
            "--doctest-modules",
            *("--ignore=tests/book", "--ignore=tests/browser", "flatbook", "tests"),
        ),
    ),
)
CHAPTERS = Step(
    "chapters",
    "run and validate the notebooks whose result is missing",
    (("-m", "tools.chapters"),),
)
PAGES = Step(
    "pages",
    "strict build of the HTML and the slides, and the list of its outside links",
    (("-m", "tools.pages"), ("-m", "tools.links", "--write")),
)
CONTENTS = Step(
    "checks of the book",
    "notebooks, theorems, links, pictures, offline reading",
    (("-m", "pytest", "-q", "tests/book"),),
)
BROWSER = Step(
    "browser",
    "every page in a real browser: scripts, sliders, accessibility, layout",
    (("-m", "tools.browser", "test"),),
)
FIX = Step(
    "normal form",
    "format code and notebooks",
    (
        ("-m", "ruff", "check", "--fix", "-q", "."),
        ("-m", "ruff", "format", "."),
        ("-m", "tools.nb", "fix"),
    ),
)
ACCEPT = Step(
    "accept",
    "run the changed notebooks and store the outputs of their checked cells",
    (("-m", "tools.chapters", "--accept"),),
)
SLIDES = Step(
    "slides",
    "a deck of each chapter, from the tags of its cells",
    (("-m", "tools.slides"),),
)
COURSE = Step(
    "course",
    "the exercises as notebooks to hand out, to collect and to grade",
    (("-m", "tools.course"),),
)
PRINTER = Step(
    "browser",
    "a Chrome, Chromium or Edge that prints",
    (("-m", "tools.browser", "required"),),
)
PDF = Step(
    "PDF",
    "the pages as one book on A4, with solutions as an appendix",
    (("-m", "tools.pdf"),),
)
COLAB = Step(
    "Colab",
    "the chapters in clean environments, as Colab would run them",
    (("-m", "tools.colab"),),
)
ADDRESS = Step(
    "address",
    "the public address of the repository, everywhere",
    (("-m", "tools.address", "fix"),),
)
CHECK_ADDRESS = Step(
    "address",
    "all files name the repository that this is",
    (("-m", "tools.address", "check"),),
)
TARGETS = {
    "book": (SETUP, OFFLINE, CHAPTERS, PAGES),
    "test": (SETUP, OFFLINE, STYLE, TYPES, UNITS, CHAPTERS, PAGES, CONTENTS, BROWSER),
    "fix": (SETUP, FIX),
    "accept": (SETUP, ACCEPT),
    "colab": (SETUP, COLAB),
    "slides": (SETUP, OFFLINE, CHAPTERS, PAGES, SLIDES),
    "course": (SETUP, COURSE),
    "pdf": (SETUP, PRINTER, OFFLINE, CHAPTERS, PAGES, PDF),
    "address": (SETUP, ADDRESS),
    "check-address": (SETUP, CHECK_ADDRESS),
}


def duration(seconds: float) -> str:
    """Seconds as people read them: 3.2 s, 2 min 05 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"


def perform(step: Step) -> int:
    """Run the commands of a step; the exit code of the first that fails, or 0."""
    python = sys.executable if step.system_python else str(interpreter())
    for command in step.commands:
        code = subprocess.run(
            [python, *command],
            cwd=ROOT,
            env={**os.environ, **ONE_THREAD},
            stdin=subprocess.DEVNULL,
            check=False,
        ).returncode
        if code:
            print(f"This failed (exit code {code}): python {' '.join(command)}")
            return code
    return 0


def main(target: str) -> int:
    """Run a target's steps, and tell how long each took."""
    steps, times, begin = TARGETS[target], {}, time.perf_counter()
    for number, step in enumerate(steps, start=1):
        print(f"\n[{number}/{len(steps)}] {step.title}: {step.purpose}", flush=True)
        start = time.perf_counter()
        code = perform(step)
        times[step.title] = time.perf_counter() - start
        print(f"      {duration(times[step.title])}", flush=True)
        if code:
            print(f"\nmake {target} FAILED at: {step.title}")
            return 1
    summary = ", ".join(f"{title} {duration(t)}" for title, t in times.items())
    print(f"\nmake {target} passed in {duration(time.perf_counter() - begin)}")
    print(f"      ({summary})")
    if PAGES in steps:
        print(f"Open the book: {INDEX}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
