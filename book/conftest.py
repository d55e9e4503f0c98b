"""One execution serves validation and pages.

nbval runs a notebook and compares its checked cells. If all of them were accepted,
the outputs of that run are filed as an executed notebook under the execution key of
`tools.chapters`, and the book is built from it. A failed notebook is never filed.

With FLATBOOK_ACCEPT=1 nothing is compared and the new outputs of checked cells are
stored in the notebook (``make accept``).
"""

import copy
import json
import os
from pathlib import Path

import nbformat
import pytest

from tools import chapters, nb

ACCEPT = bool(os.environ.get("FLATBOOK_ACCEPT"))
NOT_COMPARED = (
    "text/html",  # not stored: the plain text beside it is
    *(
        f"application/papermill.record/{kind}"
        for kind in ("text/plain", "text/html")
    ),
    *(
        f"application/papermill.record/{kind}"
        for kind in ("text/latex", "image/png")
    ),
)
ASK = """
import json as _json, sys as _sys, time as _time
_widgets = _sys.modules.get("ipywidgets")
_state = _widgets and _widgets.Widget.get_manager_state(drop_defaults=False)
print(_json.dumps({"seconds": _time.process_time(), "widgets": _state}))
"""


def _is_cell(item):
    return type(item).__name__ == "IPyNbCell"


def _answer(kernel, code):
    """Run code in the notebook's kernel and return what it printed."""
    request, printed = kernel.execute_cell_input(code, allow_stdin=False), ""
    while True:
        message = kernel.get_message("iopub", timeout=60)
        content = message["content"]
        if message["parent_header"].get("msg_id") != request:
            continue
        if message["msg_type"] == "stream" and content["name"] == "stdout":
            printed += content["text"]
        elif (
            message["msg_type"] == "status"
            and content["execution_state"] == "idle"
        ):
            return printed


def pytest_configure():
    """Kernels started from here get the book's environment, however it was called."""
    os.environ.update(chapters.environment())
    os.environ.pop("MPLBACKEND", None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item):
    """Before the first cell of a notebook: note what its result depends on."""
    notebook = item.parent
    if not _is_cell(item) or hasattr(notebook, "target"):
        return
    notebook.failed = False
    notebook.target = chapters.executed(Path(item.path))
    notebook.skip_compare += NOT_COMPARED
    client = notebook.kernel.kc
    execute = client.execute
    # nbval runs cells without history; then ";" at the end does not hide a value.
    client.execute = lambda code, **kw: execute(
        code, **{**kw, "store_history": True}
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Remember that a notebook failed."""
    report = yield
    if _is_cell(item) and not report.passed:
        item.parent.failed = True
    return report


def pytest_collection_modifyitems(items):
    """When new outputs are to be accepted, compare nothing."""
    for item in items:
        if _is_cell(item) and ACCEPT:
            item.options["check"] = False


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item, nextitem):
    """After the last cell of an accepted notebook: file its result."""
    notebook = item.parent
    if not _is_cell(item) or (
        nextitem is not None and nextitem.parent is notebook
    ):
        return
    items = (
        i for i in item.session.items if _is_cell(i) and i.parent is notebook
    )
    ran = {id(i.cell): i.test_outputs or [] for i in items}
    complete = len(ran) == sum(
        c.cell_type == "code" for c in notebook.nb.cells
    )
    if not complete or notebook.failed:
        return
    path, result = Path(item.path), _executed(notebook, ran)
    if ACCEPT:
        normal = nb.normal(json.loads(nbformat.writes(result)))
        path.write_text(nb.text(normal), encoding="utf8")
        notebook.target = chapters.executed(path)
    if chapters.executed(path) == notebook.target:  # nothing changed meanwhile
        _write(result, notebook.target)


def _executed(notebook, ran):
    """The notebook with all outputs of this run, as Jupyter would have saved it."""
    result = copy.deepcopy(notebook.nb)
    count = 0
    for before, after in zip(notebook.nb.cells, result.cells, strict=True):
        if before.cell_type == "code":
            count += 1
            after.execution_count = count
            after.outputs = [nbformat.from_dict(o) for o in ran[id(before)]]
            for output in after.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = count
    answer = json.loads(_answer(notebook.kernel, ASK))
    if (answer["widgets"] or {}).get("state"):
        mime = "application/vnd.jupyter.widget-state+json"
        result.metadata["widgets"] = {mime: answer["widgets"]}
    # Processor time of the one thread: what an idle machine would take.
    result.metadata["flatbook"] = {"seconds": round(answer["seconds"], 2)}
    nbformat.validate(result)
    return result


def _write(result, target):
    """File a result at once or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(f".{os.getpid()}")
    nbformat.write(result, partial)
    partial.replace(target)
