"""Build the HTML and the slides strictly and from nothing, unless nothing has changed.

The build never executes a notebook: `tools.bookext` hands it the results that
`tools.chapters` filed. Any warning is an error. A digest of all inputs lies in the
built folder, so `make book` and `make test` share one build.
"""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tools import address, chapters, contents, slides
from tools.contents import ROOT

BUILD = ROOT / "_build"
HTML = BUILD / "html"
STAMP = HTML / ".flatbook-inputs"
STRICT = ("-W", "-n", "--keep-going", "-q")


def inputs(root: Path = ROOT) -> Iterator[Path]:
    """Every file that the pages are made from."""
    yield from (root / name for name in ("_config.yml", "_toc.yml", "constraints.txt"))
    for folder in ("book", "tools", "tests/theorems"):
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and not {"__pycache__", ".ipynb_checkpoints"} & set(
                path.parts
            ):
                yield path
    yield from (chapters.executed(path, root) for path in contents.notebooks(root))


def digest(root: Path = ROOT) -> str:
    """A digest of all inputs and of the address that the buttons lead to."""
    total = hashlib.sha256(address.address(root).encode())
    for path in inputs(root):
        total.update(path.relative_to(root).as_posix().encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def build() -> int:
    """Build from nothing; the exit code of Jupyter Book."""
    for folder in (HTML, BUILD / ".doctrees"):
        shutil.rmtree(folder, ignore_errors=True)
    program = str(Path(sys.executable).with_name("jupyter-book"))
    command = (program, "build", ".", *STRICT)
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def main() -> int:
    """Build where the inputs are not those of the last build."""
    missing = chapters.pending()
    if missing:
        names = ", ".join(path.stem for path in missing)
        print(f"not executed yet: {names} (python -m tools.chapters)")
        return 1
    now = digest()
    if STAMP.is_file() and STAMP.read_text() == now:
        print("the pages are up to date")
        return 0
    code = build() or slides.main()
    if code == 0:
        STAMP.write_text(now)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
