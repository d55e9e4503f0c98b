"""Which experiment, on which network and images, is which figure of the paper."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from flatbook import data as images
from flatbook import models
from flatbook.experiments._runner import NAMES, Plan
from flatbook.experiments._subjects import subject

__all__ = ["FIGURES", "GRID", "STAND_INS", "Entry", "plan", "select"]


@dataclass(frozen=True)
class Entry:
    """One run of an experiment, for all its seeds.

    Attributes:
        figures: of the paper, separated by blanks; ``d3`` is its appendix D.3.
        experiment: one of `flatbook.experiments.NAMES`.
        model: one of `flatbook.models.NAMES`.
        data: one of `flatbook.data.NAMES`.
        adversarial: whether the network is trained on attacked images.
    """

    figures: str
    experiment: str
    model: str
    data: str
    adversarial: bool = False

    def __str__(self) -> str:
        model = self.model + " (adversarial)" * self.adversarial
        return f"{self.experiment}, {model}, {self.data}"


GRID: tuple[Entry, ...] = (
    Entry("fig2 fig6", "loss_geometry", "resnet18", "cifar10"),
    Entry("fig7", "loss_geometry", "resnet18", "cifar100"),
    Entry("fig8", "loss_geometry", "wrn28_4", "cifar10"),
    Entry("fig9", "loss_geometry", "wrn28_4", "cifar100"),
    Entry("fig10", "loss_geometry", "densenet121", "cifar10"),
    Entry("fig11", "loss_geometry", "densenet121", "cifar100"),
    Entry("fig4", "loss_geometry", "vgg11_bn", "cifar10"),
    Entry("fig5", "loss_geometry", "vgg11_bn", "cifar100"),
    Entry("fig3 fig16", "uncanny_valley", "resnet18", "cifar10"),
    Entry("fig16", "uncanny_valley", "resnet18", "cifar100"),
    Entry("fig16", "uncanny_valley", "wrn28_4", "cifar10"),
    Entry("fig16", "uncanny_valley", "wrn28_4", "cifar100"),
    Entry("fig16", "uncanny_valley", "densenet121", "cifar10"),
    Entry("fig16", "uncanny_valley", "densenet121", "cifar100"),
    Entry("fig16", "uncanny_valley", "vgg11_bn", "cifar10"),
    Entry("fig16", "uncanny_valley", "vgg11_bn", "cifar100"),
    Entry("fig12", "loss_geometry", "resnet18", "cifar10", adversarial=True),
    Entry("d2", "adversarial_training", "resnet18", "cifar10"),
    Entry("fig13 d3", "gradient_masking", "resnet18", "cifar10"),
    Entry("d4", "detection", "resnet18", "cifar10"),
    Entry("fig14", "earlier_layers", "wrn28_4", "cifar10"),
)
"""All runs of the paper but figure 15, which needs language models."""

FIGURES = tuple(dict.fromkeys(" ".join(e.figures for e in GRID).split()))
STAND_INS = ("digits", "folder")
"""Images that may take the place of CIFAR-10."""


def select(
    *,
    only: Iterable[str] = (),
    model: Iterable[str] = (),
    data: Iterable[str] = (),
) -> list[Entry]:
    """The entries of `GRID` that are asked for, in its order; all by default.

    Args:
        only: figures (``"fig3"``, ``"d4"``) or experiments.
        model: networks. One that the paper does not have, such as ``"mlp"``, takes
            the place of its ResNet-18.
        data: images. ``"digits"`` and ``"folder"`` take the place of CIFAR-10.

    Raises:
        ValueError: an unknown name, or nothing in the grid fits.
    """
    only, model, data = list(only), list(model), list(data)
    _check("only", only, (*FIGURES, *NAMES))
    _check("model", model, models.NAMES)
    _check("data", data, images.NAMES)
    found = [
        entry
        for entry in _on_models(model)
        if not only or {*entry.figures.split(), entry.experiment} & set(only)
    ]
    chosen = _on_images(found, data)
    if not chosen:
        raise ValueError(
            f"nothing in the grid has figure {', '.join(only) or 'any'}, network "
            f"{', '.join(model) or 'any'} and images {', '.join(data) or 'any'}"
        )
    return chosen


def plan(
    entry: Entry,
    *,
    profile: str,
    seeds: Sequence[int] = (0, 1, 2),
    label: str | None = None,
) -> Plan:
    """All that decides the numbers of an entry's card.

    Args:
        entry: of the grid.
        profile: one of `flatbook.profiles.NAMES`.
        seeds: of the networks.
        label: what the images are called (default: their name).

    Raises:
        ValueError: a name is unknown.
    """
    what = subject(
        entry.model,
        profile=profile,
        data=entry.data,
        adversarial=entry.adversarial,
    )
    return Plan(entry.experiment, profile, what, tuple(seeds), label or entry.data)


def _on_models(names: Sequence[str]) -> list[Entry]:
    if not names:
        return list(GRID)
    in_paper = {entry.model for entry in GRID}
    found = [entry for entry in GRID if entry.model in names]
    for name in names:
        if name not in in_paper:
            base = [entry for entry in GRID if entry.model == "resnet18"]
            found += [replace(entry, model=name) for entry in base]
    return found


def _on_images(entries: Sequence[Entry], names: Sequence[str]) -> list[Entry]:
    if not names:
        return list(entries)
    found = [entry for entry in entries if entry.data in names]
    for name in names:
        if name in STAND_INS:
            base = [entry for entry in entries if entry.data == "cifar10"]
            found += [replace(entry, data=name) for entry in base]
    return found


def _check(what: str, names: Iterable[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{what} must be one of {', '.join(known)}, got {name!r}")
