"""The recording attack beside public ones: time, strength, and what recording costs.

    python -m benchmarks.attack                              digits, embedded
    python -m benchmarks.attack --data folder --root PATH    images of your own

The peers are optional: Kim, Torchattacks: a PyTorch repository for adversarial
attacks, 2020, and Rauber et al., Foolbox native, 2020. Neither keeps the path. All
attack one ResNet-18 of a quarter of the width, trained here for some epochs, with the
same settings and without a random start. A recording attack also looks at its last
point: one forward pass more than the others.
"""

import argparse
import contextlib
import copy
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor, nn

from benchmarks import networks, table
from benchmarks.timing import Job, Range, ratios
from flatbook import attacks, data, models, scaling, training

SCALES = (0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 50.0)
Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Setting:
    """Norm and size of an attack; `eps` is for images of 32 x 32 pixels."""

    norm: str
    eps: float
    step_size: float
    steps: int


def settings(eps: float) -> tuple[Setting, Setting]:
    """Ten steps in linf; 25 in l2, in a ball 16 times as wide."""
    wide = 16 * eps
    return (
        Setting("linf", eps, eps / 4, 10),
        Setting("l2", wide, wide / 10, 25),
    )


def ours(setting: Setting, loss: str = "log_odds") -> Attack:
    """This book's attack, recording."""
    return lambda model, x, y: (
        attacks.pgd(model, x, y, loss=loss, **vars(setting)).adversarial
    )


def torchattacks(setting: Setting) -> Attack:
    """PGD of torchattacks, on plain cross-entropy."""
    library = importlib.import_module("torchattacks")
    kind = library.PGD if setting.norm == "linf" else library.PGDL2

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        size = (setting.eps, setting.step_size, setting.steps)
        return kind(model, *size, random_start=False)(x, y)

    return attack


def foolbox(setting: Setting) -> Attack:
    """PGD of foolbox, on plain cross-entropy."""
    library: ModuleType = importlib.import_module("foolbox")
    kind = library.attacks.LinfPGD if setting.norm == "linf" else library.attacks.L2PGD
    pgd = kind(abs_stepsize=setting.step_size, steps=setting.steps, random_start=False)

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        network = library.PyTorchModel(model, bounds=(0, 1), device=x.device)
        return pgd.run(network, x, library.Misclassification(y), epsilon=setting.eps)

    return attack


PEERS: dict[str, Callable[[Setting], Attack]] = {
    "torchattacks": torchattacks,
    "foolbox": foolbox,
}


def installed() -> list[str]:
    """The peers that can be imported; says which cannot."""
    found = []
    for name in PEERS:
        try:
            importlib.import_module(name)
        except ImportError as error:
            wanted = error.name or name
            note = "" if wanted == name else f" ({wanted} is missing)"
            print(f"{name} not installed{note}: pip install {name}")
        else:
            found.append(name)
    return found


def bare(setting: Setting) -> Attack:
    """The same loop in linf on the same folded network, keeping nothing."""

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        network, point = models.fold(model), x
        for _ in range(setting.steps):
            leaf = point.detach().requires_grad_()
            total = attacks.LOSSES["log_odds"](network(leaf), y).sum()
            (gradient,) = torch.autograd.grad(total, leaf)
            point = point + setting.step_size * gradient.sign()
            point = point.clamp(x - setting.eps, x + setting.eps).clamp(0, 1)
        with torch.no_grad():
            network(point)
        return point

    return attack


def in_bf16(attack: Attack) -> Attack:
    """The attack under autocast."""

    def lowered(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            return attack(model, x, y)

    return lowered


def default_layout(model: nn.Module, attack: Attack) -> Attack:
    """The attack on a copy of the model in PyTorch's own layout, channels first.

    `models.build` puts weights channels last. The libraries get the layout that their
    users have: the l2 attack of torchattacks fails on the gradients of the other.
    """
    twin = copy.deepcopy(model)
    twin.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return lambda _, x, y: attack(twin, x, y)


def candidates(
    setting: Setting, peers: Sequence[str], model: nn.Module
) -> dict[str, Attack]:
    """What is timed; the first is what the others are divided by."""
    found = {name: default_layout(model, PEERS[name](setting)) for name in peers}
    if "torchattacks" in peers and setting.norm == "linf":
        found["torchattacks, channels last"] = torchattacks(setting)
    found["flatbook"] = ours(setting)
    return found | {f"{name}, bf16": in_bf16(found[name]) for name in found}


def times(
    model: nn.Module, x: Tensor, y: Tensor, found: Mapping[str, Attack], rounds: int
) -> dict[str, Range]:
    """CPU times, divided by the first one's."""
    jobs: dict[str, Job] = {
        name: lambda attack=attack: attack(model, x, y)
        for name, attack in found.items()
    }
    return ratios(jobs, rounds=rounds)


def scales_share(model: nn.Module, x: Tensor, y: Tensor, setting: Setting) -> Range:
    """Losses and sharpness of a kept path under seven scales, over the attack."""
    path = attacks.pgd(model, x, y, **vars(setting))
    _, head = models.check_model(model)
    features, logits = path.features.flatten(0, 1), path.logits.flatten(0, 1)
    labels = path.labels.repeat(len(path.points))

    def all_scales() -> None:
        scaling.losses(logits, labels, SCALES)
        scaling.log_sharpness(head.weight.detach(), features, logits, SCALES)

    attack = ours(setting)
    jobs: dict[str, Job] = {
        "attack": lambda: attack(model, x, y),
        "scales": all_scales,
    }
    return ratios(jobs, rounds=3)["scales"]


def robust_accuracy(model: nn.Module, x: Tensor, y: Tensor, attack: Attack) -> float:
    """Share of images still right, in float32, attacked in batches of 100."""
    ends = [
        attack(model, *part) for part in zip(x.split(100), y.split(100), strict=True)
    ]
    return training.accuracy(model, torch.cat(ends), y)


def thousand(dataset: data.Dataset) -> tuple[Tensor, Tensor]:
    """The first 1,000 images, of the test set and, if it is smaller, the other."""
    x = torch.cat([dataset.x_test, dataset.x_train])[:1000]
    return x, torch.cat([dataset.y_test, dataset.y_train])[:1000]


def show(title: str, rows: Mapping[str, Range], form: str = ".2f") -> None:
    """One line for each ratio."""
    table.show(title, {name: (table.spread(row, form),) for name, row in rows.items()})


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = networks.parser("attack")
    parser.add_argument("--batch", type=int, default=32, help="images timed")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, then print times, shares and robust accuracies."""
    chosen = options(arguments)
    dataset = data.load(
        chosen.data, root=chosen.root, image_size=32, limit=chosen.limit
    )
    recipe = training.Recipe(chosen.epochs, batch_size=128, half=True)
    model = networks.trained(dataset, recipe)
    x, y = thousand(dataset)
    quick, long = settings(networks.radius(chosen))
    print(f"Attacks: {chosen.data}, ResNet-18 / 4, {chosen.batch} images at a time")
    peers = installed()
    few, tags = x[: chosen.batch], y[: chosen.batch]
    for setting in (quick, long):
        found = candidates(setting, peers, model)
        first = next(iter(found))
        title = f"{setting.norm}, {setting.steps} steps: time over {first}'s"
        show(title, times(model, few, tags, found, chosen.rounds))
    loops = {"the same loop, recording nothing": bare(quick), "flatbook": ours(quick)}
    show("what recording costs", times(model, few, tags, loops, 2 * chosen.rounds))
    share = scales_share(model, few, tags, long)
    scales = {"seven scales of a kept path": share}
    show("what looking again costs, over the attack", scales, ".1%")
    judged = {name: PEERS[name](quick) for name in peers if name == "torchattacks"}
    judged["flatbook, cross_entropy"] = ours(quick, "cross_entropy")
    judged["flatbook"] = ours(quick)
    judged["flatbook, bf16"] = in_bf16(ours(quick))
    right = {"clean": training.accuracy(model, x, y)}
    right |= {n: robust_accuracy(model, x, y, attack) for n, attack in judged.items()}
    table.show(
        f"robust accuracy, linf {quick.eps:.4f}, 10 steps, {len(x)} images",
        {name: (f"{value:.1%}",) for name, value in right.items()},
    )


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        torch.set_num_threads(1)
        main()
