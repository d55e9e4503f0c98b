"""Which browser is taken, and that a missing one is said or refused."""

import stat
import sys

import brotli
import pytest

from tools import browser, vendor

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="shell scripts")


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A machine with an empty PATH, no browser and nothing fetched."""
    monkeypatch.setattr(browser, "FOLDER", tmp_path / "browser")
    monkeypatch.setattr(browser, "PLACES", ())
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("FLATBOOK_BROWSER", raising=False)
    monkeypatch.delenv("FLATBOOK_NEEDS_BROWSER", raising=False)
    (tmp_path / "bin").mkdir()
    return tmp_path


def program(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\necho Browser 1.0\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_a_named_browser_comes_first(bare, monkeypatch):
    program(bare / "bin" / "chromium")
    mine = program(bare / "mine")
    monkeypatch.setenv("FLATBOOK_BROWSER", str(mine))
    assert browser.find() == mine


def test_a_named_browser_that_is_not_there_is_refused(bare, monkeypatch, capsys):
    program(bare / "bin" / "chromium")
    monkeypatch.setenv("FLATBOOK_BROWSER", "nowhere")
    with pytest.raises(browser.NoSuchProgramError, match="nowhere"):
        browser.find()
    assert browser.main([]) == 1
    assert "nowhere" in capsys.readouterr().out


def test_an_installed_browser_comes_before_the_fetched_one(bare):
    fetched = program(browser.carried())
    assert browser.find() == fetched
    mine = program(bare / "bin" / "chromium")
    assert browser.find() == mine


def test_only_the_fetched_browser_gets_libraries(bare):
    libraries = str(browser.carried().parent / "lib")
    env = browser.environment(browser.carried())
    assert env["LD_LIBRARY_PATH"].split(":")[0] == libraries
    assert libraries not in browser.environment(bare / "mine").get(
        "LD_LIBRARY_PATH", ""
    )


@pytest.mark.parametrize(("needed", "code"), [("", 0), ("0", 0), ("1", 1)])
def test_nothing_there(bare, monkeypatch, capsys, needed, code):
    monkeypatch.setenv("FLATBOOK_NEEDS_BROWSER", needed)
    assert browser.main([]) == code
    assert browser.UNCHECKED in capsys.readouterr().out


def test_a_wrong_checksum_is_refused(bare, monkeypatch, capsys):
    def fill(*_):
        raise vendor.ChecksumError("axe-core: checksum")

    program(bare / "bin" / "chromium")
    monkeypatch.setattr(vendor, "fill", fill)
    assert browser.main([]) == 1
    assert "checksum" in capsys.readouterr().out


def test_compressed_files_become_a_program(tmp_path):
    packed = brotli.compress(b"#!/bin/sh\necho Carried 2.0\n")
    (tmp_path / "chromium.br").write_bytes(packed)
    browser.expand(tmp_path)
    assert browser.version(tmp_path / "chromium") == "Carried 2.0"
    assert not list(tmp_path.glob("*.br"))


@pytest.mark.parametrize("code", [0, 1])
def test_the_pages_are_opened_where_there_is_all(bare, monkeypatch, code):
    program(bare / "bin" / "chromium")
    browser.axe().parent.mkdir(parents=True)
    browser.axe().write_text("")
    monkeypatch.setattr(browser, "provide", lambda: None)
    monkeypatch.setattr(browser, "test", lambda: code)
    assert browser.main([]) == 0
    assert browser.main(["test"]) == code


def test_what_needs_a_browser_says_so_in_one_sentence(bare, monkeypatch, capsys):
    monkeypatch.setattr(browser, "fetch", lambda: None)
    assert browser.required() == 1
    assert capsys.readouterr().out.startswith("A browser is needed: there is no Chrome")
    monkeypatch.setenv("FLATBOOK_BROWSER", "nowhere")
    assert browser.required() == 1
    assert "FLATBOOK_BROWSER=nowhere" in capsys.readouterr().out


def test_npm_that_brings_no_browser_is_named(bare, monkeypatch, capsys):
    def fetch():
        raise FileNotFoundError("npm")

    monkeypatch.setattr(browser, "fetch", fetch)
    assert browser.required() == 1
    out = capsys.readouterr().out
    assert "npm did not bring one" in out
    assert len(out.splitlines()) == 1


def test_an_installed_browser_is_enough(bare, capsys):
    program(bare / "bin" / "chromium")
    assert browser.required() == 0
    assert not capsys.readouterr().out
