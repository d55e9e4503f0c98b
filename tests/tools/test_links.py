"""The list of outside addresses, and what is made of their answers."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tools import links, make

PAGE = """<p><a href="https://b.example/x?a=1&amp;b=2#y">b</a> <a name="no">none</a>
<a href="https://a.example">a</a> <a href="other.html#here">inside</a>
<a href="//c.example/">no scheme</a> <link href="https://d.example/style.css">"""


class Answers(BaseHTTPRequestHandler):
    """Answers /404 with 404, and so on; /shy answers 405 to all but GET."""

    def do_HEAD(self):
        self.say(405 if self.path == "/shy" else int(self.path[1:]))

    def do_GET(self):
        self.say(200 if self.path == "/shy" else int(self.path[1:]))

    def say(self, status):
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with HTTPServer(("127.0.0.1", 0), Answers) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_addresses_are_found_with_their_pages(tmp_path):
    (tmp_path / "_static").mkdir()
    (tmp_path / "book").mkdir()
    (tmp_path / "_static" / "part.html").write_text('<a href="https://e.example">')
    (tmp_path / "index.html").write_text('<a href="https://a.example">')
    (tmp_path / "book" / "one.html").write_text(PAGE)
    found = links.external(tmp_path)
    assert found == {
        "//c.example/": ["book/one"],
        "https://a.example": ["book/one", "index"],
        "https://b.example/x?a=1&b=2#y": ["book/one"],
    }
    assert "https://a.example\n    book/one index\n" in links.listing(found)


def test_a_folder_without_pages_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="make book"):
        links.external(tmp_path)


@pytest.mark.parametrize(
    ("path", "status"), [("/200", 200), ("/404", 404), ("/403", 403), ("/shy", 200)]
)
def test_answers(server, path, status):
    assert links.answer(server + path) == status


def test_silence_is_told_with_its_reason(server):
    closed = "http://127.0.0.1:9"  # the port of "discard", where nobody listens
    assert "refused" in links.answer(closed)
    assert "unknown url type" in links.answer("//c.example/")


def test_only_what_is_gone_is_a_failure(server, capsys):
    assert links.open_all([server + "/200", server + "/403", "http://127.0.0.1:9"]) == 0
    assert links.open_all([server + "/404", server + "/200"]) == 1
    assert f"404  {server}/404" in capsys.readouterr().out


def test_own_repository_is_not_opened(monkeypatch):
    opened = []
    own = ["https://github.com/me/book/edit", "https://a.example"]
    monkeypatch.setattr(links, "external", lambda: {target: ["p"] for target in own})
    monkeypatch.setattr(links.address, "address", lambda: "https://github.com/me/book")
    monkeypatch.setattr(links, "open_all", lambda all_: opened.extend(all_) or 0)
    assert links.main(["--open"]) == 0
    assert opened == ["https://a.example"]


def test_the_build_writes_the_list():
    assert ("-m", "tools.links", "--write") in make.PAGES.commands
