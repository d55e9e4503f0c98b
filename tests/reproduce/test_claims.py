import re
from pathlib import Path

from flatbook import models
from flatbook.experiments import NAMES
from flatbook.reproduce import GRID
from flatbook.reproduce._claims import CLAIMS

BY_ID = {claim.id: claim for claim in CLAIMS}
PAPERS = {  # numbers of the paper, from its text
    "weak-attack": {0.9033, 0.9033 / 0.93},
    "zero-at-one": {0.0},
    "recovers": {0.93},
    "transfer": {1.0},
    "detected": {0.92},
    "similar-trace": {0.6, 1.0, 1.0 / 0.6},
    "larger-radius": {20},
}


def test_claims_have_names_of_their_own():
    assert len(BY_ID) == len(CLAIMS) > 20
    assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in BY_ID)


def test_every_experiment_and_only_figure_15_outside():
    assert {claim.experiment for claim in CLAIMS} == {*NAMES, ""}
    outside = [claim for claim in CLAIMS if not claim.experiment]
    assert [claim.where for claim in outside] == ["Fig. 15"]
    assert all(claim.note and not claim.parts for claim in outside)


def test_every_claim_belongs_to_a_run_of_the_grid():
    for claim in CLAIMS:
        runs = [
            entry
            for entry in GRID
            if entry.experiment == claim.experiment
            and (not claim.models or entry.model in claim.models)
            and entry.adversarial in claim.adversarial
        ]
        assert runs or not claim.experiment, claim.id
        assert set(claim.models) <= set(models.NAMES)


def test_the_numbers_are_the_papers():
    found = {
        claim.id: {part.paper for part in claim.parts if part.paper is not None}
        for claim in CLAIMS
    }
    assert {name: numbers for name, numbers in found.items() if numbers} == PAPERS


def test_parts_can_fail_and_say_why():
    for claim in CLAIMS:
        assert claim.says.endswith(".")
        for part in claim.parts:
            assert part.low > -float("inf") or part.high < float("inf"), claim.id
            assert part.low <= part.high
            if part.paper is not None:
                assert part.low <= part.paper <= part.high, claim.id
            assert not part.otherwise or part.otherwise.endswith(".")
        if claim.parts:
            names = [part.name for part in claim.parts]
            assert len(set(names)) == len(names)


def test_no_verdict_is_typed():
    source = Path(__file__).parents[2] / "flatbook" / "reproduce" / "_claims.py"
    text = source.read_text(encoding="utf8").lower()
    assert not re.search(r"agrees in part|does not agree|not yet run", text)
