"""A browser for the tests of the built pages, and axe-core, which they run in it.

    python -m tools.browser             find or fetch both, and say what there is
    python -m tools.browser test        and run the tests of tests/browser
    python -m tools.browser required    find or fetch the browser; fail without one

A browser is what ``FLATBOOK_BROWSER`` names, or an installed Chrome, Chromium, Edge
or Brave. Where there is none, Linux on x86-64 takes the headless Chromium that the
npm package @sparticuz/chromium carries, with the libraries and the font it needs
(``_build/browser``, with a checksum, like all that `tools.vendor` fetches).

With neither a browser nor npm the tests are not run, and a line says what that leaves
unchecked; ``FLATBOOK_NEEDS_BROWSER=1`` makes it an error.
"""

import os
import platform
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import brotli

from tools import vendor

FOLDER = vendor.ROOT / "_build" / "browser"
CHROMIUM = vendor.ROOT / "tools" / "vendor_chromium.json"
AXE = vendor.ROOT / "tools" / "vendor_axe.json"
NAMES = (
    *("google-chrome", "google-chrome-stable", "chromium", "chromium-browser"),
    *("microsoft-edge", "brave-browser", "chrome", "msedge"),
)
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Microsoft/Edge/Application/msedge.exe",
)
FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{folder}/fonts</dir><cachedir>{folder}/cache</cachedir></fontconfig>
"""
TESTS = ("-q", "-n", "2", "--dist", "loadgroup", "tests/browser")
UNCHECKED = (
    "not checked: scripts, sliders, equations, accessibility and layout of pages"
)
MISSING = (
    "there is no Chrome, Chromium or Edge here (FLATBOOK_BROWSER can name one) or no "
    "axe-core, and npm did not bring it"
)


MISSING_BROWSER = (
    "there is no Chrome, Chromium or Edge here (FLATBOOK_BROWSER can name one)"
)


class NoSuchProgramError(Exception):
    """``FLATBOOK_BROWSER`` names a program that is not there."""


def needed() -> bool:
    """Whether the tests in a browser have to run."""
    return os.environ.get("FLATBOOK_NEEDS_BROWSER", "0") not in ("", "0")


def axe() -> Path:
    """Where axe-core is once it has been fetched."""
    return FOLDER / "axe" / "axe.min.js"


def carried() -> Path:
    """Where the browser from npm is once it has been fetched."""
    return FOLDER / "chromium" / "chromium"


def installed() -> Path | None:
    """The browser that ``FLATBOOK_BROWSER`` names, else one of this machine.

    Raises:
        NoSuchProgramError: ``FLATBOOK_BROWSER`` names something that is not there.
    """
    named = os.environ.get("FLATBOOK_BROWSER")
    if named:
        found = shutil.which(named)
        if not found:
            raise NoSuchProgramError(f"FLATBOOK_BROWSER={named}: no such program")
        return Path(found)
    on_path = (shutil.which(name) for name in NAMES)
    in_place = (place for place in PLACES if Path(place).is_file())
    return next((Path(p) for p in (*on_path, *in_place) if p), None)


def find() -> Path | None:
    """An installed browser, or the one that was fetched, or None."""
    return installed() or (carried() if carried().is_file() else None)


def complete() -> bool:
    """Whether all that the tests in a browser need is here."""
    return find() is not None and axe().is_file()


def environment(program: Path) -> dict[str, str]:
    """Variables that the browser is started with: npm's brings libraries and a font."""
    variables = dict(os.environ)
    if program == carried():
        have = variables.get("LD_LIBRARY_PATH")
        libraries = str(program.parent / "lib")
        variables["LD_LIBRARY_PATH"] = f"{libraries}:{have}" if have else libraries
        if not Path("/etc/fonts/fonts.conf").is_file():
            variables["FONTCONFIG_FILE"] = str(program.parent / "fonts.conf")
    return variables


def expand(folder: Path) -> None:
    """Turn the compressed files of the npm package into a program."""
    for packed in sorted(folder.glob("*.br")):
        packed.with_suffix("").write_bytes(brotli.decompress(packed.read_bytes()))
        packed.unlink()
    for archive in sorted(folder.glob("*.tar")):
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        archive.unlink()
    (folder / "chromium").chmod(0o755)
    (folder / "fonts.conf").write_text(FONTS.format(folder=carried().parent))


def fetch() -> Path | None:
    """The browser that npm carries, where it is made for this machine."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return None
    if not vendor.complete(carried().parent, CHROMIUM):
        print("no browser is installed; npm brings one (70 MB)", flush=True)
        vendor.fill(CHROMIUM, carried().parent, expand)
    return carried()


def version(program: Path) -> str:
    """What the browser says of itself.

    Raises:
        OSError, subprocess.SubprocessError: it does not start.
    """
    command = [str(program), "--version"]
    if os.name == "nt":  # there it opens a window instead
        return str(program)
    done = subprocess.run(
        command,
        env=environment(program),
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout.strip()


def provide() -> None:
    """Find or fetch the browser, start it once, and fetch axe-core."""
    program = installed() or fetch()
    if program:
        print(f"browser: {version(program)} ({program})")
    if not vendor.complete(axe().parent, AXE):
        vendor.fill(AXE, axe().parent)


def test() -> int:
    """Open the pages of the built book in the browser; pytest's exit code."""
    command = [sys.executable, "-m", "pytest", *TESTS]
    return subprocess.run(command, cwd=vendor.ROOT, check=False).returncode


def main(argv: list[str]) -> int:
    """Provide, and test; fails where a browser is needed and missing, too."""
    if argv == ["required"]:
        return required()
    try:
        installed()
        provide()
    except (vendor.ChecksumError, NoSuchProgramError) as error:
        print(error)
        return 1
    except (OSError, subprocess.SubprocessError) as error:
        print(f"not all could be had: {error}")
    if complete():
        return test() if argv == ["test"] else 0
    print(f"{UNCHECKED} ({MISSING})")
    return 1 if needed() else 0


def required() -> int:
    """Find or fetch the browser; where there is none, one sentence and exit code 1."""
    try:
        if installed() or fetch():
            return 0
        why = MISSING_BROWSER
    except (vendor.ChecksumError, NoSuchProgramError) as error:
        why = str(error)
    except (OSError, subprocess.SubprocessError):
        why = f"{MISSING_BROWSER}, and npm did not bring one"
    print(f"A browser is needed: {why}.")
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
