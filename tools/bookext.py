"""Sphinx extension of this book, named in ``_config.yml``.

* Results: a fresh jupyter-cache is filled from what `tools.chapters` filed, so the
  build shows the very run that nbval validated and never executes a notebook.
* ``glance``: the strip at the head of a chapter, with the measured run time.
* The foot of every theorem: what its tests check (`tools.theorems`).
* Addresses of the repository in buttons and in the pages' metadata.
* MathJax and the widget runtime come from ``book/_static/vendor`` where
  `tools.vendor` has filled it, else from their usual CDN.
* ``equations.js`` has MathJax set the equations in view first (``book/_static``).
* What pages need for readers with screen readers, where the theme and its extensions
  fall short: names of buttons (``book/_templates``), roles and header cells.
* Searching from disk asks for no summaries: a browser does not let scripts read them.
* sphinx-thebe 0.3.1 registers its settings twice, a script error on every page: one
  copy is dropped.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import nbformat
from docutils import nodes
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from tools import address, chapters, contents, theorems

CDN = "https://cdn.jsdelivr.net/npm/"
RUNTIME = (
    "Runs in {seconds} on the processor that built this page (one thread); "
    "T4 and larger GPUs: not yet measured."
)
MISLEADING = {
    '(<summary) aria-label="Toggle hidden content"': r"\1",
    '<div role="list" (class="citation-list")': r"<div \1",
    r'(<div class="citation" id="[^"]*") role="doc-biblioentry"': r"\1",
    '<div (class="result-card")>': r'<div \1 role="region" aria-label="Results" '
    'tabindex="0">',
    r'<th( class="head")?>\s*(<p>\s*</p>)?\s*</th>': r"<td\1></td>",
}
FOLD = re.compile(r"(<a [^>]*>([^<]*)</a><details[^>]*>)<summary>")


def cache_folder(root: Path) -> Path:
    """The jupyter-cache of the current build."""
    return root / "_build" / ".jupyter_cache"


def retag(result: nbformat.NotebookNode, notebook: Path) -> None:
    """Give the cells of a result the tags of today: those for slides may be new."""
    ran = (cell for cell in result.cells if cell["cell_type"] == "code")
    for cell, now in zip(ran, contents.cells(notebook, "code"), strict=True):
        cell["metadata"].pop("tags", None)
        if contents.tags(now):
            cell["metadata"]["tags"] = contents.tags(now)


def fill_cache(app: Sphinx, config: Config) -> None:
    """Hand the filed results to myst-nb; refuse to build without one of them."""
    root = Path(app.srcdir)
    missing = chapters.pending(root)
    if missing:
        names = ", ".join(path.stem for path in missing)
        raise ExtensionError(f"no validated result of {names}: run make book")
    folder = cache_folder(root)
    shutil.rmtree(folder, ignore_errors=True)
    cache = get_cache(str(folder))
    for path in contents.notebooks(root):
        nb = nbformat.read(chapters.executed(path, root), as_version=4)
        seconds = nb.metadata.pop("flatbook")["seconds"]
        retag(nb, path)
        cache.cache_notebook_bundle(
            CacheBundleIn(nb, str(path), data={"execution_seconds": seconds}),
            check_validity=False,
            overwrite=True,
        )
    config.nb_execution_cache_path = str(folder)


def assert_nothing_ran(app: Sphinx, exception: Exception | None) -> None:
    """Fail if the build executed a notebook itself: the cache would have grown."""
    root = Path(app.srcdir)
    have = len(get_cache(str(cache_folder(root))).list_cache_records())
    if exception is None and have != len(contents.notebooks(root)):
        raise ExtensionError("the build executed a notebook instead of using results")


def use_vendored(app: Sphinx, config: Config) -> None:
    """Point MathJax and the widgets to the files beside the book, where present."""
    root = Path(app.srcdir, "book", "_static", "vendor")
    if (root / "mathjax" / "tex-chtml-full.js").exists():
        config.mathjax_path = "vendor/mathjax/tex-chtml-full.js"
    if (root / "widgets" / "embed-amd.js").exists():
        config.nb_ipywidgets_js = {
            "vendor/widgets/require.js": {},
            "widgets-shim.js": {},
            "vendor/widgets/embed-amd.js": {"data-jupyter-widgets-cdn": CDN},
        }


def use_templates(app: Sphinx, config: Config) -> None:
    """Put the book's own templates before those of the theme."""
    config.templates_path = ["book/_templates", *config.templates_path]


def use_address(app: Sphinx, config: Config) -> None:
    """Make the buttons lead to the repository this book is built from."""
    url = address.address(Path(app.srcdir))
    options = config.html_theme_options
    options["repository_url"] = url
    if not url.startswith("https://github.com/"):  # Colab opens nothing else
        options.get("launch_buttons", {}).pop("colab_url", None)
    config.html_baseurl = config.ogp_site_url = address.pages(url)


def result_of(app: Sphinx, docname: str) -> Path | None:
    """The filed result behind a page, None for a page without code."""
    notebook = Path(app.srcdir, f"{docname}.ipynb")
    return chapters.executed(notebook, Path(app.srcdir)) if notebook.exists() else None


def rounded(seconds: float) -> str:
    """Run time as a reader wants it."""
    if seconds < 1:
        return "less than a second"
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} minutes"


def rows(paragraph: nodes.paragraph) -> list[nodes.Node]:
    """One paragraph for each bold label, so that labels and texts line up."""
    found: list[nodes.Element] = []
    for child in (node for node in paragraph.children if node.astext()):
        starts = isinstance(child, nodes.strong) and child.astext().endswith(".")
        if starts or not found:
            found.append(nodes.paragraph("", "", child, nodes.inline()))
        else:
            found[-1][-1] += child
    return found


class Glance(SphinxDirective):
    """What a chapter asks for and gives, with the time its code took."""

    has_content: ClassVar[bool] = True

    def run(self) -> list[nodes.Node]:
        """A ``div.glance`` with the parsed content and the measured time."""
        parsed = nodes.container()
        self.state.nested_parse(self.content, self.content_offset, parsed)
        box = nodes.container(classes=["glance"])
        for node in parsed.children:
            box += rows(node) if isinstance(node, nodes.paragraph) else [node]
        result = result_of(self.env.app, self.env.docname)
        if result:
            time = RUNTIME.format(seconds=rounded(chapters.seconds(result)))
            label = nodes.strong("", "Run time.")
            box += nodes.paragraph("", "", label, nodes.inline("", f" {time}"))
        return [box]


def add_feet(app: Sphinx, doctree: nodes.document) -> None:
    """Put what was checked under every theorem-like block."""
    root = Path(app.srcdir)
    for block in list(doctree.findall(nodes.Element)):
        tests = theorems.path(block.get("label", ""), root)
        if "proof" in block.get("classes", []) and tests.exists():
            app.env.note_dependency(str(tests))
            foot = theorems.foot(block["label"], root)
            block.append(nodes.raw("", foot, format="html"))


def accessible(body: str) -> str:
    """The body of a page without what misleads a screen reader.

    A label that hides the words on a summary, lists that are none, empty headers,
    wide tables that the keyboard cannot push aside.
    """
    for wrong, right in MISLEADING.items():
        body = re.sub(wrong, right, body)
    return body


def named_folds(toctree: Callable[..., object]) -> Callable[..., object]:
    """The theme's table of contents, whose folds say what they open."""

    def listed(kind: str, *args: object, **options: object) -> object:
        found = toctree(kind, *args, **options)
        if kind == "raw":
            return found
        return FOLD.sub(r'\1<summary aria-label="Pages of: \2">', str(found))

    return listed


def page_context(
    app: Sphinx, pagename: str, _template: str, context: dict, _doctree: object
) -> None:
    """Name the run behind the page, and drop the script that is there twice."""
    result = result_of(app, pagename)
    if result:
        key = result.stem.rpartition("-")[2]
        tag = f'\n<meta name="flatbook-execution" content="{key}">'
        context["metatags"] = context.get("metatags", "") + tag
    if pagename == "search":
        app.add_js_file("search-from-disk.js")
    seen, kept = set(), []
    for script in context.get("script_files", []):
        body = getattr(script, "attributes", {}).get("body")
        if not (body and body in seen):
            kept.append(script)
        seen.add(body)
    context["script_files"] = kept
    if "generate_toctree_html" in context:
        context["generate_toctree_html"] = named_folds(context["generate_toctree_html"])
    if "body" in context:
        context["body"] = accessible(context["body"])


def setup(app: Sphinx) -> dict:
    """Register everything."""
    for handler in (fill_cache, use_vendored, use_templates, use_address):
        app.connect("config-inited", handler, priority=100)
    app.add_js_file("equations.js", loading_method="defer", priority=499)
    app.add_directive("glance", Glance)
    app.connect("doctree-read", add_feet)
    app.connect("html-page-context", page_context, priority=900)
    app.connect("build-finished", assert_nothing_ran)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
