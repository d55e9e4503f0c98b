"""Result cards: what is written comes back, what cannot be trusted does not."""

import dataclasses
import json
import os

import numpy
import pytest

from flatbook import results

SETTINGS = {"dataset": "digits", "scales": (0.5, 1.0), "seeds": [0, 1]}


@pytest.fixture
def card():
    return results.collect(
        "loss_geometry",
        profile="cpu",
        settings=SETTINGS,
        values={"kappa": results.summary([1.0, 2.5]), "robust": results.summary([0])},
        wall_seconds=12.34,
        command="python -m flatbook.experiments loss_geometry --profile cpu",
        inputs={"digits": "ab" * 32},
    )


@pytest.fixture
def path(tmp_path, card):
    path = tmp_path / "cards" / "loss_geometry.json"
    results.write(path, card)
    return path


def edit(path, **changes):
    content = json.loads(path.read_text())
    for key, value in changes.items():
        if value is None:
            del content[key]
        else:
            content[key] = value
    path.write_text(json.dumps(content))


def test_round_trip(path, card):
    assert results.read(path) == card
    assert results.read(path, settings=SETTINGS).values["kappa"] == {
        "mean": 1.75,
        "low": 1.0,
        "high": 2.5,
        "seeds": 2,
    }
    results.write(path, card)
    assert [p.name for p in path.parent.iterdir()] == ["loss_geometry.json"]
    keys = list(json.loads(path.read_text()))
    assert keys == sorted(keys)


def test_collect_says_where_it_ran(card):
    assert set(card.versions) >= {"python", "torch", "numpy"}
    assert card.peak_memory_mb > 10
    assert len(card.date) == 10
    assert card.commit


def test_digest_follows_the_settings_and_not_their_order():
    backwards = dict(reversed(SETTINGS.items()))
    assert results.digest(SETTINGS) == results.digest(backwards)
    assert results.digest(SETTINGS) != results.digest({**SETTINGS, "seeds": [0, 2]})
    with pytest.raises(TypeError, match="JSON"):
        results.digest({"model": object()})


def test_description_names_its_sources(card):
    line = results.describe(card)
    for part in ("loss_geometry", "profile cpu", "1 to 2 seeds", "torch 2", card.date):
        assert part in line
    assert card.digest in line
    assert "\n" not in line


def test_interrupted_write_leaves_the_old_card(path, card, monkeypatch):
    before = path.read_text()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        results.write(path, card)
    assert path.read_text() == before
    assert os.listdir(path.parent) == [path.name]


def test_missing_card(tmp_path):
    with pytest.raises(FileNotFoundError, match="no result card at .*run its exp"):
        results.read(tmp_path / "none.json")


@pytest.mark.parametrize("text", ["", "{", '{"a": 1', "\x00"])
def test_damaged_card(path, text):
    path.write_text(text)
    with pytest.raises(ValueError, match="damaged"):
        results.read(path)


def test_card_that_is_no_object(path):
    path.write_text("[1, 2]")
    with pytest.raises(ValueError, match=r"damaged: expected an object, got \[1, 2\]"):
        results.read(path)


GOOD = {"mean": 1.0, "low": 1.0, "high": 1.0, "seeds": 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"commit": None}, "lacks commit"),
        ({"digest": None, "date": None}, "lacks date, digest"),
        ({"colour": "red"}, "has unknown colour"),
        ({"wall_seconds": "12"}, "wall_seconds must be int or float, got '12'"),
        ({"wall_seconds": float("nan")}, "wall_seconds must be finite"),
        ({"peak_memory_mb": True}, "peak_memory_mb must be"),
        ({"device": ""}, "device must not be empty"),
        ({"date": "today"}, "date must look like"),
        ({"profile": "gpu"}, "profile 'gpu'"),
        (
            {"versions": {"torch": 2}},
            r"versions must hold texts, not so for \['torch'\]",
        ),
        ({"settings": {"dataset": "cifar10"}}, "edited after the run"),
        ({"values": {}}, "values must not be empty"),
        ({"values": [1]}, "values must be Mapping"),
        ({"values": {"k": 1.0}}, "value 'k' must have"),
        ({"values": {"k": {"mean": 1.0}}}, "value 'k' must have"),
        ({"values": {"k": {**GOOD, "mean": float("inf")}}}, "mean of value 'k'.*inf"),
        ({"values": {"k": {**GOOD, "mean": "1"}}}, "mean of value 'k'.*'1'"),
        ({"values": {"k": {**GOOD, "low": 2.0}}}, "low <= mean <= high"),
        ({"values": {"k": {**GOOD, "seeds": 0}}}, "number of seeds"),
    ],
)
def test_card_that_cannot_be_trusted(path, changes, message):
    edit(path, **changes)
    with pytest.raises(ValueError, match=message):
        results.read(path)


def test_stale_card_says_what_differs(path):
    now = {"dataset": "cifar10", "scales": (0.5, 1.0), "limit": 3}
    with pytest.raises(ValueError, match="is stale") as error:
        results.read(path, settings=now)
    message = str(error.value)
    assert "dataset is 'digits' there, 'cifar10' here" in message
    assert "limit is 'not set' there, 3 here" in message
    assert "scales" not in message


def test_summary_refuses_what_is_not_finite():
    with pytest.raises(ValueError, match="one per seed"):
        results.summary([])
    with pytest.raises(ValueError, match="nan"):
        results.summary([1.0, float("nan")])


def test_rounding_keeps_the_mean_between_low_and_high():
    for value in (0.1, 0.7, 1e-144):
        found = results.summary([value] * 3)
        assert found["low"] <= found["mean"] <= found["high"]


def test_file_hash(tmp_path):
    file = tmp_path / "empty"
    file.write_bytes(b"")
    assert results.file_hash(file).startswith("e3b0c44298fc1c14")


def test_arrays_travel_through_a_file(tmp_path):
    arrays = {"a b": numpy.arange(6.0).reshape(2, 3), "n": numpy.array([1, 2])}
    content = results.pack(arrays)
    assert results.pack(arrays) == content
    path = tmp_path / "x.npz"
    results.write_whole(path, content)
    back = results.unpack(path, results.hash_bytes(content))
    assert {k: v.tolist() for k, v in back.items()} == {
        k: v.tolist() for k, v in arrays.items()
    }
    path.write_bytes(content[:-1] + b"!")
    with pytest.raises(ValueError, match="has SHA-256 .*, expected"):
        results.unpack(path, results.hash_bytes(content))


class Trap:
    """An object whose unpickling would be noticed."""

    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def test_objects_are_neither_packed_nor_unpacked(tmp_path):
    trap = numpy.array([Trap()], dtype=object)
    with pytest.raises(ValueError, match="'trap' holds Python objects"):
        results.pack({"trap": trap})
    numpy.savez(tmp_path / "trap.npz", trap=trap)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        results.unpack(tmp_path / "trap.npz", results.file_hash(tmp_path / "trap.npz"))


def test_the_outcome_is_what_came_out_and_not_how_long_it_took(card):
    same = dataclasses.replace(
        card, wall_seconds=9.0, date="2031-01-01", commit="other", device="other"
    )
    assert same.outcome == card.outcome
    values = {**card.values, "more": results.summary([1.0])}
    changes = {
        "values": values,
        "settings": {**card.settings, "more": 1},
        "arrays": "0" * 64,
        "input_hashes": {"more": "0"},
        "profile": "full",
    }
    for name, value in changes.items():
        assert dataclasses.replace(card, **{name: value}).outcome != card.outcome
