"""Put MathJax, reveal.js and the widget runtime beside the book: it needs no network.

    python -m tools.vendor            fill book/_static/vendor with npm
    python -m tools.vendor --record   write the checksums of what npm gives now

Versions, checksums and files are in ``tools/vendor.json``; `tools.browser` has two
more such lists. A package with another checksum is refused. Where npm is absent or
cannot reach its registry the pages load the same files from a public CDN instead,
and one line says so.
"""

import base64
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WANTED = ROOT / "tools" / "vendor.json"
TARGET = ROOT / "book" / "_static" / "vendor"
PATIENCE = 180


class ChecksumError(Exception):
    """A package is not the one that was reviewed."""


def stamp(target: Path) -> Path:
    """A copy of the list that the folder was filled from."""
    return target / "vendor.json"


def complete(target: Path, wanted: Path) -> bool:
    """Whether the folder holds what the list asks for."""
    return stamp(target).is_file() and stamp(target).read_text() == wanted.read_text()


def integrity(tarball: Path) -> str:
    """Checksum in the form that npm uses."""
    digest = hashlib.sha512(tarball.read_bytes()).digest()
    return "sha512-" + base64.b64encode(digest).decode()


def verify(spec: str, tarball: Path, expected: str) -> None:
    """Refuse a package that is not the reviewed one.

    Raises:
        ChecksumError: naming the package and both checksums.
    """
    found = integrity(tarball)
    if found != expected:
        raise ChecksumError(f"{spec}: checksum {found}, expected {expected}")


def unpack(tarball: Path, files: dict[str, str], target: Path) -> None:
    """Copy files (or folders, ending in a slash) of a package to their places."""
    with tarfile.open(tarball) as tar:
        for member in tar.getmembers():
            for source, place in files.items():
                inside = source.endswith("/") and member.name.startswith(source)
                if not member.isfile() or not (inside or member.name == source):
                    continue
                path = target / (place + member.name[len(source) :])
                if not path.resolve().is_relative_to(target.resolve()):
                    raise ChecksumError(f"{member.name} leaves the folder")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(tar.extractfile(member).read())


def fetch(spec: str, folder: Path) -> Path:
    """Download a package with npm and return its archive."""
    command = ["npm", "pack", "--silent", "--fetch-retries=1", spec]
    done = subprocess.run(
        command,
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        stdin=subprocess.DEVNULL,
    )
    return folder / done.stdout.split()[-1]


def fill(
    wanted: Path, target: Path, finish: Callable[[Path], object] = lambda _: None
) -> None:
    """Fetch, verify and unpack the packages of a list.

    Args:
        wanted: the list.
        target: the folder, which appears only when everything is in it.
        finish: what else is to be done in the folder before it appears.

    Raises:
        ChecksumError: a package is not the reviewed one.
        OSError, subprocess.SubprocessError: npm is absent or does not deliver.
    """
    with tempfile.TemporaryDirectory() as tmp:
        fresh = Path(tmp, "vendor")
        for spec, entry in json.loads(wanted.read_text()).items():
            tarball = fetch(spec, Path(tmp))
            verify(spec, tarball, entry["integrity"])
            unpack(tarball, entry["files"], fresh)
        finish(fresh)
        stamp(fresh).write_text(wanted.read_text())
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(fresh, target)


def record(path: Path) -> None:
    """Write the checksums of the packages that npm gives now into a list."""
    wanted = json.loads(path.read_text())
    with tempfile.TemporaryDirectory() as tmp:
        for spec, entry in wanted.items():
            entry["integrity"] = integrity(fetch(spec, Path(tmp)))
    path.write_text(json.dumps(wanted, indent=1) + "\n")


def main(argv: list[str]) -> int:
    """Fill the folder where npm can; a wrong checksum is the only failure."""
    if "--record" in argv:
        for path in WANTED.parent.glob("vendor*.json"):
            record(path)
    if complete(TARGET, WANTED):
        print("MathJax and the widget runtime are in place")
        return 0
    try:
        fill(WANTED, TARGET)
    except ChecksumError as error:
        print(error)
        return 1
    except (OSError, subprocess.SubprocessError) as error:
        why = "npm is not installed" if isinstance(error, FileNotFoundError) else error
        print(f"pages will load MathJax from a public CDN when read: {why}")
        return 0
    size = sum(p.stat().st_size for p in TARGET.rglob("*") if p.is_file())
    print(f"MathJax and the widget runtime: {size / 1e6:.1f} MB for offline reading")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
