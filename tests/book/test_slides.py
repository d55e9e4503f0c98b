"""Every chapter has a deck of a lecture's length, and the ways to it."""

import re

from tools import contents

LEAST, MOST = 8, 20
LINK = re.compile(r'href="\.\./slides/([\w-]+)\.html"')


def test_every_chapter_has_slides():
    for path in contents.notebooks():
        assert LEAST <= contents.slides(path) <= MOST, path.stem
        assert contents.slide(contents.cells(path)[0]) == "slide", path.stem


def test_every_deck_has_statement_explorer_exercise_and_notes(html):
    for path in contents.notebooks():
        made = (html / "slides" / f"{path.stem}.html").read_text(encoding="utf8")
        for part in ('class="fb-explorer', 'class="exercise', '<aside class="notes">'):
            assert part in made, (path.stem, part)


def test_chapters_and_the_teaching_page_lead_to_the_slides(chapter_pages):
    names = [path.stem for path in contents.notebooks()]
    for name in names:
        assert LINK.findall(chapter_pages[f"book/{name}"].raw) == [name]
    listed = LINK.findall(chapter_pages["book/teaching"].raw)
    assert sorted(listed) == sorted(names)
