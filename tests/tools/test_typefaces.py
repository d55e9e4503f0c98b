"""Rules for the typefaces of the PDF, and what happens without npm."""

import json

from tools import typefaces, vendor


def test_a_rule_for_each_file():
    names = ["source-serif-4-greek-400-italic.woff2", "source-serif-4-LICENSE"]
    rule = typefaces.faces(names, "../fonts/")
    assert rule.count("@font-face") == 1
    assert 'font-family: "Source Serif 4"; font-style: italic' in rule
    assert "font-weight: 400" in rule
    assert 'url("../fonts/source-serif-4-greek-400-italic.woff2")' in rule
    assert "U+0370-03FF" in rule


def test_every_listed_file_is_a_licence_or_gets_a_rule():
    listed = json.loads(typefaces.WANTED.read_text())
    names = [name for entry in listed.values() for name in entry["files"].values()]
    fonts = [name for name in names if not name.endswith("LICENSE")]
    assert len(names) - len(fonts) == len(listed)
    assert typefaces.faces(fonts, "").count("@font-face") == len(fonts)


def test_without_npm_one_line_says_so(monkeypatch, tmp_path, capsys):
    def fill(*_):
        raise FileNotFoundError("npm")

    monkeypatch.setattr(typefaces, "FOLDER", tmp_path / "fonts")
    monkeypatch.setattr(vendor, "fill", fill)
    typefaces.fetch()
    assert capsys.readouterr().out.count("\n") == 1
