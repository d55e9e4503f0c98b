"""From the name of an experiment to a result card, one seed after another.

Every finished seed is filed as a small part (JSON for the numbers, NPZ for what the
figures show), and every network as a checkpoint, so that an interrupted run goes on
where it stopped. A part is used again only if the settings, the images, the source of
the modules involved, torch, the device and the number of threads are the same.

`execute` does all of it in a row. `train`, `measure` and `file_card` are its pieces:
they may run in different processes that share the folder `Places.work`.
"""

import dataclasses
import importlib
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from flatbook import _gpu, _sources, data, results, training
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
    dictionary of the networks of a seed under these names. One that can also look at
    an adversarially trained network alone has ``robust_sizes(profile, data)``.

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

    def panels(self, result: Any) -> Mapping[str, Tensor]:  # noqa: ANN401
        """What the paper's figure shows, as small arrays of fixed shapes."""

    def passes(
        self,
        sizes: Any,  # noqa: ANN401
        *,
        classes: int,
        test_images: int,
        networks: int = 1,
    ) -> float:
        """The work of `run`, in forward passes of one image."""


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
    def robust(self) -> bool:
        """Whether the networks are adversarially trained."""
        return self.subject.recipe.adversary is not None

    @property
    def sizes(self) -> Any:  # noqa: ANN401
        """Sizes of the experiment for this profile, these images and networks.

        Raises:
            ValueError: adversarially trained networks, and the experiment has no
                sizes for them.
        """
        module = self.experiment
        if not self.robust:
            return module.sizes(self.profile, self.subject.data)
        if not hasattr(module, "robust_sizes"):
            raise ValueError(f"{self.name} has no sizes for adversarial training")
        return module.robust_sizes(self.profile, self.subject.data)

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
        model = self.subject.model + "-adversarial" * self.robust
        return f"{self.name}-{model}-{label}-{self.profile}"


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


def train(
    plan: Plan, dataset: Dataset, seed: int, variant: str, places: Places
) -> nn.Module:
    """One network of a seed, trained or read from its checkpoint."""
    return plan.subject.train(
        dataset,
        seed,
        changes=plan.variants[variant],
        device=places.device,
        folder=places.work / "checkpoints",
        progress=places.progress,
    )


def checkpoint_path(
    plan: Plan, sha256: str, seed: int, variant: str, places: Places
) -> Path:
    """Where a network of a seed is kept, or will be."""
    recipe = dataclasses.replace(
        plan.subject.recipe, seed=seed, **plan.variants[variant]
    )
    return places.work / "checkpoints" / plan.subject.checkpoint(sha256, recipe)


def training_seconds(plan: Plan, sha256: str, seed: int, places: Places) -> float:
    """Wall time of the training of a seed's networks, whichever run did it."""
    paths = (
        checkpoint_path(plan, sha256, seed, name, places) for name in plan.variants
    )
    return math.fsum(s for path in paths for s in training.history_of(path).seconds)


def one_seed(plan: Plan, dataset: Dataset, seed: int, places: Places) -> "Part":
    """Train, run and measure one seed."""
    nets: Any = {
        name: train(plan, dataset, seed, name, places) for name in plan.variants
    }
    chosen = nets if plan.compares else nets["standard"]
    device, start = torch.device(places.device), time.perf_counter()
    with _gpu.measuring(device):
        result = plan.experiment.run(chosen, dataset, plan.sizes)
        numbers = {k: float(v) for k, v in plan.experiment.numbers(result).items()}
        shown = plan.experiment.panels(result)
        panels = {name: _small(array) for name, array in shown.items()}
    measuring = time.perf_counter() - start
    return Part(
        numbers=numbers,
        panels=panels,
        seconds=training_seconds(plan, dataset.sha256, seed, places) + measuring,
        peak_memory_mb=results.peak_memory_mb(device),
        device=results.device_name(device),
        data=dataset.sha256,
    )


@dataclass(frozen=True)
class Part:
    """What one seed leaves.

    Attributes:
        numbers: for the card.
        panels: for the figures.
        seconds: wall time of measuring, and of `training_seconds`.
        peak_memory_mb: of the process or the GPU.
        device: processor or GPU.
        data: SHA-256 of the images.
    """

    numbers: Mapping[str, float]
    panels: Mapping[str, np.ndarray]
    seconds: float
    peak_memory_mb: float
    device: str
    data: str


def execute(plan: Plan, dataset: Dataset, places: Places) -> Path:
    """Run what is missing and write the card.

    Returns:
        Path of the card; the arrays of its figure lie beside it, with suffix .npz.

    Raises:
        ValueError: numbers that are not finite, or seeds with different numbers.
        OSError: a folder cannot be written; noticed before any work.
    """
    places.results.mkdir(parents=True, exist_ok=True)
    for count, seed in enumerate(plan.seeds, 1):
        if read_part(plan, dataset.sha256, seed, places) is None:
            say(places, f"{plan.stem}: seed {seed} ({count} of {len(plan.seeds)})")
        else:
            say(places, f"{plan.stem}: seed {seed} is done already")
        measure(plan, dataset, seed, places)
    return file_card(plan, dataset.sha256, places)


def measure(plan: Plan, dataset: Dataset, seed: int, places: Places) -> Part:
    """The part of a seed, read where it is done, else made and filed.

    Raises:
        ValueError: a number is not finite.
    """
    part = read_part(plan, dataset.sha256, seed, places)
    if part is None:
        part = one_seed(plan, dataset, seed, places)
        _write_part(part_path(plan, dataset.sha256, seed, places), part)
    return part


def file_card(plan: Plan, sha256: str, places: Places) -> Path:
    """Collect the parts of all seeds in a card, with the arrays of its figure.

    A card that says the same already stays, with the commit and the date it has.

    Args:
        plan: whose seeds are done.
        sha256: of the images.
        places: where parts and cards lie.

    Raises:
        ValueError: a seed is missing, or the seeds have different numbers or arrays.
    """
    parts = [_need_part(plan, sha256, seed, places) for seed in plan.seeds]
    arrays = results.pack(stack([part.panels for part in parts]))
    path = places.results / f"{plan.stem}.json"
    card = results.collect(
        plan.name,
        profile=plan.profile,
        settings=plan.settings,
        values=summarise([part.numbers for part in parts]),
        wall_seconds=sum(part.seconds for part in parts),
        command=places.command,
        inputs={plan.label: sha256},
    )
    card = dataclasses.replace(
        card,
        device=", ".join(dict.fromkeys(part.device for part in parts)),
        peak_memory_mb=round(max(part.peak_memory_mb for part in parts), 1),
        arrays=results.hash_bytes(arrays),
    )
    if not _is_filed(path, card):
        results.write_whole(path.with_suffix(".npz"), arrays)
        results.write(path, card)
    return path


def _is_filed(path: Path, card: results.Card) -> bool:
    """Whether a card with this outcome and its arrays are there; it then stays."""
    try:
        results.unpack(path.with_suffix(".npz"), card.arrays)
        return results.read(path).outcome == card.outcome
    except (FileNotFoundError, ValueError):
        return False


def stack(
    per_seed: Sequence[Mapping[str, np.ndarray]],
) -> dict[str, np.ndarray]:
    """Arrays of several seeds with the seeds as a new first axis.

    Raises:
        ValueError: not every seed has the same names and shapes.
    """
    shapes = [{k: v.shape for k, v in arrays.items()} for arrays in per_seed]
    for other in shapes[1:]:
        odd = sorted(
            name
            for name in {*shapes[0], *other}
            if shapes[0].get(name) != other.get(name)
        )
        if odd:
            raise ValueError(f"seeds differ in the shape of {', '.join(odd)}")
    return {name: np.stack([arrays[name] for arrays in per_seed]) for name in shapes[0]}


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
    today = subject(
        there["model"],
        profile=card.profile,
        data=there["data"],
        adversarial=there["recipe"].get("adversary") is not None,
    )
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


def check_device(name: str) -> None:
    """Refuse a device that torch does not know or cannot use.

    Raises:
        ValueError: with the reason.
    """
    try:
        kind = torch.device(name).type
    except RuntimeError as error:
        raise ValueError(f"device {name!r}: {first_line(error)}") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "device cuda: there is no GPU that this torch can use; leave --device out "
            "to run on the processor"
        )


def check_seeds(seeds: Sequence[int]) -> None:
    """Refuse a seed that comes twice or that nothing can be drawn with.

    Raises:
        ValueError: with all of them.
    """
    if len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ValueError(f"seeds must be different and at least 0, got {list(seeds)}")


def first_line(error: BaseException) -> str:
    """What an error says first, or its name."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def source(name: str) -> str:
    """SHA-256 of the modules that decide the numbers of an experiment."""
    stages = (name, "_runner", "_subjects")
    return _sources.digest(*(f"flatbook.experiments.{stage}" for stage in stages))


def part_path(plan: Plan, sha256: str, seed: int, places: Places) -> Path:
    """Where the part of a seed lies, or will lie; the arrays have suffix .npz."""
    key = results.digest(
        plan.settings
        | {
            "seeds": [],
            "data": sha256,
            "source": source(plan.name),
            "torch": torch.__version__,
            "device": places.device,
            "threads": torch.get_num_threads(),
        }
    )
    return places.work / "parts" / f"{plan.stem}-{key}-seed{seed}.json"


def read_part(plan: Plan, sha256: str, seed: int, places: Places) -> Part | None:
    """The part of a seed; None where it is missing or damaged."""
    path = part_path(plan, sha256, seed, places)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        expected = content.pop("arrays")
        panels = results.unpack(path.with_suffix(".npz"), expected)
        return Part(panels=panels, **content)
    except (FileNotFoundError, AttributeError, KeyError, TypeError, ValueError):
        return None


def _need_part(plan: Plan, sha256: str, seed: int, places: Places) -> Part:
    part = read_part(plan, sha256, seed, places)
    if part is None:
        path = part_path(plan, sha256, seed, places)
        raise ValueError(f"{plan.stem}: seed {seed} is not done: expected {path}")
    return part


def _write_part(path: Path, part: Part) -> None:
    """The arrays first: a part counts as done when its JSON file is there."""
    arrays = results.pack(part.panels)
    content = {k: v for k, v in vars(part).items() if k != "panels"}
    content["arrays"] = results.hash_bytes(arrays)
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    results.write_whole(path.with_suffix(".npz"), arrays)
    results.write_whole(path, text)


def _small(array: Tensor) -> np.ndarray:
    """For a figure, single precision is enough."""
    values = array.detach().cpu()
    return (values.float() if values.is_floating_point() else values).numpy()


def say(places: Places, text: str) -> None:
    """A line on the standard error, where progress is wanted."""
    if places.progress:
        print(text, file=sys.stderr, flush=True)
