import dataclasses
import json
import re

import numpy as np
import pytest

from flatbook import results
from flatbook.experiments import _runner
from flatbook.figures import BookFigure
from flatbook.reproduce import CLAIMS, GRID, plan, report, select
from flatbook.reproduce._report import command
from flatbook.reproduce._rules import AGREES, DIFFERS, IN_PART, NOT_RUN, VERDICTS


def masking(at_100):
    """Values of a card of gradient_masking; scale 100 is the seventh of eight."""
    robust = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, at_100, 0.9]
    return {"accuracy": 0.95} | {
        f"cross-entropy: robust accuracy[{i}]": value for i, value in enumerate(robust)
    }


def file(folder, experiment, numbers, *, model="resnet18", data="digits", **changes):
    """A fresh card with three seeds, all of which found the same."""
    (entry,) = (
        e
        for e in select(only=[experiment], model=[model], data=[data])
        if not e.adversarial
    )
    made = plan(entry, profile="cpu", label=changes.pop("label", data))
    card = results.collect(
        experiment,
        profile="cpu",
        settings=made.settings,
        values={name: results.summary([value] * 3) for name, value in numbers.items()},
        wall_seconds=1,
    )
    path = folder / f"{made.stem}.json"
    results.write(path, dataclasses.replace(card, **changes))
    return path


@pytest.fixture(scope="module")
def real(tmp_path_factory, digits):
    """The cards of a run: a perceptron on digits, with arrays."""
    out = tmp_path_factory.mktemp("out")
    (entry,) = select(only=["gradient_masking"], model=["mlp"], data=["digits"])
    places = _runner.Places(out / "cards", out / "work", progress=False)
    _runner.execute(plan(entry, profile="cpu"), digits, places)
    return out


def test_an_empty_folder_has_run_nothing(tmp_path):
    found = report(tmp_path)
    assert {found.verdict(claim.id) for claim in CLAIMS} == {NOT_RUN}
    assert found.provenance().text == "no cards"
    assert found.overview().text.startswith("✓ agrees: 0\n")
    for entry in GRID:
        assert command(entry) in found.grid().text


def test_the_command_makes_the_entry_and_no_other():
    for entry in GRID:
        words = command(entry).split()
        assert words[::2] == ["--only", "--model", "--data"]
        only, model, data = words[1::2]
        assert select(only=[only], model=[model], data=[data]) == [entry]


def test_a_run_is_read_judged_and_drawn(real):
    found = report(real)
    (filed,) = found.cards
    assert not filed.lacks
    assert found.verdict("zero-at-one") == AGREES
    assert found.verdict("transfer") == AGREES
    assert found.verdict("detected") == NOT_RUN
    assert isinstance(found.figure(filed.stem), BookFigure)
    values = filed.evidence.card.values
    shown = values["cross-entropy: robust accuracy[6]"]["mean"]
    assert f"<b>{shown:.3g}</b>" in found.claims("recovers").html
    assert "MLP, digits, cpu" in found.grid().text
    assert filed.evidence.card.commit in found.provenance().html


def test_verdicts_follow_the_numbers(tmp_path):
    file(tmp_path, "gradient_masking", masking(0.93))
    assert report(tmp_path).verdict("recovers") == IN_PART
    file(tmp_path, "gradient_masking", masking(0.93) | {"accuracy": 0.94})
    assert report(tmp_path).verdict("recovers") == AGREES
    file(tmp_path, "gradient_masking", masking(0.1) | {"accuracy": 1.0})
    assert report(tmp_path).verdict("recovers") == DIFFERS


def test_cards_that_differ_agree_in_part(tmp_path):
    numbers = {"standard: confidence at the end": 1, "standard: robust accuracy": 0}
    file(tmp_path, "uncanny_valley", numbers)
    assert report(tmp_path).verdict("confidently-wrong") == AGREES
    weak = {"standard: confidence at the end": 0, "standard: robust accuracy": 1}
    file(tmp_path, "uncanny_valley", weak, model="wrn28_4")
    found = report(tmp_path)
    assert [r.verdict for r in found.of("confidently-wrong")] == [AGREES, DIFFERS]
    assert found.verdict("confidently-wrong") == IN_PART


def test_a_card_of_other_images_is_found_for_those_that_need_it(tmp_path):
    width = "strong: correlation, rise of 0.1"
    file(tmp_path, "loss_geometry", {width: -0.9})
    assert report(tmp_path).verdict("cifar100-less") == NOT_RUN
    file(tmp_path, "loss_geometry", {width: -0.2}, model="vgg11_bn", data="cifar100")
    assert report(tmp_path).verdict("cifar100-less") == NOT_RUN
    file(tmp_path, "loss_geometry", {width: -0.5}, data="cifar100")
    found = report(tmp_path)
    assert found.verdict("cifar100-less") == AGREES
    assert found.of("cifar100-less")[0].findings[0].number.mean == pytest.approx(0.4)


def test_stale_incomplete_and_damaged_cards_are_refused_with_a_reason(tmp_path):
    path = file(tmp_path, "gradient_masking", masking(0.9))
    good = path.read_text(encoding="utf8")
    content = json.loads(good)
    content["settings"]["sizes"]["steps"] = 3
    content["digest"] = results.digest(content["settings"])
    path.write_text(json.dumps(content), encoding="utf8")
    (tmp_path / "broken.json").write_text("{", encoding="utf8")
    (tmp_path / "edited.json").write_text(
        good.replace('"steps": 10', '"steps": 11'), encoding="utf8"
    )
    one = json.loads(good)
    one["values"]["accuracy"]["seeds"] = 1
    (tmp_path / "one.json").write_text(json.dumps(one), encoding="utf8")
    (tmp_path / "good.json").write_text(good, encoding="utf8")
    found = report(tmp_path)
    assert [filed.stem for filed in found.cards] == ["good"]
    assert sorted(found.refused) == sorted(
        ["broken.json", "edited.json", "one.json", path.name]
    )
    for name, told in (
        (path.name, "stale"),
        ("broken.json", "damaged"),
        ("edited.json", "edited after the run"),
        ("one.json", "incomplete"),
    ):
        assert told in found.refused[name]
        assert str(tmp_path) not in found.refused[name]
        assert f"{name} is refused" in found.provenance().html


def test_without_arrays_there_are_verdicts_and_no_figure(tmp_path):
    path = file(tmp_path, "gradient_masking", masking(0.9))
    found = report(tmp_path)
    assert found.verdict("zero-at-one") == AGREES
    with pytest.raises(ValueError, match="no figure: the card was made without arrays"):
        found.figure(path.stem)
    with pytest.raises(ValueError, match=f"card must be one of {path.stem}, got 'x'"):
        found.figure("x")


def test_arrays_that_are_missing_or_changed_are_not_drawn(tmp_path):
    packed = results.pack({"a": np.ones(3)})
    path = file(
        tmp_path, "detection", {"best accuracy": 0.9}, arrays=results.hash_bytes(packed)
    )
    (filed,) = report(tmp_path).cards
    assert filed.lacks == f"there is no {path.stem}.npz beside the card"
    path.with_suffix(".npz").write_bytes(packed + b"more")
    (filed,) = report(tmp_path).cards
    assert "has SHA-256" in filed.lacks
    path.with_suffix(".npz").write_bytes(packed)
    (filed,) = report(tmp_path).cards
    assert list(filed.evidence.arrays) == ["a"]
    assert not filed.lacks


def test_pages_say_verdicts_in_words_and_escape_names(tmp_path):
    file(tmp_path, "gradient_masking", masking(0.5), label="<b>birds</b>")
    found = report(tmp_path)
    page = found._repr_html_()
    assert "<b>birds" not in page
    assert "&lt;b&gt;birds" in page
    signs = re.findall(r'<span class="(?:yes|part|no|open)"[^>]*>', page)
    assert len(signs) > len(CLAIMS)
    assert all('title="' in sign and 'aria-label="' in sign for sign in signs)
    told = [re.search(r'title="(?:[^"]*: )?([^"]*)"', sign)[1] for sign in signs]
    assert set(told) - {"card"} <= set(VERDICTS)
    assert {IN_PART, NOT_RUN} <= set(told)
    assert "http" not in page
    text = repr(found)
    for claim in CLAIMS:
        assert claim.says in text
        assert claim.where in page
    opened = found.claims("recovers")
    assert opened.html.startswith("<details open>")
    assert "paper 0.93" in opened.html
    assert "agrees from 0.88 to 0.98" in opened.html


def test_pictures_come_from_the_largest_card_with_arrays(real, tmp_path):
    found = report(real)
    assert isinstance(found.picture("fig13"), BookFigure)
    missing = found.picture("fig9")
    assert "--only fig9 --model wrn28_4 --data cifar100" in missing.text
    assert "fig9 is not drawn" in missing.html
    file(tmp_path, "gradient_masking", masking(0.9))
    assert "fig13 is not drawn" in report(tmp_path).picture("fig13").text


def test_cards_closer_to_the_paper_come_later(tmp_path):
    numbers = {"best accuracy": 0.9}
    for model, data in (("resnet18", "folder"), ("mlp", "digits")):
        file(tmp_path, "detection", numbers, model=model, data=data, label="a")
    file(tmp_path, "detection", numbers, label="z")
    stems = [filed.stem for filed in report(tmp_path).cards]
    assert stems == [
        "detection-mlp-a-cpu",
        "detection-resnet18-z-cpu",
        "detection-resnet18-a-cpu",
    ]


def test_unknown_names():
    found = report()
    with pytest.raises(ValueError, match="figure must be one of fig2, .* got 'fig15'"):
        found.picture("fig15")
    with pytest.raises(ValueError, match="got 'nothing'"):
        found.verdict("nothing")
    with pytest.raises(ValueError, match="no claim or experiment nothing"):
        found.claims("recovers", "nothing")


def test_the_cards_of_the_book_are_all_fresh():
    found = report()
    assert found.refused == {}
    assert found.cards
