"""Random heads, the table of cases that the numeric tests share."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def head(
    n: int, k: int, d: int, *, scale: float = 1.0, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weight (k, d), features (n, d), logits (n, k) and labels (n,) in float64."""
    g = generator(seed)
    weight = torch.randn(k, d, generator=g, dtype=torch.float64) * scale
    features = torch.randn(n, d, generator=g, dtype=torch.float64)
    labels = torch.randint(k, (n,), generator=g)
    return weight, features, features @ weight.T, labels


def heads() -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Sizes k = 2, 3, 10; batches of 1 and 7; equal, zero and saturated rows."""
    cases = [
        head(n, k, d, scale=scale, seed=seed)
        for seed, (k, d) in enumerate([(2, 1), (2, 5), (3, 2), (10, 4), (10, 30)])
        for n in (1, 7)
        for scale in (0.0, 0.1, 1.0, 5.0)
    ]
    weight, features, _, labels = head(7, 3, 4, seed=9)
    weight[1] = weight[0]
    return [*cases, (weight, features, features @ weight.T, labels)]


def head_ids() -> list[str]:
    return [
        f"k{w.shape[0]}-d{w.shape[1]}-n{len(f)}-w{w.abs().max():.1f}"
        for w, f, _, _ in heads()
    ]


def dense(linear: Callable[[Tensor], Tensor], shape: Sequence[int]) -> Tensor:
    """The matrix of a linear map of batches (N, *shape), column by column."""
    size = math.prod(shape)
    return linear(torch.eye(size, dtype=torch.float64).view(size, *shape)).flatten(1).mT
