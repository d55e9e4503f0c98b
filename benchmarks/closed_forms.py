"""What the closed forms cost beside the obvious ways, as ratios within one run.

python -m benchmarks.closed_forms      a minute on one core
"""

import statistics
import subprocess
import sys

import numpy as np
import torch

from benchmarks import table
from benchmarks.timing import Job, ratio
from flatbook import attacks, curvature, models, radius


def head_trace() -> tuple[Job, Job]:
    """Dense Hessian of 8 heads by torch.func, against the closed form for 4,096."""
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(10, 64, generator=g)
    phi = torch.randn(4096, 64, generator=g)

    def loss(w: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        z = w @ v
        return z.logsumexp(0) - z[0]

    hessian = torch.func.hessian(loss)
    logits = phi @ weight.T
    return (
        lambda: [hessian(weight, v) for v in phi[:8]],
        lambda: curvature.hessian_trace(phi, logits),
    )


def input_trace() -> tuple[Job, Job]:
    """Dense input Hessian of 4 digits by torch.func, against 9 products for 64."""
    model = models.build("resnet18", 10, width=0.125, in_channels=1, image_size=8)
    model.eval().requires_grad_(False)
    x = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    hessian = torch.func.hessian(lambda v: model(v[None])[0].logsumexp(0))
    return (
        lambda: [hessian(v) for v in x[:4]],
        lambda: curvature.input_hessian_trace(model, x),
    )


def cubic() -> tuple[Job, Job]:
    """numpy.roots for 2,000 cubics, against the closed form for 1,000,000."""
    g = torch.Generator().manual_seed(2)
    values = torch.rand(4, 1_000_000, generator=g, dtype=torch.float64)
    eps, c, b, a = values[:, :2000].tolist()
    rows = list(zip(a, b, c, eps, strict=True))
    return (
        lambda: [np.roots([a, b, c, -e]) for a, b, c, e in rows],
        lambda: radius.cubic_radius(*values),
    )


def recorded_attack() -> tuple[Job, Job]:
    """Attack and a second look at every point, against the recording attack."""
    model = models.build("resnet18", 10, width=0.125, in_channels=1, image_size=8)
    x = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    y = torch.arange(64) % 10
    settings = {"norm": "linf", "eps": 0.2, "step_size": 0.05, "steps": 10}

    def twice() -> None:
        path = attacks.pgd(model, x, y, **settings)
        with torch.no_grad():
            for point in path.points:
                model(point)

    return twice, lambda: attacks.pgd(model, x, y, **settings)


def import_seconds() -> tuple[float, float]:
    """Seconds to import torch, and what flatbook adds; medians of five."""

    def run(code: str) -> float:
        clock = "import time; t = time.perf_counter();"
        line = f"{clock} {code}; print(time.perf_counter() - t)"
        return float(subprocess.check_output([sys.executable, "-c", line]))

    alone = [run("import torch") for _ in range(5)]
    added = "import torch; t = time.perf_counter(); import flatbook"
    return statistics.median(alone), statistics.median(run(added) for _ in range(5))


CASES = {
    "head trace (8 dense / 4,096 closed)": (head_trace, 4096 / 8),
    "input trace (4 dense / 64 by products)": (input_trace, 64 / 4),
    "cubic radius (2,000 roots / 1,000,000)": (cubic, 1_000_000 / 2000),
    "attack (record twice / once)": (recorded_attack, 1),
}


def main() -> None:
    """Print one line for each case."""
    rows = {}
    for name, (make, items) in CASES.items():
        middle, low, high = (items * r for r in ratio(*make()))
        rows[name] = (table.spread((middle, low, high)),)
    table.show("Closed forms, ratio per item: median (range)", rows)
    alone, added = import_seconds()
    print(f"import torch {alone:.2f} s; flatbook adds {added:.4f} s")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
