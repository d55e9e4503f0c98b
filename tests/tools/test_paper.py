"""A built page becomes a chapter on paper, on small pages."""

import pytest

from tools import paper

SITE = "https://someone.github.io/flatbook/"
PAGES = ["book/intro", "book/one", "book/deep/two"]
EXPLORER = """
<div class="fb-explorer" role="group" aria-label="Figure with sliders" id="fb-1">
<div class="fb-sliders"><div class="fb-slider"><label for="fb-1-0">scale s</label>
<input type="range" id="fb-1-0"><output for="fb-1-0" aria-live="off">1.5</output></div>
<div class="fb-slider"><label for="fb-1-1">digit</label>
<input type="range" id="fb-1-1"><output for="fb-1-1">3</output></div></div>
<svg role="img" aria-label="A curve"></svg>
<div class="fb-numbers" aria-live="polite"><span>loss</span><b>4.25</b></div>
<script>move()</script><noscript><p>needs JavaScript</p></noscript></div>
"""


def article(inside):
    return paper.parse(f'<article class="bd-article">{inside}</article>')


def prepared(inside, page="book/one"):
    html = f'<nav>menu</nav><article class="bd-article">{inside}</article>'
    return paper.prepare(html, page, PAGES, SITE)


def test_a_page_without_an_article_is_refused():
    with pytest.raises(ValueError, match="no <article"):
        paper.parse("<p>nothing</p>")


def test_what_only_a_screen_needs_goes():
    page = article(
        '<h1>Title<a class="headerlink" href="#t">#</a></h1><script>x()</script>'
        '<div class="cell tag_colab-setup"><pre>setup</pre></div>'
        '<div class="cell"><details class="hide"><pre>hidden</pre></details></div>'
        '<div class="cell"><details class="hide">too</details><img src="a.png"></div>'
        '<div class="cell"><pre>shown</pre></div>'
    )
    paper.strip(page)
    assert page.get_text(" ", strip=True) == "Title shown"
    assert len(page.select("div.cell")) == 2, "the picture keeps its cell"


def test_code_keeps_its_words_and_its_colours():
    page = article(
        '<pre><span class="k">def</span><span class="w"> </span>'
        '<span class="n">f</span><span class="p">():</span>'
        ' <span class="mi">1</span></pre>'
    )
    paper.strip(page)
    assert page.get_text() == "def f(): 1"
    assert [s["class"] for s in page.find_all("span")] == [["k"], ["mi"]]


def test_sliders_become_their_values():
    page = prepared(EXPLORER)
    assert page.select_one(".fb-values").get_text(" ", strip=True) == (
        "scale s 1.5 digit 3 moves on the page"
    )
    assert page.select_one(".fb-values a")["href"] == f"{SITE}book/one.html"
    assert not page.select("input, output, label, script, noscript, [aria-live]")
    assert page.svg["aria-label"] == "A curve"
    assert page.select_one(".fb-numbers").get_text() == "loss4.25"


def test_folds_are_open():
    page = prepared(
        '<details class="sd-dropdown"><summary>Hint</summary><p>Try two.</p></details>'
        '<details class="checked"><summary>Checked by 4 tests</summary></details>'
    )
    assert not page.select("details, summary")
    hint, checked = page.select("div.fold")
    assert hint["class"] == ["fold", "sd-dropdown", "hint"]
    assert hint.get_text(" ", strip=True) == "Hint Try two."
    assert checked["class"] == ["fold", "checked"]
    assert checked.select_one(".fold-title").get_text() == "Checked by 4 tests"


@pytest.mark.parametrize(
    ("page", "href", "becomes"),
    [
        ("book/one", "#eq-1", "#one--eq-1"),
        ("book/one", "intro.html", "#intro"),
        ("book/one", "deep/two.html#a", "#deep-two--a"),
        ("book/deep/two", "../one.html#a", "#one--a"),
        ("book/one", "https://arxiv.org/abs/1#x", "https://arxiv.org/abs/1#x"),
        ("book/one", "mailto:a@b.org", "mailto:a@b.org"),
        ("book/one", "../genindex.html", f"{SITE}genindex.html"),
    ],
)
def test_links(page, href, becomes):
    link = prepared(f'<a href="{href}">there</a>', page).a
    assert link["href"] == becomes


def test_ids_and_pictures_find_each_other_in_the_document():
    page = prepared(
        '<p id="a"></p><svg aria-labelledby="a b"></svg><img src="../_images/p.png">'
        '<img src="data:image/png;base64,AAAA">'
    )
    assert page["id"] == "one"
    assert page.p["id"] == "one--a"
    assert page.svg["aria-labelledby"] == "one--a one--b"
    assert [i["src"] for i in page.find_all("img")] == [
        "../html/_images/p.png",
        "data:image/png;base64,AAAA",
    ]


def test_a_sheet_that_prints_by_itself_does_not_set_the_size_of_all():
    assert not prepared('<div class="handout">words</div>').select(".handout")


def test_headings_are_lowered_once():
    page = article("<h1>a</h1><h2>b</h2><h3>c</h3>")
    paper.rank(page, 1)
    found = [(h.name, h["class"]) for h in page.find_all(["h1", "h2", "h3", "h4"])]
    assert found == [("h2", "level-1"), ("h3", "level-2"), ("h4", "level-3")]
