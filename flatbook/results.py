"""Result cards: numbers of long runs, with everything needed to believe them.

A card is a small JSON file: what was run with which settings, what came out with
its spread over seeds, and where it comes from (command, commit, versions, device,
time, memory, hashes of the inputs). Reading one refuses what is incomplete or
stale, so that a page never shows a number nobody measured with these settings.

>>> import tempfile, pathlib
>>> card = collect(
...     "demo", profile="cpu", settings={"epochs": 2}, command="python demo.py",
...     values={"accuracy": summary([0.5, 0.7, 0.6])}, wall_seconds=1.5,
... )
>>> path = pathlib.Path(tempfile.mkdtemp(), "demo.json")
>>> write(path, card)
>>> read(path, settings={"epochs": 2}).values["accuracy"]["mean"]
0.6
>>> read(path, settings={"epochs": 3})
Traceback (most recent call last):
    ...
ValueError: ...demo.json is stale: epochs is 2 there, 3 here
"""

import dataclasses
import datetime
import hashlib
import io
import json
import math
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flatbook import profiles

__all__ = [
    "Card",
    "collect",
    "commit",
    "describe",
    "device_name",
    "digest",
    "file_hash",
    "hash_bytes",
    "pack",
    "peak_memory_mb",
    "read",
    "summary",
    "unpack",
    "write",
    "write_whole",
]

Values = Mapping[str, Mapping[str, float]]

_SUMMARY = {"mean", "low", "high", "seeds"}
_VERSIONED = ("torch", "torchvision", "numpy", "scikit-learn")


@dataclass(frozen=True)
class Card:
    """The result of one run.

    Attributes:
        experiment: name of the experiment.
        profile: one of `flatbook.profiles.NAMES`.
        settings: everything that was chosen, as JSON values.
        values: name -> {"mean", "low", "high", "seeds"}: mean, smallest and largest
            over so many seeds.
        command: the command line that makes the card again.
        commit: commit of the code, with ``-dirty`` if files had changed.
        versions: package -> version.
        device: processor or GPU.
        wall_seconds: how long it took from nothing, summed over seeds: the epochs of
            training, also where an earlier run or another card's has done them (their
            checkpoints remember it), and measuring. Loading images is not part of it.
            The first cards may lack training that was done before.
        peak_memory_mb: largest memory of the process (on a GPU: of the GPU).
        input_hashes: input -> SHA-256.
        date: ISO date, UTC.
        arrays: SHA-256 of the NPZ file beside the card, or "none".

    Raises:
        TypeError: a field has the wrong type.
        ValueError: a number is not finite, or values are not summaries.
    """

    experiment: str
    profile: str
    settings: Mapping[str, object]
    values: Values
    command: str
    commit: str
    versions: Mapping[str, str]
    device: str
    wall_seconds: float
    peak_memory_mb: float
    input_hashes: Mapping[str, str]
    date: str
    arrays: str = "none"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_field(field.name, getattr(self, field.name))
        if self.profile not in profiles.NAMES:
            raise ValueError(f"profile {self.profile!r}: expected {profiles.NAMES}")
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", self.date):
            raise ValueError(f"date must look like 2026-01-31, got {self.date!r}")
        if not self.values:
            raise ValueError("values must not be empty")
        for name, value in self.values.items():
            _check_summary(name, value)
        object.__setattr__(self, "settings", _as_json(self.settings))

    @property
    def digest(self) -> str:
        """Short hash of the settings."""
        return digest(self.settings)

    @property
    def outcome(self) -> str:
        """Short hash of what was asked and what came out.

        Two runs that agree have the same one; time, memory, machine, versions and
        date are not part of it.
        """
        names = ("experiment", "profile", "settings", "values", "input_hashes")
        content = {name: getattr(self, name) for name in (*names, "arrays")}
        return digest(content)


def digest(settings: Mapping[str, object]) -> str:
    """A short hash that changes when a setting does.

    Raises:
        TypeError: a setting is not a JSON value.
    """
    text = json.dumps(_as_json(settings), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def hash_bytes(content: bytes) -> str:
    """SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays as the bytes of an NPZ file; the same arrays give the same bytes.

    Raises:
        ValueError: an array holds Python objects.

    >>> pack({"a": np.arange(3)}) == pack({"a": np.arange(3)})
    True
    """
    file = io.BytesIO()
    for name, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise ValueError(f"array {name!r} holds Python objects")
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def unpack(path: str | Path, expected: str) -> dict[str, np.ndarray]:
    """Read the arrays of an NPZ file; nothing in it is executed.

    Args:
        path: the file.
        expected: its SHA-256.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has another hash.
    """
    content = Path(path).read_bytes()
    if hash_bytes(content) != expected:
        raise ValueError(
            f"{path} has SHA-256 {hash_bytes(content)}, expected {expected}"
        )
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def summary(per_seed: Sequence[float]) -> dict[str, float]:
    """Mean, smallest and largest of one number per seed, and how many there are.

    >>> summary([1.0, 2.0, 6.0])
    {'mean': 3.0, 'low': 1.0, 'high': 6.0, 'seeds': 3}

    Raises:
        ValueError: no seeds, or a number that is not finite.
    """
    numbers = [float(value) for value in per_seed]
    if not numbers or not all(map(math.isfinite, numbers)):
        raise ValueError(f"expected finite numbers, one per seed, got {numbers}")
    low, high = min(numbers), max(numbers)
    mean = min(max(math.fsum(numbers) / len(numbers), low), high)
    return {"mean": mean, "low": low, "high": high, "seeds": len(numbers)}


def collect(
    experiment: str,
    *,
    profile: str,
    settings: Mapping[str, object],
    values: Values,
    wall_seconds: float,
    command: str | None = None,
    inputs: Mapping[str, str] | None = None,
    device: str | torch.device = "cpu",
) -> Card:
    """A card with commit, versions, device, memory and date filled in.

    Args:
        experiment: name of the experiment.
        profile: the profile it ran with.
        settings: what was chosen.
        values: name -> `summary` over seeds.
        wall_seconds: how long it took.
        command: how to make it again (default: this process's command line).
        inputs: input -> SHA-256, for example ``{"digits": dataset.sha256}``.
        device: where it ran.
    """
    return Card(
        experiment=experiment,
        profile=profile,
        settings=settings,
        values=values,
        command=command or " ".join(["python", *sys.argv]),
        commit=commit(),
        versions=_versions(),
        device=device_name(torch.device(device)),
        wall_seconds=round(wall_seconds, 1),
        peak_memory_mb=round(peak_memory_mb(torch.device(device)), 1),
        input_hashes=dict(inputs or {}),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )


def write(path: str | Path, card: Card) -> None:
    """Write a card as sorted JSON, whole or not at all."""
    content = dataclasses.asdict(card) | {"digest": card.digest}
    text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"
    write_whole(path, text)


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Write a file, whole or not at all; missing folders are made.

    Args:
        path: where.
        content: text (UTF-8) or bytes.

    Raises:
        OSError: the folder cannot be written; an old file stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read(path: str | Path, *, settings: Mapping[str, object] | None = None) -> Card:
    """Read a card and refuse one that cannot be trusted.

    Args:
        path: the JSON file.
        settings: what the caller expects the run to have used.

    Raises:
        FileNotFoundError: there is no such card.
        ValueError: the file is damaged or incomplete, has other fields or types,
            its settings do not match its digest or differ from ``settings``, or a
            number is not finite.
    """
    content = _load(Path(path))
    names = {field.name for field in dataclasses.fields(Card)} | {"digest"}
    for what, odd in (
        ("lacks", names - set(content)),
        ("has unknown", set(content) - names),
    ):
        if odd:
            raise ValueError(f"{path} {what} {', '.join(sorted(odd))}")
    stored = content.pop("digest")
    try:
        card = Card(**content)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    if card.digest != stored:
        raise ValueError(
            f"{path}: settings have digest {card.digest}, the card says {stored!r}: "
            "they were edited after the run"
        )
    if settings is not None and digest(settings) != stored:
        difference = _difference(card.settings, _as_json(settings))
        raise ValueError(f"{path} is stale: {difference}")
    return card


def describe(card: Card) -> str:
    """One line that says where a card's numbers come from."""
    seeds = sorted({int(value["seeds"]) for value in card.values.values()})
    counted = " to ".join(str(n) for n in dict.fromkeys((seeds[0], seeds[-1])))
    versions = card.versions.get("torch", "unknown")
    return (
        f"{card.experiment}, profile {card.profile}, {counted} seed"
        f"{'s' if seeds[-1] > 1 else ''}: {card.device}, torch {versions}, "
        f"{card.date}, commit {card.commit}, {card.wall_seconds:g} s, "
        f"{card.peak_memory_mb:.0f} MB, settings {card.digest}"
    )


def _check_field(name: str, value: object) -> None:
    kinds: dict[str, tuple[type, ...]] = {
        "settings": (Mapping,),
        "values": (Mapping,),
        "versions": (Mapping,),
        "input_hashes": (Mapping,),
        "wall_seconds": (int, float),
        "peak_memory_mb": (int, float),
    }
    expected = kinds.get(name, (str,))
    if not isinstance(value, expected) or isinstance(value, bool):
        wanted = " or ".join(kind.__name__ for kind in expected)
        raise TypeError(f"{name} must be {wanted}, got {value!r}")
    if isinstance(value, int | float) and not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be finite and not negative, got {value}")
    if isinstance(value, str) and not value:
        raise ValueError(f"{name} must not be empty")
    if name in ("versions", "input_hashes") and isinstance(value, Mapping):
        odd = [k for k, v in value.items() if not isinstance(v, str)]
        if odd:
            raise TypeError(f"{name} must hold texts, not so for {odd}")


def _check_summary(name: str, value: object) -> None:
    if not isinstance(value, Mapping) or set(value) != _SUMMARY:
        raise ValueError(f"value {name!r} must have {sorted(_SUMMARY)}, got {value!r}")
    for key, number in value.items():
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise TypeError(f"{key} of value {name!r} must be a number, got {number!r}")
        if not math.isfinite(number):
            raise ValueError(f"{key} of value {name!r} must be finite, got {number}")
    if not value["low"] <= value["mean"] <= value["high"]:
        raise ValueError(f"value {name!r} needs low <= mean <= high, got {value!r}")
    if value["seeds"] < 1 or value["seeds"] != int(value["seeds"]):
        raise ValueError(f"value {name!r} needs a number of seeds, got {value!r}")


def _as_json(settings: Mapping[str, object]) -> dict[str, object]:
    """The settings as they come back from a file: tuples as lists, and so on."""
    try:
        return json.loads(json.dumps(dict(settings), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise TypeError(f"settings must be JSON values: {error}") from None


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"no result card at {path}: run its experiment to make one"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: expected an object, got {content!r:.60}")
    return content


def _difference(there: Mapping[str, object], here: Mapping[str, object]) -> str:
    missing = "not set"
    return ", ".join(
        f"{key} is {there.get(key, missing)!r} there, {here.get(key, missing)!r} here"
        for key in sorted({*there, *here})
        if there.get(key, missing) != here.get(key, missing)
    )


def commit() -> str:
    """Commit of the code, with ``-dirty`` if files had changed; or "unknown"."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(
            command,
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def device_name(device: torch.device) -> str:
    """What a card calls a device: the GPU, or the processor with its threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} used"
    return f"{platform.machine() or 'cpu'} ({cores})"


def peak_memory_mb(device: torch.device) -> float:
    """Largest memory so far, of the GPU or (on a processor) of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
