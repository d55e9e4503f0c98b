"""The project's own ``.venv``: pinned packages and flatbook itself, installed once.

A stamp inside ``.venv`` is written when everything is installed. It names the
Python version and a digest of the files that decide the packages. Without it the
environment is half made and is made again; when only the digest differs, pip
brings the existing one up to date. Plain pip is used, so that a user's pip
configuration and variables (``PIP_EXTRA_INDEX_URL`` and the like) keep working.

Runs in the system's Python, so it imports the standard library only.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INPUTS = ("requirements.txt", "constraints.txt", "pyproject.toml")


def interpreter(root: Path = ROOT) -> Path:
    """The environment's own Python."""
    where = "Scripts/python.exe" if os.name == "nt" else "bin/python"
    return root / ".venv" / where


def stamp(root: Path = ROOT) -> Path:
    """The file that says that the environment is complete."""
    return root / ".venv" / "flatbook-complete.txt"


def wanted(root: Path = ROOT) -> str:
    """What the stamp of an environment for these files and this Python says."""
    digest = hashlib.sha256()
    for name in INPUTS:
        digest.update(name.encode() + (root / name).read_bytes())
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return f"Python {version}\n{digest.hexdigest()}\n"


def state(root: Path = ROOT) -> str:
    """One of "complete", "stale" (only the packages differ) and "absent"."""
    if not stamp(root).is_file() or not interpreter(root).exists():
        return "absent"
    have, want = stamp(root).read_text(), wanted(root)
    if have == want:
        return "complete"
    return "stale" if have.splitlines()[:1] == want.splitlines()[:1] else "absent"


def _run(*command: object) -> None:
    subprocess.run([str(c) for c in command], cwd=ROOT, check=True)


def make() -> None:
    """Create or update the environment; the stamp is away until that is done."""
    found = state()
    stamp().unlink(missing_ok=True)
    if found == "absent":
        print("creating .venv with", sys.version.split()[0], flush=True)
        _run(sys.executable, "-m", "venv", "--clear", ".venv")
    print("installing the pinned packages (the first time takes minutes)", flush=True)
    quiet = () if sys.stdout.isatty() else ("-q",)
    pip = (interpreter(), "-m", "pip", "install", "--disable-pip-version-check", *quiet)
    _run(*pip, "-r", "requirements.txt")
    _run(*pip, "--no-deps", "-e", ".")
    stamp().write_text(wanted())


def main() -> int:
    """Make the environment where it is not complete."""
    if state() == "complete":
        print(".venv is up to date")
        return 0
    try:
        make()
    except subprocess.CalledProcessError as error:
        if "venv" in error.cmd:
            print(
                "python3 cannot create environments here. Debian and Ubuntu keep "
                "that in a package of its own: apt install python3-venv"
            )
        else:
            print("pip could not install the packages: see its message above")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
