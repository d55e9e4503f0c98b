"""Glossary, handouts, citations and changelog as they stand in the pages."""

import html as entities
import json
import re

import pytest

from tools import citations, contents, statements

HANDOUTS = ("intuition", "flatness", "radius", "experiments")


def glossary_source():
    text = (contents.ROOT / "book" / "glossary.md").read_text(encoding="utf8")
    return re.search(r"```\{glossary\}\n(.*?)```", text, re.S)[1]


def entries():
    return re.findall(r"^(\S.*)$", glossary_source(), re.M)


def definitions(html):
    text = (html / "_static" / "definitions.js").read_text(encoding="utf8")
    return json.loads(text.removeprefix("window.flatbookDefinitions = ").rstrip("\n;"))


def test_entries_are_in_order_and_defined_once():
    found = [entry.lower() for entry in entries()]
    assert found == sorted(found)
    assert len(set(found)) == len(found) > 40


def test_every_term_has_a_definition_for_the_pointer(html, chapter_pages):
    found = definitions(html)
    assert len(found) == len(entries())
    assert set(found) <= chapter_pages["book/glossary"].ids
    assert all(len(text) > 15 for text in found.values())
    assert not any("<a" in text or "{" + "term" in text for text in found.values())


def test_chapters_lead_to_the_glossary_once_for_each_term(html, chapter_pages):
    known, used = definitions(html), set()
    for path in contents.notebooks():
        page = chapter_pages[path.relative_to(contents.ROOT).with_suffix("").as_posix()]
        anchors = re.findall(
            r'class="fb-term[^"]*" href="glossary\.html#([^"]+)"', page.raw
        )
        assert len(anchors) == len(set(anchors)), path.stem
        assert len(anchors) >= 4, path.stem
        assert set(anchors) <= set(known), path.stem
        used |= set(anchors)
    unused = set(known) - used
    assert len(unused) <= len(known) // 5, sorted(unused)


def test_the_script_is_on_the_pages(html, chapter_pages):
    assert (html / "_static" / "terms.js").stat().st_size < 5_000
    assert any(
        r.partition("?")[0].endswith("terms.js")
        for r in chapter_pages["book/intro"].requests
    )


@pytest.mark.parametrize("name", HANDOUTS)
def test_a_handout_repeats_the_statements_of_its_part(name, chapter_pages):
    source = (contents.ROOT / "book" / "handouts" / f"{name}.md").read_text("utf8")
    labels = re.findall(r"\{statement\} ([\w-]+)", source)
    page, known = chapter_pages[f"book/handouts/{name}"], statements.statements()
    assert len(labels) >= 2
    assert page.classes.count("statement") == len(labels)
    for label in labels:
        assert known[label].title in page.text.replace("\u2019", "'")
        formulas = re.findall(r"\$\$(.*?)\$\$", known[label].body, re.S)
        words = re.sub(r"\s+", "", entities.unescape(page.raw))
        for formula in formulas:
            assert re.sub(r"\s+", "", formula) in words, label
    assert "What it does not say" in page.text
    assert any(kind == "<svg role=img>" for kind, _ in page.pictures)


def test_the_citations_can_be_copied(chapter_pages):
    text = re.sub(r"\s+", "", chapter_pages["book/cite"].text)
    for entry in citations.entries():
        assert re.sub(r"\s+", "", entry) in text


def test_the_changelog_is_the_file(chapter_pages):
    source = (contents.ROOT / "CHANGELOG.md").read_text(encoding="utf8")
    text = chapter_pages["book/changelog"].text
    for heading in re.findall(r"^## \[([^\]]+)\]", source, re.M):
        assert heading in text
    assert source.count("\n- ") == len(
        re.findall(
            r"<li><p>",
            chapter_pages["book/changelog"]
            .raw.partition('id="changelog"')[2]
            .partition("</article>")[0],
        )
    )
