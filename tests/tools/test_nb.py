"""The normal form of notebooks."""

import json

from tools import nb

CHECK = {"tags": ["nbval-check-output"]}
PLAIN = {"output_type": "stream", "name": "stdout", "text": ["1\n"]}


def cell(kind="code", source="x = 1", **fields):
    base = {"cell_type": kind, "metadata": {}, "source": source}
    if kind == "code":
        base |= {"outputs": [], "execution_count": None}
    return base | fields


def book(*cells, **metadata):
    return {"cells": list(cells), "metadata": metadata}


def test_normal_form_is_a_fixed_point():
    once = nb.normal(book(cell(source="a  \n\n"), cell("markdown", "# Title")))
    assert nb.normal(once) == once
    assert once["cells"][0]["source"] == ["a"]


def test_outputs_stay_in_checked_cells_only():
    done = {"outputs": [PLAIN], "execution_count": 7}
    first, second = nb.normal(book(cell(**done), cell(metadata=CHECK, **done)))["cells"]
    assert (first["outputs"], first["execution_count"]) == ([], None)
    assert (second["outputs"], second["execution_count"]) == ([PLAIN], 1)


def test_only_text_is_stored():
    def shown(**data):
        return {"output_type": "display_data", "metadata": {"a": 1}, "data": data}

    outputs = [shown(**{"text/plain": "x", "image/png": "y"}), shown(other="z")]
    made = nb.normal(book(cell(metadata=CHECK, outputs=outputs, execution_count=1)))
    assert made["cells"][0]["outputs"] == [
        {"output_type": "display_data", "metadata": {}, "data": {"text/plain": "x"}}
    ]


def test_ids_are_readable_unique_and_kept():
    cells = [cell(id="0a1b2c3d"), cell(id="0a1b2c3d"), cell(id="c-mine"), cell(id="")]
    ids = [c["id"] for c in nb.normal(book(*cells))["cells"]]
    assert ids == ["c-x-1", "c-x-1-2", "c-mine", "c-x-1-3"]


def test_metadata_of_the_author_is_kept_and_of_the_editor_dropped():
    kept = {"mystnb": {"image": {"alt": "a"}}, "tags": ["hide-input"]}
    made = nb.normal(book(cell(metadata=kept | {"collapsed": True}), accelerator="GPU"))
    assert made["cells"][0]["metadata"] == kept
    assert made["metadata"]["accelerator"] == "GPU"
    assert "accelerator" not in nb.normal(book(cell()))["metadata"]


def test_check_and_fix(tmp_path, capsys):
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps(book(cell())))
    assert nb.main(["check", str(path)]) == 1
    assert nb.main(["fix", str(path)]) == 0
    assert nb.main(["check", str(path)]) == 0
    assert "a.ipynb" in capsys.readouterr().out
