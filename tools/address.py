"""The public address of the repository, which buttons and citations need.

It stands in ``pyproject.toml`` (project.urls, Repository). Where the git remote
``origin`` is public, that is the truth, and the pages are built with it:

    python -m tools.address          print the address
    python -m tools.address check    exit 1 where a file says something else
    python -m tools.address fix      write it into every file that repeats it
"""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from tools import contents
from tools.contents import ROOT

NAMED = ("pyproject.toml", "CITATION.cff", "README.md", "_config.yml")
FORGES = ("github.com", "gitlab.com", "codeberg.org", "bitbucket.org")
REMOTE = re.compile(
    r"(?:https://(?:[^@/]+@)?|ssh://(?:[^@/]+@)?|[^@/:]+@)"
    r"(?P<host>[\w.-]+)(?::\d+(?=/))?[:/](?P<path>[\w./~-]+?)(?:\.git)?/?"
)
PAGES = "https://{owner}.github.io/{name}/"
COLAB = "https://colab.research.google.com/github/{owner}/{name}/"


def normalise(remote: str) -> str | None:
    """The web address of a git remote, or None where it is not a public one.

    >>> normalise("git@github.com:someone/flatbook.git")
    'https://github.com/someone/flatbook'
    >>> normalise("../flatbook") is None
    True
    """
    match = REMOTE.fullmatch(remote.strip())
    if not match:
        return None
    host, path = match["host"].lower(), match["path"].strip("/")
    public = host in FORGES or host.startswith("gitlab.")
    return f"https://{host}/{path}" if public and "/" in path else None


def stored(root: Path = ROOT) -> str:
    """The address in pyproject.toml."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf8"))
    return project["project"]["urls"]["Repository"]


def address(root: Path = ROOT) -> str:
    """The remote's address where there is a public one, else the stored one."""
    command = ["git", "-C", str(root), "remote", "get-url", "origin"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git: a downloaded archive
        return stored(root)
    return normalise(found.stdout) or stored(root)


def _parts(url: str) -> tuple[str, str, str]:
    """Host, owner (with groups) and repository name."""
    host, _, path = url.removeprefix("https://").partition("/")
    owner, _, name = path.rpartition("/")
    return host, owner, name


def pages(url: str) -> str:
    """Where the published book of a repository stands."""
    host, owner, name = _parts(url)
    if host == "github.com":
        return PAGES.format(owner=owner.lower(), name=name)
    return f"{url}/"


def _forms(url: str) -> tuple[str, str, str]:
    """The address as it is written: repository, Colab, published pages."""
    _, owner, name = _parts(url)
    return url, COLAB.format(owner=owner, name=name), pages(url)


def files(root: Path = ROOT) -> list[Path]:
    """Every file that repeats the address."""
    return [root / name for name in NAMED] + contents.notebooks(root)


def replaced(text: str, old: str, new: str) -> str:
    """A text with every form of one address changed into another's."""
    for before, after in zip(_forms(old), _forms(new), strict=True):
        end = r"" if before.endswith("/") else r"(?![\w-])"
        text = re.sub(re.escape(before) + end, after, text)
    return text


def fix(root: Path, new: str) -> list[Path]:
    """Write an address into every file; return those that changed."""
    old, changed = stored(root), []
    for path in files(root):
        before = path.read_text(encoding="utf8")
        after = replaced(before, old, new)
        if after != before:
            path.write_text(after, encoding="utf8")
            changed.append(path)
    return changed


def differences(root: Path, url: str) -> Iterator[str]:
    """Lines that name a repository of this name elsewhere, or that lack the address."""
    name = re.escape(_parts(url)[2])
    hosts = "|".join(re.escape(host) for host in FORGES)
    written = re.compile(
        rf"https://(?:(?:{hosts})/[\w./-]+?/{name}(?![\w-])"
        rf"|colab\.research\.google\.com/github/[\w.-]+/[\w.-]+/"
        rf"|[\w-]+\.github\.io/{name}/)"
    )
    for path in files(root):
        text = path.read_text(encoding="utf8")
        for number, line in enumerate(text.splitlines(), start=1):
            for found in written.findall(line):
                if found not in _forms(url):
                    yield f"{path.relative_to(root)}:{number}: {found}"
        if path.suffix != ".ipynb" and url not in text:
            yield f"{path.relative_to(root)}: does not name {url}"


def main(argv: list[str]) -> int:
    """Print, check or fix."""
    url = address()
    if "fix" in argv:
        changed = fix(ROOT, url)
        print(f"{url}: {len(changed)} files changed")
        return 0
    if "check" in argv:
        wrong = list(differences(ROOT, url))
        print("\n".join(wrong) or f"all files name {url}")
        if wrong:
            print(f"The repository's address is {url}: run make address")
        return int(bool(wrong))
    print(url)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
