"""Images per second and the share of what the device can do.

    python -m benchmarks throughput --width .25 --batch 64      a minute on one core
    python -m benchmarks throughput --device cuda --batch 512   on a GPU

Three things of a ResNet-18 on images of 32 x 32 are timed: a step of training, a step
of an attack, and relative sharpness (kappa) of recorded features. Each in variants
that take turns within one run:

* float32 or 16 bits; on GPUs float32 also with TensorFloat-32, which training uses;
* memory channels first or channels last;
* eager or compiled by `torch.compile` (``--compile``, the default on a GPU); the
  column `first` holds the seconds of its first call;
* for attacks batch normalisation folded or not;
* for training on a GPU, cuDNN free to choose, and free to try, what is not the same
  from run to run.

The line with a star is what the book does. The limit is measured in the same run: the
best rate of square matrix products in the same type, and for kappa, which computes
next to nothing, the best rate of copying. Operations are counted by torch (a
multiply-add is two); convolutions and products only. The share says how much of the
time such products need: the rest are normalisation, activations, waiting.

On a CPU compiling gains little or nothing in the median, and its first call takes as
long as many steps. Whether it pays on a GPU cannot be said from a CPU. `training.train`
has no option for it until this benchmark says that it pays there, first call included.
"""

import argparse
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import table
from benchmarks.timing import Job, Times, against, clock, times
from flatbook import _gpu, attacks, curvature, data, models, results, training

CLASSES = 10
TENSORFLOAT = "tensorfloat32"
Wrap = Callable[[Any], Any]
Context = Callable[[], AbstractContextManager]


@dataclass(frozen=True)
class Case:
    """One variant.

    Attributes:
        job: what is timed.
        limit: name of the limit it is compared with.
        items: images, or points, that one call handles.
        work: operations, or bytes, that one call needs at least.
    """

    job: Job
    limit: str
    items: int
    work: float


@dataclass(frozen=True)
class Setup:
    """What is measured on; images and labels lie on the device."""

    device: torch.device
    model: models.Model
    x: Tensor
    y: Tensor
    compiled: bool

    @property
    def half(self) -> str:
        """Name of the 16-bit type of the device."""
        return str(training.half_dtype(self.device)).removeprefix("torch.")


def operations(job: Job) -> int:
    """Floating-point operations of convolutions and products in one call."""
    with FlopCounterMode(display=False) as counter:
        job()
    return counter.get_total_flops()


def least_bytes(*tensors: Tensor) -> int:
    """Bytes that must be moved to read tensors once."""
    return sum(t.numel() * t.element_size() for t in tensors)


def share(case: Case, seconds: float, limit: float) -> float:
    """Part of the limit that a call reaches: work per second over the limit."""
    return case.work / seconds / limit


@contextmanager
def precision(name: str, device: torch.device) -> Iterator[None]:
    """How float32 is computed: in full, with TensorFloat-32, or in 16 bits."""
    with ExitStack() as stack:
        stack.enter_context(_gpu.exact())
        if name == TENSORFLOAT:
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.allow_tf32 = True
        elif name != "float32":
            kind = getattr(torch, name)
            stack.enter_context(torch.autocast(device.type, kind))
        yield


def product_rate(name: str, device: torch.device, scale: float, **turns: Any) -> float:
    """Best operations per second of a square matrix product."""
    sizes = (2048, 4096, 8192) if device.type == "cuda" else (256, 512, 1024)
    kind = torch.float32 if name in ("float32", TENSORFLOAT) else getattr(torch, name)
    best = 0.0
    for n in (int(scale * size) for size in sizes):
        a, b = (torch.rand(n, n, device=device).to(kind) for _ in range(2))
        with precision(name, device):
            seen = times({"product": lambda a=a, b=b: a @ b}, **turns)
        best = max(best, 2 * n**3 / min(seen["product"].rounds))
    return best


def copy_rate(device: torch.device, scale: float, **turns: Any) -> float:
    """Best bytes per second of a copy, read and written."""
    count = 2**28 if device.type == "cuda" else 2**24
    source = torch.rand(int(scale * count), device=device)
    goal = torch.empty_like(source)
    seen = times({"copy": lambda: goal.copy_(source)}, **turns)
    return 2 * least_bytes(source) / min(seen["copy"].rounds)


def training_cases(setup: Setup) -> dict[str, Case]:
    """One step of `training.train`, from choosing the images to the new weights."""
    cuda, half = setup.device.type == "cuda", setup.half
    full = TENSORFLOAT if cuda else "float32"
    first = torch.contiguous_format
    cases = {
        f"{full}, channels first": _training(setup, full, layout=first),
        f"{full}, channels last": _training(setup, full),
        f"{half}, channels first": _training(setup, half, layout=first),
        f"{half}, channels last *": _training(setup, half),
    }
    if setup.compiled:
        cases[f"{half}, compiled"] = _training(setup, half, wrap=torch.compile)
    if cuda:
        for name, trials in (("free to choose", False), ("free to try", True)):
            free = partial(_gpu.algorithms, same_bits=False, trials=trials)
            cases[f"{half}, {name}"] = _training(setup, half, chosen=free)
    return cases


def _training(
    setup: Setup,
    name: str,
    *,
    layout: torch.memory_format = torch.channels_last,
    wrap: Wrap | None = None,
    chosen: Context = _gpu.repeatable,
) -> Case:
    images, labels = setup.x.cpu(), setup.y.cpu()
    classes = tuple(map(str, range(CLASSES)))
    noise = data.Dataset("noise", images, labels, images[:2], labels[:2], classes)
    recipe = training.Recipe(
        1, batch_size=len(labels), augment=True, half=name == setup.half
    )
    model = copy.deepcopy(setup.model).to(memory_format=layout).train()
    run = training._Run(model, noise, recipe)
    order = torch.arange(len(labels), device=setup.device)
    work = operations(lambda: run._step(0, order))
    run.model = model if wrap is None else wrap(model)

    def job() -> None:
        with chosen():
            run._step(0, order)

    return Case(job, name, len(labels), work)


def attack_cases(setup: Setup, steps: int) -> dict[str, Case]:
    """The steps of `attacks.pgd`, and all of it: with checks, folding, last point."""
    half, fold = setup.half, models.fold
    first = copy.deepcopy(setup.model).to(memory_format=torch.contiguous_format)
    cases = {
        "float32, channels first": _attack(setup, "float32", steps, lambda _: first),
        "float32, channels last": _attack(setup, "float32", steps, copy.deepcopy),
        "float32, folded": _attack(setup, "float32", steps, fold),
        f"{half}, channels last": _attack(setup, half, steps, copy.deepcopy),
        f"{half}, folded": _attack(setup, half, steps, fold),
    }
    if setup.device.type == "cuda":
        cases[f"{TENSORFLOAT}, folded"] = _attack(setup, TENSORFLOAT, steps, fold)
    if setup.compiled:
        for name in ("float32", half):
            cases[f"{name}, folded, compiled"] = _attack(setup, name, steps, _compiled)
    whole = partial(attacks.pgd, setup.model, setup.x, setup.y, **vars(_ball(steps)))
    all_of_it = replace(cases["float32, folded"], job=whole)
    return cases | {"float32, folded, all of pgd *": all_of_it}


def _ball(steps: int) -> attacks._Ball:
    return attacks._Ball("linf", 0.03, 0.01, steps)


def _compiled(model: models.Model) -> models.Model:
    network = models.fold(model)
    network.features = torch.compile(network.features)  # type: ignore[method-assign]
    return network


def _attack(setup: Setup, name: str, steps: int, prepare: Wrap) -> Case:
    network = prepare(setup.model).eval().requires_grad_(False)
    with precision(name, setup.device):
        attacks._cast_ahead(network.body)

    def job() -> None:
        with precision(name, setup.device):
            record = attacks._Recorder(network, setup.y, "log_odds")
            _ball(steps).climb(record.gradient, setup.x, None)

    return Case(job, name, len(setup.y) * steps, steps * gradient_work(setup))


def gradient_work(setup: Setup) -> int:
    """Operations of one gradient in the images, of a folded network."""
    network, leaf = models.fold(setup.model), setup.x.clone().requires_grad_()
    return operations(lambda: network(leaf).sum().backward())


def kappa_cases(setup: Setup, points: int) -> dict[str, Case]:
    """Relative sharpness of recorded features and logits."""
    weight = setup.model.head.weight.detach()
    phi = torch.rand(points, weight.shape[1], device=setup.device)
    variants = {"float32": (torch.float32, False), "float64 *": (torch.float64, False)}
    if setup.compiled:
        variants["float64, compiled"] = (torch.float64, True)
    cases = {}
    for name, (dtype, compiled) in variants.items():
        values = [t.to(dtype) for t in (weight, phi, phi @ weight.T)]
        formula = curvature.relative_sharpness
        job = partial(torch.compile(formula) if compiled else formula, *values)
        cases[name] = Case(job, "copy", points, least_bytes(*values))
    return cases


def show(
    title: str, cases: Mapping[str, Case], limits: Mapping[str, float], **turns: Any
) -> None:
    """Time the variants and print one line for each."""
    seen = times({name: case.job for name, case in cases.items()}, **turns)
    start: Times = next(iter(seen.values()))
    rows = {}
    for name, own in seen.items():
        case = cases[name]
        part = share(case, own.median, limits[case.limit])
        ratio = table.spread(against(own, start))
        speed = f"{case.items / own.median:,.0f}"
        rows[name] = (speed, f"{part:.1%}", ratio, f"{own.first:.1f}s")
    table.show(title, rows, ("per second", "share", "time / first", "first"))


def limits_of(
    cases: Sequence[Case], device: torch.device, *, rounds: int = 10, scale: float = 1.0
) -> dict[str, float]:
    """What the device can do, in each of the ways that the cases need.

    Less than scale 1 is quicker, and too small to find the best.
    """
    turns = {"rounds": rounds, "now": clock(device)}
    names = dict.fromkeys(case.limit for case in cases)
    found = {n: product_rate(n, device, scale, **turns) for n in names if n != "copy"}
    return found | {"copy": copy_rate(device, scale, **turns)}


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks throughput")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=1, help="of the attack")
    parser.add_argument("--points", type=int, help="at which kappa is taken")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limits", type=float, default=1.0, help="scale: 1 finds them")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction)
    return parser.parse_args(arguments)


def prepared(chosen: argparse.Namespace) -> Setup:
    """The network and random images, on the device."""
    device, draw = torch.device(chosen.device), torch.Generator().manual_seed(0)
    model = models.build("resnet18", CLASSES, width=chosen.width)
    x = torch.rand(chosen.batch, 3, 32, 32, generator=draw)
    y = torch.randint(CLASSES, (chosen.batch,), generator=draw)
    cuda = device.type == "cuda"
    compiled = cuda if chosen.compile is None else chosen.compile
    return Setup(device, model.to(device), x.to(device), y.to(device), compiled)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the limits and print the three tables."""
    chosen = options(arguments)
    setup = prepared(chosen)
    points = chosen.points or (2**20 if setup.device.type == "cuda" else 2**15)
    themes = {
        "training, images": training_cases(setup),
        f"attack of {chosen.steps} steps, images x steps": attack_cases(
            setup, chosen.steps
        ),
        "kappa, points": kappa_cases(setup, points),
    }
    cases = [case for theme in themes.values() for case in theme.values()]
    limits = limits_of(cases, setup.device, scale=chosen.limits)
    name = results.device_name(setup.device)
    print(f"Throughput: ResNet-18 x {chosen.width}, batches of {chosen.batch}, {name}")
    units = {"copy": "GB/s"}
    best = {f"{k}, {units.get(k, 'GFLOP/s')}": v / 1e9 for k, v in limits.items()}
    table.show("limits", {name: (f"{value:,.1f}",) for name, value in best.items()})
    for title, theme in themes.items():
        show(title, theme, limits, rounds=chosen.rounds, now=clock(setup.device))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
