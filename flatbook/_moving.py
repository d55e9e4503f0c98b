"""Tensors that know how far they can move: the rules behind `lipschitz.global_bound`.

A network runs as always, on a tensor that carries a number, its reach: how far it can
move, in the Euclidean norm and for one sample, when the input moves by one. Every
operation has a rule for the reach of its result; one without a rule is refused.

>>> net = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU())
>>> _ = torch.nn.init.eye_(net[0].weight)
>>> x = Moving.start(torch.zeros(1, 3), {})
>>> with torch.no_grad():
...     print(round((net(x) + x).reach, 6))
2.0
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from flatbook._torus import ROUND_UP, Sizes, check_finite, convolution_bound, per_axis

__all__ = ["Moving", "NoRuleError"]


class NoRuleError(Exception):
    """How far an operation moves its result is not known.

    It is no `TypeError`: Python's operators would take that for "try the other way".
    """


class Moving(Tensor):
    """A tensor that knows how far it can move when the input moves by one."""

    reach: float
    norms: dict[str, float]  # what layers on the way were found to do
    layers: dict[int, str]  # id of a parameter or buffer -> name of its layer

    @classmethod
    def start(cls, x: Tensor, layers: dict[int, str]) -> "Moving":
        """The input itself."""
        moving = x.as_subclass(cls)
        moving.reach, moving.norms, moving.layers = 1.0, {}, layers
        return moving

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Compute as usual, then look up how far the result can move."""
        kwargs = kwargs or {}
        name = func.__name__
        with torch._C.DisableTorchFunctionSubclass():
            out = func(*args, **kwargs)
            if name in _QUESTIONS and not isinstance(out, Tensor):
                return out
            moving = list(_movers([*args, *kwargs.values()]))
            several = name in _SUMS or (name in _FACTORS and len(moving) == 1)
            alone = len(moving) == 1 and moving[0] is next(iter(args), None)
            if name not in _RULES or not (several or alone):
                raise NoRuleError(f"no rule for how far {name} moves what it is given")
            reach = float(_RULES[name](out, *args, **kwargs))
        moved = out.as_subclass(cls)
        moved.reach = reach
        moved.norms, moved.layers = moving[0].norms, moving[0].layers
        return moved

    def behind(self, norm: float, *layer: object) -> float:
        """The reach behind a layer of this norm, which is known by its tensors."""
        for name in [self.layers[id(t)] for t in layer if id(t) in self.layers][:1]:
            self.norms[name] = max(norm, self.norms.get(name, 0.0))
        return self.reach * norm


def _movers(values: Sequence[object]) -> Iterator[Moving]:
    for value in values:
        if isinstance(value, Moving):
            yield value
        elif isinstance(value, list | tuple):
            yield from _movers(value)


# --- rules: the result, then the arguments as torch passes them -> its reach -----


def _linear(
    out: Tensor, x: Moving, weight: Tensor, bias: Tensor | None = None
) -> float:
    check_finite("weight", weight)
    norm = torch.linalg.matrix_norm(weight.double(), 2).item()
    return x.behind(norm * ROUND_UP, weight)


def _conv(  # noqa: PLR0917
    out: Tensor,
    x: Moving,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> float:
    sizes = {"stride": stride, "padding": padding, "dilation": dilation}
    norm = convolution_bound(weight, x.shape[2:], **sizes, groups=groups)
    return x.behind(norm, weight)


def _batch_norm(
    out: Tensor,
    x: Moving,
    mean: Tensor,
    variance: Tensor,
    *,
    weight: Tensor | None = None,
    training: bool = False,
    eps: float = 1e-5,
    **rest: object,
) -> float:
    if training:
        raise ValueError("batch normalisation in training mode: call model.eval()")
    factors = (variance.double() + eps).rsqrt()
    if weight is not None:
        factors = factors * weight
    return x.behind(_largest(factors) * ROUND_UP, weight, mean)


def _dropout(
    out: Tensor, x: Moving, p: float = 0.5, training: bool = True, **rest: object
) -> float:
    if training:
        raise ValueError("dropout in training mode: call model.eval()")
    return x.reach


def _same(out: Tensor, x: Moving, *rest: object, **more: object) -> float:
    """What moves no two inputs apart, and does not mix the samples."""
    if out.shape[:1] != x.shape[:1]:
        raise NoRuleError(
            f"no rule for turning {tuple(x.shape)} into {tuple(out.shape)}"
        )
    return x.reach


def _leaky_relu(
    out: Tensor, x: Moving, negative_slope: float = 0.01, inplace: bool = False
) -> float:
    if inplace:
        raise NoRuleError("no rule for leaky_relu in place")
    return x.reach * max(1.0, abs(negative_slope))


def _max_pool(  # noqa: PLR0917
    axes: int,
    out: Tensor,
    x: Moving,
    size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    **rest: object,
) -> float:
    """Every pixel may be the largest of all the windows that it is in."""
    if set(per_axis(dilation, axes)) != {1}:
        raise NoRuleError("no rule for max-pooling with dilation")
    return x.reach * math.sqrt(_overlap(axes, size, stride))


def _avg_pool(  # noqa: PLR0917
    axes: int,
    out: Tensor,
    x: Moving,
    size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> float:
    """A mean of n pixels has norm 1 / sqrt(n)."""
    if ceil_mode or divisor_override or not count_include_pad:
        raise NoRuleError("no rule for average pooling with windows of unequal weight")
    pixels = math.prod(per_axis(size, axes))
    return x.reach * math.sqrt(_overlap(axes, size, stride) / pixels)


def _overlap(axes: int, size: Sizes, stride: Sizes | None) -> int:
    """The largest number of windows that share a pixel."""
    steps = per_axis(size if stride in (None, [], ()) else stride, axes)
    return math.prod(
        -(-k // s) for k, s in zip(per_axis(size, axes), steps, strict=True)
    )


def _mean(
    out: Tensor, x: Moving, dim: Sizes | None = None, keepdim: bool = False
) -> float:
    if dim is None or 0 in {d % x.ndim for d in per_axis(dim, 1)}:
        raise NoRuleError("no rule for a mean over samples")
    return x.reach * math.sqrt(out.numel() / x.numel())


def _adaptive_avg_pool(out: Tensor, x: Moving, size: Sizes) -> float:
    shapes = zip(x.shape[2:], out.shape[2:], strict=True)
    if any(before % after for before, after in shapes):
        raise NoRuleError("no rule for average pooling with windows of unequal size")
    return x.reach * math.sqrt(out.numel() / x.numel())


def _sum(out: Tensor, x: object, y: object, *, alpha: float = 1) -> float:
    _check_no_copies(out, x, y)
    parts = [(x, 1.0), (y, float(alpha))]
    return sum(abs(a) * part.reach for part, a in parts if isinstance(part, Moving))


def _times(out: Tensor, x: object, y: object) -> float:
    moving, factor = (x, y) if isinstance(x, Moving) else (y, x)
    assert isinstance(moving, Moving)
    _check_no_copies(out, moving)
    return moving.behind(_largest(factor), factor)


def _divided(out: Tensor, x: Moving, divisor: object) -> float:
    _check_no_copies(out, x)
    return x.behind(_largest(1 / torch.as_tensor(divisor).double()), divisor)


def _cat(out: Tensor, tensors: Sequence[Tensor], dim: int = 0) -> float:
    if dim % out.ndim == 0:
        raise NoRuleError("no rule for concatenating samples")
    return math.hypot(*(part.reach for part in _movers(tensors)))


def _largest(factors: object) -> float:
    sizes = torch.as_tensor(factors).double().abs()
    check_finite("a factor", sizes)
    return sizes.amax().item()


def _check_no_copies(out: Tensor, *parts: object) -> None:
    """Refuse broadcasting: copies of a tensor move farther than the tensor."""
    for part in parts:
        if isinstance(part, Moving) and part.shape != out.shape:
            shapes = f"{tuple(part.shape)} to {tuple(out.shape)}"
            raise NoRuleError(f"no rule for broadcasting {shapes}")


_SUMS = {"add", "sub", "cat"}
_FACTORS = {"mul"}
_QUESTIONS = {"__get__", "__len__", "dim", "is_floating_point", "numel", "size"}
_RULES: dict[str, Callable[..., float]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _conv),
    **{f"max_pool{n}d": partial(_max_pool, n) for n in (1, 2, 3)},
    **{f"avg_pool{n}d": partial(_avg_pool, n) for n in (1, 2, 3)},
    **{f"adaptive_avg_pool{n}d": _adaptive_avg_pool for n in (1, 2, 3)},
    **dict.fromkeys(("add", "sub"), _sum),
    **dict.fromkeys(("relu", "tanh", "flatten", "reshape", "view", "neg"), _same),
    "linear": _linear,
    "batch_norm": _batch_norm,
    "dropout": _dropout,
    "leaky_relu": _leaky_relu,
    "mean": _mean,
    "mul": _times,
    "div": _divided,
    "cat": _cat,
}
