"""What a chapter needs from the place it runs in.

`glue` carries numbers from the code into the sentences: in the text a glued number is
written ``{glue:text}`name:.2f```; nobody types it. `checkpoints` names the folder in
which training keeps its progress, on Colab a Google Drive.

``python -m flatbook.notebook`` does nothing, and succeeds where the package can be
imported: the first cell of every chapter asks so before it installs.

>>> import torch
>>> as_plain(torch.tensor(2.5)), as_plain(3), as_plain("ResNet-18")
(2.5, 3, 'ResNet-18')
"""

import importlib.util
import math
import numbers
import os
from pathlib import Path

__all__ = ["as_plain", "checkpoints", "glue"]

_DRIVE = Path("/content/drive/MyDrive")  # of the account that Colab has mounted


def checkpoints() -> Path | None:
    """The folder in which a chapter's training keeps its checkpoints.

    ``FLATBOOK_CHECKPOINTS`` names it. Where that is not set and a Google Drive is
    mounted at Colab's usual place, it is ``flatbook/checkpoints`` in that Drive, so
    that training goes on after a disconnect. It need not exist yet.

    A Drive is written in the background, so that the epochs just before a disconnect
    can be lost. A checkpoint that arrives damaged is refused by its checksums; the
    error names the file, which then has to be deleted.

    Returns:
        The folder, or None: then nothing is kept.
    """
    named = os.environ.get("FLATBOOK_CHECKPOINTS", "").strip()
    if named:
        return Path(named).expanduser()
    return _DRIVE / "flatbook" / "checkpoints" if _DRIVE.is_dir() else None


def as_plain(value: object) -> int | float | str:
    """A number (Python, NumPy, tensor of one element, sympy) as int or float.

    Texts stay as they are; a bool becomes ``"yes"`` or ``"no"``.

    Raises:
        TypeError: value is neither a single number nor a text.
    """
    if hasattr(value, "item") and math.prod(getattr(value, "shape", ())) == 1:
        value = value.item()
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, numbers.Integral) or getattr(value, "is_Integer", False):
        return int(value)  # type: ignore[call-overload]
    if isinstance(value, numbers.Real) or getattr(value, "is_number", False):
        return float(value)  # type: ignore[arg-type]
    raise TypeError(f"glue takes one number or a text, got {value!r}")


def glue(name: str, value: object) -> None:
    """Give ``value`` a name that the chapter's text can use.

    With myst-nb (the book) nothing is shown; elsewhere (Colab) the value is printed
    as ``name = value``.

    Args:
        name: letters, digits and ``_ - .``, unique in the chapter.
        value: see `as_plain`.

    Raises:
        TypeError: value is neither a single number nor a text.
        ValueError: name is empty or has other characters.
    """
    if not name or set(name) - _LETTERS:
        raise ValueError(f"name must consist of letters, digits, _ - . : got {name!r}")
    plain = as_plain(value)
    if importlib.util.find_spec("myst_nb") is None:
        print(f"{name} = {plain}")
        return
    import myst_nb

    myst_nb.glue(name, plain, display=False)


_LETTERS = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")
