import dataclasses

import numpy as np
import pytest

from flatbook import results
from flatbook.reproduce import _rules
from flatbook.reproduce._claims import CLAIMS
from flatbook.reproduce._rules import AGREES, DIFFERS, IN_PART, NOT_RUN, Claim, Part

BY_ID = {claim.id: claim for claim in CLAIMS}


def card(experiment="demo", *, model="resnet18", data="cifar10", **numbers):
    recipe = {"epochs": 12, "adversary": None}
    subject = {"model": model, "data": data, "width": 0.25, "limit": 1000}
    return results.collect(
        experiment,
        profile="cpu",
        settings={
            "label": "pictures",
            "subject": subject | {"recipe": recipe},
            "sizes": {"scales": [0.5, 1.0, 50.0]},
        },
        values={
            name: results.summary(value if isinstance(value, list) else [value])
            for name, value in (numbers or {"x": 0}).items()
        },
        wall_seconds=1,
    )


def evidence(*args, arrays=None, partner=None, **numbers):
    return _rules.Evidence(card(*args, **numbers), arrays or {}, partner)


def claim(*parts, **more):
    return Claim("some", "Fig. 0", "Something.", "demo", tuple(parts), **more)


def verdict(parts, **numbers):
    return _rules.judge(claim(*parts), evidence(**numbers)).verdict


X, Y = (Part(n, _rules.value(n), low=0.5, otherwise=f"{n} is low.") for n in "xy")


def test_verdicts_are_counted():
    assert verdict([X, Y], x=1, y=1) == AGREES
    assert verdict([X, Y], x=1, y=0) == IN_PART
    assert verdict([X, Y], x=0, y=0) == DIFFERS
    assert verdict([X, Y], z=0) == NOT_RUN
    assert verdict([X, Y], x=1) == AGREES
    assert verdict([X, Y], y=0) == DIFFERS


@pytest.mark.parametrize(
    ("number", "holds"), [(0.2, False), (0.25, True), (0.75, True), (0.8, False)]
)
def test_bounds_are_closed_and_met_by_the_mean(number, holds):
    part = Part("x", _rules.value("x"), 0.25, 0.75)
    assert (verdict([part], x=number) == AGREES) is holds
    spread = [number - 0.1, number, number + 0.1]
    assert (verdict([part], x=spread) == AGREES) is holds


def test_rules_in_words():
    assert X.rule == "at least 0.5"
    assert Part("x", _rules.value("x"), high=0.01).rule == "at most 0.01"
    assert _rules.close("x", _rules.value("x"), 0.92).rule == "from 0.87 to 0.97"
    assert _rules.close("x", _rules.value("x"), 0.0).rule == "from 0 to 0.05"
    assert _rules.same_size("x", _rules.value("x"), 0.6).rule == "from 0.3 to 1.2"


def test_reasons_name_what_failed_what_is_missing_and_the_size():
    small = dataclasses.replace(Y, size=True)
    why = _rules.judge(claim(X, small), evidence(x=0, y=0)).why
    assert why.startswith("x is low. y is low. Size may matter. This card: 0.25 of")
    assert "1000 images per class, 12 epochs instead of 100" in why
    assert "Size" not in _rules.judge(claim(X, small), evidence(x=0, y=1)).why
    missing = _rules.judge(claim(X, Y), evidence(x=1)).why
    assert missing == "Not measured here: the card has no 'y'."
    assert not _rules.judge(claim(X, Y), evidence(x=1, y=1)).why


def test_a_card_of_the_papers_size_is_not_smaller():
    there = card().settings
    recipe = {"epochs": 100, "adversary": None}
    full = there["subject"] | {"width": 1.0, "limit": None, "recipe": recipe}
    large = dataclasses.replace(card(), settings=there | {"subject": full})
    assert _rules.smaller(large) == ""
    found = _rules.Evidence(large)
    low = dataclasses.replace(X, number=_rules.value("x"), size=True)
    assert "Size" not in _rules.judge(claim(low), found).why


def test_scales_and_curves():
    numbers = {"x[0]": 3, "x[1]": 4, "x[2]": 8, "y[0]": 1, "y[1]": 2, "y[2]": 3}
    found = evidence(**numbers)
    assert _rules.at("x", 1)(found).mean == 4
    assert _rules.at("x", _rules.LAST)(found).mean == 8
    assert _rules.of_scales("x")(found).mean == 2
    assert _rules.of_scales("x", start=0.5)(found).mean == 8 / 3
    assert _rules.of_curve("x", sum)(found).mean == 15
    missing = Part("x", _rules.at("x", 7), low=0)
    assert "no scale 7" in _rules.judge(claim(missing), found).why


def test_computed_numbers():
    found = evidence(x=[2, 4], y=[1, 2, 3], zero=0)
    x, y, zero = map(_rules.value, ("x", "y", "zero"))
    assert str(x(found)) == "3 (2 to 4)"
    assert _rules.ratio(x, y)(found).mean == 1.5
    assert _rules.times(x, y)(found).mean == 6
    assert str(_rules.minus(y, x)(found)) == "-1"
    part = Part("ratio", _rules.ratio(x, zero), low=0)
    assert "a ratio to zero" in _rules.judge(claim(part), found).why


def test_rank_correlations_of_curves():
    rising = {f"x[{i}]": i**2 for i in range(5)}
    falling = {f"y[{i}]": -i for i in range(5)}
    still = {f"z[{i}]": 1 for i in range(5)}
    found = evidence(**rising, **falling, **still)
    assert _rules.together("x", "y")(found).mean == -1
    part = Part("constant", _rules.together("x", "z"), low=0)
    assert "no ranks" in _rules.judge(claim(part), found).why


def test_arrays_bring_the_spread():
    read = _rules.per_seed("t")
    found = evidence(arrays={"t": np.array([1.0, 2.0, 6.0])})
    assert read(found) == _rules.Number(3.0, 1.0, 6.0)
    ruling = _rules.judge(claim(Part("t", read, low=0)), evidence())
    assert ruling.verdict == NOT_RUN
    assert "no array 't' beside the card" in ruling.why


def test_a_second_card():
    part = Part(
        "more",
        _rules.minus(_rules.partners(_rules.value("x")), _rules.value("x")),
        low=1,
    )
    pair = claim(part, partner="cifar100")
    assert _rules.judge(pair, evidence(x=1)).verdict == NOT_RUN
    other = evidence(data="cifar100", x=3)
    assert _rules.judge(pair, evidence(x=1, partner=other)).verdict == AGREES
    assert not pair.concerns(other)


def test_who_is_concerned():
    assert claim(models=("resnet18",)).concerns(evidence(model="mlp"))
    assert not claim(models=("resnet18",)).concerns(evidence(model="vgg11_bn"))
    assert not claim(adversarial=(True,)).concerns(evidence())
    assert evidence(data="folder").data == evidence(data="digits").data == "cifar10"
    with pytest.raises(ValueError, match="'some' is about demo, the card is one of x"):
        _rules.judge(claim(), evidence("x"))


MASKING = {
    "accuracy": 0.9,
    "cross-entropy: robust accuracy[0]": 0.0,
    "cross-entropy: robust accuracy[1]": 0.3,
    "cross-entropy: robust accuracy[2]": 0.89,
}


def masked(**changes):
    base = card("gradient_masking", **(MASKING | changes))
    scales = {"sizes": {"scales": [1.0, 10.0, 100.0]}}
    return _rules.Evidence(dataclasses.replace(base, settings=base.settings | scales))


def test_a_claim_of_the_paper_is_read_off_a_card():
    found = _rules.judge(BY_ID["recovers"], masked())
    assert [f.number.mean for f in found.findings] == pytest.approx(
        [0.89, 0.89 / 0.9, 0.89 / 0.9]
    )
    assert found.verdict == AGREES
    low = masked(**{"cross-entropy: robust accuracy[2]": 0.5})
    assert _rules.judge(BY_ID["recovers"], low).verdict == DIFFERS
    assert _rules.judge(BY_ID["zero-at-one"], masked()).verdict == AGREES
