"""The tables of a report, as text and as HTML that fits a phone.

Nothing here decides anything: verdicts and numbers come from
`flatbook.reproduce._rules`. A `Block` shows itself in a notebook, and as text
elsewhere. Verdicts have a sign and a word besides their colour.
"""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from flatbook.reproduce._grid import GRID, Entry
from flatbook.reproduce._rules import (
    AGREES,
    DIFFERS,
    IN_PART,
    NOT_RUN,
    VERDICTS,
    Claim,
    Evidence,
    Ruling,
    smaller,
)

__all__ = ["Block", "absent", "claims", "grid", "overview", "provenance", "title"]

SIGNS = {AGREES: "✓", IN_PART: "◐", DIFFERS: "✗", NOT_RUN: "○"}
_WORDS = {True: AGREES, False: DIFFERS, None: NOT_RUN}
_CLASSES = {AGREES: "yes", IN_PART: "part", DIFFERS: "no", NOT_RUN: "open"}
_TITLES = {
    "resnet18": "ResNet-18",
    "wrn28_4": "WRN-28-4",
    "densenet121": "DenseNet-121",
    "vgg11_bn": "VGG-11",
    "mlp": "MLP",
}
_IMAGES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
_COLUMNS = {
    ("resnet18", False): "Res Net",
    ("wrn28_4", False): "WRN",
    ("densenet121", False): "Dense Net",
    ("vgg11_bn", False): "VGG",
    ("resnet18", True): "adv.",
}
_GROUPS = {
    "loss_geometry": "How the loss rises",
    "uncanny_valley": "What an attack walks through",
    "gradient_masking": "What scaling does to attacks",
    "adversarial_training": "Adversarially trained networks",
    "detection": "Detection",
    "earlier_layers": "Other layers",
    "": "Outside the grid",
}
_STYLE = """<style>
.fb-report { --yes: #00694f; --part: #835300; --no: #a63f00; --open: #5c6470;
  --line: rgba(128, 128, 128, 0.32); font-size: 0.88rem; line-height: 1.42;
  margin: 0.4rem 0 1.2rem; overflow-wrap: anywhere; text-align: left; }
html[data-theme="dark"] .fb-report, [data-jp-theme-light="false"] .fb-report {
  --yes: #3ecba0; --part: #ffc24b; --no: #ff8f4a; --open: #a2abb8; }
.fb-report small, .fb-report .soft { color: var(--open); font-size: 0.8rem; }
.fb-report .yes { color: var(--yes); } .fb-report .part { color: var(--part); }
.fb-report .no { color: var(--no); } .fb-report .open { color: var(--open); }
.fb-report :is(.yes, .part, .no, .open) { font-weight: 650; }
.fb-report ul { list-style: none; margin: 0; padding: 0; }
.fb-report .legend { display: flex; flex-wrap: wrap; gap: 0.2rem 1.1rem;
  margin: 0 0 0.6rem; }
.fb-report table { border-collapse: collapse; font-size: inherit; margin: 0;
  table-layout: fixed; width: 100%; }
.fb-report :is(th, td) { background: none !important; border: 0;
  border-bottom: 1px solid var(--line); color: inherit; line-height: 1.35;
  padding: 0.34rem 0.3rem; text-align: left; vertical-align: top;
  white-space: normal; }
.fb-report thead th { font-size: 0.74rem; font-weight: 600; overflow-wrap: normal;
  vertical-align: bottom; }
.fb-report tbody th { font-weight: 400; }
.fb-report .mark { text-align: center; width: 2.75rem; }
.fb-report .group th { border-bottom-width: 2px; font-weight: 650;
  padding-top: 0.9rem; }
.fb-report details { border-bottom: 1px solid var(--line); }
.fb-report summary { cursor: pointer; display: flex; gap: 0.6rem;
  list-style: none; padding: 0.45rem 0; }
.fb-report summary::-webkit-details-marker { display: none; }
.fb-report summary > :first-child { flex: none; width: 1.1rem; }
.fb-report summary > :last-child { flex: 1; }
.fb-report .inside { margin: 0 0 0.9rem 1.7rem; }
.fb-report .inside > * { margin: 0 0 0.55rem; }
.fb-report li.rule { border-left: 2px solid var(--line); margin: 0 0 0.55rem;
  padding-left: 0.7rem; }
.fb-report .chips { display: flex; flex-wrap: wrap; gap: 0.1rem 1rem; }
.fb-report dl { display: grid; grid-template-columns: minmax(4.5rem, 8rem) 1fr;
  gap: 0.1rem 0.8rem; margin: 0; }
.fb-report :is(dt, dd) { font-size: 0.82rem; font-weight: 400; margin: 0;
  min-width: 0; }
.fb-report dt { color: var(--open); }
.fb-report code { background: none; border: 0; color: inherit; font-size: 0.78rem;
  padding: 0; white-space: normal; }
@media (max-width: 600px) { .fb-report .mark { padding-inline: 0; width: 2.15rem; }
  .fb-report .inside { margin-left: 0.3rem; } }
</style>"""


class Block:
    """A piece of a report.

    Attributes:
        text: for a terminal.
        html: for a page.
    """

    def __init__(self, text: str, html: str) -> None:
        self.text, self.html = text, html

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return f'<div class="fb-report">{_STYLE}{self.html}</div>'


def title(model: str, adversarial: bool = False) -> str:
    """What a network is called on a page."""
    return _TITLES.get(model, model) + ", adversarial" * adversarial


# --- overview ------------------------------------------------------------------------


def overview(
    claims: Sequence[Claim], verdicts: Mapping[str, str], rulings: Sequence[Ruling]
) -> Block:
    """One line for each claim, one sign for each network."""
    counts = {v: list(verdicts.values()).count(v) for v in VERDICTS}
    lines = [f"{SIGNS[v]} {v}: {n}" for v, n in counts.items()]
    legend = "".join(f"<li>{_sign(v)} {v}: <b>{n}</b></li>" for v, n in counts.items())
    head = "".join(f'<th class="mark">{name}</th>' for name in _COLUMNS.values())
    rows = []
    for group, members in _grouped(claims):
        rows.append(
            f'<tr class="group"><th colspan="{len(_COLUMNS) + 1}">{group}</th></tr>'
        )
        for claim in members:
            rows.append(_row(claim, rulings))
            lines.append(
                f"{SIGNS[verdicts[claim.id]]}  {claim.id}: {claim.says} [{claim.where}]"
            )
    table = (
        f"<table><thead><tr><th>the paper says</th>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
    return Block("\n".join(lines), f'<ul class="legend">{legend}</ul>{table}')


def _row(claim: Claim, rulings: Sequence[Ruling]) -> str:
    cells = "".join(
        f'<td class="mark">{_cell(claim, column, rulings)}</td>' for column in _COLUMNS
    )
    if not claim.experiment:
        cells = f'<td colspan="{len(_COLUMNS)}">{_sign(NOT_RUN)} {NOT_RUN}</td>'
    return (
        f"<tr><th>{html.escape(claim.says)} <small>{html.escape(claim.where)}</small>"
        f"</th>{cells}</tr>"
    )


def _cell(claim: Claim, column: tuple[str, bool], rulings: Sequence[Ruling]) -> str:
    mine = [
        ruling
        for ruling in rulings
        if ruling.claim.id == claim.id
        and (ruling.evidence.role, ruling.evidence.adversarial) == column
    ]
    if mine:
        return " ".join(_sign(r.verdict, _called(r.evidence)) for r in mine)
    return _sign(NOT_RUN) if _asked(claim, column) else ""


def _asked(claim: Claim, column: tuple[str, bool]) -> bool:
    """Whether the grid has a run of this network that the claim is about."""
    model, adversarial = column
    return (
        (not claim.models or model in claim.models)
        and adversarial in claim.adversarial
        and any(
            (entry.experiment, entry.model, entry.adversarial)
            == (claim.experiment, *column)
            for entry in GRID
        )
    )


# --- claims --------------------------------------------------------------------------


def claims(
    wanted: Sequence[Claim], verdicts: Mapping[str, str], rulings: Sequence[Ruling]
) -> Block:
    """Each claim with its numbers; alone it is open."""
    mine = {c.id: [r for r in rulings if r.claim.id == c.id] for c in wanted}
    texts = [_claim_text(c, verdicts[c.id], mine[c.id]) for c in wanted]
    pages = [
        _claim_html(c, verdicts[c.id], mine[c.id], opened=len(wanted) == 1)
        for c in wanted
    ]
    return Block("\n\n".join(texts), "".join(pages) + _key(mine))


def _claim_text(claim: Claim, verdict: str, mine: Sequence[Ruling]) -> str:
    lines = [f"{SIGNS[verdict]} {verdict}: {claim.says} [{claim.where}]"]
    for ruling in mine:
        lines.append(f"  {_called(ruling.evidence)}: {ruling.verdict}")
        for found in ruling.findings:
            paper = (
                "" if found.part.paper is None else f", paper {found.part.paper:.3g}"
            )
            ours = "not measured" if found.number is None else str(found.number)
            sign = SIGNS[_WORDS[found.holds]]
            lines.append(
                f"    {sign} {found.part.name}: {ours}{paper} ({found.part.rule})"
            )
        if ruling.why:
            lines.append(f"    {ruling.why}")
    return "\n".join([*lines, *([f"  {claim.note}"] if claim.note else [])])


def _claim_html(
    claim: Claim, verdict: str, mine: Sequence[Ruling], *, opened: bool
) -> str:
    parts = "".join(_part(i, part, mine) for i, part in enumerate(claim.parts))
    reasons = "".join(
        f"<p><b>{html.escape(names)}:</b> {html.escape(why)}</p>"
        for why, names in _reasons(mine)
    )
    note = f'<p class="soft">{html.escape(claim.note)}</p>' if claim.note else ""
    return (
        f"<details{' open' if opened else ''}><summary>{_sign(verdict)}"
        f"<span>{html.escape(claim.says)} "
        f"<small>{html.escape(claim.where)}{_against(mine)} · {verdict}</small>"
        "</span></summary>"
        f'<div class="inside"><ul>{parts}</ul>{reasons}{note}</div></details>'
    )


def _against(mine: Sequence[Ruling]) -> str:
    """The paper's first number beside ours, for a line that is folded."""
    pairs = [
        (found.part.paper, found.number.mean)
        for ruling in mine
        for found in ruling.findings[:1]
        if found.part.paper is not None and found.number is not None
    ]
    if not pairs:
        return ""
    ours = ", ".join(f"{number:.3g}" for _, number in pairs)
    return f" · paper {pairs[0][0]:.3g}, ours {ours}"


def _part(number: int, part: Any, mine: Sequence[Ruling]) -> str:  # noqa: ANN401
    chips = "".join(_chip(ruling, number) for ruling in mine)
    told = [] if part.paper is None else [f"paper {part.paper:.3g}"]
    told.append(f"agrees {part.rule}")
    return (
        f'<li class="rule">{html.escape(part.name)} <small>{" · ".join(told)}</small>'
        f'<div class="chips">{chips or _sign(NOT_RUN) + " " + NOT_RUN}</div></li>'
    )


def _chip(ruling: Ruling, number: int) -> str:
    found = ruling.findings[number]
    ours = "not measured" if found.number is None else _short(found.number)
    return (
        f"<span>{_sign(_WORDS[found.holds])} {html.escape(_called(ruling.evidence))} "
        f"{ours}</span>"
    )


def _short(number: object) -> str:
    first, _, rest = str(number).partition(" (")
    return f"<b>{first}</b>" + (f" <small>({rest}</small>" if rest else "")


def _reasons(mine: Sequence[Ruling]) -> list[tuple[str, str]]:
    """Reason -> the cards that it is for."""
    found: dict[str, list[str]] = {}
    for ruling in mine:
        if ruling.why:
            found.setdefault(ruling.why, []).append(_called(ruling.evidence))
    return [(why, "; ".join(names)) for why, names in found.items()]


def _key(mine: Mapping[str, Sequence[Ruling]]) -> str:
    """What the cards are, once each."""
    cards = {
        _called(ruling.evidence): _in_short(ruling.evidence)
        for rulings in mine.values()
        for ruling in rulings
    }
    rows = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>"
        for name, text in cards.items()
    )
    return f'<dl style="margin-top: 0.8rem">{rows}</dl>' if rows else ""


# --- grid and provenance -------------------------------------------------------------


def grid(rows: Sequence[tuple[Entry, Sequence[Evidence], str]]) -> Block:
    """Every entry with its cards, or what makes one."""
    lines, cells = [], []
    for entry, found, options in rows:
        figures = entry.figures.replace(" ", ", ")
        name = f"{title(entry.model, entry.adversarial)}, {_IMAGES[entry.data]}"
        made = "; ".join(dict.fromkeys(_called(each) for each in found))
        lines.append(
            f"{figures:12s} {entry.experiment:21s} {name:32s} {made or options}"
        )
        here = (
            f"{_mark('yes', '●', 'card')} {html.escape(made)}"
            if found
            else f"{_sign(NOT_RUN)} {NOT_RUN}<br><code>{html.escape(options)}</code>"
        )
        cells.append(
            f"<tr><td>{html.escape(figures)}</td><th>{entry.experiment}<br>"
            f"<small>{html.escape(name)}</small></th><td>{here}</td></tr>"
        )
    table = (
        '<table><thead><tr><th style="width: 16%">figure</th><th>run</th>'
        '<th style="width: 46%">cards, or the options that make one</th></tr></thead>'
        f"<tbody>{''.join(cells)}</tbody></table>"
    )
    return Block("\n".join(lines), table)


def absent(figure: str, options: str) -> Block:
    """In the place of a figure that no card has the arrays for."""
    text = f"{figure} is not drawn: no card with its arrays is here yet. To make one:"
    line = f"python -m flatbook.reproduce {options}"
    page = (
        f"<p>{_sign(NOT_RUN)} {html.escape(text)}<br><code>{html.escape(line)}</code>"
    )
    return Block(f"{text}\n{line}", f"{page}</p>")


def provenance(
    named: Sequence[tuple[str, Evidence, str]], refused: Mapping[str, str]
) -> Block:
    """Where cards come from, each folded; and which files were refused."""
    lines, pages = [], []
    for stem, evidence, lacks in named:
        facts = _facts(evidence, lacks)
        lines.append("\n  ".join([stem, *(f"{k}: {v}" for k, v in facts.items())]))
        rows = "".join(
            f"<dt>{k}</dt><dd>{html.escape(v)}</dd>" for k, v in facts.items()
        )
        pages.append(
            f"<details><summary>{_mark('yes', '●', 'card')}<span>{html.escape(stem)}"
            f"</span></summary><div class='inside'><dl>{rows}</dl></div></details>"
        )
    for name, why in refused.items():
        lines.append(f"{name} is refused: {why}")
        told = html.escape(f"{name} is refused: {why}")
        pages.append(f"<p>{_sign(NOT_RUN)} {told}</p>")
    return Block("\n".join(lines) or "no cards", "".join(pages) or "<p>no cards</p>")


def _facts(evidence: Evidence, lacks: str) -> dict[str, str]:
    card = evidence.card
    seeds = cast(Sequence[int], card.settings["seeds"])
    versions = ", ".join(f"{name} {v}" for name, v in card.versions.items())
    hashes = ", ".join(f"{name} {v[:12]}…" for name, v in card.input_hashes.items())
    return {
        "run": _in_short(evidence),
        "seeds": ", ".join(map(str, seeds)),
        "device": card.device,
        "versions": versions,
        "date": f"{card.date}, commit {card.commit}",
        "cost": f"{card.wall_seconds:.0f} s, {card.peak_memory_mb:.0f} MB",
        "images": f"SHA-256 {hashes}",
        "settings": card.digest,
        "figure": lacks or f"arrays {card.arrays[:12]}…",
        "command": card.command,
    }


def _in_short(evidence: Evidence) -> str:
    card = evidence.card
    less = smaller(card) or "the paper's size"
    seeds = len(cast(Sequence[int], card.settings["seeds"]))
    right = evidence.accuracy
    clean = "" if right is None else f"; clean accuracy {right}"
    return f"profile {card.profile}: {less}; {seeds} seeds{clean}"


def _called(evidence: Evidence) -> str:
    """Network, images and profile of a card."""
    card = evidence.card
    name = title(evidence.model, evidence.adversarial)
    return f"{name}, {card.settings['label']}, {card.profile}"


def _grouped(claims: Sequence[Claim]) -> Iterable[tuple[str, list[Claim]]]:
    for experiment, name in _GROUPS.items():
        members = [claim for claim in claims if claim.experiment == experiment]
        if members:
            yield name, members


def _sign(verdict: str, where: str = "") -> str:
    told = f"{where}: {verdict}" if where else verdict
    return _mark(_CLASSES[verdict], SIGNS[verdict], told)


def _mark(kind: str, sign: str, text: str) -> str:
    """A sign that is also told in words, to a pointer and to a screen reader."""
    words = html.escape(text, quote=True)
    told = f'role="img" title="{words}" aria-label="{words}"'
    return f'<span class="{kind}" {told}>{sign}</span>'
