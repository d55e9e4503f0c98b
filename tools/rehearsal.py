"""Run notebooks in a kernel that looks like Colab's, of any Python environment.

`tools.colab_kernel` is that kernel. git takes the public address of the book for this
checkout, so that the first cell of a chapter installs the last commit.
"""

import json
import os
import subprocess
import time
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tools import address, contents
from tools.contents import ROOT

TIMEOUT = 600  # seconds for a cell

# What an environment holds, and whether torch's files are what they were.
SNAPSHOT = """
import hashlib, importlib.metadata, importlib.util, json, pathlib
packages = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
folder = pathlib.Path(importlib.util.find_spec("torch").origin).parent
files = sorted((str(p), p.stat().st_size, p.stat().st_mtime_ns)
               for p in folder.rglob("*") if "__pycache__" not in p.parts)
digest = hashlib.sha256(repr(files).encode()).hexdigest()
print(json.dumps({"packages": packages, "torch": digest}))
"""
# Moves each slider of each live figure to its ends; a figure that stays is named.
MOVE = """
import ipywidgets as _w
_all = getattr(_w.widget, "_instances", None) or _w.Widget.widgets
_moved, _stuck = 0, []
for _box in [w for w in list(_all.values()) if type(w) is _w.VBox]:
    *_sliders, _picture = _box.children
    for _slider in _sliders:
        if hasattr(_slider, "options"):
            _values = [value for _, value in _slider.options]
        elif isinstance(_slider, _w.FloatLogSlider):
            _values = [_slider.base**_slider.min, _slider.base**_slider.max]
        else:
            _values = [_slider.min, _slider.max]
        _first, _seen = _slider.value, set()
        for _value in (*_values, _first):
            _slider.value = _value
            _seen.add(_picture.value)
        _moved += len(_seen) > 1
        _stuck += [_slider.description] if len(_seen) == 1 else []
print("sliders moved:", _moved)
assert _moved and not _stuck, f"the figure stays when these move: {_stuck}"
"""


def redirected(source: Path) -> dict[str, str]:
    """Variables with which git takes the public address for a local repository."""
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{source}.insteadOf",
        "GIT_CONFIG_VALUE_0": f"{address.stored()}.git",
    }


def variables(python: Path, *, static: bool = False) -> dict[str, str]:
    """Those of a kernel: Colab's PATH, and nothing of ours."""
    ours = ("FLATBOOK_", "PYTHON", "MPLBACKEND", "VIRTUAL_ENV", "JUPYTER", "IPYTHON")
    own = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    own |= redirected(ROOT) | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    own["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # ipykernel 6 would warn
    own["PATH"] = f"{python.parent}{os.pathsep}{own['PATH']}"
    return own | ({"FLATBOOK_STATIC": "1"} if static else {})


def snapshot(python: Path) -> dict:
    """Names and versions of all packages, and a digest of torch's files."""
    command = [str(python), "-I", "-c", SNAPSHOT]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def kernel(python: Path, folder: Path) -> AsyncKernelManager:
    """A manager of that kernel; its description is written into the folder."""
    script = str(ROOT / "tools" / "colab_kernel.py")
    spec = {  # level 40: ipykernel 7 warns of every kernel that it speaks TCP
        "argv": [str(python), script, "-f", "{connection_file}", "--log-level=40"],
        "display_name": "like Colab's",
        "language": "python",
    }
    place = folder / "kernels" / "colab"
    place.mkdir(parents=True, exist_ok=True)
    (place / "kernel.json").write_text(json.dumps(spec))
    known = KernelSpecManager(
        kernel_dirs=[str(place.parent)], ensure_native_kernel=False
    )
    return AsyncKernelManager(kernel_name="colab", kernel_spec_manager=known)


def setup_cell() -> str:
    """The first code cell, the same in every chapter."""
    return contents.text(contents.cells(contents.notebooks()[0], "code")[0])


def notebook(*cells: str) -> nbformat.NotebookNode:
    """A notebook of these code cells."""
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])


def chapter(path: Path, *more: str) -> nbformat.NotebookNode:
    """A chapter without stored outputs, with more code cells at its end."""
    found = nbformat.read(path, as_version=4)
    found.cells += notebook(*more).cells
    return found


def run(
    nb: nbformat.NotebookNode,
    python: Path,
    folder: Path,
    *,
    static: bool = False,
) -> tuple[float, str]:
    """Execute a notebook in place, in an empty folder.

    Args:
        nb: the notebook.
        python: of the environment.
        folder: for the kernel's description and working folder.
        static: with the figures of the built pages, not with widgets.

    Returns:
        Seconds, with the start of the kernel, and the cell that failed with its
        error, or an empty text.
    """
    work = folder / "content"
    work.mkdir(parents=True, exist_ok=True)
    client = NotebookClient(nb, timeout=TIMEOUT, km=kernel(python, folder))
    client.owns_km = True  # it ends the kernel afterwards
    start, failure = time.perf_counter(), ""
    try:
        client.execute(cwd=str(work), env=variables(python, static=static))
    except CellExecutionError as error:
        failure = f"{error.ename}: {error.evalue}".strip()
    except Exception as error:  # the kernel died, or a cell took too long
        failure = f"{type(error).__name__}: {error}".splitlines()[0]
    return time.perf_counter() - start, failure


def printed(nb: nbformat.NotebookNode) -> str:
    """All that the cells of an executed notebook printed."""
    outputs = (o for cell in nb.cells for o in cell.get("outputs", []))
    return "".join(o.text for o in outputs if o.output_type == "stream")
