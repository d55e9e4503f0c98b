r"""Curvature in the input and in every layer, by backward passes.

Public in `flatbook.curvature`. Where the logits are locally affine, the Hessian of
cross-entropy is :math:`J^\top P J`, and all that J contributes is the Gram matrix
:math:`G_{ij} = \langle \nabla z_i - \nabla z_t, \nabla z_j - \nabla z_t \rangle` of its
rows, seen from the most probable class t:

.. math:: \operatorname{Tr} J^\top P J
    = \sum_{i<j} p_i p_j \|\nabla z_i - \nabla z_j\|^2

Elsewhere Hutchinson's estimator (1990) gives the trace with an error bar.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flatbook import _checks, softmax
from flatbook._affine import (
    blocks,
    check_input,
    check_modes,
    check_straight_in,
    check_straight_in_layers,
    differentiable_twice,
    gradient,
    substituted,
)
from flatbook._spectrum import eigenvalues

__all__ = [
    "Estimate",
    "gram_eigenvalues",
    "gram_trace",
    "hutchinson_trace",
    "input_gram",
    "input_hessian_trace",
    "layer_grams",
    "layer_hessian_traces",
]


def gram_trace(gram: Tensor, logits: Tensor) -> Tensor:
    r"""Trace of :math:`J^\top P J` from the Gram matrix of the logits' gradients.

    A head times s has the Gram matrix ``s**2 * gram`` and the logits ``s * logits``:
    one Gram matrix serves every scale.

    Args:
        gram: (N, k, k), from `input_gram` or `layer_grams`.
        logits: (N, k).

    Returns:
        (N,), at least 0.

    Raises:
        ValueError: the shapes do not fit.

    >>> gram = torch.tensor([[[0.0, 0.0], [0.0, 3.0]]])   # |grad z_1 - grad z_0|^2 = 3
    >>> gram_trace(gram, torch.zeros(1, 2)).item()        # p_0 p_1 * 3
    0.75
    """
    p = _check_gram(gram, logits)
    square = gram.diagonal(dim1=1, dim2=2)
    distance = square[:, :, None] + square[:, None, :] - 2 * gram
    return (p[:, :, None] * p[:, None, :] * distance.clamp_min(0)).sum((1, 2)) / 2


def gram_eigenvalues(gram: Tensor, logits: Tensor) -> Tensor:
    r"""The k largest eigenvalues of :math:`J^\top P J`; all others are zero.

    They are those of the k x k matrix :math:`P^{1/2} J J^\top P^{1/2}`.

    Args:
        gram: (N, k, k), from `input_gram` or `layer_grams`.
        logits: (N, k).

    Returns:
        (N, k), ascending, at least 0; the first is 0 up to rounding.

    Raises:
        ValueError: the shapes do not fit.
    """
    p = _check_gram(gram, logits)
    mean = (gram @ p[:, :, None])[:, :, 0]
    centred = gram - mean[:, :, None] - mean[:, None, :]
    centred = centred + (mean * p).sum(1)[:, None, None]
    root = p.sqrt()
    return eigenvalues(root[:, :, None] * centred * root[:, None, :])


def input_gram(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    r"""Gram matrix of the logits' gradients in the input, and the logits.

    One forward and k - 1 backward passes of the batch; memory is (k - 1) times that
    of x. With `gram_trace` and `gram_eigenvalues` it gives the Hessian's trace and
    spectrum, at every scale of the head.

    Args:
        model: maps (N, ...) to logits (N, k), locally affine in the input; samples
            must not mix (eval mode).
        x: (N, ...), floating point.

    Returns:
        Gram (N, k, k), seen from the most probable class (whose row and column are
        zero), and logits (N, k), both detached.

    Raises:
        TypeError: x is not a floating-point tensor.
        ValueError: the logits are not locally affine in the input (tested by second
            derivatives on a few samples), BatchNorm or dropout is in train mode, or x
            is not a finite batch.
    """
    check_modes(model, batch_norm=True)
    check_input(x)
    with differentiable_twice():
        check_straight_in(model, x)
        x = x.detach().requires_grad_(True)
        logits = model(x)
        softmax.check_logits(logits)
        order = _top_first(logits)
        top, *others = logits.gather(1, order).unbind(1)
        rows = [gradient(z - top, [x])[0].flatten(1) for z in others]
    return _gram(torch.stack(rows, 1), order), logits.detach()


def layer_grams(
    model: nn.Module,
    x: Tensor,
    *,
    layers: Sequence[str] | None = None,
    chunk_size: int = 16,
) -> tuple[dict[str, Tensor], Tensor]:
    r"""Gram matrices of the logits' gradients in the parameters of each layer.

    As `input_gram`, with one Gram matrix a layer. k - 1 backward passes for each
    sample, `chunk_size` samples at once; memory is chunk_size * (k - 1) times that of
    the layers' parameters and of the activations of one sample.

    Args:
        model: maps (N, ...) to logits (N, k), locally affine in each layer; samples
            must not mix (eval mode).
        x: (N, ...), floating point.
        layers: names of modules that own parameters, or of single parameters;
            default all. Weight and bias of a layer are one block.
        chunk_size: samples at once.

    Returns:
        Layer name -> Gram (N, k, k), in the order of ``model.named_parameters()`` or
        of `layers`; and the logits (N, k).

    Raises:
        TypeError: x is not a floating-point tensor.
        ValueError: an unknown layer; layers in which the logits are not locally
            affine (tested by second derivatives on a few samples), by name; BatchNorm
            or dropout in train mode.
    """
    check_modes(model, batch_norm=True)
    check_input(x)
    _checks.integer("chunk_size", chunk_size, 1)
    wanted = blocks(model, layers)
    values = {n: p.detach() for n, p in model.named_parameters()}
    moving = {n: values[n] for block in wanted.values() for n in block}
    with differentiable_twice():
        check_straight_in_layers(model, x, wanted)
    with torch.no_grad():
        logits = torch.cat([model(part) for part in x.split(chunk_size)])
    softmax.check_logits(logits)
    order = _top_first(logits)

    grams: dict[str, list[Tensor]] = {layer: [] for layer in wanted}
    for images, orders in zip(
        x.split(chunk_size), order.split(chunk_size), strict=True
    ):
        rows = _layer_rows(model, moving, images.detach(), orders)
        for layer, names in wanted.items():
            block = torch.cat([rows[name] for name in names], 2)
            grams[layer].append(_gram(block, orders))
    return {layer: torch.cat(parts) for layer, parts in grams.items()}, logits


def input_hessian_trace(model: nn.Module, x: Tensor) -> Tensor:
    r"""Exact trace of the Hessian of cross-entropy in the input, at every sample.

    For networks that are piecewise affine in the input it is :math:`\sum_{i<j} p_i
    p_j \|\nabla_x z_i - \nabla_x z_j\|^2`, whatever the label: one forward and k - 1
    backward passes, k - 1 times the memory of the input (``cor-input-trace``).

    Args:
        model: maps (N, ...) to logits (N, k); samples must not mix (eval mode).
        x: (N, ...), floating point.

    Returns:
        (N,), detached.

    Raises:
        TypeError, ValueError: see `input_gram`. Where it refuses, `hutchinson_trace`
            estimates the trace.
    """
    return gram_trace(*input_gram(model, x))


def layer_hessian_traces(
    model: nn.Module,
    x: Tensor,
    *,
    layers: Sequence[str] | None = None,
    chunk_size: int = 16,
) -> dict[str, Tensor]:
    r"""Exact trace of the Hessian in the parameters of each layer, at every sample.

    Each block is :math:`J_l^\top P J_l` (``thm-piecewise-affine``). Cost and memory
    are those of `layer_grams`.

    Args:
        model: maps (N, ...) to logits (N, k); samples must not mix (eval mode).
        x: (N, ...), floating point.
        layers: see `layer_grams`; default all.
        chunk_size: samples at once.

    Returns:
        Layer name -> (N,), detached; weight and bias of a layer in one trace.

    Raises:
        TypeError, ValueError: see `layer_grams`. Where it refuses,
            `hutchinson_trace` estimates the trace.
    """
    grams, logits = layer_grams(model, x, layers=layers, chunk_size=chunk_size)
    return {layer: gram_trace(gram, logits) for layer, gram in grams.items()}


@dataclass(frozen=True)
class Estimate:
    """An average over random probes, and how far it is likely off.

    Attributes:
        mean: the estimate; unbiased.
        standard_error: standard deviation of the mean, which falls like one over the
            square root of the number of probes.
    """

    mean: Tensor
    standard_error: Tensor


def hutchinson_trace(
    model: nn.Module,
    x: Tensor,
    labels: Tensor,
    *,
    wrt: str = "layers",
    layers: Sequence[str] | None = None,
    samples: int = 100,
    generator: torch.Generator | None = None,
) -> dict[str, Estimate]:
    r"""Unbiased estimate of traces of the Hessian of cross-entropy, for any model.

    :math:`\mathbb E\, v^\top H v = \operatorname{Tr} H` for random signs v
    (Hutchinson, 1990). H is the true Hessian, with the curvature of the logits and
    the label in it, so GELU, normalisation layers, attention and train-mode BatchNorm
    are welcome. The model is left as it is, running statistics included.

    One forward, one backward pass, and one backward pass through both a probe; memory
    is a few times that of one training step. All layers share their probes: more
    layers cost nothing, but add to each other's noise.

    Args:
        model: maps (N, ...) to logits (N, k).
        x: (N, ...), floating point.
        labels: (N,) integers.
        wrt: ``"layers"``, traces of the mean loss of the batch in the parameters of
            each layer; ``"input"``, traces in each sample of the summed loss of the
            batch, which is each sample's own where samples do not mix.
        layers: with ``wrt="layers"``, see `layer_grams`; default all.
        samples: number of probes, at least 2.
        generator: of the signs; default one with a fixed seed.

    Returns:
        Layer name -> estimate (0-dim tensors), or ``"input"`` -> estimate (N,).

    Raises:
        TypeError: x or labels have the wrong type.
        ValueError: an argument is out of range, dropout is in train mode, or the
            model cannot be differentiated twice.
    """
    _check_request(wrt, layers, samples)
    check_modes(model, batch_norm=False)
    check_input(x)
    generator = generator or torch.Generator().manual_seed(0)
    state = {
        name: value.detach().clone()
        for name, value in (*model.named_parameters(), *model.named_buffers())
    }
    x = x.detach().clone()
    wanted, moving = {"input": ["input"]}, {"input": x}
    if wrt == "layers":
        wanted = blocks(model, layers)
        moving = {n: state[n] for block in wanted.values() for n in block}
    with differentiable_twice():
        for point in moving.values():
            point.requires_grad_(True)
        with substituted(model, state):
            logits = model(x)
        losses = softmax.cross_entropy(logits, labels)
        loss = losses.sum() if wrt == "input" else losses.mean()
        draws = list(_probes(loss, moving, samples, generator))
    return {layer: _estimate(draws, names) for layer, names in wanted.items()}


# --- parts -------------------------------------------------------------------


def _top_first(logits: Tensor) -> Tensor:
    """Classes (N, k): the most probable one, then the others as they come."""
    top = logits.argmax(1, keepdim=True)
    others = torch.arange(logits.shape[1] - 1, device=logits.device)
    return torch.cat([top, others + (others >= top)], 1)


def _layer_rows(
    model: nn.Module, points: dict[str, Tensor], x: Tensor, order: Tensor
) -> dict[str, Tensor]:
    """Gradients (N, k - 1, m) of the logits above the top, each sample with a copy.

    The samples' own copies of the parameters let one backward pass serve them all.
    """

    def logits(own: dict[str, Tensor], image: Tensor) -> Tensor:
        with substituted(model, own):
            return model(image[None])[0]

    with differentiable_twice():
        own = {
            name: point.expand(len(x), *point.shape).clone().requires_grad_(True)
            for name, point in points.items()
        }
        top, *others = torch.vmap(logits)(own, x).gather(1, order).unbind(1)
        slopes = [gradient(z - top, list(own.values())) for z in others]
    return {
        name: torch.stack([s.reshape(len(x), -1) for s in rows], 1)
        for name, rows in zip(own, zip(*slopes, strict=True), strict=True)
    }


def _gram(rows: Tensor, order: Tensor) -> Tensor:
    """Gram (N, k, k) of rows (N, k - 1, m) that belong to the classes after the top."""
    n, k = order.shape
    gram = rows.new_zeros(n, k, k)
    sample, others = torch.arange(n, device=order.device), order[:, 1:]
    place = sample[:, None, None], others[:, :, None], others[:, None, :]
    gram[place] = (rows @ rows.mT).detach()
    return gram


def _check_gram(gram: Tensor, logits: Tensor) -> Tensor:
    """Probabilities (N, k), once the shapes fit."""
    softmax.check_logits(logits)
    n, k = logits.shape
    if not isinstance(gram, Tensor) or gram.shape != (n, k, k):
        got = tuple(getattr(gram, "shape", ()))
        raise ValueError(f"gram must have shape ({n}, {k}, {k}), got {got}")
    return logits.softmax(1)


def _check_request(wrt: str, layers: Sequence[str] | None, samples: int) -> None:
    if wrt not in ("layers", "input"):
        raise ValueError(f'wrt must be "layers" or "input", got {wrt!r}')
    if wrt == "input" and layers is not None:
        raise ValueError(f'wrt="input" takes no layers, got {layers!r}')
    _checks.integer("samples", samples, 2)


def _probes(
    loss: Tensor,
    points: dict[str, Tensor],
    samples: int,
    generator: torch.Generator,
) -> Iterator[dict[str, Tensor]]:
    """For each probe v, at each point, v * H v: (N,) at a batch's input, else ()."""
    slopes = gradient(loss, list(points.values()), again=True)
    for _ in range(samples):
        signs = [
            (2.0 * torch.randint(2, p.shape, generator=generator) - 1).to(p)
            for p in points.values()
        ]
        along = [(g * v).sum() for g, v in zip(slopes, signs, strict=True)]
        bends = gradient(torch.stack(along), list(points.values()))
        products = [v * bend for v, bend in zip(signs, bends, strict=True)]
        yield {
            name: v.flatten(1).sum(1) if name == "input" else v.sum()
            for name, v in zip(points, products, strict=True)
        }


def _estimate(draws: Sequence[dict[str, Tensor]], names: Sequence[str]) -> Estimate:
    """Mean and standard error of the sum over the points of a layer."""
    sums = torch.stack(
        [sum((draw[n] for n in names), torch.tensor(0)) for draw in draws]
    )
    return Estimate(sums.mean(0), sums.std(0) / len(draws) ** 0.5)
