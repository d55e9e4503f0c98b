"""What came out of a folder of cards, compared with the paper.

`report` reads the cards of a folder, refuses those that are stale or incomplete, lays
the others beside `flatbook.reproduce.GRID` and tries every claim of the paper on them.
A `Report` shows itself, in a notebook as tables that also fit a phone; its pieces
(`Report.overview`, `Report.claims`, `Report.grid`, `Report.provenance`) do so alone.

>>> import tempfile
>>> found = report(tempfile.mkdtemp())
>>> found.cards, found.verdict("transfer")
((), 'not yet run')
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flatbook import profiles, results
from flatbook.experiments import NAMES
from flatbook.experiments._cards import FOLDER
from flatbook.experiments._cards import _fresh as fresh
from flatbook.reproduce import _show
from flatbook.reproduce._claims import CLAIMS
from flatbook.reproduce._grid import FIGURES, GRID, Entry
from flatbook.reproduce._rules import IN_PART, NOT_RUN, Claim, Evidence, Ruling, judge
from flatbook.reproduce._show import Block

if TYPE_CHECKING:
    from flatbook.figures import BookFigure

__all__ = ["Filed", "Report", "command", "report"]


@dataclass(frozen=True)
class Filed:
    """A card of the folder.

    Attributes:
        stem: name of its file, without the suffix.
        evidence: the card and its arrays.
        lacks: why its figure cannot be drawn; empty where it can.
    """

    stem: str
    evidence: Evidence
    lacks: str = ""

    def belongs_to(self, entry: Entry) -> bool:
        """Whether it is a run of an entry of the grid, or stands in for one."""
        mine = self.evidence
        return (mine.card.experiment, mine.role, mine.data, mine.adversarial) == (
            entry.experiment,
            entry.model,
            entry.data,
            entry.adversarial,
        )


@dataclass(frozen=True, eq=False)
class Report:
    """Cards, and what they say about the claims of the paper.

    Attributes:
        cards: those that are fresh, in the order of the grid.
        refused: name of a file -> why it is not taken.
        rulings: every claim on every card that it concerns.
    """

    cards: tuple[Filed, ...]
    refused: Mapping[str, str]
    rulings: tuple[Ruling, ...]

    def of(self, claim: str) -> tuple[Ruling, ...]:
        """The rulings on a claim, one for each card.

        Raises:
            ValueError: there is no such claim.
        """
        known = [each.id for each in CLAIMS]
        if claim not in known:
            raise ValueError(f"claim must be one of {', '.join(known)}, got {claim!r}")
        return tuple(ruling for ruling in self.rulings if ruling.claim.id == claim)

    def verdict(self, claim: str) -> str:
        """The verdict that all cards share; "agrees in part" where they differ.

        Cards on which it is not yet run do not count.

        Raises:
            ValueError: there is no such claim.
        """
        found = {ruling.verdict for ruling in self.of(claim)} - {NOT_RUN}
        return IN_PART if len(found) > 1 else next(iter(found), NOT_RUN)

    def figure(self, stem: str) -> "BookFigure":
        """The paper's figure from the arrays beside a card.

        Args:
            stem: of one of `cards`.

        Raises:
            ValueError: there is no such card, or it has no arrays.
        """
        for filed in self.cards:
            if filed.stem == stem:
                if filed.lacks:
                    raise ValueError(f"{stem} has no figure: {filed.lacks}")
                name = filed.evidence.card.experiment
                module = importlib.import_module(f"flatbook.figures.{name}")
                return module.paper_figure(filed.evidence.arrays)
        stems = ", ".join(filed.stem for filed in self.cards) or "none"
        raise ValueError(f"card must be one of {stems}, got {stem!r}")

    def picture(self, figure: str) -> "BookFigure | Block":
        """A figure of the paper from the largest run that has arrays.

        Args:
            figure: one of `flatbook.reproduce.FIGURES`, such as ``"fig13"``.

        Returns:
            The figure; or, where no card has its arrays, a text that says what makes
            one.

        Raises:
            ValueError: the grid has no such figure.
        """
        entries = [entry for entry in GRID if figure in entry.figures.split()]
        if not entries:
            raise ValueError(
                f"figure must be one of {', '.join(FIGURES)}, got {figure!r}"
            )
        able = [filed for filed in self.cards if not filed.lacks]
        for entry in entries:
            mine = [filed for filed in able if filed.belongs_to(entry)]
            if mine:
                return self.figure(mine[-1].stem)
        return _show.absent(figure, command(entries[0]))

    def overview(self) -> Block:
        """Every claim with its verdict, by network."""
        verdicts = {claim.id: self.verdict(claim.id) for claim in CLAIMS}
        return _show.overview(CLAIMS, verdicts, self.rulings)

    def claims(self, *which: str) -> Block:
        """Claims with the paper's numbers, ours, rules and reasons.

        Args:
            which: ids of claims or names of experiments (default: all).

        Raises:
            ValueError: an unknown name.
        """
        wanted = [claim for claim in CLAIMS if not which or _named(claim, which)]
        known = {*NAMES, *(claim.id for claim in CLAIMS)}
        odd = [name for name in which if name not in known]
        if odd:
            raise ValueError(f"no claim or experiment {', '.join(odd)}")
        verdicts = {claim.id: self.verdict(claim.id) for claim in wanted}
        return _show.claims(wanted, verdicts, self.rulings)

    def grid(self) -> Block:
        """Every run of the paper: its cards, or the command that makes one."""
        rows = [
            (entry, [f.evidence for f in self.cards if f.belongs_to(entry)])
            for entry in GRID
        ]
        return _show.grid([(entry, found, command(entry)) for entry, found in rows])

    def provenance(self) -> Block:
        """Where every card comes from."""
        named = [(filed.stem, filed.evidence, filed.lacks) for filed in self.cards]
        return _show.provenance(named, self.refused)

    def _blocks(self) -> tuple[Block, ...]:
        return self.overview(), self.claims(), self.grid(), self.provenance()

    def __repr__(self) -> str:
        return "\n\n".join(map(repr, self._blocks()))

    def _repr_html_(self) -> str:
        return "".join(block._repr_html_() for block in self._blocks())


def report(folder: str | Path | None = None) -> Report:
    """Read the cards of a folder and compare them with the paper.

    Args:
        folder: with cards, or the ``--out`` of a run (default: the book's own cards).
    """
    place = Path(FOLDER if folder is None else folder)
    place = place / "cards" if (place / "cards").is_dir() else place
    found, refused = [], {}
    for path in sorted(place.glob("*.json")):
        try:
            found.append(_filed(path))
        except ValueError as error:
            refused[path.name] = str(error).replace(str(path), path.name)
    found.sort(key=_place)
    everything = [filed.evidence for filed in found]
    return Report(tuple(found), refused, tuple(_rulings(everything)))


def command(entry: Entry) -> str:
    """The options of ``python -m flatbook.reproduce`` for one entry of the grid."""
    figure = entry.figures.split()[-1]
    return f"--only {figure} --model {entry.model} --data {entry.data}"


def _filed(path: Path) -> Filed:
    """A fresh card with its arrays.

    Raises:
        ValueError: it is damaged, incomplete or stale.
    """
    name = results.read(path).experiment
    if name not in NAMES:
        raise ValueError(f"there is no experiment {name!r}")
    found = fresh(path, name)
    try:
        arrays, lacks = _arrays(path, found), ""
    except (FileNotFoundError, ValueError) as error:
        arrays, lacks = {}, str(error)
    return Filed(path.stem, Evidence(found, arrays), lacks)


def _arrays(path: Path, card: results.Card) -> dict[str, np.ndarray]:
    if card.arrays == "none":
        raise ValueError("the card was made without arrays")
    beside = path.with_suffix(".npz")
    if not beside.is_file():
        raise FileNotFoundError(f"there is no {beside.name} beside the card")
    return results.unpack(beside, card.arrays)


def _place(filed: Filed) -> tuple[int, int, bool, bool, str]:
    """Order of the grid; then the closer to the paper, the later."""
    mine = filed.evidence
    places = [i for i, entry in enumerate(GRID) if filed.belongs_to(entry)]
    profile = profiles.NAMES.index(mine.card.profile)
    natural, same = not mine.is_digits, mine.model == mine.role
    return min(places, default=len(GRID)), profile, natural, same, filed.stem


def _rulings(everything: Sequence[Evidence]) -> list[Ruling]:
    """Every claim on every card that it concerns."""
    return [
        judge(claim, _paired(claim, mine, everything))
        for claim in CLAIMS
        for mine in everything
        if claim.concerns(mine)
    ]


def _paired(claim: Claim, mine: Evidence, everything: Sequence[Evidence]) -> Evidence:
    """With the card of the same network on the images that the claim asks for."""

    def kind(of: Evidence) -> tuple[object, ...]:
        return of.card.experiment, of.model, of.card.profile, of.adversarial

    if not claim.partner:
        return mine
    others = [
        e for e in everything if e.data == claim.partner and kind(e) == kind(mine)
    ]
    return replace(mine, partner=others[-1]) if others else mine


def _named(claim: Claim, which: Sequence[str]) -> bool:
    return claim.id in which or claim.experiment in which
