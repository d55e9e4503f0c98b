"""Checks of plain numbers: an error names the argument, the rule and the value."""

import math

__all__ = ["choice", "integer", "number", "positive"]


def choice(name: str, value: object, allowed: tuple[object, ...]) -> None:
    """Refuse anything but one of the values allowed, 1 for True included."""
    if type(value) is not type(allowed[0]) or value not in allowed:
        names = ", ".join(map(str, allowed))
        raise ValueError(f"{name} must be one of {names}, got {value!r}")


def integer(name: str, value: int, low: int) -> None:
    """Refuse anything but an integer of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ValueError(f"{name} must be an integer of at least {low}, got {value!r}")


def number(name: str, value: float, low: float = 0, high: float = math.inf) -> None:
    """Refuse anything but a number with low <= value < high."""
    if not isinstance(value, (int, float)) or not low <= value < high:
        raise ValueError(f"{name} must lie in [{low}, {high}), got {value!r}")


def positive(name: str, value: float) -> None:
    """Refuse anything but a positive, finite number."""
    if not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
