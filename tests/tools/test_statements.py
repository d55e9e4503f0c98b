"""Statements are found by their label, with the words of the chapter."""

import json

import pytest

from tools import contents, statements

BLOCK = """Before.

:::{prf:theorem} A title
:label: thm-x

Words with $x$.

$$
y
$$ (eq-y)
:::

After."""


def notebook(folder, name, text):
    (folder / "book").mkdir(exist_ok=True)
    cell = {"cell_type": "markdown", "metadata": {}, "source": text}
    (folder / "book" / name).write_text(json.dumps({"cells": [cell]}))


def test_words_and_title_without_labels_of_equations(tmp_path):
    notebook(tmp_path, "a.ipynb", BLOCK)
    found = statements.statements(tmp_path)
    assert list(found) == ["thm-x"]
    assert found["thm-x"].title == "A title"
    assert found["thm-x"].body == "Words with $x$.\n\n$$\ny\n$$"


def test_two_blocks_of_one_label(tmp_path):
    notebook(tmp_path, "a.ipynb", BLOCK)
    notebook(tmp_path, "b.ipynb", BLOCK)
    with pytest.raises(ValueError, match="thm-x"):
        statements.statements(tmp_path)


def test_longer_fences_end_with_their_own(tmp_path):
    inner = ":::{note}\nHello.\n:::"
    text = f"::::{{prf:lemma}} T\n:label: lem-y\n\n{inner}\n\nEnd.\n::::"
    notebook(tmp_path, "a.ipynb", text)
    assert statements.statements(tmp_path)["lem-y"].body == f"{inner}\n\nEnd."


def test_every_label_of_a_block_in_the_book_is_found():
    prose = "\n".join(
        contents.text(cell)
        for path in contents.notebooks()
        for cell in contents.cells(path, "markdown")
    )
    assert len(statements.statements()) == prose.count("{prf:") - prose.count(
        "{prf:ref}"
    ) - prose.count("{prf:proof}")
