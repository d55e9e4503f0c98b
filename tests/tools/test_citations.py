"""The entries that readers copy say what CITATION.cff says."""

import re
import tomllib

from tools import address, citations, contents


def fields(entry):
    """Key and fields of a BibTeX entry, read back."""
    key = re.match(r"@\w+\{(\S+),", entry)[1]
    return key, dict(re.findall(r"^  (\w+) = \{(.*)\},?$", entry, re.M))


def test_the_book():
    cff = citations.load()
    key, found = fields(citations.entries()[0])
    assert key == "flatbook"
    assert found["title"] == f"{{{cff['title']}}}"
    assert found["author"] == f"{{{cff['authors'][0]['name']}}}"
    assert found["version"] == cff["version"]
    assert found["year"] == cff["date-released"][:4]
    assert found["url"] == address.address()


def test_the_paper_is_the_one_the_chapters_cite():
    key, found = fields(citations.entries()[1])
    bib = (contents.ROOT / "book" / "references.bib").read_text(encoding="utf8")
    own = re.search(rf"@misc\{{{key}\w*,(.*?)^\}}", bib, re.S | re.M)[1]
    value = lambda name: re.search(rf"{name} = \{{([^}}]*)\}}", own)[1]  # noqa: E731
    assert found["author"] == value("author")
    assert found["title"].strip("{}") == value("title")
    assert (found["eprint"], found["year"]) == (value("eprint"), value("year"))


def test_the_file_is_complete():
    cff = citations.load()
    needed = "cff-version message title abstract type authors version date-released "
    needed += "repository-code license keywords references"
    assert set(needed.split()) <= set(cff)


def test_versions_agree():
    """Package, citation file and changelog name one version and one day."""
    cff = citations.load()
    project = tomllib.loads((contents.ROOT / "pyproject.toml").read_text())
    assert cff["version"] == project["project"]["version"]
    text = (contents.ROOT / "CHANGELOG.md").read_text(encoding="utf8")
    releases = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)$", text, re.M)
    assert releases[0] == (cff["version"], cff["date-released"])
    assert releases == sorted(releases, reverse=True)
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, re.M)) <= kinds
