"""How far the loss can rise within a distance: maximisers that know no bound.

The rise is convex in the move v, so it is largest on the sphere, and replacing v by the
point of the sphere in the direction of the gradient never lowers it.
"""

import math

import torch
from torch import Tensor


def rise(weight: Tensor, logits: Tensor, labels: Tensor, move: Tensor) -> Tensor:
    """(..., N) rise of the loss for moves (..., N, d): log of the mean of e^u."""
    u = move @ weight.T
    u = u - u.gather(-1, labels.expand(u.shape[:-1])[..., None])
    log_p = logits.log_softmax(-1)
    small = torch.log1p((log_p.exp() * torch.expm1(u.clamp_max(300))).sum(-1))
    return torch.where(u.amax(-1) > 300, (log_p + u).logsumexp(-1), small)


def exact_increase(
    weight: Tensor, logits: Tensor, labels: Tensor, rho: Tensor, *, steps: int = 15
) -> Tensor:
    """(N,) largest rise within rho: ascents from every w_j - w_y and from chance.

    The five best starts of each sample are followed.
    """
    n, d = len(logits), weight.shape[1]
    g = torch.Generator().manual_seed(0)
    chance = torch.randn(4, 1, d, generator=g, dtype=weight.dtype).expand(-1, n, -1)
    move = on_sphere(torch.cat([weight[:, None] - weight[labels], chance]), rho)
    first = rise(weight, logits, labels, move)
    best = first.amax(0).clamp_min(0)
    top = first.topk(min(5, len(first)), dim=0).indices
    move = move.gather(0, top[:, :, None].expand(-1, -1, d))
    for _ in range(steps):
        slope = (logits + move @ weight.T).softmax(-1) @ weight - weight[labels]
        move = on_sphere(slope, rho)
        best = torch.maximum(best, rise(weight, logits, labels, move).amax(0))
    return best


def on_sphere(direction: Tensor, rho: Tensor) -> Tensor:
    """Vectors of length rho; zero stays zero."""
    length = torch.linalg.vector_norm(direction, dim=-1, keepdim=True)
    return rho[:, None] * torch.where(length > 0, direction / length, 0.0)


def brute_increase(
    weight: Tensor, logits: Tensor, labels: Tensor, rho: Tensor, *, points: int = 4000
) -> Tensor:
    """(N,) the same for two features: the best of many points of the circle."""
    angle = torch.linspace(0, 2 * math.pi, points, dtype=weight.dtype)[:, None]
    circle = torch.stack([angle.cos(), angle.sin()], -1) * rho[:, None]
    return rise(weight, logits, labels, circle).amax(0)
