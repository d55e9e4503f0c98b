"""From the name of an experiment to a result card, one seed after another.

Every finished seed is filed as a small JSON part, and every network as a checkpoint,
so that an interrupted run goes on where it stopped. A part is used again only if the
settings, the images and the package's source are the same.
"""

import dataclasses
import hashlib
import importlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import nn

from flatbook import data, results
from flatbook.data import Dataset
from flatbook.experiments._subjects import Subject, subject

NAMES = (
    "loss_geometry",
    "uncanny_valley",
    "earlier_layers",
    "gradient_masking",
    "adversarial_training",
    "detection",
)


class Experiment(Protocol):
    """What a module of this package offers.

    An experiment that compares networks has one function more: ``variants(profile,
    data)`` gives name -> fields of the recipe that differ, and `run` then gets a
    dictionary of the networks of a seed under these names.

    Attributes:
        VERSION: goes up when the numbers change their meaning; older cards are stale.
    """

    VERSION: int

    def sizes(self, profile: str, data: str) -> Any:  # noqa: ANN401
        """A frozen dataclass of JSON values: images, steps, radii and so on."""

    def run(self, models: Any, dataset: Dataset, sizes: Any) -> Any:  # noqa: ANN401
        """One seed: a network, or a dictionary of them where there are variants."""

    def numbers(self, result: Any) -> Mapping[str, float]:  # noqa: ANN401
        """What a card keeps of a result; curves as ``name[step]``."""


@dataclass(frozen=True)
class Plan:
    """All that decides the numbers of a card.

    Attributes:
        name: of the experiment.
        profile: one of `flatbook.profiles.NAMES`.
        subject: images, network and recipe.
        seeds: which networks.
        label: how the images are called on the page.
    """

    name: str
    profile: str
    subject: Subject
    seeds: tuple[int, ...]
    label: str

    @property
    def experiment(self) -> Experiment:
        """The module."""
        return load(self.name)

    @property
    def sizes(self) -> Any:  # noqa: ANN401
        """Sizes of the experiment for this profile and these images."""
        return self.experiment.sizes(self.profile, self.subject.data)

    @property
    def variants(self) -> dict[str, dict[str, Any]]:
        """The networks of a seed: name -> fields of the recipe that differ."""
        if not self.compares:
            return {"standard": {}}
        return dict(self.experiment.variants(self.profile, self.subject.data))  # type: ignore[attr-defined]

    @property
    def compares(self) -> bool:
        """Whether `run` takes a dictionary of networks."""
        return hasattr(self.experiment, "variants")

    @property
    def settings(self) -> dict[str, object]:
        """As JSON values, for the card."""
        recipes = {
            name: dataclasses.asdict(
                dataclasses.replace(self.subject.recipe, **changes)
            )
            for name, changes in self.variants.items()
        }
        return {
            "version": self.experiment.VERSION,
            "label": self.label,
            "subject": self.subject.settings(),
            "recipes": recipes,
            "sizes": dataclasses.asdict(self.sizes),
            "seeds": list(self.seeds),
        }

    @property
    def stem(self) -> str:
        """Name of the card's file, without its suffix."""
        label = "".join(c if c.isalnum() else "-" for c in self.label.lower())
        label = "-".join(filter(None, label.split("-")))
        return f"{self.name}-{self.subject.model}-{label}-{self.profile}"


@dataclass(frozen=True)
class Places:
    """Where things lie.

    Attributes:
        results: folder of the cards.
        work: folder of checkpoints and finished seeds.
        device: where networks run.
        progress: show bars on the standard error.
        command: what the card says about how to make it again.
    """

    results: Path
    work: Path
    device: str = "cpu"
    progress: bool = True
    command: str | None = None


def load(name: str) -> Experiment:
    """The module of an experiment.

    Raises:
        ValueError: if there is none of this name.
    """
    if name not in NAMES:
        raise ValueError(f"experiment must be one of {', '.join(NAMES)}, got {name!r}")
    return cast(Experiment, importlib.import_module(f"flatbook.experiments.{name}"))


def networks(
    plan: Plan, dataset: Dataset, seed: int, places: Places
) -> dict[str, nn.Module]:
    """The networks of one seed, by the name of their variant."""
    return {
        variant: plan.subject.train(
            dataset,
            seed,
            changes=changes,
            device=places.device,
            folder=places.work / "checkpoints",
            progress=places.progress,
        )
        for variant, changes in plan.variants.items()
    }


def one_seed(plan: Plan, dataset: Dataset, seed: int, places: Places) -> dict[str, Any]:
    """Train, run and measure one seed: the content of its part."""
    start = time.perf_counter()
    nets: Any = networks(plan, dataset, seed, places)
    chosen = nets if plan.compares else nets["standard"]
    result = plan.experiment.run(chosen, dataset, plan.sizes)
    numbers = {k: float(v) for k, v in plan.experiment.numbers(result).items()}
    return {
        "numbers": numbers,
        "seconds": time.perf_counter() - start,
        "peak_memory_mb": results.peak_memory_mb(torch.device(places.device)),
    }


def execute(plan: Plan, dataset: Dataset, places: Places) -> Path:
    """Run what is missing and write the card.

    Returns:
        Path of the card.

    Raises:
        ValueError: numbers that are not finite, or seeds with different numbers.
        OSError: a folder cannot be written; noticed before any work.
    """
    places.results.mkdir(parents=True, exist_ok=True)
    parts = []
    for count, seed in enumerate(plan.seeds, 1):
        key = _part_key(plan, dataset, places)
        path = places.work / "parts" / f"{plan.stem}-{key}-seed{seed}.json"
        part = _read_part(path)
        if part is None:
            _say(places, f"{plan.stem}: seed {seed} ({count} of {len(plan.seeds)})")
            part = one_seed(plan, dataset, seed, places)
            _write_part(path, part)
        else:
            _say(places, f"{plan.stem}: seed {seed} is done already")
        parts.append(part)
    card = results.collect(
        plan.name,
        profile=plan.profile,
        settings=plan.settings,
        values=summarise([part["numbers"] for part in parts]),
        wall_seconds=sum(part["seconds"] for part in parts),
        command=places.command,
        inputs={plan.label: dataset.sha256},
        device=places.device,
    )
    peak = max(part["peak_memory_mb"] for part in parts)
    card = dataclasses.replace(card, peak_memory_mb=round(peak, 1))
    path = places.results / f"{plan.stem}.json"
    results.write(path, card)
    return path


def summarise(per_seed: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Mean, smallest and largest over seeds of every number.

    Raises:
        ValueError: seeds with different names, or a number that is not finite.
    """
    names = list(per_seed[0])
    for other in per_seed[1:]:
        odd = sorted(set(names) ^ set(other))
        if odd:
            raise ValueError(f"not every seed has {', '.join(odd)}")
    return {n: results.summary([numbers[n] for numbers in per_seed]) for n in names}


def plan_of(card: results.Card, seeds: Sequence[int]) -> Plan:
    """The plan that the code of today would follow for a card."""
    there = cast(Mapping[str, Any], card.settings["subject"])
    today = subject(there["model"], profile=card.profile, data=there["data"])
    label = cast(str, card.settings["label"])
    return Plan(card.experiment, card.profile, today, tuple(seeds), label)


def check_data(name: str, root: str | None) -> None:
    """Refuse what cannot work before anything is loaded.

    Raises:
        ValueError: no such data, or a folder without its place.
    """
    if name not in data.NAMES:
        raise ValueError(f"data must be one of {', '.join(data.NAMES)}, got {name!r}")
    if name == "folder" and root is None:
        raise ValueError("data 'folder' needs --root, the folder with train/ and test/")


def _part_key(plan: Plan, dataset: Dataset, places: Places) -> str:
    return results.digest(
        plan.settings
        | {
            "seeds": [],
            "data": dataset.sha256,
            "source": source(),
            "device": places.device,
        }
    )


def source() -> str:
    """SHA-256 of the package's modules: known without git, and with changed files."""
    folder = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _read_part(path: Path) -> dict[str, Any] | None:
    try:
        part = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    wanted = {"numbers", "seconds", "peak_memory_mb"}
    return part if isinstance(part, dict) and set(part) == wanted else None


def _write_part(path: Path, part: Mapping[str, object]) -> None:
    text = json.dumps(part, indent=1, allow_nan=False) + "\n"
    results.write_whole(path, text)


def _say(places: Places, text: str) -> None:
    if places.progress:
        print(text, file=sys.stderr, flush=True)
