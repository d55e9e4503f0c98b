"""Every theorem has its test file, every such file its theorem, and it says enough."""

import html
import re

import pytest

from tools import contents, theorems

BLOCK = re.compile(
    r":::+\{prf:(theorem|proposition|lemma|corollary)\}[^\n]*\n(?P<options>(?::[^\n]*\n)*)"
)
TESTS = contents.ROOT / "tests" / "theorems"


def blocks():
    for path in contents.sources():
        if path.suffix == ".md":
            text = path.read_text(encoding="utf8")
        else:
            cells = contents.cells(path, "markdown")
            text = "\n\n".join(contents.text(cell) for cell in cells)
        for match in BLOCK.finditer(text):
            label = re.search(r":label: *([\w-]+)", match["options"])
            yield path.stem, match[0].splitlines()[0], label and label[1]


def test_every_theorem_has_a_label_of_its_own():
    found = list(blocks())
    assert found
    assert [(page, head) for page, head, label in found if not label] == []
    labels = [label for _, _, label in found]
    assert len(set(labels)) == len(labels)


def test_theorems_and_test_files_agree():
    wanted = {f"test_{label.replace('-', '_')}.py" for _, _, label in blocks() if label}
    assert wanted == {path.name for path in TESTS.glob("test_*.py")}


@pytest.mark.parametrize("path", sorted(TESTS.glob("test_*.py")), ids=lambda p: p.stem)
def test_every_file_tries_cases_edges_and_assumptions(path):
    label = path.stem.removeprefix("test_").replace("_", "-")
    found = theorems.checks(label, contents.ROOT)
    assert set(theorems.KINDS) - theorems.OPTIONAL <= set(found)


def test_every_block_says_what_was_checked(chapter_pages):
    labels = [label for _, _, label in blocks()]
    text = " ".join(page.raw for page in chapter_pages.values())
    assert text.count('<details class="checked">') == len(labels)
    for label in labels:
        for sentences in theorems.checks(label, contents.ROOT).values():
            assert all(html.escape(sentence) in text for sentence in sentences), label
