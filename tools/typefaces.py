"""The typefaces of the PDF: Source Serif, Source Sans and Source Code, from npm.

They are under the SIL Open Font License. Versions, checksums and files are in
``vendor_fonts.json``; characters that they lack come from the machine.
"""

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tools import vendor

FOLDER = vendor.ROOT / "_build" / "fonts"
WANTED = Path(__file__).parent / "vendor_fonts.json"
FACE = re.compile(
    r"(?P<family>.+?)-(?P<subset>latin-ext|latin|greek)-(?P<weight>\d+)"
    r"-(?P<style>normal|italic)\.woff2"
)
RANGES = {
    "latin": "U+0000-00FF, U+2000-206F, U+2212, U+2215, U+FEFF, U+FFFD",
    "latin-ext": "U+0100-02BA, U+1E00-1E9F, U+2070-209C, U+20A0-20AB",
    "greek": "U+0370-03FF",
}


def fetch() -> None:
    """Fetch the typefaces with npm; without it the book takes those of the machine.

    Raises:
        vendor.ChecksumError: a package is not the reviewed one.
    """
    if vendor.complete(FOLDER, WANTED):
        return
    try:
        vendor.fill(WANTED, FOLDER)
    except (OSError, subprocess.SubprocessError):
        print("npm did not bring the typefaces of the PDF: it takes installed ones")


def faces(names: Iterable[str], folder: str) -> str:
    """Rules for typefaces whose files are named FAMILY-SUBSET-WEIGHT-STYLE.woff2."""
    rules = []
    for name in names:
        found = FACE.fullmatch(name)
        if found:
            family = found["family"].replace("-", " ").title()
            rules.append(
                f'@font-face {{ font-family: "{family}"; font-style: {found["style"]}; '
                f'font-weight: {found["weight"]}; src: url("{folder}{name}"); '
                f"unicode-range: {RANGES[found['subset']]} }}"
            )
    return "\n".join(rules)
