"""Result cards beside the numbers of a page.

A chapter runs an experiment live, at the size of a laptop, and shows what longer runs
gave in columns beside it. A card that was made with other settings than the code has
today, or that lacks a number the page shows, is refused: the page is then not built.
"""

import html
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from flatbook import results
from flatbook.experiments._runner import Plan, plan_of, summarise
from flatbook.experiments._subjects import subject
from flatbook.results import Card

_PACKAGE = Path(__file__).parents[1]
_REPOSITORY = _PACKAGE.parent / "results"
FOLDER = _REPOSITORY if _REPOSITORY.is_dir() else _PACKAGE / "_cards"
_LEAST_SEEDS = 3
Summary = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, eq=False, repr=False)
class Table:
    """Numbers of a page and of cards, side by side.

    Attributes:
        rows: names of the numbers.
        columns: heading -> one text for each row.
        notes: where the columns come from, one line each.
    """

    rows: tuple[str, ...]
    columns: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]

    def _lines(self) -> list[tuple[str, ...]]:
        body = zip(self.rows, *self.columns.values(), strict=True)
        return [("", *self.columns), *body]

    def __repr__(self) -> str:
        lines = self._lines()
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        texts = [
            "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip()
            for line in lines
        ]
        return "\n".join([*texts, *self.notes])

    def _repr_html_(self) -> str:
        first_line, *lines = self._lines()
        head = [_small_print(text, ", ") for text in first_line]
        body = [[_small_print(text, " (") for text in line] for line in lines]
        top = "".join(f"<th>{cell}</th>" for cell in head)
        rows = [
            f"<tr><th>{first}</th>{''.join(f'<td>{cell}</td>' for cell in rest)}</tr>"
            for first, *rest in body
        ]
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return (
            '<div class="result-card"><table class="table">'
            f"<thead><tr>{top}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
            f"{notes}</div>"
        )


def cards(name: str, folder: str | Path | None = None) -> list[Card]:
    """The cards of an experiment, those of the paper's size last.

    Args:
        name: of the experiment.
        folder: where the cards lie (default: ``results`` of the repository).

    Raises:
        ValueError: a card is damaged, incomplete, has fewer than three seeds, or was
            made with other settings than the code has today.
    """
    paths = sorted(Path(folder or FOLDER).glob(f"{name}-*.json"))
    found = [_fresh(path, name) for path in paths]
    return sorted(found, key=lambda card: results.profiles.NAMES.index(card.profile))


def beside(
    name: str,
    live: Summary | Sequence[Mapping[str, float]],
    *,
    rows: Sequence[str] | Mapping[str, str],
    here: str = "this page",
    folder: str | Path | None = None,
) -> Table:
    """Numbers of this page beside the cards of the same experiment.

    Args:
        name: of the experiment.
        live: what `numbers` gave for each seed, or its `summarise`.
        rows: which numbers, and (as a mapping) what to call them.
        here: heading of the live column.
        folder: see `cards`.

    Raises:
        ValueError: see `cards`; or a card or the page lacks a number.
    """
    values = live if isinstance(live, Mapping) else summarise(live)
    names = dict(rows) if isinstance(rows, Mapping) else {row: row for row in rows}
    found = cards(name, folder)
    columns = {here: _column("this page", values, names)}
    for card in found:
        left_out = _left_out(card, names)
        columns[_heading(card)] = _column(_heading(card), card.values, names, left_out)
    notes = [_note(card) for card in found]
    if not any(card.profile == "full" for card in found):
        columns["paper's size"] = ("not yet run",) * len(names)
        notes.append(f"To run it: python -m flatbook.experiments {name} --profile full")
    return Table(tuple(names.values()), columns, tuple(notes))


def curve(values: Summary, name: str) -> list[float]:
    """Means of ``name[0]``, ``name[1]``, ... of a card or of `summarise`.

    Raises:
        ValueError: there is no such curve.
    """
    means: list[float] = []
    while (key := f"{name}[{len(means)}]") in values:
        means.append(values[key]["mean"])
    if not means:
        raise ValueError(f"no curve {name!r}: expected {name}[0], {name}[1], ...")
    return means


def _fresh(path: Path, name: str) -> Card:
    card = results.read(path)
    if card.experiment != name:
        raise ValueError(f"{path} is a card of {card.experiment!r}, expected {name!r}")
    wanted = {"version", "label", "subject", "recipes", "sizes", "seeds"}
    lacking = sorted(wanted - set(card.settings))
    if lacking:
        raise ValueError(f"{path} is incomplete: no setting {', '.join(lacking)}")
    seeds = cast(Sequence[int], card.settings["seeds"])
    counts = {int(value["seeds"]) for value in card.values.values()}
    if len(seeds) < _LEAST_SEEDS or counts != {len(seeds)}:
        raise ValueError(
            f"{path} is incomplete: {sorted(counts)} seeds, expected "
            f"{max(len(seeds), _LEAST_SEEDS)} for every value"
        )
    return results.read(path, settings=plan_of(card, seeds).settings)


def _heading(card: Card) -> str:
    subject = cast(Mapping[str, Any], card.settings["subject"])
    width = subject["width"]
    size = "" if width == 1 else f" × {width:g}"
    return f"{card.settings['label']}, {subject['model']}{size}, {card.profile}"


def _note(card: Card) -> str:
    """What the networks of a card were trained on, and where it comes from."""
    there = cast(Mapping[str, Any], card.settings["subject"])
    limit, epochs = there["limit"], there["recipe"]["epochs"]
    images = f"{limit} images per class" if limit else "all images"
    return f"{card.settings['label']}: {images}, {epochs} epochs; " + results.describe(
        card
    )


def _left_out(card: Card, names: Mapping[str, str]) -> set[str]:
    """Numbers of networks that the experiment leaves out at the card's size.

    They are named ``network: number``, and the card lists its networks.
    """
    paper = Plan(card.experiment, "full", subject(profile="full"), (0,), "")
    absent = set(paper.variants) - set(
        cast(Mapping[str, Any], card.settings["recipes"])
    )
    return {name for name in names if name.partition(": ")[0] in absent}


def _column(
    where: str,
    values: Summary,
    names: Mapping[str, str],
    left_out: AbstractSet[str] = frozenset(),
) -> tuple[str, ...]:
    lacking = [name for name in names if name not in values and name not in left_out]
    if lacking:
        raise ValueError(f"{where} lacks {', '.join(lacking)}")
    return tuple(
        _text(values[name]) if name in values else "left out" for name in names
    )


def _small_print(text: str, mark: str) -> str:
    """A text as HTML, what follows the first mark in small print."""
    large, found, small = html.escape(text).partition(mark)
    opening = mark.strip(", ")
    return f"{large} <small>{opening}{small}</small>" if found else large


def _text(value: Mapping[str, float]) -> str:
    mean, low, high = (format(value[k], ".3g") for k in ("mean", "low", "high"))
    return mean if low == high else f"{mean} ({low} to {high})"
