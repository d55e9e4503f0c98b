"""Slides: tags choose the cells, the page gives what they show, notes find a place."""

import json

import nbformat
import pytest
from bs4 import BeautifulSoup
from docutils import nodes

from tools import contents, slidemarks, slides

PAGE = """<article><section id="s"><h2 class="cell-of-a">Title<a class="headerlink"
href="#s">#</a></h2><p class="cell-of-a">See <a href="#eq">(1)</a> and
<a href="other.html#t">there</a>.</p><div class="cell cell-of-c"><div class=
"cell_input">code</div><div class="cell_output">42</div></div>
<details class="cell-of-b"><summary>Proof</summary>Words</details>
</section></article>"""


def cell(name, *tags, kind="markdown"):
    return {
        "cell_type": kind,
        "id": name,
        "metadata": {"tags": list(tags)},
        "source": f"# {name}",
    }


@pytest.fixture
def notebook(tmp_path):
    def write(*cells):
        path = tmp_path / "chapter.ipynb"
        path.write_text(json.dumps({"cells": cells}))
        return path

    return write


@pytest.fixture
def page():
    return BeautifulSoup(PAGE, "html.parser")


@pytest.mark.parametrize(
    ("tags", "kind"),
    [
        (["slide"], "slide"),
        (["slide-below"], "subslide"),
        (["slide-step", "nbval-check-output"], "fragment"),
        (["slide-more", "slide-output"], "-"),
        (["hide-input"], None),
        ([], None),
    ],
)
def test_tags_say_what_a_cell_is(tags, kind):
    assert contents.slide(cell("a", *tags)) == kind


def test_a_cell_is_on_one_slide():
    with pytest.raises(ValueError, match=r"cell a .*'slide', 'slide-more'"):
        contents.slide(cell("a", "slide", "slide-more"))


def test_tags_for_slides_say_nothing_of_a_run():
    tagged = cell("a", "slide-more", "slide-output", "hide-input", kind="code")
    assert contents.run_tags(tagged) == ["hide-input"]


def test_slides_show_the_page_and_lead_into_the_book(page, notebook):
    path = notebook(cell("a", "slide"), cell("x"), cell("b", "slide-below"))
    (kind, first), (below, proof) = slides.fragments(page, path)
    assert (kind, below) == ("slide", "subslide")
    assert first.startswith('<h2 class="cell-of-a">Title</h2>')
    assert 'href="../book/chapter.html#eq"' in first
    assert 'href="../book/other.html#t"' in first
    assert proof.startswith('<h2 class="again">Title</h2><details')
    assert 'open=""' in proof


@pytest.mark.parametrize("tags", [["slide"], ["slide", "slide-output"]])
def test_code_goes_where_a_tag_says_so(page, notebook, tags):
    [(_, shown)] = slides.fragments(page, notebook(cell("c", *tags)))
    assert "42" in shown
    assert ("code" in shown) == ("slide-output" not in tags)


def test_a_cell_that_the_page_lacks(page, notebook):
    with pytest.raises(ValueError, match=r"chapter.html shows nothing of the cell z"):
        slides.fragments(page, notebook(cell("z", "slide")))


def test_a_page_that_is_not_built(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a.html is not built: run make book"):
        slides.parse(tmp_path / "a.html")


def test_notes_stand_by_what_they_speak_of():
    paragraphs = "<p>Board. Ask.</p><p>Explorer. Move.</p><p>Hand out one.</p>"
    remarks = BeautifulSoup(paragraphs, "html.parser").find_all("p")
    cells = [
        ("slide", "<h1>T</h1>"),
        ("slide", '<div class="fb-explorer">'),
        ("slide", "<p>No exercise.</p>"),
    ]
    mixed = slides.with_notes(cells, remarks)
    assert [text for kind, text in mixed if kind == "notes"] == [
        "<p>Board. Ask.</p><p>Hand out one.</p>",
        "<p>Explorer. Move.</p>",
    ]
    assert mixed[1][0] == mixed[3][0] == "notes"


def test_every_block_of_a_cell_is_known_by_its_line():
    block, inner = nodes.container(), nodes.paragraph()
    block += inner
    assert slidemarks.origin(block) is None
    inner.line = 30_004
    assert slidemarks.origin(block) == 2


def test_nbconvert_makes_the_slides():
    cells = [
        nbformat.v4.new_raw_cell(
            f"<p>{name}</p>",
            metadata={
                "raw_mimetype": "text/html",
                "slideshow": {"slide_type": kind},
            },
        )
        for name, kind in [("one", "slide"), ("two", "subslide"), ("say", "notes")]
    ]
    made, _ = slides.exporter().from_notebook_node(
        nbformat.v4.new_notebook(cells=cells),
        resources={
            "deck": {"name": "x", "title": "T", "styles": "", "mathematics": ""}
        },
    )
    found = BeautifulSoup(made, "html.parser")
    inner = found.select(".slides > section > section")
    assert [s.p.text for s in inner] == ["one", "two"]
    assert inner[1].aside.p.text == "say"
    assert "require" not in made
