r"""Fold frozen batch normalisation into the convolution before it.

In evaluation mode batch normalisation is affine, channel by channel,

.. math::
    y = a\,x + b, \qquad a = \gamma / \sqrt{\sigma^2 + \epsilon}, \quad
    b = \beta - \mu a,

so that after a convolution :math:`x = K * u + c` it is one convolution with the
kernel :math:`aK` and the bias :math:`ac + b` (Jacob et al., Quantization and training
of neural networks for efficient integer-arithmetic-only inference, 2018, section
3.2). Where no convolution precedes it, one multiply-add remains.

>>> layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU()).eval()
>>> frozen_copy(layers, replacements(layers))
Sequential(
  (0): Conv2d(3, 4, kernel_size=(1, 1), stride=(1, 1))
  (1): Identity()
  (2): ReLU(inplace=True)
)
"""

import copy
from collections.abc import Set as AbstractSet
from itertools import pairwise
from typing import TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

AnyModule = TypeVar("AnyModule", bound=nn.Module)
Swaps = dict[int, nn.Module]
_SIMPLE = (int, float, str, tuple, list, dict, set, type(None))
_FRESH = {nn.Conv2d, nn.BatchNorm2d, nn.Linear}


class Affine(nn.Module):
    """Frozen batch normalisation, a x + b for each channel of (N, C, H, W)."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        scale, shift = _scale_and_shift(norm)
        self.register_buffer("scale", scale[:, None, None])
        self.register_buffer("shift", shift[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Multiply and add, in the precision of x."""
        return torch.addcmul(self.shift.to(x), x, self.scale.to(x))


def is_plain(model: nn.Module, known: AbstractSet[type]) -> bool:
    """Whether a model does exactly what the types of its modules say.

    Not so with a module of a type that is not `known` (a parametrised module has a
    type of its own), with hooks, with modules that occur twice, or with methods,
    tensors or other objects attached to a module.
    """
    modules = [module for _, module in model.named_modules(remove_duplicate=False)]
    return (
        len({id(module) for module in modules}) == len(modules)
        and not torch_module._has_any_global_hook()
        and all(type(module) in known and _is_bare(module) for module in modules)
    )


def _is_bare(module: nn.Module) -> bool:
    attributes = vars(module)
    return (
        all(isinstance(value, _SIMPLE) for value in attributes.values())
        and not any(value for name, value in attributes.items() if "hook" in name)
        and all(type(p) is nn.Parameter for p in module.parameters(False))
        and all(type(b) is Tensor for b in module.buffers(False))
    )


def replacements(model: nn.Module) -> Swaps:
    """Cheaper modules for those of a plain model's `nn.Sequential` parts, by id.

    Only neighbours in an `nn.Sequential` are folded: there one's output is the
    other's input and nothing else. A ReLU after a layer that makes a new tensor works
    in place, since no such layer needs its output for the backward pass.
    """
    swaps: Swaps = {}
    for layers in model.modules():
        if type(layers) is nn.Sequential:
            for before, layer in pairwise(layers):
                if type(before) is nn.Conv2d and _is_frozen(layer):
                    swaps[id(before)] = _merged(before, layer)
                    swaps[id(layer)] = nn.Identity()
                elif type(before) in _FRESH and type(layer) is nn.ReLU:
                    swaps[id(layer)] = nn.ReLU(inplace=True)
    rest = [m for m in model.modules() if id(m) not in swaps and _is_frozen(m)]
    return swaps | {id(norm): Affine(norm) for norm in rest}


def frozen_copy(model: AnyModule, swaps: Swaps) -> AnyModule:
    """Deep copy in evaluation mode, without gradients, some modules swapped."""
    twin = copy.deepcopy(model, dict(swaps))
    twin.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return twin.eval().requires_grad_(False)


def _is_frozen(module: nn.Module) -> TypeGuard[nn.BatchNorm2d]:
    """Whether it normalises with stored statistics in evaluation mode."""
    return type(module) is nn.BatchNorm2d and module.running_mean is not None


@torch.no_grad()
def _merged(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    scale, shift = _scale_and_shift(norm)
    merged = copy.deepcopy(conv)
    merged.weight = nn.Parameter(conv.weight * scale[:, None, None, None])
    bias = shift if conv.bias is None else conv.bias * scale + shift
    merged.bias = nn.Parameter(bias)
    return merged


@torch.no_grad()
def _scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias
