r"""How far features can move when the input moves: upper bounds, and estimates.

A map :math:`\phi` has the Lipschitz constant L if :math:`\|\phi(\xi) - \phi(x)\|
\le L \|\xi - x\|` for all inputs. Two kinds of numbers are computed here, and they
must not be confused. *Upper bounds* hold for all inputs, and a certificate may be built
on them:

=========================  ========================================================
:func:`global_bound`       of the features: norms of layers multiplied along a path
                           and added where branches meet (Szegedy et al., 2014)
:func:`spectral_norms`     of every layer on its way
:func:`convolution_bound`  of one convolution on images of one size, by Fourier
                           transform on a torus (after Sedghi, Gupta and Long, 2019)
=========================  ========================================================

*Estimates* approach the constant from below. They show how loose an upper bound may
be, and certify nothing:

=========================  ========================================================
:func:`local_estimate`     norm of the Jacobian at an input, by power iteration
:func:`secant_estimate`    largest quotient that an attack finds at some distance
=========================  ========================================================

Theorems: ``prop-lipschitz-rules``, ``prop-conv-norm``, ``prop-from-below`` of the book.

>>> kernel = torch.ones(1, 1, 3, 3)                # adds up nine neighbours
>>> round(convolution_bound(kernel, (8, 8), padding=1), 6)
9.0
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from flatbook._moving import Moving, NoRuleError
from flatbook._torus import ROUND_UP, convolution_bound

__all__ = [
    "convolution_bound",
    "global_bound",
    "local_estimate",
    "min_feature_norm",
    "secant_estimate",
    "spectral_norms",
]

# --- upper bounds -----------------------------------------------------------


def spectral_norms(model: nn.Module, x: Tensor) -> dict[str, float]:
    """Upper bounds on the norms of the layers that the features pass through.

    Linear layers by their largest singular value, convolutions by
    :func:`convolution_bound` on the size that their input has, batch normalisation by
    its largest factor. A layer that runs more than once has its largest norm.

    Args:
        model: a module with `features`, in evaluation mode.
        x: inputs (N, ...); only their shape matters.

    Returns:
        Name of the layer -> bound, in the order in which the layers run.

    Raises:
        TypeError: an operation without a rule, named.
        ValueError: a layer in training mode, or a weight that is not finite.

    Example:
        >>> net = nn.Module()
        >>> net.features = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU())
        >>> _ = nn.init.eye_(net.features[0].weight)
        >>> {k: round(v, 6) for k, v in spectral_norms(net, torch.ones(1, 2)).items()}
        {'features.0': 1.0}
    """
    return _walk(model, x).norms


def global_bound(model: nn.Module, x: Tensor) -> float:
    r"""Upper bound on the Lipschitz constant of the features, over all inputs.

    The features are computed once, on a tensor that carries how far it can move when
    the input moves by one (in the Euclidean norm, sample by sample). A linear layer
    multiplies this reach by its norm, a ReLU leaves it, a sum adds the reaches of its
    terms, a concatenation takes the root of the sum of their squares
    (``prop-lipschitz-rules``). It holds for real numbers; the rounding errors of the
    network itself are not part of it.

    Args:
        model: a module with `features`, in evaluation mode.
        x: inputs (N, ...); only their shape matters.

    Returns:
        The bound, rounded up. For deep networks it is huge.

    Raises:
        TypeError: an operation without a rule, named.
        ValueError: a layer in training mode, or a weight that is not finite.
    """
    return _walk(model, x).reach


def _walk(model: nn.Module, x: Tensor) -> Moving:
    """Send an input that carries its reach through the features."""
    features = _features(model, x)
    tensors = [*model.named_parameters(), *model.named_buffers()]
    layers = {id(tensor): name.rpartition(".")[0] for name, tensor in tensors}
    try:
        with torch.no_grad():
            end = features(Moving.start(x.detach()[:1].clone(), layers))
    except NoRuleError as error:
        raise TypeError(str(error)) from error
    if not isinstance(end, Moving):
        raise TypeError("the features do not depend on the input through tensors")
    end.reach *= ROUND_UP
    return end


# --- estimates --------------------------------------------------------------


def local_estimate(
    model: nn.Module, x: Tensor, *, iterations: int = 20, generator: torch.Generator
) -> Tensor:
    r"""Norm of the Jacobian of the features at every input, from below.

    Power iteration with :math:`J^\top J`: the products :math:`J^\top u` come from a
    backward pass, which is linear in u, and :math:`Jv` from the derivative of that one.
    Every step returns :math:`\|Jv\|` for a unit vector v, so the result never exceeds
    :math:`\|J\|`, which itself is at most the constant of any ball around the input
    (``prop-from-below``). **Not a certificate**: beside the input the Jacobian may be
    larger.

    Args:
        model: a module with `features`, in evaluation mode.
        x: inputs (N, ...) where the features are differentiable.
        iterations: at least 1; each costs a forward pass or two.
        generator: source of the first direction.

    Returns:
        (N,), detached.

    Raises:
        TypeError: no features, or x is no floating-point tensor.
        ValueError: a layer in training mode, or iterations out of range.
    """
    features = _features(model, x)
    _check_count("iterations", iterations)
    with torch.inference_mode(False), torch.enable_grad():
        point = x.detach().clone().requires_grad_()
        phi = features(point)
        weights = torch.zeros_like(phi).requires_grad_()
        pulled = _gradient(phi * weights, point, create_graph=True)
        direction, best = _random_unit(x, generator), phi.detach().new_zeros(len(x))
        for _ in range(iterations):
            pushed = _gradient(pulled * direction, weights, retain_graph=True)
            best = torch.maximum(best, _length(pushed))
            back = _gradient(phi * pushed, point, retain_graph=True)
            direction = _unit(back)
    return best


def secant_estimate(
    model: nn.Module,
    x: Tensor,
    *,
    radius: float,
    steps: int = 20,
    generator: torch.Generator,
) -> Tensor:
    r"""Largest :math:`\|\phi(\xi) - \phi(x)\| / \|\xi - x\|` that an attack finds.

    All :math:`\xi` lie at the distance `radius`. From a random one, every step moves
    to the point of the sphere that the gradient of
    :math:`\|\phi(\xi) - \phi(x)\|^2` points at; for linear features this is power
    iteration. **Not a certificate**: the attack may have missed a better point.

    Args:
        model: a module with `features`, in evaluation mode.
        x: inputs (N, ...); the points looked at are not kept within [0, 1].
        radius: the distance, positive. In float32 not so small that rounding matters.
        steps: points looked at, at least 1.
        generator: source of the first direction.

    Returns:
        (N,), detached.

    Raises:
        TypeError: no features, or x is no floating-point tensor.
        ValueError: a layer in training mode, or a number out of range.
    """
    features = _features(model, x)
    _check_count("steps", steps)
    if not isinstance(radius, int | float) or not 0 < radius < math.inf:
        raise ValueError(f"radius must be positive and finite, got {radius!r}")
    with torch.inference_mode(False), torch.enable_grad():
        x = x.detach().clone()
        start = features(x).detach()
        direction, best = _random_unit(x, generator), start.new_zeros(len(x))
        for _ in range(steps):
            point = (x + radius * direction).requires_grad_()
            move = features(point) - start
            quotient = _length(move.detach()) / _length(point.detach() - x)
            best = torch.maximum(best, quotient)
            ascent = _gradient(move.square(), point)
            flat = (ascent == 0).flatten(1).all(1).view(-1, *[1] * (x.ndim - 1))
            direction = torch.where(flat, direction, _unit(ascent))
    return best


def min_feature_norm(features: Tensor) -> float:
    r"""The smallest norm r of the features of a batch: :math:`\min_i \|\phi(x_i)\|`.

    It holds for these samples only.

    Args:
        features: (N, d).

    Raises:
        ValueError: not a batch of features.

    Example:
        >>> min_feature_norm(torch.tensor([[3.0, 4.0], [0.0, 2.0]]))
        2.0
    """
    if features.ndim != 2 or not features.numel():
        raise ValueError(f"features must be (N, d), got {tuple(features.shape)}")
    return _length(features).amin().item()


def _features(model: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    """The features of a model that is ready for the inputs x."""
    features = getattr(model, "features", None)
    if not callable(features):
        raise TypeError(f"{type(model).__name__} has no method features(x)")
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = getattr(x, "dtype", type(x).__name__)
        raise TypeError(f"x must be a floating-point tensor (N, ...), got {got}")
    if x.ndim < 2 or not x.numel():
        raise ValueError(f"x must have shape (N, ...), N > 0, got {tuple(x.shape)}")
    kinds = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    for name, module in model.named_modules():
        if module.training and isinstance(module, kinds):
            raise ValueError(f"{name} is in training mode; call model.eval()")
    return features


def _gradient(
    values: Tensor,
    by: Tensor,
    *,
    create_graph: bool = False,
    retain_graph: bool | None = None,
) -> Tensor:
    """Gradient of a sum; giving autograd weights for it instead would import sympy."""
    (gradient,) = torch.autograd.grad(
        values.sum(), by, create_graph=create_graph, retain_graph=retain_graph
    )
    return gradient


def _check_count(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")


def _length(vectors: Tensor) -> Tensor:
    return torch.linalg.vector_norm(vectors.flatten(1), dim=1)


def _unit(vectors: Tensor) -> Tensor:
    """Each sample at length one, however small it is; zero stays zero."""
    axes = tuple(range(1, vectors.ndim))
    largest = vectors.abs().amax(axes, keepdim=True)
    scaled = vectors / torch.where(largest > 0, largest, 1.0)
    length = torch.linalg.vector_norm(scaled, dim=axes, keepdim=True)
    return scaled / torch.where(length > 0, length, 1.0)


def _random_unit(x: Tensor, generator: torch.Generator) -> Tensor:
    draw = torch.randn(
        x.shape, generator=generator, device=generator.device, dtype=x.dtype
    )
    return _unit(draw.to(x.device))
