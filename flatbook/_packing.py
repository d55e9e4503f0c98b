"""What differs between the views of an explorer, stored once.

A `Slot` is a piece of HTML that may differ from view to view, in one or several
pieces of text. Views lie on a grid, one axis for each slider. A piece that does not
depend on a slider is stored without that axis, and equal values are stored once: a
page with thousands of views stays small. `SCRIPT` is the other half, in JavaScript.

>>> pack([Slot("x", "10"), Slot("x", "10"), Slot("x", "25"), Slot("x", "25")], (2, 2))
['x', ['', '', ['10', '25'], [1, 0]]]
"""

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["LETTERS", "SCRIPT", "Slot", "pack", "share"]

LETTERS = "".join(chr(c) for c in range(35, 127) if chr(c) not in "&<>\\")
"""Digits of the numbers in which the script looks up which value is shown."""


@dataclass(frozen=True)
class Slot:
    """A piece of HTML that may differ between views: an attribute or a text.

    Args:
        attribute: its name, or "text" for the text of an element whose tag is open.
        value: the value, or its pieces; as many in every view.
    """

    attribute: str
    value: str | tuple[str, ...]

    @property
    def pieces(self) -> tuple[str, ...]:
        """The value in pieces that differ for different reasons."""
        return (self.value,) if isinstance(self.value, str) else self.value

    def render(self, mark: str = "") -> str:
        """HTML of the slot, with an attribute that marks the element before it."""
        value = html.escape("".join(self.pieces))
        if self.attribute == "text":
            return f"{mark}>{value}"
        return f'{mark} {self.attribute}="{value}"'


def pack(slots: Sequence[Slot], shape: Sequence[int]) -> list[object]:
    """One slot in all views of a grid, as the script reads it.

    Args:
        slots: the slot in every view, in the order of `itertools.product`.
        shape: the number of values of each slider.

    Returns:
        The attribute, then for each piece its text, or a list of what all values
        begin with, what they end with, what stands between, the step of each slider
        in the order of the values (0: none), and, if values repeat, which is which.
    """
    pieces = zip(*(slot.pieces for slot in slots), strict=True)
    return [slots[0].attribute, *(_piece(list(values), shape) for values in pieces)]


def share(slots: Sequence[list[object]]) -> list[object]:
    """Leave equal pieces of packed slots only a number; returns those they stand for.

    >>> one, two = (pack([Slot(a, "1"), Slot(a, "2")], (2,)) for a in ("x", "y"))
    >>> share([one, two]), one, two
    ([['', '', ['1', '2'], [1]]], ['x', 0], ['y', 0])
    """
    places: dict[str, int] = {}
    table: list[object] = []
    for slot in slots:
        for i, piece in enumerate(slot):
            if isinstance(piece, list):
                key = json.dumps(piece)
                if key not in places:
                    places[key] = len(table)
                    table.append(piece)
                slot[i] = places[key]
    return table


def _piece(values: list[str], shape: Sequence[int]) -> str | list[object]:
    distinct = list(dict.fromkeys(values))
    if len(distinct) == 1:
        return distinct[0]
    place = {value: i for i, value in enumerate(distinct)}
    which, steps = _reduce(np.reshape([place[v] for v in values], shape))
    head = _common_start(distinct)
    rest = [value[len(head) :] for value in distinct]
    tail = _common_start([value[::-1] for value in rest])[::-1]
    middles = [value[: len(value) - len(tail)] for value in rest]
    packed: list[object] = [head, tail, middles, steps]
    if np.array_equal(which, np.arange(len(distinct))):
        return packed
    return [*packed, _digits(which, 1 if len(distinct) <= len(LETTERS) else 2)]


def _reduce(which: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Leave out the axes that decide nothing; the step of each axis in the rest."""
    needed = [bool((which.take([0], a) != which).any()) for a in range(which.ndim)]
    kept = which[tuple(slice(None) if need else 0 for need in needed)]
    steps, step = [], 1
    for need, size in zip(reversed(needed), reversed(which.shape), strict=True):
        steps.append(step if need else 0)
        step *= size if need else 1
    return kept.ravel(), steps[::-1]


def _digits(numbers: np.ndarray, width: int) -> str:
    base = len(LETTERS)
    if numbers.max() >= base**width:
        raise ValueError(f"at most {base**width} values, got {numbers.max() + 1}")
    places = [base**i for i in reversed(range(width))]
    return "".join(LETTERS[n // place % base] for n in numbers for place in places)


def _common_start(values: list[str]) -> str:
    low, high = min(values), max(values)
    pairs = enumerate(zip(low, high, strict=False))
    return low[: next((i for i, (a, b) in pairs if a != b), len(low))]


SCRIPT = """(() => {
const box = document.getElementById("\0"), data = DATA;
if (!box) return;
const inputs = [...box.querySelectorAll("input")], letters = data.letters;
const find = (slot, i) => [box.querySelector(`[data-fb-${i}]`), ...slot];
const slots = data.slots.map(find);
const read = piece => {
  if (typeof piece === "string") return piece;
  if (typeof piece === "number") piece = data.shared[piece];
  const [head, tail, values, steps, which] = piece;
  let k = 0;
  inputs.forEach((input, i) => { k += steps[i] * input.value; });
  if (which) {
    const width = values.length > letters.length ? 2 : 1;
    k = [...which.slice(width * k, width * (k + 1))]
      .reduce((n, letter) => n * letters.length + letters.indexOf(letter), 0);
  }
  return head + values[k] + tail;
};
const show = () => {
  inputs.forEach((input, i) => {
    const text = data.texts[i][input.value];
    input.setAttribute("aria-valuetext", text);
    input.nextElementSibling.textContent = text;
  });
  for (const [node, name, ...pieces] of slots) {
    const value = pieces.map(read).join("");
    if (name !== "text") node.setAttribute(name, value);
    else if (node.textContent !== value) node.textContent = value;
  }
};
box.addEventListener("input", show);
show();
})();"""
"""Puts DATA where it belongs, again at every move of a slider."""
