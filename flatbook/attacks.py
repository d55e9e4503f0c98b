r"""Attacks that record their path.

Projected gradient ascent (Madry et al., Towards deep learning models resistant to
adversarial attacks, 2018) on images in [0, 1]:

.. math::
    x_{t+1} = \Pi_{B(x, \varepsilon) \cap [0,1]}\bigl(x_t + \alpha\, u_t\bigr)

with :math:`u_t` the sign of the gradient (:math:`\ell_\infty`) or the gradient over
its norm (:math:`\ell_2`). A `Trajectory` keeps all points :math:`x_0, \dots, x_T` with
the features and logits that the attack computed anyway.

Which loss gives the gradient matters. The gradient of cross-entropy is
:math:`(1 - p_y)` times the gradient of the log-odds. The direction is the same, but the
factor underflows on confident predictions: plain cross-entropy then stands still, and
the network looks robust. The default is the log-odds.

>>> from flatbook import models
>>> model = models.build("mlp", 10, in_channels=1, image_size=8)
>>> x, y = torch.full((2, 1, 8, 8), 0.5), torch.tensor([3, 7])
>>> path = pgd(model, x, y, norm="linf", eps=0.1, step_size=0.05, steps=4)
>>> path.points.shape, path.losses.shape
(torch.Size([5, 2, 1, 8, 8]), torch.Size([5, 2]))
>>> bool((path.adversarial - x).abs().max() <= 0.1 + 1e-6)
True
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flatbook import _checks, _gpu, softmax
from flatbook.models import _foldable, check_model, evaluating, fold

__all__ = ["LOSSES", "NORMS", "Trajectory", "line", "pgd"]

NORMS = ("l2", "linf")


@dataclass(frozen=True, eq=False, repr=False)
class Trajectory:
    """Images on their way, with what the model saw in them.

    Attributes:
        points: (T + 1, N, C, H, W), from the start to the end, both included.
        features: (T + 1, N, d).
        logits: (T + 1, N, k).
        losses: (T + 1, N), cross-entropy of the true label, whatever was maximised.
        zero_gradients: (T, N), where the gradient was exactly zero: no step is
            possible there, and robustness that rests on it is an artefact.
        labels: (N,), the true labels.
    """

    points: Tensor
    features: Tensor
    logits: Tensor
    losses: Tensor
    zero_gradients: Tensor
    labels: Tensor

    def __repr__(self) -> str:
        steps, images = self.zero_gradients.shape
        return f"Trajectory({steps} steps, {images} images)"

    @property
    def adversarial(self) -> Tensor:
        """The last points (N, C, H, W)."""
        return self.points[-1]

    @property
    def robust(self) -> Tensor:
        """(N,), whether the last point is classified as its label; a tie is not."""
        return softmax._margin(self.logits[-1], self.labels) > 0

    @property
    def stuck(self) -> Tensor:
        """(N,), whether steps were tried and every gradient was exactly zero.

        Such an image never moved: that it is robust says nothing about the network.
        """
        steps = len(self.zero_gradients)
        return self.zero_gradients.all(0) & (steps > 0)


def pgd(  # noqa: PLR0913
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    norm: str,
    eps: float,
    step_size: float,
    steps: int,
    loss: str = "log_odds",
    random_start: bool = False,
    generator: torch.Generator | None = None,
) -> Trajectory:
    """Attack images by projected gradient ascent and record the path.

    The model is in evaluation mode meanwhile and gets its mode back; its parameters
    and their gradients stay as they are. The cost is `steps` forward and backward
    passes and one forward pass, of a folded copy (`models.fold`) where the model is
    one of this book's. Samples do not influence each other.

    Under ``torch.autocast(device, dtype=torch.bfloat16)`` the features are computed
    in bf16, in about half the time, and cast to the dtype of the head; head, loss,
    points and everything that is recorded stay in the model's dtype. Features then
    have a relative error of about 1e-2: use it to train and to find points, and look
    at those again in full precision before measuring anything there (``python -m
    benchmarks precision`` measures both). Without autocast float32 is float32 on every
    device: TensorFloat-32 is off meanwhile. Steps never make the host wait for a GPU;
    the checks before and after them do.

    Args:
        model: a module with `features(x)` -> (N, d) and a linear `head`.
        x: images (N, ...) in [0, 1], of the model's dtype and on its device.
        y: (N,) integers, the true labels.
        norm: "l2" or "linf".
        eps: radius of the ball around each image, at least 0.
        step_size: length of a step in that norm, at least 0.
        steps: number of steps T, at least 0.
        loss: what is maximised: "log_odds", "cross_entropy" (plain, in the model's
            dtype: underflows), "margin" (best other logit minus the true one) or "dlr"
            (Croce and Hein, Reliable evaluation of adversarial robustness, 2020;
            three or more classes; constant where the true class ranks third of three).
        random_start: begin at a uniform point of the ball, clipped to [0, 1].
        generator: source of the random start; required for it, unused otherwise.

    Returns:
        The path, `points[0]` being x or the random start.

    Raises:
        TypeError: if the model has no features or head, or a tensor the wrong type.
        ValueError: if a value, shape, name or pixel is not as above.
    """
    _, head = check_model(model)
    _check_batch(head, x, y)
    _check_names(norm, loss, head.out_features)
    _check_sizes(eps, step_size, steps)
    if random_start and generator is None:
        raise ValueError("random_start=True needs a torch.Generator, got None")
    ball = _Ball(norm, eps, step_size, steps)
    # Copies made outside inference mode: gradients then work for every caller.
    with torch.inference_mode(False), _gpu.exact(), _evaluated(model) as network:
        record = _Recorder(network, y.clone(), loss)
        source = generator if random_start else None
        record.visit(ball.climb(record.gradient, x.detach().clone(), source))
        return record.trajectory()


def _end(
    model: nn.Module, x: Tensor, y: Tensor, ball: "_Ball", generator: torch.Generator
) -> Tensor:
    """Where `pgd` ends from a random start, without checks and without its record.

    For training: the host never waits for a GPU, and the end costs no pass of its own.
    Where logits were not finite the end is not a number, so that the loss there is none
    either. The switches of `_gpu` are the caller's, as autocast is.
    """
    with _evaluated(model) as network:
        record = _Recorder(network, y, "log_odds")
        end = ball.climb(record.gradient, x.detach(), generator)
    finite = torch.stack(record.logits).isfinite().all(2).all(0)
    return torch.where(finite.view(-1, *[1] * (x.ndim - 1)), end, torch.nan)


@dataclass(frozen=True)
class _Ball:
    """Where an attack may go and how; see `pgd`."""

    norm: str
    eps: float
    step_size: float
    steps: int

    def climb(
        self,
        gradient: Callable[[Tensor], Tensor],
        centre: Tensor,
        generator: torch.Generator | None,
    ) -> Tensor:
        """The end of the ascent, from a random point if there is a generator."""
        geometry, point = _GEOMETRIES[self.norm], centre
        if generator is not None:
            start = centre + self.eps * geometry.draw(centre, generator)
            point = start.clamp(0, 1)
        for _ in range(self.steps):
            direction = geometry.direction(gradient(point))
            point = point + self.step_size * direction
            point = geometry.project(point, centre, self.eps).clamp(0, 1)
        return point


def line(
    model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, *, steps: int
) -> Trajectory:
    """Record what the model sees on the straight segment from x to x_adv.

    Args:
        model: a module with `features(x)` -> (N, d) and a linear `head`.
        x: images (N, ...) in [0, 1], where the segment starts (t = 0).
        x_adv: images of the same shape, where it ends (t = 1).
        y: (N,) integers, the true labels.
        steps: number of equal pieces T, at least 1.

    Returns:
        Points at t = 0, 1/T, ..., 1. No gradient is taken: `zero_gradients` is False.

    Raises:
        TypeError: if the model has no features or head, or a tensor the wrong type.
        ValueError: if a shape, label or pixel is not as above.
    """
    _, head = check_model(model)
    _check_batch(head, x, y)
    _check_batch(head, x_adv, y)
    _checks.integer("steps", steps, 1)
    if x.shape != x_adv.shape:
        raise ValueError(
            f"x and x_adv must have one shape, got {tuple(x.shape)} and "
            f"{tuple(x_adv.shape)}"
        )
    with _gpu.exact(), _evaluated(model) as network:
        record = _Recorder(network, y, "log_odds")
        for step in range(steps + 1):
            record.visit(torch.lerp(x.detach(), x_adv.detach(), step / steps))
        return record.trajectory()


@contextmanager
def _evaluated(model: nn.Module) -> Iterator[nn.Module]:
    """The model in evaluation mode, or a faster copy that computes the same."""
    if _foldable(model):
        network = fold(model)
        _cast_ahead(network.body)
        yield network
    else:
        with evaluating(model):
            yield model


def _cast_ahead(body: nn.Module) -> None:
    """Do once what autocast does to frozen weights in every forward pass."""
    for layer in body.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            weight = layer.weight
            lowered = torch.is_autocast_enabled(weight.device.type)
            if lowered and weight.dtype == torch.float32:
                layer.to(torch.get_autocast_dtype(weight.device.type))


class _Recorder:
    """Runs the model and keeps what it saw."""

    def __init__(self, model: nn.Module, labels: Tensor, loss: str) -> None:
        self.model, self.labels = check_model(model), labels.long()
        self.loss = LOSSES[loss]
        self.points: list[Tensor] = []
        self.features: list[Tensor] = []
        self.logits: list[Tensor] = []
        self.zeros: list[Tensor] = []

    def visit(self, point: Tensor) -> None:
        """Record a point without a gradient."""
        with torch.no_grad():
            self._forward(point)

    def gradient(self, point: Tensor) -> Tensor:
        """Record a point and return the gradient of each sample's loss there."""
        with torch.enable_grad():
            leaf = point.detach().requires_grad_()
            total = self.loss(self._forward(leaf), self.labels).sum()
            (gradient,) = torch.autograd.grad(total, leaf)
        self.zeros.append((gradient == 0).flatten(1).all(1))
        return gradient

    def _forward(self, point: Tensor) -> Tensor:
        features, head = self.model
        phi = features(point).to(head.weight.dtype)
        with torch.autocast(point.device.type, enabled=False):
            logits = head(phi)
        kept = (self.points, self.features, self.logits)
        for values, value in zip(kept, (point, phi, logits), strict=True):
            values.append(value.detach())
        return logits

    def trajectory(self) -> Trajectory:
        """All that was recorded."""
        logits = torch.stack(self.logits)
        labels = self.labels.repeat(len(logits))
        losses = softmax.cross_entropy(logits.flatten(0, 1), labels)
        return Trajectory(
            points=torch.stack(self.points),
            features=torch.stack(self.features),
            logits=logits,
            losses=losses.view(logits.shape[:2]),
            zero_gradients=self._zero_gradients(),
            labels=self.labels,
        )

    def _zero_gradients(self) -> Tensor:
        if self.zeros:
            return torch.stack(self.zeros)
        shape = (len(self.points) - 1, len(self.labels))
        return torch.zeros(shape, dtype=torch.bool, device=self.labels.device)


_Loss = Callable[[Tensor, Tensor], Tensor]


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Torch's own, to show what its rounding does to an attack."""
    return nn.functional.cross_entropy(logits, labels, reduction="none")


def _negative_margin(logits: Tensor, labels: Tensor) -> Tensor:
    return -softmax._margin(logits, labels)


def _dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio; where the three largest tie, just the difference."""
    top = logits.topk(3, 1).values
    spread = top[:, 0] - top[:, 2]
    return _negative_margin(logits, labels) / torch.where(spread > 0, spread, 1)


LOSSES: dict[str, _Loss] = {
    "log_odds": softmax._log_odds,
    "cross_entropy": _cross_entropy,
    "margin": _negative_margin,
    "dlr": _dlr,
}


def _polar(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Length and direction of each sample; the direction of zero is zero.

    Dividing by the largest entry first keeps the squares from under- or overflowing,
    so that no floor has to be added to the length.
    """
    axes = tuple(range(1, vectors.ndim))
    largest = vectors.abs().amax(axes, keepdim=True)
    scaled = vectors / torch.where(largest > 0, largest, 1)
    length = torch.linalg.vector_norm(scaled, dim=axes, keepdim=True)
    return largest * length, scaled / torch.where(largest > 0, length, 1)


class _L2:
    """Euclidean steps and balls."""

    @staticmethod
    def direction(gradient: Tensor) -> Tensor:
        return _polar(gradient)[1]

    @staticmethod
    def project(point: Tensor, centre: Tensor, eps: float) -> Tensor:
        length, direction = _polar(point - centre)
        return torch.where(length > eps, centre + eps * direction, point)

    @staticmethod
    def draw(centre: Tensor, generator: torch.Generator) -> Tensor:
        """Uniform in the unit ball: a random direction at radius u^(1/d)."""
        normal = _random(torch.randn, centre, generator)
        radius = _random(torch.rand, centre.flatten(1)[:, :1], generator)
        radius = radius.pow(1 / centre[0].numel())
        return _polar(normal)[1] * radius.view(-1, *[1] * (centre.ndim - 1))


class _LInf:
    """Steps and balls of the largest pixel difference."""

    @staticmethod
    def direction(gradient: Tensor) -> Tensor:
        return gradient.sign()

    @staticmethod
    def project(point: Tensor, centre: Tensor, eps: float) -> Tensor:
        return point.clamp(centre - eps, centre + eps)

    @staticmethod
    def draw(centre: Tensor, generator: torch.Generator) -> Tensor:
        """Uniform in the cube [-1, 1]."""
        return 2 * _random(torch.rand, centre, generator) - 1


_GEOMETRIES: dict[str, type[_L2] | type[_LInf]] = {"l2": _L2, "linf": _LInf}


def _random(
    draw: Callable[..., Tensor], like: Tensor, generator: torch.Generator
) -> Tensor:
    device, dtype = generator.device, like.dtype
    drawn = draw(like.shape, generator=generator, device=device, dtype=dtype)
    return _gpu.send(drawn, like.device)


def _check_batch(head: nn.Linear, x: Tensor, y: Tensor) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = getattr(x, "dtype", type(x).__name__)
        raise TypeError(f"images must be a floating-point tensor in [0, 1], got {got}")
    if x.ndim < 2 or not x.numel():
        raise ValueError(f"images must have shape (N, ...), got {tuple(x.shape)}")
    low, high = (value.item() for value in x.detach().aminmax())
    if not (low >= 0 and high <= 1):
        raise ValueError(f"images must lie in [0, 1], got values {low} to {high}")
    weight = head.weight
    if (x.dtype, x.device) != (weight.dtype, weight.device):
        raise TypeError(
            f"images are {x.dtype} on {x.device}, the model is {weight.dtype} on "
            f"{weight.device}"
        )
    softmax.check_labels(x.new_zeros(len(x), head.out_features), y)


def _check_names(norm: str, loss: str, classes: int) -> None:
    if norm not in NORMS:
        raise ValueError(f"norm must be one of {', '.join(NORMS)}, got {norm!r}")
    if loss not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {loss!r}")
    if loss == "dlr" and classes < 3:
        raise ValueError(f"loss 'dlr' needs three or more classes, got {classes}")


def _check_sizes(eps: float, step_size: float, steps: int) -> None:
    _checks.number("eps", eps)
    _checks.number("step_size", step_size)
    _checks.integer("steps", steps, 0)
