"""What 16 bits change: in training, in attacks, and in what is measured.

    python -m benchmarks precision                              digits, embedded
    python -m benchmarks precision --data folder --root PATH    images of your own

Three tables, each over some seeds:

1. networks trained in 32 and in 16 bits (`Recipe.half`), measured in float64. A
   difference counts if it is larger than what another seed makes;
2. one attack with features in float32 and, under autocast, in 16 bits. The points are
   looked at again in float64;
3. the relative error of relative sharpness (kappa) by where it loses bits: in the
   features or in the formula. TensorFloat-32, which GPUs use for float32 convolutions
   unless told not to, is imitated by rounding what a convolution multiplies.

What the book decides from it:

* training may use 16 bits (`Recipe.half`), also to attack its images;
* points of an attack may be found in 16 bits, if they are looked at again in full.
  The experiments do not: they record what the attack saw, in float32;
* everything measured is computed in float32 or better, without autocast and without
  TensorFloat-32 (`flatbook._gpu.measuring`).
"""

import argparse
import copy
import statistics
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from benchmarks import networks, table
from flatbook import attacks, curvature, data, models, softmax, training

BITS: dict[str, torch.dtype | None] = {
    "float32": None,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
Row = tuple[str, Sequence[float]]


def lowered(dtype: torch.dtype | None):
    """Autocast to a 16-bit type, or nothing for None."""
    return nullcontext() if dtype is None else torch.autocast("cpu", dtype)


def tensorfloat(x: Tensor) -> Tensor:
    """Round float32 to the 10 bits after the point that TensorFloat-32 keeps.

    >>> tensorfloat(torch.tensor([1.0, 1 + 2**-10, 1 + 2**-12])).tolist()
    [1.0, 1.0009765625, 1.0]
    """
    whole = x.contiguous().view(torch.int32)
    even = (whole >> 13) & 1
    return ((whole + 0xFFF + even) & ~0x1FFF).view(torch.float32)


def imitation(model: nn.Module) -> nn.Module:
    """A copy whose convolutions multiply TensorFloat-32 and add in float32."""
    twin = copy.deepcopy(model)
    for layer in twin.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data = tensorfloat(layer.weight.data)
            layer.register_forward_pre_hook(lambda _, args: (tensorfloat(args[0]),))
    return twin


@torch.no_grad()
def features(model: nn.Module, x: Tensor) -> Tensor:
    """Of all images, in passes of 250."""
    return torch.cat([models.check_model(model)[0](part) for part in x.split(250)])


def sharpness(head: nn.Linear, phi: Tensor, dtype: torch.dtype) -> Tensor:
    """Kappa from features, with logits and formula in a type; returned in float64."""
    weight, phi = head.weight.detach().to(dtype), phi.to(dtype)
    bias = torch.zeros_like(weight[:, 0]) if head.bias is None else head.bias.detach()
    z = phi @ weight.T + bias.to(dtype)
    if dtype in (torch.float32, torch.float64):
        return curvature.relative_sharpness(weight, phi, z).double()
    # The library refuses such types; this is the same formula as anyone writes it.
    p = z.softmax(1)
    gini = (p * (1 - p)).sum(1)
    return ((weight**2).sum() * (phi**2).sum(1) * gini).double()


def looked_at(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and kappa in float64 throughout."""
    twin = copy.deepcopy(model).double()
    phi = features(twin, x.double())
    with torch.no_grad():
        z = twin.head(phi)
    return z, sharpness(twin.head, phi, torch.float64)


def trained(
    dataset: data.Dataset, arguments: argparse.Namespace, seed: int, half: bool
) -> models.Model:
    """One network, in evaluation mode."""
    recipe = training.Recipe(
        epochs=arguments.epochs,
        augment=arguments.data != "digits",
        weight_decay=5e-4,
        seed=seed,
        half=half,
    )
    return networks.trained(dataset, recipe, width=arguments.width)


def state_of(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    """What a network is like on the images it gets right."""
    z, kappa = looked_at(model, x)
    right = z.argmax(1) == y
    margins = softmax.margin(z, y)[right]
    return {
        "accuracy": right.double().mean().item(),
        "median margin": margins.median().item(),
        "median log10 kappa": kappa[right].log10().median().item(),
    }


def training_rows(pairs: Sequence[tuple], x: Tensor, y: Tensor) -> list[Row]:
    """Mean in 32 bits, spread over seeds, mean difference in 16 bits, its spread."""
    seen = [tuple(state_of(model, x, y) for model in pair) for pair in pairs]
    rows = []
    for name in seen[0][0]:
        full = [one[name] for one, _ in seen]
        moved = [other[name] - one[name] for one, other in seen]
        spread = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in (full, moved)]
        values = (statistics.mean(full), spread[0], statistics.mean(moved), spread[1])
        rows.append((name, values))
    return rows


def attack_row(
    model: nn.Module, x: Tensor, y: Tensor, ball: dict, dtype: torch.dtype | None
) -> tuple[dict[str, float], Tensor]:
    """What an attack ends in, and the median kappa along it, looked at again."""
    with lowered(dtype):
        path = attacks.pgd(model, x, y, **ball)
    z, kappa = looked_at(model, path.points.flatten(0, 1))
    steps = len(path.points)
    recorded = sharpness(
        models.check_model(model)[1], path.features.flatten(0, 1), torch.float64
    )
    error = (recorded / kappa - 1).abs()
    robust = softmax.margin(z.view(steps, len(y), -1)[-1], y) > 0
    found = {
        "robust": robust.double().mean().item(),
        "zero gradients": path.zero_gradients.double().mean().item(),
        "median error": error.median().item(),
        "99 %": error.quantile(0.99).item(),
    }
    return found, kappa.view(steps, -1).log10().median(1).values


def attack_rows(
    model_list: Sequence[nn.Module], x: Tensor, y: Tensor, ball: dict
) -> list[Row]:
    """Means over the networks for each type; last, how far the median kappa moves."""
    rows, reference = [], []
    for name, dtype in BITS.items():
        seen = [attack_row(model, x, y, ball, dtype) for model in model_list]
        reference = reference or [curve for _, curve in seen]
        moved = [
            (curve - one).abs().max().item()
            for (_, curve), one in zip(seen, reference, strict=True)
        ]
        keys = seen[0][0]
        means = [statistics.mean(found[key] for found, _ in seen) for key in keys]
        rows.append((name, (*means, max(moved))))
    return rows


def kappa_rows(model: nn.Module, x: Tensor) -> list[Row]:
    """Median, 99 % and largest relative error of kappa against float64."""
    head, exact = models.check_model(model)[1], looked_at(model, x)[1]
    plain, cases = features(model, x), {}
    full = torch.float64
    cases["features and formula in float32"] = plain, torch.float32
    cases["features in float32, formula in float64"] = plain, full
    cases["features in TensorFloat-32 (imitated)"] = features(imitation(model), x), full
    for name, dtype in list(BITS.items())[1:]:
        with lowered(dtype):
            rough = features(model, x).float()
        cases[f"features in {name}"] = rough, full
        cases[f"formula in {name}"] = plain, dtype
        cases[f"features and formula in {name}"] = rough, dtype
    rows = []
    for name, (phi, dtype) in cases.items():
        error = (sharpness(head, phi, dtype) / exact - 1).abs().nan_to_num(torch.inf)
        ends = error.median(), error.sort().values[int(0.99 * len(error))], error.max()
        rows.append((name, [value.item() for value in ends]))
    return rows


def show(title: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """One table, with three digits of each number."""
    cells = {name: [f"{value:.3g}" for value in values] for name, values in rows}
    table.show(title, cells, columns)


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = networks.parser("precision")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--width", type=float, default=0.25)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the networks and print the three tables."""
    chosen = options(arguments)
    dataset = data.load(chosen.data, root=chosen.root, limit=chosen.limit)
    x, y = dataset.x_test[:1000], dataset.y_test[:1000]
    pairs = [
        tuple(trained(dataset, chosen, seed, half) for half in (False, True))
        for seed in range(chosen.seeds)
    ]
    print(f"Precision: {chosen.data}, ResNet-18 x {chosen.width}, {chosen.seeds} seeds")
    columns = ("float32", "sd of seeds", "16 bit: change", "sd of change")
    show("training", columns, training_rows(pairs, x, y))
    eps = networks.radius(chosen)
    ball = {"norm": "linf", "eps": eps, "step_size": eps / 4, "steps": 10}
    columns = ("robust", "zero gradients", "kappa: error", "99 %", "log10 kappa")
    plain = [model for model, _ in pairs]
    few = slice(0, 300)
    rows = attack_rows(plain, x[few], y[few], ball)
    show("attack (error of recorded kappa; move of its median)", columns, rows)
    show("kappa, relative error", ("median", "99 %", "max"), kappa_rows(plain[0], x))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
