"""What several experiments do: choose images, attack in pieces, look at a path.

All of it in float32 or better, whatever an autocast around it says. Also the points
of an attack are found in float32, although 16 bits would do for them: the features at
a point are then those that the attack saw, no second look is needed, and next to
training an attack costs little.
"""

from dataclasses import fields

import torch
from torch import Tensor, nn

from flatbook import _gpu, attacks, curvature, models
from flatbook.attacks import Trajectory
from flatbook.data import Dataset


def device_of(model: nn.Module) -> torch.device:
    """Where the parameters of a model lie."""
    return next(model.parameters()).device


def correct(
    model: nn.Module, dataset: Dataset, count: int, *, batch: int = 500
) -> tuple[Tensor, Tensor]:
    """The first test images that a model gets right, on its device.

    Args:
        model: from images to logits.
        dataset: where they come from.
        count: how many at most, at least 1.
        batch: images in a pass.

    Returns:
        Images (N, C, H, W) and labels (N,), N <= count.

    Raises:
        ValueError: if none is right.
    """
    device, kept, found = device_of(model), [], 0
    pairs = zip(dataset.x_test.split(batch), dataset.y_test.split(batch), strict=True)
    with models.evaluating(model), torch.no_grad(), _gpu.measuring(device):
        for x, y in pairs:
            images, labels = x.to(device), y.to(device)
            right = model(images).argmax(1) == labels
            kept.append((images[right], labels[right]))
            found += int(right.sum())
            if found >= count:
                break
    if not found:
        raise ValueError("the model gets no test image right: is it trained?")
    images, labels = (torch.cat(parts)[:count] for parts in zip(*kept, strict=True))
    return images, labels


def attack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    batch: int = 500,
    seed: int | None = None,
    **settings: object,
) -> Trajectory:
    """`attacks.pgd` in batches; the whole path comes back to the CPU.

    Args:
        model: see `attacks.pgd`.
        x: images (N, C, H, W).
        y: labels (N,).
        batch: images attacked together; without a random start the result does not
            depend on it.
        seed: of the random start, where the settings ask for one.
        **settings: of `attacks.pgd`: norm, eps, step_size, steps, loss ...
    """
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    with _gpu.measuring(x.device):
        paths = [
            attacks.pgd(model, images, labels, generator=generator, **settings)  # type: ignore[arg-type]
            for images, labels in zip(x.split(batch), y.split(batch), strict=True)
        ]
    return join(paths)


def join(paths: list[Trajectory]) -> Trajectory:
    """Paths of different images with equally many steps, as one, on the CPU."""
    joined = {}
    for field in fields(Trajectory):
        parts = [getattr(path, field.name).cpu() for path in paths]
        joined[field.name] = torch.cat(parts, dim=min(1, parts[0].ndim - 1))
    return Trajectory(**joined)


def sharpness(model: nn.Module, path: Trajectory, *, power: int = 2) -> Tensor:
    """Relative sharpness at every point of a path: (T + 1, N), float64, on the CPU."""
    weight = models.check_model(model)[1].weight.detach().cpu().double()
    phi, z = path.features.double(), path.logits.double()
    kappa = curvature.relative_sharpness(
        weight, phi.flatten(0, 1), z.flatten(0, 1), power=power
    )
    return kappa.view(z.shape[:2])
