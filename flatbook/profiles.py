"""One chapter, several scales: sizes and seeds change, the code does not.

``FLATBOOK_PROFILE`` is ``cpu`` (a laptop, embedded data), ``t4`` (a free Colab GPU:
every chapter in minutes), ``fast`` (a modern GPU: full width, a short training) or
``full`` (the paper's size). Where it is not set, it is ``t4`` on Colab with a GPU and
``cpu`` everywhere else. A chapter states all of them side by side.

>>> choice = choose(cpu={"epochs": 2}, t4={"epochs": 30}, full={"epochs": 200})
>>> choice.settings.epochs in (2, 30, 200)
True
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace

__all__ = ["NAMES", "Choice", "choose", "current"]

NAMES = ("cpu", "t4", "fast", "full")


@dataclass(frozen=True)
class Choice:
    """The settings of one profile.

    Attributes:
        profile: the name of the profile.
        settings: its settings as attributes; ``vars(settings)`` is the dict.
    """

    profile: str
    settings: SimpleNamespace

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={v!r}" for k, v in vars(self.settings).items())
        return f"profile {self.profile}: {shown}"


def current() -> str:
    """The profile that ``FLATBOOK_PROFILE`` names.

    Where it is not set: ``"t4"`` on Colab with a GPU, else ``"cpu"``.

    Raises:
        ValueError: it names no profile.
    """
    name = os.environ.get("FLATBOOK_PROFILE", "").strip().lower()
    if not name:
        return "t4" if _colab_with_gpu() else "cpu"
    if name not in NAMES:
        raise ValueError(f"FLATBOOK_PROFILE={name!r}: expected one of {NAMES}")
    return name


def _colab_with_gpu() -> bool:
    """Colab's kernel loads ``google.colab`` before the first cell."""
    if "google.colab" not in sys.modules:
        return False
    import torch

    return torch.cuda.is_available()


def choose(
    *,
    cpu: Mapping[str, object],
    t4: Mapping[str, object],
    full: Mapping[str, object],
    fast: Mapping[str, object] | None = None,
) -> Choice:
    """The settings of the current profile.

    Args:
        cpu: settings for two processor cores and under a minute.
        t4: settings for a free Colab GPU.
        full: settings at the scale of the paper.
        fast: settings for one modern GPU; those of full where not given.

    Raises:
        ValueError: the profiles do not set the same names, or ``FLATBOOK_PROFILE``
            names none of them.
    """
    fast = full if fast is None else fast
    profiles = {"cpu": cpu, "t4": t4, "full": full, "fast": fast}
    for name, settings in profiles.items():
        odd = sorted(set(cpu) ^ set(settings))
        if odd:
            raise ValueError(f"cpu and {name} must set the same names, not {odd}")
    name = current()
    return Choice(name, SimpleNamespace(**profiles[name]))
