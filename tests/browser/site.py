"""The built site as a reader has it: its pages, sizes of screens, what goes wrong."""

from dataclasses import dataclass, field

from tools import contents

HTML = contents.ROOT / "_build" / "html"
DESKTOP = {"width": 1300, "height": 900}
PHONE = {"width": 390, "height": 844}
OWN = ("file:", "data:", "blob:", "about:")
MODE = "document.documentElement.dataset.theme"


def names():
    """Every page but the one that only leads to the first chapter, and the slides."""
    found = (p.relative_to(HTML) for p in HTML.rglob("*.html"))
    pages = (p for p in found if p.parts[0] not in ("_static", "slides"))
    return sorted(p.with_suffix("").as_posix() for p in pages if p.stem != "index")


@dataclass
class Seen:
    """An open page, when it was ready, what went wrong, what it asked of others."""

    name: str
    page: object
    ready: float = 0.0
    errors: list = field(default_factory=list)
    outside: list = field(default_factory=list)

    def listen(self):
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._said)
        self.page.on("requestfailed", lambda r: self.errors.append(f"failed: {r.url}"))
        self.page.on("request", self._asked)

    def _said(self, message):
        if message.type == "error":
            self.errors.append(message.text)

    def _asked(self, request):
        if not request.url.startswith(OWN):
            self.outside.append(request.url)

    def is_silent(self):
        """Whether nothing went wrong and nothing was asked of another machine."""
        return self.errors == [] == self.outside
