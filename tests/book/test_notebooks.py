"""The sources of the book: complete, in normal form, in the shape of a chapter."""

import re
import statistics

import pytest

from tools import contents, nb

NOTEBOOKS = contents.notebooks()
DECIMAL = re.compile(r"(?<![\w.])\d+\.\d{2,}\s?%?|\b\d{1,3}(?:\.\d+)?\s?%")
NOT_PROSE = re.compile(
    r"\$\$.*?\$\$|\$[^$]*\$|```.*?```|`[^`]*`|\{[^}]*\}`?[^`]*`?|\([^)]*\d{4}[^)]*\)"
    r"|\]\([^)]*\)",
    re.S,
)
LINES, MEDIAN, WIDTH = 20, 6, 79
FIGURE = "first-screen"  # the cell that shows the figure of the first page
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def markdown(path):
    return "\n\n".join(contents.text(c) for c in contents.cells(path, "markdown"))


def code(path):
    return [contents.text(cell) for cell in contents.cells(path, "code")]


def setup_cells(path):
    cells = contents.cells(path, "code")
    return [contents.text(c) for c in cells if "colab-setup" in contents.tags(c)]


def typed_decimals(prose):
    found = DECIMAL.findall(NOT_PROSE.sub(" ", prose))
    return [number.strip() for number in found]


def test_the_table_of_contents_and_the_folder_agree(toc):
    pages = [
        p.relative_to(contents.ROOT).with_suffix("").as_posix()
        for p in contents.sources()
    ]
    assert sorted(pages) == sorted(toc)
    assert len(NOTEBOOKS) > 1


@every_notebook
def test_normal_form(path):
    assert nb.is_normal(path), "run make fix"


@every_notebook
def test_cell_ids_are_unique(path):
    ids = [cell["id"] for cell in contents.cells(path)]
    assert len(set(ids)) == len(ids)


@every_notebook
def test_the_first_code_cell_sets_up_colab(path):
    cell = contents.cells(path, "code")[0]
    assert {"hide-input", "colab-setup"} <= set(contents.tags(cell))
    assert len(setup_cells(path)) == 1


def test_the_colab_cell_is_the_same_everywhere():
    assert len({cell for path in NOTEBOOKS for cell in setup_cells(path)}) == 1


@every_notebook
def test_cells_are_short(path):
    cells = [text.splitlines() for text in code(path)]
    assert {n for n in map(len, cells) if n > LINES} == set()
    assert statistics.median(map(len, cells)) <= MEDIAN
    set_up = setup_cells(path)[0].splitlines()  # its address may be long
    long = {line for lines in cells for line in lines if len(line) > WIDTH}
    assert long <= set(set_up)


@every_notebook
def test_checked_cells_have_something_to_check(path):
    checked = [
        c for c in contents.cells(path, "code") if contents.CHECKED in contents.tags(c)
    ]
    assert checked
    assert contents.unstored(path) == [], "run make accept"


@every_notebook
def test_no_stored_picture(path):
    outputs = [o for c in contents.cells(path, "code") for o in c["outputs"]]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert kinds <= {"text/plain", "text/latex"}


@every_notebook
def test_a_title_then_a_strip(path, toc):
    """On the first page the figure and what to try stand between the two."""
    first, second, *rest = contents.cells(path)
    assert contents.text(first).startswith("# ")
    if path == contents.ROOT / f"{toc[0]}.ipynb":
        shown = [i for i, c in enumerate(rest) if FIGURE in contents.tags(c)]
        assert len(shown) == 1
        second = rest[shown[0] + 2]
    strip = contents.text(second)
    assert strip.startswith(":::{glance}")
    for label in ("**Goal.**", "**You need.**", "**Reading.**"):
        assert label in strip


@every_notebook
def test_one_picture_to_play_with(path):
    assert any(re.search(r"\bexplore\(", text) for text in code(path))


@every_notebook
def test_exercises_have_solutions(path):
    text = markdown(path)
    head = r":::\{exercise(?:-start)?\}[^\n]*\n(?::[^\n]*\n)*?:label: ([\w-]+)"
    exercises = re.findall(head, text)
    solutions = re.findall(r":::\{solution(?:-start)?\} ([\w-]+)", text)
    assert len(exercises) >= 2
    assert len(set(exercises)) == len(exercises)
    assert sorted(exercises) == sorted(solutions)


@pytest.mark.parametrize(
    "path",
    [p for p in contents.sources() if p.stem != "references"],
    ids=lambda p: p.stem,
)
def test_no_number_is_typed_into_prose(path):
    whole = path.suffix == ".md"
    prose = path.read_text(encoding="utf8") if whole else markdown(path)
    assert typed_decimals(prose) == []


def test_typed_numbers_are_seen():
    assert typed_decimals("accuracy is 0.97 here, 95% there") == ["0.97", "95%"]
    fine = "holds for $x < 0.25$, `0.001`, and {glue:text}`a:.2f` (2510.14231)"
    assert typed_decimals(fine) == []
