"""Tables of benchmarks: a title, the names of the columns, a line for each candidate.

>>> show("apples", {"red": ("120", "1.00"), "green": ("95", "0.8")}, ("g", "price"))
apples
                                                 g   price
  red                                          120    1.00
  green                                         95     0.8
"""

from collections.abc import Mapping, Sequence

from benchmarks.timing import Range

NAMES = 42  # characters, so that the tables of a run stand in line


def spread(values: Range, form: str = ",.2f") -> str:
    """Median and range of ratios as text.

    >>> spread((1.5, 1.0, 1234.5))
    '1.50 (1.00 .. 1,234.50)'
    """
    middle, low, high = (format(value, form) for value in values)
    return f"{middle} ({low} .. {high})"


def show(
    title: str, rows: Mapping[str, Sequence[str]], columns: Sequence[str] = ()
) -> None:
    """Print a table; cells stand right, in columns as wide as they need.

    Args:
        title: above the table.
        rows: name -> cells, as many in each.
        columns: their names, or none.
    """
    print(title)
    head = [("", *columns)] if columns else []
    lines = [*head, *((name, *cells) for name, cells in rows.items())]
    first, *widths = (max(map(len, cells)) for cells in zip(*lines, strict=True))
    for name, *cells in lines:
        wide = (f"{c:>{w + 3}}" for c, w in zip(cells, widths, strict=True))
        print(f"  {name:{max(NAMES, first)}}{''.join(wide)}")
