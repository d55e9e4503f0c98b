"""The built pages: executed, whole, linked, described and readable offline."""

import base64
import re
from urllib.parse import unquote, urlsplit

import nbformat

from tools import chapters, contents

MAX_BYTES = 1_500_000
MAX_LOADED = 800_000  # styles and scripts of a page, without what vendor/ holds
LEFT_OVERS = ("{glue", ":::", "{prf:", "{cite", "{numref", "{eq}", "[](#", "$$")
VENDORED = (contents.ROOT / "book" / "_static" / "vendor" / "vendor.json").is_file()


def outputs(notebook):
    """All outputs of the filed run of a notebook, with the tags of their cell."""
    run = nbformat.read(chapters.executed(notebook), as_version=4)
    for cell in run.cells:
        if cell.cell_type == "code":
            for output in cell.outputs:
                yield contents.tags(cell), output


def squeezed(text):
    return re.sub(r"\s+", "", text)


def test_every_page_is_built(toc, chapter_pages, html):
    assert len(chapter_pages) == len(toc) == len(contents.sources())
    built = {
        p.relative_to(html).with_suffix("").as_posix()
        for p in (html / "book").rglob("*.html")
    }
    assert built == set(toc)


def test_no_error_is_printed(chapter_pages):
    bad = {"system-message", "problematic", "stderr", "traceback"}
    for name, page in chapter_pages.items():
        assert not bad & set(page.classes), name
        assert "Traceback (most recent call last)" not in page.raw, name
        assert not re.search(r"<Figure size|\bat 0x[0-9a-f]", page.text), name


def test_every_notebook_shows_the_validated_run(chapter_pages):
    checked = 0
    for notebook in contents.notebooks():
        name = notebook.relative_to(contents.ROOT).with_suffix("").as_posix()
        key = chapters.key(notebook)
        assert chapter_pages[name].meta["flatbook-execution"] == key
        checked += 1
    assert checked == len(contents.notebooks()) > 0


def test_printed_outputs_are_in_the_pages(chapter_pages):
    seen = 0
    for notebook in contents.notebooks():
        name = notebook.relative_to(contents.ROOT).with_suffix("").as_posix()
        text, here = squeezed(chapter_pages[name].text), 0
        for tags, output in outputs(notebook):
            if output.output_type == "stream" and "remove-output" not in tags:
                assert squeezed(output.text) in text, (name, output.text)
                here += 1
        assert here, name
        seen += here
    assert seen >= len(contents.notebooks()) > 0


def test_pictures_of_the_run_are_in_the_site(html):
    files = {p.read_bytes() for p in (html / "_images").rglob("*") if p.is_file()}
    seen = 0
    for notebook in contents.notebooks():
        for tags, output in outputs(notebook):
            data = output.get("data", {}).get("image/png")
            if data and "remove-output" not in tags:
                assert base64.b64decode(data) in files, notebook.stem
                seen += 1
    assert seen > 0


def test_run_times_are_the_measured_ones(chapter_pages):
    for notebook in contents.notebooks():
        name = notebook.relative_to(contents.ROOT).with_suffix("").as_posix()
        seconds = chapters.seconds(chapters.executed(notebook))
        page = chapter_pages[name]
        assert "glance" in page.classes
        assert seconds > 0
        assert "on the processor that built this page" in page.text
        if 1 <= seconds < 90:
            assert f"Runs in {seconds:.0f} s on" in page.text


def test_nothing_is_left_unrendered(chapter_pages):
    for name, page in chapter_pages.items():
        article = re.search(r"<article.*?</article>", page.raw, re.S)[0]
        prose = re.sub(
            r"<(pre|code|script|style)\b.*?</\1>"
            r"|<(div|span) class=\"[^\"]*\bmath\b.*?</\2>|<[^>]*>",
            " ",
            article,
            flags=re.S,
        )
        assert [mark for mark in LEFT_OVERS if mark in prose] == [], name


def test_internal_links_lead_somewhere(pages):
    broken, followed = [], 0
    for path, page in pages.items():
        for href in page.links:
            url = urlsplit(href)
            if url.scheme or url.netloc:
                continue
            followed += 1
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            known = pages.get(target)
            if not target.exists() or (
                url.fragment and known and unquote(url.fragment) not in known.ids
            ):
                broken.append((path.name, href))
    assert broken == []
    assert followed > len(pages)


def test_pictures_have_a_description(chapter_pages):
    pictures = 0
    file_name = re.compile(r"(^|/)[\w-]+\.(png|svg|jpe?g)$")  # Sphinx's stand-in
    for name, page in chapter_pages.items():
        bad = [p for p in page.pictures if not p[1].strip() or file_name.search(p[1])]
        assert bad == [], name
        pictures += len(page.pictures)
    assert pictures > 0


def test_nothing_comes_from_elsewhere(pages):
    """Without the vendored files MathJax, and only that, comes from its CDN."""
    allowed = () if VENDORED else ("https://cdn.jsdelivr.net/", "https://cdnjs.")
    for path, page in pages.items():
        outside = [r for r in page.requests if re.match(r"(https?:)?//", r)]
        assert [r for r in outside if not r.startswith(allowed or "none")] == [], path
        assert not re.search(r"@import\s+url\(['\"]?https?:", page.raw), path


def test_colab_opens_files_that_exist(chapter_pages):
    pattern = r"https://colab\.research\.google\.com/github/[^/]+/[^/]+/blob/main/(.*)"
    for notebook in contents.notebooks():
        name = notebook.relative_to(contents.ROOT).with_suffix("").as_posix()
        found = [re.match(pattern, href) for href in chapter_pages[name].links]
        targets = {unquote(match[1]) for match in found if match}
        if any("github.com" in href for href in chapter_pages[name].links):
            assert f"{name}.ipynb" in targets
        assert [t for t in targets if not (contents.ROOT / t).is_file()] == []


def test_every_chapter_can_be_downloaded(chapter_pages, html):
    """The button gives the notebook as it lies in the repository."""
    for notebook in contents.notebooks():
        source = notebook.relative_to(contents.ROOT).as_posix()
        page = chapter_pages[source.removesuffix(".ipynb")]
        assert "btn-download-source-button" in page.classes, source
        assert f"../_sources/{source}" in page.links
        assert (html / "_sources" / source).read_bytes() == notebook.read_bytes()


def test_pages_are_light(chapter_pages):
    sizes = {name: page.path.stat().st_size for name, page in chapter_pages.items()}
    assert {name: size for name, size in sizes.items() if size > MAX_BYTES} == {}


def test_pages_load_few_styles_and_scripts(chapter_pages):
    for name, page in chapter_pages.items():
        local = {r.split("?")[0] for r in page.requests if "://" not in r}
        loaded = [page.path.parent / r for r in local if r.endswith((".js", ".css"))]
        sizes = {p.name: p.stat().st_size for p in loaded if "vendor" not in p.parts}
        assert 0 < sum(sizes.values()) < MAX_LOADED, (name, sizes)


def test_the_style_is_there(html):
    assert (html / "_static" / "flatbook.css").stat().st_size > 1000
