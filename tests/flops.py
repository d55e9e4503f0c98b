"""The work of a function in forward passes of one image, as PyTorch counts it."""

from contextlib import nullcontext

import torch
from torch.utils.flop_counter import FlopCounterMode


class Nowhere(nullcontext):
    """Stands for the tracker of modules, which refuses gradients in an input."""

    parents = ("Global",)


def flops(work):
    """Multiplications and additions of matrix products and convolutions."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = Nowhere()
    with counter:
        work()
    return counter.get_total_flops()


def passes(work, model, image):
    """Of `work`, over those of a forward pass of (1, C, H, W) through the model."""
    with torch.no_grad():
        one = flops(lambda: model(image))
    return flops(work) / one
