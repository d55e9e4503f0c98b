"""How a statement of the paper is compared with a result card.

A `Claim` is a statement of Walter et al. (2025) in our words. It has one or more
`Part`: a number that is read off a card, the paper's own number where there is one,
and the bounds between which we say that it agrees. `judge` reads the numbers and
counts: all parts within their bounds *agrees*, some *agrees in part*, none *does not
agree*, and a card that lacks all of them *not yet run*. A bound is met by the mean over
the seeds. No verdict is written down anywhere, only the rule and, for a part that
fails, what is known to explain it.

Numbers are read by functions from `Evidence` to `Number`: `value`, `at` a scale,
`of_curve`, `per_seed` from the arrays, and `ratio` and its like of these.

>>> part = Part("half", value("x"), low=0.5)
>>> part.rule, part.holds(Number(0.6, 0.4, 0.8))
('at least 0.5', True)
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from flatbook.experiments import rank_correlation
from flatbook.reproduce._grid import GRID, STAND_INS
from flatbook.results import Card

__all__ = [
    "AGREES",
    "DIFFERS",
    "IN_PART",
    "LAST",
    "NOT_RUN",
    "VERDICTS",
    "Claim",
    "Evidence",
    "Finding",
    "Number",
    "Part",
    "Read",
    "Ruling",
    "at",
    "close",
    "computed",
    "judge",
    "minus",
    "of_curve",
    "of_scales",
    "partners",
    "per_seed",
    "ratio",
    "same_size",
    "smaller",
    "times",
    "together",
    "value",
]

AGREES, IN_PART = "agrees", "agrees in part"
DIFFERS, NOT_RUN = "does not agree", "not yet run"
VERDICTS = (AGREES, IN_PART, DIFFERS, NOT_RUN)
LAST = -1.0
"""The largest scale of a card."""

_PAPERS = {entry.model for entry in GRID}
_POINTS, _FACTOR = 0.05, 2.0
_EPOCHS = 100  # of the paper, section 6


@dataclass(frozen=True)
class Number:
    """A number of a card.

    Attributes:
        mean: over the seeds, or computed from such means.
        low: smallest of the seeds; equal to the mean where it is not known.
        high: largest of them.
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        texts = [f"{x:.3g}" for x in (self.mean, self.low, self.high)]
        same = self.low == self.high
        return texts[0] if same else f"{texts[0]} ({texts[1]} to {texts[2]})"


class _MissingError(LookupError):
    """The card or its arrays do not have it."""


@dataclass(frozen=True)
class Evidence:
    """A card with what lies beside it.

    Attributes:
        card: settings, values and provenance.
        arrays: of its figure, stacked over the seeds; empty where there are none.
        partner: the card of the same network on other images, for claims that
            compare two.
    """

    card: Card
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    partner: "Evidence | None" = None

    @property
    def model(self) -> str:
        """Of `flatbook.models.NAMES`."""
        return self._subject["model"]

    @property
    def data(self) -> str:
        """Images of the grid: those that stand in for CIFAR-10 count as it."""
        data = self._subject["data"]
        return "cifar10" if data in STAND_INS else data

    @property
    def is_digits(self) -> bool:
        """Whether the images are the embedded digits."""
        return bool(self._subject["data"] == "digits")

    @property
    def role(self) -> str:
        """The network of the paper whose place this one takes."""
        return self.model if self.model in _PAPERS else "resnet18"

    @property
    def adversarial(self) -> bool:
        """Whether the network is adversarially trained."""
        return self._subject["recipe"].get("adversary") is not None

    @property
    def accuracy(self) -> Number | None:
        """Share of the clean test images that are right, where the card says."""
        names = ("accuracy", "clean accuracy", "standard: accuracy")
        found = [self.value(n) for n in names if n in self.card.values]
        return found[0] if found else None

    @property
    def _subject(self) -> Mapping[str, Any]:
        return cast(Mapping[str, Any], self.card.settings["subject"])

    def value(self, name: str) -> Number:
        """A value of the card."""
        if name not in self.card.values:
            raise _MissingError(f"the card has no {name!r}")
        there = self.card.values[name]
        return Number(there["mean"], there["low"], there["high"])

    def at(self, name: str, scale: float) -> Number:
        """The value that belongs to a scale of the head, `LAST` for the largest."""
        sizes = cast(Mapping[str, Any], self.card.settings["sizes"])
        scales = list(sizes["scales"])
        if scale != LAST and scale not in scales:
            raise _MissingError(f"the card has no scale {scale:g}")
        place = len(scales) - 1 if scale == LAST else scales.index(scale)
        return self.value(f"{name}[{place}]")

    def curve(self, name: str) -> list[float]:
        """Means of ``name[0]``, ``name[1]``, ..."""
        found: list[float] = []
        while f"{name}[{len(found)}]" in self.card.values:
            found.append(self.card.values[f"{name}[{len(found)}]"]["mean"])
        if not found:
            raise _MissingError(f"the card has no {name!r}")
        return found

    def array(self, name: str) -> np.ndarray:
        """An array of the figure, the seeds first."""
        if name not in self.arrays:
            raise _MissingError(f"there is no array {name!r} beside the card")
        return self.arrays[name]


Read = Callable[[Evidence], Number]


@dataclass(frozen=True)
class Part:
    """A number and the bounds within which it agrees.

    Attributes:
        name: what is compared.
        number: reads ours.
        low: smallest value that agrees.
        high: largest.
        paper: the paper's own number, if it gives one.
        otherwise: what explains it where it fails.
        size: whether a larger network or more images may change it.
    """

    name: str
    number: Read
    low: float = -math.inf
    high: float = math.inf
    paper: float | None = None
    otherwise: str = ""
    size: bool = False

    @property
    def rule(self) -> str:
        """The bounds in words."""
        if self.low == -math.inf:
            return f"at most {self.high:g}"
        if self.high == math.inf:
            return f"at least {self.low:g}"
        return f"from {self.low:.3g} to {self.high:.3g}"

    def holds(self, number: Number) -> bool:
        """Whether a number lies within the bounds, for the mean over the seeds."""
        return self.low <= number.mean <= self.high


@dataclass(frozen=True)
class Claim:
    """A statement of the paper.

    Attributes:
        id: short and unique.
        where: figure and section.
        says: the statement in our words.
        experiment: of the grid; empty where the grid has none.
        parts: how it is tried.
        adversarial: networks it is about: False the standard ones, True the
            adversarially trained one.
        models: of the paper, or all.
        partner: images of a second card it needs.
        note: what to know whatever the verdict.
    """

    id: str
    where: str
    says: str
    experiment: str
    parts: tuple[Part, ...]
    adversarial: tuple[bool, ...] = (False,)
    models: tuple[str, ...] = ()
    partner: str = ""
    note: str = ""

    def concerns(self, evidence: Evidence) -> bool:
        """Whether a card has to do with it."""
        if evidence.card.experiment != self.experiment:
            return False
        if self.models and evidence.role not in self.models:
            return False
        if self.partner and evidence.data != "cifar10":
            return False
        return evidence.adversarial in self.adversarial


@dataclass(frozen=True)
class Finding:
    """A part of a claim on one card.

    Attributes:
        part: the rule.
        number: ours, or None where the card does not have it.
        lacks: what it lacks then.
    """

    part: Part
    number: Number | None
    lacks: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether the rule is met; None where there is no number."""
        return None if self.number is None else self.part.holds(self.number)


@dataclass(frozen=True)
class Ruling:
    """A claim on one card.

    Attributes:
        claim: the statement.
        evidence: the card.
        findings: one for each part.
        why: what explains the parts that fail, or what is missing.
    """

    claim: Claim
    evidence: Evidence
    findings: tuple[Finding, ...]
    why: str

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`."""
        known = [found.holds for found in self.findings if found.holds is not None]
        if not known:
            return NOT_RUN
        return AGREES if all(known) else IN_PART if any(known) else DIFFERS


def judge(claim: Claim, evidence: Evidence) -> Ruling:
    """Compare a card with a claim.

    Raises:
        ValueError: the claim is about something else.
    """
    if not claim.concerns(evidence):
        raise ValueError(
            f"claim {claim.id!r} is about {claim.experiment or 'nothing we run'}, the "
            f"card is one of {evidence.card.experiment}"
        )
    findings = tuple(_find(part, evidence) for part in claim.parts)
    return Ruling(claim, evidence, findings, _reasons(findings, evidence))


def smaller(card: Card) -> str:
    """How the run of a card is smaller than the paper's; empty where it is not."""
    there = cast(Mapping[str, Any], card.settings["subject"])
    differ = []
    if there["data"] not in ("cifar10", "cifar100"):
        differ.append(f"{card.settings['label']} instead of CIFAR-10")
    if there["width"] != 1:
        differ.append(f"{there['width']:g} of the width")
    if there["limit"]:
        differ.append(f"{there['limit']} images per class")
    epochs = there["recipe"]["epochs"]
    if epochs < _EPOCHS:
        differ.append(f"{epochs} epochs instead of {_EPOCHS}")
    return ", ".join(differ)


def _find(part: Part, evidence: Evidence) -> Finding:
    try:
        return Finding(part, part.number(evidence))
    except _MissingError as error:
        return Finding(part, None, str(error))


def _reasons(findings: Sequence[Finding], evidence: Evidence) -> str:
    failed = [found.part for found in findings if found.holds is False]
    told = [part.otherwise for part in failed if part.otherwise]
    less = smaller(evidence.card)
    if less and any(part.size for part in failed):
        told.append(f"Size may matter. This card: {less}.")
    lacks = [f"Not measured here: {f.lacks}." for f in findings if f.number is None]
    return " ".join(dict.fromkeys([*told, *lacks]))


# --- how numbers are read ----------------------------------------------------------


def value(name: str) -> Read:
    """A value of the card by its name."""
    return lambda evidence: evidence.value(name)


def at(name: str, scale: float) -> Read:
    return lambda evidence: evidence.at(name, scale)


def computed(combine: Callable[..., float], *reads: Read) -> Read:
    """From the means of several numbers; how it spreads over seeds is not known."""

    def read(evidence: Evidence) -> Number:
        found = combine(*(each(evidence).mean for each in reads))
        if not math.isfinite(found):
            raise _MissingError("a ratio to zero")
        return Number(found, found, found)

    return read


def ratio(above: Read, below: Read) -> Read:
    return computed(lambda a, b: a / b if b else math.inf, above, below)


def times(first: Read, second: Read) -> Read:
    return computed(lambda a, b: a * b, first, second)


def minus(first: Read, second: Read) -> Read:
    return computed(lambda a, b: a - b, first, second)


def of_scales(name: str, *, start: float = 1.0) -> Read:
    """A curve over scales: its value at the largest over that at another one."""
    return ratio(at(name, LAST), at(name, start))


def of_curve(name: str, pick: Callable[[list[float]], float]) -> Read:
    def read(evidence: Evidence) -> Number:
        found = pick(evidence.curve(name))
        return Number(found, found, found)

    return read


def together(first: str, second: str) -> Read:
    """Rank correlation of two curves of the card."""

    def read(evidence: Evidence) -> Number:
        pair = evidence.curve(first), evidence.curve(second)
        try:
            found = rank_correlation(*pair).value
        except ValueError as error:
            raise _MissingError(f"no ranks: {error}") from None
        return Number(found, found, found)

    return read


def per_seed(name: str) -> Read:
    """An array with one number for each seed."""

    def read(evidence: Evidence) -> Number:
        found = np.asarray(evidence.array(name), dtype=float)
        return Number(float(found.mean()), float(found.min()), float(found.max()))

    return read


def partners(read: Read) -> Read:
    """The same number of the other card."""

    def other(evidence: Evidence) -> Number:
        if evidence.partner is None:
            raise _MissingError("the card of the other images")
        return read(evidence.partner)

    return other


def close(name: str, number: Read, paper: float, **more: Any) -> Part:  # noqa: ANN401
    """A share that agrees within five points."""
    low, high = max(paper - _POINTS, 0.0), min(paper + _POINTS, 1.0)
    return Part(name, number, low, high, paper, **more)


def same_size(name: str, number: Read, paper: float, **more: Any) -> Part:  # noqa: ANN401
    """A number that agrees within a factor of two."""
    return Part(name, number, paper / _FACTOR, paper * _FACTOR, paper, **more)
