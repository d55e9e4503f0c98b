r"""Is the Hessian J^T P J here? Asked of the network itself, not of its module list.

Cross-entropy of logits z has in any block :math:`\theta` of parameters, or in the
input, the Hessian :math:`J^\top P J + \sum_c (p - y)_c \nabla^2 z_c` (theorem
``thm-piecewise-affine``). The second term vanishes for every label exactly when
:math:`\nabla^2 (u^\top z) = 0` for all u that sum to zero. Double backward passes
test this at random u and in random directions: piecewise-affine networks give zeros,
any other network a number that is not zero with probability one.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn.attention import SDPBackend, sdpa_kernel

__all__ = [
    "affine_layers",
    "blocks",
    "check_input",
    "check_modes",
    "check_straight_in",
    "check_straight_in_layers",
    "differentiable_twice",
    "gradient",
    "substituted",
]

_PROBED = 4  # samples of the batch
_TOLERANCE = 64  # units of rounding, relative to the slope

# Affine in weight and bias, if called once.
_AFFINE = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
)
# Named in an error: what most often bends.
_BENDING = (
    "GELU SiLU Mish ELU CELU SELU GLU Hardswish Tanh Sigmoid LogSigmoid Softplus "
    "Softsign Softmax LayerNorm GroupNorm RMSNorm InstanceNorm1d InstanceNorm2d "
    "InstanceNorm3d LocalResponseNorm MultiheadAttention RNN LSTM GRU Bilinear"
)


def check_input(x: Tensor) -> None:
    """Refuse anything but a finite floating-point batch (N, ...)."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = getattr(x, "dtype", type(x).__name__)
        raise TypeError(f"x must be a floating-point tensor (N, ...), got {got}")
    if x.ndim < 2 or not len(x):
        raise ValueError(f"x must have shape (N, ...), N > 0, got {tuple(x.shape)}")
    if not torch.isfinite(x).all():
        raise ValueError("x must be finite, got NaN or infinity")


def check_modes(model: nn.Module, *, batch_norm: bool) -> None:
    """Refuse dropout in train mode, and batch statistics if `batch_norm` says so."""
    for name, module in model.named_modules():
        kind = type(module).__name__
        dropout = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
        if dropout and module.training:
            raise ValueError(f"{name or kind}: {kind} in train mode; call model.eval()")
        if not batch_norm or not isinstance(module, nn.modules.batchnorm._BatchNorm):
            continue
        if module.training or module.running_mean is None:
            raise ValueError(
                f"{name or kind}: {kind} in train mode takes its statistics from the "
                "batch, so samples mix; call model.eval(), or use hutchinson_trace"
            )


@contextmanager
def differentiable_twice() -> Iterator[None]:
    """Gradients on, and attention by its plain formula: fused kernels stop at one."""
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        yield


def blocks(model: nn.Module, layers: Sequence[str] | None) -> dict[str, list[str]]:
    """The parameters of each layer; a layer is a module with parameters of its own.

    Parameters of the model itself are layers of their own. The name of a single
    parameter may stand for a layer too.

    Raises:
        ValueError: a name in layers is neither.
        TypeError: layers is a text.
    """
    found: dict[str, list[str]] = {}
    names = [name for name, _ in model.named_parameters()]
    for name in names:
        found.setdefault(name.rpartition(".")[0] or name, []).append(name)
    if layers is None:
        return found
    if isinstance(layers, str):
        raise TypeError(f"layers must be a sequence of names, got {layers!r}")
    found |= {name: [name] for name in names if name not in found}
    for layer in layers:
        if layer not in found:
            known = [name for name in found if name not in names] or names
            raise ValueError(f"no layer {layer!r}; layers: {', '.join(known)}")
    return {layer: found[layer] for layer in layers}


@contextmanager
def substituted(model: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Put other tensors in the place of parameters and buffers for a while.

    `torch.func.functional_call` (torch 2.11) does not restore a module that has two
    names.
    """
    named = (*model.named_parameters(), *model.named_buffers())
    other = {id(old): values[name] for name, old in named if name in values}
    replaced = []
    try:
        for module in model.modules():
            for own in (module._parameters, module._buffers):
                for name, old in own.items():
                    if id(old) in other:
                        replaced.append((own, name, old))
                        own[name] = other[id(old)]  # type: ignore[assignment]
        yield
    finally:
        for own, name, old in replaced:
            own[name] = old  # type: ignore[assignment]


def gradient(
    values: Tensor, points: Sequence[Tensor], *, again: bool = False
) -> list[Tensor]:
    """Gradient of the sum of some values at several points; the graph stays.

    Args:
        values: to be differentiated.
        points: where; one that the values do not depend on gets zeros.
        again: whether the gradient will be differentiated in turn.

    Raises:
        ValueError: a function on the way has no such derivative.
    """
    value = values.sum()
    if not points or not value.requires_grad:
        return [torch.zeros_like(p) for p in points]
    try:
        found = torch.autograd.grad(
            value,
            points,
            create_graph=again,
            retain_graph=True,
            materialize_grads=True,
        )
    except RuntimeError as error:
        raise ValueError(f"the model cannot be differentiated: {error}") from error
    return list(found)


def check_straight_in(model: nn.Module, x: Tensor) -> None:
    """Refuse a model whose logits are not locally affine in the input.

    Raises:
        ValueError: they bend, or cannot be differentiated twice.
    """
    x = _few(x).requires_grad_()
    if _bends(_slopes(model(x), [x]), [x]):
        raise ValueError(
            "the logits are not locally affine in the input, so its Hessian is not "
            f"J^T P J{_suspects(model)}; use hutchinson_trace"
        )


def check_straight_in_layers(
    model: nn.Module, x: Tensor, layers: Mapping[str, Sequence[str]]
) -> None:
    """Refuse a model whose logits are not locally affine in each of these layers.

    Raises:
        ValueError: they bend in some, which are named, or cannot be differentiated
            twice.
    """
    x = _few(x)
    values = {n: p.detach().requires_grad_() for n, p in model.named_parameters()}
    with substituted(model, values):
        logits = model(x)
        good = affine_layers(model, x) if len(layers) > 1 else set()
    wanted = {n: p for n, p in layers.items() if n not in good}
    names = [name for block in wanted.values() for name in block]
    slopes = dict(zip(names, _slopes(logits, [values[n] for n in names]), strict=True))
    bent = [
        layer
        for layer, block in wanted.items()
        if _bends([slopes[n] for n in block], [values[n] for n in block])
    ]
    if bent:
        straight = [layer for layer in layers if layer not in bent]
        raise ValueError(
            f"the logits are not locally affine in {_list(bent)}, so the Hessian "
            f"there is not J^T P J{_suspects(model)}; use hutchinson_trace"
            + (f", or layers=[...] from {_list(straight)}" if straight else "")
        )


def affine_layers(model: nn.Module, x: Tensor) -> set[str]:
    """Layers in which the logits are certainly affine, found in one go.

    If the logits are jointly affine in shifts of the outputs of all layers, they are
    affine in every layer that is itself affine in its parameters and uses them once.
    Others (the value projection of attention, say) need a test of their own.
    """
    layers = {
        name: module
        for name, module in model.named_modules()
        if type(module) in _AFFINE
        and {n for n, _ in module.named_parameters()} <= {"weight", "bias"}
    }
    shifts: dict[nn.Module, Tensor] = {}

    def shift(module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        shifts[module] = torch.zeros_like(output).requires_grad_()
        return output + _size(output.detach()) * shifts[module]

    handles = [m.register_forward_hook(shift) for m in layers.values()]
    try:
        logits = model(x)
    finally:
        for handle in handles:
            handle.remove()
    slopes = _slopes(logits, list(shifts.values()))
    bends = dict(zip(shifts, _bend(slopes, list(shifts.values())), strict=True))
    straight = {
        module
        for module, slope in zip(shifts, slopes, strict=True)
        if not _exceeds([bends[module]], [slope])
    }
    once = _used_once(logits)
    return {
        name
        for name, module in layers.items()
        if module in straight and {id(p) for p in module.parameters()} <= once
    }


# --- second derivatives ----------------------------------------------------------


def _few(x: Tensor) -> Tensor:
    """Some samples, evenly spread over the batch."""
    return x.detach()[:: math.ceil(len(x) / _PROBED)].clone()


def _slopes(logits: Tensor, points: Sequence[Tensor]) -> list[Tensor]:
    """Gradient of sum_n u_n^T z_n, for random u_n whose entries sum to exactly 0."""
    if not logits.requires_grad:
        raise ValueError("the logits carry no gradient: the model cuts it off")
    generator = torch.Generator().manual_seed(0)
    u = (torch.randn(logits.shape, generator=generator) * 64).round() / 64
    u[:, -1] -= u.sum(1)
    # With u to be differentiated too, what knows one derivative only leaves a mark.
    slopes = gradient(u.to(logits).requires_grad_() * logits, points, again=True)
    if _ends_early(slopes):
        raise ValueError(
            "the model cannot be differentiated twice: a function in it is marked "
            "once_differentiable"
        )
    return slopes


def _graph(tensors: Sequence[Tensor]) -> set[Node]:
    """All that autograd recorded on the way to some tensors."""
    new = {t.grad_fn for t in tensors if t.grad_fn is not None}
    seen = set(new)
    while new:
        new = {f for node in new for f, _ in node.next_functions if f} - seen
        seen |= new
    return seen


def _ends_early(slopes: Sequence[Tensor]) -> bool:
    """Whether a node that only raises stands in the graph; autograd may step round."""
    return any(node.name().endswith("Error") for node in _graph(slopes))


def _used_once(logits: Tensor) -> set[int]:
    """Leaves of the graph with a single use."""
    uses = Counter(
        id(leaf.variable)
        for node in _graph([logits])
        for leaf, _ in node.next_functions
        if leaf is not None and hasattr(leaf, "variable")
    )
    return {leaf for leaf, number in uses.items() if number == 1}


def _bend(slopes: Sequence[Tensor], points: Sequence[Tensor]) -> list[Tensor]:
    """Second derivative along one random direction as large as the point."""
    generator = torch.Generator().manual_seed(1)
    along = [
        (s * torch.randn(p.shape, generator=generator).to(p)).sum() * _size(p.detach())
        for s, p in zip(slopes, points, strict=True)
    ]
    return gradient(torch.stack(along), points) if along else []


def _bends(slopes: Sequence[Tensor], points: Sequence[Tensor]) -> bool:
    return _exceeds(_bend(slopes, points), slopes)


def _exceeds(second: Sequence[Tensor], slopes: Sequence[Tensor]) -> bool:
    """Whether second derivatives are more than rounding; NaN counts as such."""
    size, slope = (
        torch.stack([torch.linalg.vector_norm(t.detach()) for t in tensors]).norm()
        for tensors in (second, slopes)
    )
    return not bool(size <= _TOLERANCE * torch.finfo(size.dtype).eps * slope)


def _size(point: Tensor) -> Tensor:
    """Root mean square, or 1 for a point that is zero."""
    size = point.square().mean().sqrt()
    return torch.where(size > 0, size, 1)


# --- names -------------------------------------------------------------------


def _suspects(model: nn.Module) -> str:
    kinds = {type(module).__name__ for module in model.modules()} & {*_BENDING.split()}
    if kinds:
        return f" (likely cause: {', '.join(sorted(kinds))})"
    return " (no module stands out: look for functions in forward or shared weights)"


def _list(names: Sequence[str]) -> str:
    quoted = [repr(name) for name in names[:6]]
    more = [f"{len(names) - 6} more"] if len(names) > 6 else []
    return ", ".join(quoted + more)
