"""What the tests of a theorem check, in words, for the foot of its block in the book.

Every theorem, proposition, lemma and corollary with the label ``thm-x`` has a file
``tests/theorems/test_thm_x.py``. Its test functions carry one of four markers, and
their docstrings are sentences for the reader. Nothing is run here: `make test` does.
"""

import ast
import html
from pathlib import Path

from tools import address

KINDS = {
    "random": "Random cases",
    "symbolic": "Symbolic",
    "boundary": "Boundary",
    "needed": "Assumptions",
}
OPTIONAL = {"symbolic"}


def path(label: str, root: Path) -> Path:
    """The test file of a label."""
    return root / "tests" / "theorems" / f"test_{label.replace('-', '_')}.py"


def marker(function: ast.FunctionDef) -> str:
    """The kind of a test function, from its ``@pytest.mark``.

    Raises:
        ValueError: it has none of the four kinds, or two.
    """
    names = [
        ast.unparse(d).removeprefix("pytest.mark.") for d in function.decorator_list
    ]
    kinds = [name for name in names if name in KINDS]
    if len(kinds) != 1:
        raise ValueError(f"{function.name} needs one marker of {', '.join(KINDS)}")
    return kinds[0]


def checks(label: str, root: Path) -> dict[str, list[str]]:
    """Kind -> sentences, in the order of ``KINDS``, without the kinds that are absent.

    Raises:
        ValueError: a test has no kind or no docstring.
    """
    found: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for node in ast.parse(path(label, root).read_text(encoding="utf8")).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            sentence = (ast.get_docstring(node) or "").partition("\n\n")[0]
            if not sentence.endswith("."):
                raise ValueError(f"{label}: {node.name} needs a sentence as docstring")
            found[marker(node)].append(" ".join(sentence.split()))
    return {kind: sentences for kind, sentences in found.items() if sentences}


def foot(label: str, root: Path) -> str:
    """The line under a theorem that opens to what was checked, as HTML."""
    file = path(label, root).relative_to(root).as_posix()
    link = f"{address.address(root)}/blob/main/{file}"
    found = checks(label, root)
    rows = "".join(
        f"<dt>{KINDS[kind]}</dt>"
        + "".join(f"<dd>{html.escape(s)}</dd>" for s in sentences)
        for kind, sentences in found.items()
    )
    number = sum(map(len, found.values()))
    return (
        f'<details class="checked"><summary>Checked by {number} tests</summary>'
        f'<dl>{rows}</dl><p><a href="{html.escape(link)}">{file}</a></p></details>'
    )
