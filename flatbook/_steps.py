"""What a step of training is made of: augmentation, step size and descent.

Nothing here makes a GPU wait for the host or the host for a GPU.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from flatbook import _gpu

__all__ = ["LOSS_SCALE", "Descent", "augment", "step_size"]

# Lifts small gradients into the range of float16; a power of two rounds nothing.
LOSS_SCALE = 2.0**10


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each image by up to an eighth of its size, mirror every other one.

    Pixels that come from outside are 0. Everything is one gather of tensor indices.
    """
    n, channels, size, _ = x.shape
    border = max(1, size // 8)
    shift = torch.randint(2 * border + 1, (2, n, 1), generator=generator)
    mirror = torch.randint(2, (n, 1), generator=generator).bool()
    shift, mirror = (_gpu.send(t, x.device) for t in (shift, mirror))
    image, channel, pixel = (
        torch.arange(count, device=x.device) for count in (n, channels, size)
    )
    rows, columns = shift + pixel
    columns = torch.where(mirror, columns.flip(1), columns)
    index = (
        image[:, None, None, None],
        channel[None, :, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    )
    return pad(x, [border] * 4)[index]


def step_size(lr: float, warmup: float, done: float) -> float:
    """Step size at a share `done` of all steps: a line up, then half a cosine down."""
    if done < warmup:
        return lr * done / warmup
    fall = (done - warmup) / (1 - warmup)
    return lr * (1 + math.cos(math.pi * fall)) / 2


class Descent:
    """Gradient descent with weight decay and Nesterov's momentum.

    v <- momentum v + g,  w <- w - lr (g + momentum v),  g = gradient + decay w.
    The numbers are those of `torch.optim.SGD`, whose first use imports the compiler
    and takes longer than a whole training of the small models of the book. As there,
    each operation takes all parameters at once: on a GPU a few kernels for a network.
    """

    def __init__(self, model: nn.Module, momentum: float, decay: float) -> None:
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.velocity = [torch.zeros_like(p) for p in self.parameters]
        self.momentum, self.decay = momentum, decay
        device = next(model.parameters()).device
        self.skipped = torch.zeros((), dtype=torch.int64, device=device)
        self._forget()

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Move against the gradients and forget them."""
        pairs = zip(self.parameters, self.velocity, strict=True)
        moved = [(p.grad, p.data, v) for p, v in pairs if p.grad is not None]
        if moved:
            gradients, parameters, velocity = map(list, zip(*moved, strict=True))
            steps = list(torch._foreach_add(gradients, parameters, alpha=self.decay))
            torch._foreach_mul_(velocity, self.momentum)
            torch._foreach_add_(velocity, steps)
            torch._foreach_add_(steps, velocity, alpha=self.momentum)
            torch._foreach_sub_(parameters, steps, alpha=lr)
        self._forget()

    @torch.no_grad()
    def scaled_step(self, lr: float) -> None:
        """Step with gradients that are `LOSS_SCALE` times too large, if all are finite.

        Otherwise nothing moves and `skipped` counts one more. The decision stays on
        the device.
        """
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        torch._foreach_div_(gradients, LOSS_SCALE)
        finite = nn.utils.get_total_norm(gradients).isfinite()
        old = [t.clone() for t in (*self.parameters, *self.velocity)]
        self.step(lr)
        for new, kept in zip((*self.parameters, *self.velocity), old, strict=True):
            new.copy_(torch.where(finite, new, kept))
        self.skipped += ~finite

    def _forget(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None
