"""How long a run will take and how much memory, before it starts.

Work is counted: floating-point operations of one forward pass, by
`torch.utils.flop_counter`, times the passes of training and of the experiment (its
``passes``). It is divided by a rate that is measured on the device with a few steps of
the same network. Memory counts weights, their gradients and velocities, what a step
keeps for its backward pass, and the images.
"""

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from flatbook import models
from flatbook.data import Dataset
from flatbook.experiments._subjects import Subject
from flatbook.reproduce import _work
from flatbook.reproduce._work import Job
from flatbook.training import Recipe, half_dtype

__all__ = ["Need", "Shape", "forward_flops", "measured_rate", "needs", "shape"]


@dataclass(frozen=True)
class Shape:
    """Of a set of images: how many there are and how large.

    Attributes:
        train: images for training.
        test: images for the test.
        classes: number of classes.
        channels: of an image.
        size: height and width.
    """

    train: int
    test: int
    classes: int
    channels: int
    size: int


@dataclass(frozen=True)
class Need:
    """What a piece needs.

    Attributes:
        name: of the piece, as in the graph.
        flops: floating-point operations.
        memory_mb: on the device.
        done: whether its result is there already.
    """

    name: str
    flops: float
    memory_mb: float
    done: bool


_CIFAR = {"cifar10": 10, "cifar100": 100}
_FLOAT, _HALF = 4, 2
_LONG = 5e10


def shape(subject: Subject, dataset: Dataset | None = None) -> Shape:
    """The shape of a set of images, of CIFAR also where it is not on this machine.

    Raises:
        ValueError: there is no dataset, and the images are not CIFAR.
    """
    if dataset is not None:
        counts = (len(dataset.x_train), len(dataset.x_test), dataset.num_classes)
        return Shape(*counts, dataset.in_channels, dataset.image_size)
    if subject.data not in _CIFAR:
        raise ValueError(f"images {subject.data!r} are needed to know their shape")
    classes = _CIFAR[subject.data]
    train, test = (
        total if subject.limit is None else min(total, classes * subject.limit)
        for total in (50_000, 10_000)
    )
    return Shape(train, test, classes, 3, 32)


def needs(job: Job, images: Shape, *, known: bool = True) -> Iterator[Need]:
    """What every piece of a job needs that trains or measures.

    Args:
        job: an entry with its folders.
        images: their shape.
        known: whether the images are here; finished pieces cannot be told otherwise.
    """
    plan, subject = job.plan, job.plan.subject
    flops = forward_flops(subject, images)
    for seed in plan.seeds:
        for variant, changes in plan.variants.items():
            recipe = replace(subject.recipe, **changes)
            path = job.checkpoint(seed, variant)
            left = recipe.epochs - (_work.epochs_of(path) if known else 0)
            yield Need(
                f"train-{path.stem}",
                flops * left * epoch_passes(recipe, images),
                _memory(subject, images, recipe.batch_size, half=recipe.half),
                left <= 0,
            )
        passes = plan.experiment.passes(
            plan.sizes,
            classes=images.classes,
            test_images=images.test,
            networks=len(plan.variants),
        )
        batch = min(getattr(plan.sizes, "batch", 500), images.test)
        yield Need(
            f"measure-{plan.stem}-{seed}",
            flops * passes,
            _memory(subject, images, batch, half=False),
            known and _work.is_measured(job, seed),
        )


def epoch_passes(recipe: Recipe, images: Shape) -> float:
    """Forward passes of one image in an epoch; a backward pass counts two.

    A step of the attack costs a forward pass and one gradient, in the input alone.
    """
    attack = 0 if recipe.adversary is None else 2 * recipe.adversary.steps
    return images.train * (3 + attack) + images.test


@lru_cache(maxsize=64)
def forward_flops(subject: Subject, images: Shape) -> float:
    """Floating-point operations of the forward pass of one image; on no device."""
    from torch.utils.flop_counter import FlopCounterMode

    network = _network(subject, images, "meta").eval()
    x = _images(images, 2, "meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x)
    return counter.get_total_flops() / len(x)


def measured_rate(
    subject: Subject, images: Shape, device: str, *, batch: int | None = None
) -> float:
    """Floating-point operations a second in training, on a device, now.

    Args:
        subject: network and recipe.
        images: their shape.
        device: where.
        batch: images in a step (default: the recipe's, fewer where a step of a
            processor would take long).
    """
    kind, flops = torch.device(device).type, forward_flops(subject, images)
    few = max(2, int(_LONG / (3 * flops))) if kind == "cpu" else 1 << 20
    size = batch or min(subject.recipe.batch_size, few)
    network = _network(subject, images, device)
    layout = torch.channels_last if kind == "cuda" else torch.contiguous_format
    network.to(memory_format=layout)  # type: ignore[call-overload]
    x = _images(images, size, device).contiguous(memory_format=layout)
    y = torch.zeros(size, dtype=torch.int64, device=device)
    took = []
    for _ in range(4):
        start = time.perf_counter()
        with torch.autocast(
            kind, dtype=half_dtype(device), enabled=subject.recipe.half
        ):
            loss = cross_entropy(network(x), y)
        loss.backward()
        if kind == "cuda":
            torch.cuda.synchronize(device)
        took.append(time.perf_counter() - start)
    return 3 * size * flops / statistics.median(took[1:])


def _memory(subject: Subject, images: Shape, batch: int, *, half: bool) -> float:
    """Megabytes: weights thrice, what a step keeps, and the images."""
    weights, kept = _kept(subject, images)
    pixels = images.channels * images.size**2
    data = (images.train + images.test) * pixels * _FLOAT
    number = _HALF if half else _FLOAT
    return (3 * weights * _FLOAT + batch * kept * number + data) / 2**20


@lru_cache(maxsize=64)
def _kept(subject: Subject, images: Shape) -> tuple[int, float]:
    """Weights, and numbers that a training step keeps for one image."""
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        sizes[id(tensor.untyped_storage())] = tensor.numel()
        held.append(tensor)
        return tensor

    held: list[Tensor] = []
    network, x = _network(subject, images, "meta"), _images(images, 2, "meta")
    mine = {id(p.untyped_storage()) for p in network.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(x)
    numbers = sum(n for key, n in sizes.items() if key not in mine)
    return sum(p.numel() for p in network.parameters()), numbers / len(x)


def _network(subject: Subject, images: Shape, device: str) -> nn.Module:
    network = models.build(
        subject.model,
        images.classes,
        width=subject.width,
        in_channels=images.channels,
        image_size=images.size,
    )
    return network.to(device)


def _images(images: Shape, count: int, device: str) -> Tensor:
    return torch.rand(count, images.channels, images.size, images.size, device=device)
