import dataclasses
import json

import pytest

from flatbook import results
from flatbook.experiments import _cards, _runner

LIVE = [{"robust accuracy": value, "loss[0]": 1.0} for value in (0.1, 0.2, 0.6)]
ROWS = {"robust accuracy": "robust", "loss[0]": "loss"}


@pytest.fixture
def filed(plan, places, digits):
    _runner.execute(plan, digits, places)
    return places.results


def edit(folder, **changes):
    (path,) = folder.glob("*.json")
    card = dataclasses.replace(results.read(path), **changes)
    results.write(path, card)
    return path


def settings(folder, **changes):
    (path,) = folder.glob("*.json")
    return {**results.read(path).settings, **changes}


def test_a_page_beside_a_card(filed):
    table = _cards.beside("demo", LIVE, rows=ROWS, folder=filed)
    assert table.rows == ("robust", "loss")
    headings = ["this page", "Digits, 8x8, mlp, cpu", "paper's size"]
    assert list(table.columns) == headings
    assert table.columns["this page"] == ("0.3 (0.1 to 0.6)", "1")
    assert table.columns["paper's size"] == ("not yet run",) * 2
    assert table.notes[0].startswith("Digits, 8x8: all images, 2 epochs; demo,")
    assert "3 seeds" in table.notes[0]
    assert "--profile full" in table.notes[1]


def test_a_card_of_full_size_ends_the_wait(filed, monkeypatch):
    (path,) = filed.glob("*.json")
    card = results.read(path)
    results.write(
        path.with_name("demo-full.json"), dataclasses.replace(card, profile="full")
    )
    table = _cards.beside("demo", LIVE, rows=ROWS, folder=filed)
    assert list(table.columns)[-1].endswith(", full")
    assert not any("not yet run" in cell for cell in table.columns.values())


def test_no_cards_at_all(demo, tmp_path):
    table = _cards.beside("demo", LIVE, rows=["robust accuracy"], folder=tmp_path)
    assert list(table.columns) == ["this page", "paper's size"]


def test_text_and_html_say_the_same(filed):
    table = _cards.beside("demo", LIVE, rows=ROWS, folder=filed)
    text, page = repr(table), table._repr_html_()
    for cell in ("0.3", "(0.1 to 0.6)", "not yet run", "Digits"):
        assert cell in text
        assert cell in page
    assert "<th>Digits <small>8x8, mlp, cpu</small></th>" in page
    assert "<td>0.3 <small>(0.1 to 0.6)</small></td>" in page
    assert "<th>robust</th>" in page


def test_html_is_escaped():
    table = _cards.Table(("a < b",), {"<i>": ("&",)}, ("<script>",))
    page = table._repr_html_()
    assert "<script>" not in page
    assert "<i>" not in page
    assert "a &lt; b" in page


def test_curves(filed):
    (card,) = _cards.cards("demo", filed)
    losses = _cards.curve(card.values, "loss")
    assert len(losses) == 3
    assert losses == sorted(losses)
    with pytest.raises(ValueError, match="no curve 'gain'"):
        _cards.curve(card.values, "gain")


def test_settings_of_yesterday_are_stale(filed, demo):
    demo.VERSION = 2
    with pytest.raises(ValueError, match="stale: version is 1 there, 2 here"):
        _cards.beside("demo", LIVE, rows=ROWS, folder=filed)


def test_another_recipe_is_stale(filed):
    stored = settings(filed)
    recipe = {**stored["subject"]["recipe"], "epochs": 50}
    edit(filed, settings=stored | {"subject": stored["subject"] | {"recipe": recipe}})
    with pytest.raises(ValueError, match=r"stale: subject.*'epochs': 50"):
        _cards.cards("demo", filed)


def test_two_seeds_are_too_few(plan, places, digits):
    few = dataclasses.replace(plan, seeds=(0, 1))
    _runner.execute(few, digits, places)
    with pytest.raises(ValueError, match=r"incomplete: \[2\] seeds, expected 3"):
        _cards.cards("demo", places.results)


def test_a_value_without_all_seeds(filed):
    (path,) = filed.glob("*.json")
    values = dict(results.read(path).values)
    values["robust accuracy"] = {"mean": 0, "low": 0, "high": 0, "seeds": 2}
    edit(filed, values=values)
    with pytest.raises(ValueError, match=r"incomplete: \[2, 3\] seeds"):
        _cards.cards("demo", filed)


def test_settings_that_are_missing(filed):
    stored = settings(filed)
    del stored["sizes"]
    edit(filed, settings=stored)
    with pytest.raises(ValueError, match="incomplete: no setting sizes"):
        _cards.cards("demo", filed)


def test_a_row_that_a_card_lacks(filed):
    live = [{**one, "new": 1.0} for one in LIVE]
    with pytest.raises(ValueError, match="Digits, 8x8, mlp, cpu lacks new"):
        _cards.beside("demo", live, rows=["new"], folder=filed)
    with pytest.raises(ValueError, match="this page lacks loss"):
        _cards.beside("demo", LIVE, rows=["loss[1]"], folder=filed)


def test_networks_that_a_card_leaves_out(filed, demo):
    """The experiment compares two networks; at the card's size it ran one of them."""
    both = {"standard": {}, "smooth": {"label_smoothing": 0.2}}
    one = {"standard": {}}
    demo.variants = lambda profile, data: both if profile == "full" else one
    live = [{"smooth: loss": 1.0, "smoother: loss": 1.0}] * 3
    table = _cards.beside("demo", live, rows=["smooth: loss"], folder=filed)
    assert table.columns["Digits, 8x8, mlp, cpu"] == ("left out",)
    with pytest.raises(ValueError, match="cpu lacks smoother: loss"):
        _cards.beside("demo", live, rows=["smoother: loss"], folder=filed)


def test_edited_by_hand(filed):
    (path,) = filed.glob("*.json")
    content = json.loads(path.read_text())
    content["settings"]["sizes"]["images"] = 10_000
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="edited after the run"):
        _cards.cards("demo", filed)


def test_a_card_under_another_name(filed, demo):
    (path,) = filed.glob("*.json")
    path.rename(path.with_name("detection-x.json"))
    with pytest.raises(ValueError, match="a card of 'demo', expected 'detection'"):
        _cards.cards("detection", filed)


@pytest.mark.parametrize("name", _runner.NAMES)
def test_the_cards_of_the_book_are_fresh(name):
    for card in _cards.cards(name):
        assert card.commit != "unknown"
        assert card.command.startswith(
            ("python -m flatbook.experiments", "python -m flatbook.reproduce")
        )
