"""One chapter, three scales: sizes and seeds change, the code does not.

``FLATBOOK_PROFILE`` is ``cpu`` (the default: a laptop, embedded data), ``t4`` (a free
Colab GPU) or ``full`` (paper scale). A chapter states all three side by side.

>>> choice = choose(cpu={"epochs": 2}, t4={"epochs": 30}, full={"epochs": 200})
>>> choice.settings.epochs in (2, 30, 200)
True
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace

__all__ = ["NAMES", "Choice", "choose", "current"]

NAMES = ("cpu", "t4", "full")


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
    """The profile that ``FLATBOOK_PROFILE`` names, ``"cpu"`` where it is not set.

    Raises:
        ValueError: it names no profile.
    """
    name = os.environ.get("FLATBOOK_PROFILE", "").strip().lower() or "cpu"
    if name not in NAMES:
        raise ValueError(f"FLATBOOK_PROFILE={name!r}: expected one of {NAMES}")
    return name


def choose(
    *,
    cpu: Mapping[str, object],
    t4: Mapping[str, object],
    full: Mapping[str, object],
) -> Choice:
    """The settings of the current profile.

    Args:
        cpu: settings for two processor cores and under a minute.
        t4: settings for a free Colab GPU.
        full: settings at the scale of the paper.

    Raises:
        ValueError: the profiles do not set the same names, or ``FLATBOOK_PROFILE``
            names none of them.
    """
    profiles = dict(zip(NAMES, (cpu, t4, full), strict=True))
    for name, settings in profiles.items():
        odd = sorted(set(cpu) ^ set(settings))
        if odd:
            raise ValueError(f"cpu and {name} must set the same names, not {odd}")
    name = current()
    return Choice(name, SimpleNamespace(**profiles[name]))
