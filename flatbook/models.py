"""Networks as features followed by a linear head: z(x) = W phi(x) + b.

Every network is a `Model`: `model.features` maps images (N, C, H, W) in [0, 1] to
features (N, d), and `model.head` is the last, linear layer. Normalisation of the
images is the first layer, so that a distance in pixels means the same for every
network. All layers are affine, ReLU, batch normalisation or a pooling: in
evaluation mode the features are piecewise affine in the image, and the exact
curvature formulas of `flatbook.curvature` hold.

Architectures, in their variants for small images (no stride and no pooling in the
first layer):

* `resnet18`: He, Zhang, Ren and Sun, Deep residual learning, 2016
* `wrn28_4`: Zagoruyko and Komodakis, Wide residual networks, 2016
* `densenet121`: Huang, Liu, van der Maaten and Weinberger, Densely connected
  convolutional networks, 2017
* `vgg11_bn`: Simonyan and Zisserman, Very deep convolutional networks, 2014, with
  batch normalisation (Ioffe and Szegedy, 2015) and one linear layer as the head
* `mlp`: two hidden layers, 256 and 128 wide

Weights are drawn as in He, Zhang, Ren and Sun, Delving deep into rectifiers, 2015.

>>> import torch
>>> model = build("mlp", 10, in_channels=1, image_size=8).eval()
>>> model.features(torch.zeros(2, 1, 8, 8)).shape
torch.Size([2, 128])
>>> sum(p.numel() for p in model.parameters())
50826
"""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeGuard, TypeVar

import torch
from torch import Tensor, nn

from flatbook import _checks, _folding

__all__ = [
    "NAMES",
    "Model",
    "build",
    "check_model",
    "evaluating",
    "fold",
    "reinitialise",
    "scale_head",
]

AnyModule = TypeVar("AnyModule", bound=nn.Module)
_SMALLEST_IMAGE = 8


class Normalise(nn.Module):
    """Move pixels from [0, 1] to [-2, 2]: (x - 0.5) / 0.25, the same for all data."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(0.5))
        self.register_buffer("std", torch.tensor(0.25))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise images of any shape."""
        return (x - self.mean) / self.std


class GlobalMean(nn.Module):
    """Average each channel over the image: (N, C, H, W) -> (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """Average the two image dimensions."""
        return x.mean((2, 3))


def _conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    """Bias-free convolution that keeps the image size at stride 1."""
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)


def _conv_bn(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> list:
    """Convolution, then batch normalisation."""
    return [_conv(inputs, outputs, size, stride), nn.BatchNorm2d(outputs)]


def _bn_relu(channels: int) -> list:
    """Batch normalisation, then ReLU: what pre-activation blocks begin with."""
    return [nn.BatchNorm2d(channels), nn.ReLU()]


class ResidualBlock(nn.Module):
    """relu(F(x) + shortcut(x)): the basic block of He et al. (2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *_conv_bn(inputs, outputs, stride=stride),
            nn.ReLU(),
            *_conv_bn(outputs, outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs or stride > 1:
            self.shortcut = nn.Sequential(*_conv_bn(inputs, outputs, 1, stride))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Add the residual to the shortcut."""
        return self.relu(self.residual(x) + self.shortcut(x))


class PreactivationBlock(nn.Module):
    """F(a) + shortcut, a = relu(bn(x)): the block of wide residual networks.

    Where the shape changes, the shortcut is a 1x1 convolution of a, otherwise it is
    x itself.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.activation = nn.Sequential(*_bn_relu(inputs))
        self.residual = nn.Sequential(
            _conv(inputs, outputs, stride=stride),
            *_bn_relu(outputs),
            _conv(outputs, outputs),
        )
        same = inputs == outputs and stride == 1
        self.shortcut = None if same else _conv(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Add the residual to the shortcut."""
        active = self.activation(x)
        passed = x if self.shortcut is None else self.shortcut(active)
        return self.residual(active) + passed


class DenseLayer(nn.Module):
    """Append `growth` new channels to the input, through a 1x1 bottleneck."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.new = nn.Sequential(
            *_bn_relu(inputs),
            _conv(inputs, 4 * growth, 1),
            *_bn_relu(4 * growth),
            _conv(4 * growth, growth),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Concatenate the input and the new channels."""
        return torch.cat([x, self.new(x)], 1)


class Model(nn.Module):
    """A feature extractor and a linear head.

    Attributes:
        body: from normalised images (N, C, H, W) to features (N, d).
        head: the last layer, `nn.Linear(d, num_classes)`.
    """

    def __init__(self, config: dict, body: nn.Module, dim: int) -> None:
        super().__init__()
        self._config = dict(config)
        self.normalise = Normalise()
        self.body = body
        self.head = nn.Linear(dim, config["num_classes"])

    @property
    def config(self) -> dict:
        """The arguments of `build`: a copy, with their names; checkpoints store it."""
        return dict(self._config)

    def features(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) in [0, 1] to features (N, d).

        Raises:
            ValueError: if the images are not of the shape the model was built for.
        """
        channels, size = self._config["in_channels"], self._config["image_size"]
        if x.ndim != 4 or x.shape[1:] != (channels, size, size):
            raise ValueError(
                f"this {self._config['name']} takes images of shape "
                f"(N, {channels}, {size}, {size}), got {tuple(x.shape)}"
            )
        return self.body(self.normalise(x))

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits (N, num_classes)."""
        return self.head(self.features(x))


class _Plan:
    """What the architectures are written with: width factor and image shape."""

    def __init__(self, width: float, in_channels: int, image_size: int) -> None:
        self.width, self.in_channels, self.image_size = width, in_channels, image_size

    def channels(self, full: int) -> int:
        """Scale a number of channels: the nearest integer, at least 1."""
        return max(1, math.floor(full * self.width + 0.5))


def _resnet18(plan: _Plan) -> tuple[nn.Module, int]:
    """Four stages of two basic blocks, 64 to 512 channels."""
    now = plan.channels(64)
    layers = [*_conv_bn(plan.in_channels, now), nn.ReLU()]
    for full, stride in [(64, 1), (128, 2), (256, 2), (512, 2)]:
        for step in (stride, 1):
            layers.append(ResidualBlock(now, plan.channels(full), step))
            now = plan.channels(full)
    return nn.Sequential(*layers, GlobalMean()), now


def _wrn28_4(plan: _Plan) -> tuple[nn.Module, int]:
    """Three groups of four pre-activation blocks (28 = 6 * 4 + 4), four times wide."""
    now = plan.channels(16)
    layers: list[nn.Module] = [_conv(plan.in_channels, now)]
    for full, stride in [(4 * 16, 1), (4 * 32, 2), (4 * 64, 2)]:
        for step in (stride, 1, 1, 1):
            layers.append(PreactivationBlock(now, plan.channels(full), step))
            now = plan.channels(full)
    return nn.Sequential(*layers, *_bn_relu(now), GlobalMean()), now


def _densenet121(plan: _Plan) -> tuple[nn.Module, int]:
    """Dense blocks of 6, 12, 24, 16 layers; transitions halve channels and image."""
    growth = plan.channels(32)
    now = 2 * growth
    layers: list[nn.Module] = [_conv(plan.in_channels, now)]
    for block, depth in enumerate((6, 12, 24, 16)):
        if block:
            layers += [*_bn_relu(now), _conv(now, now // 2, 1), nn.AvgPool2d(2)]
            now //= 2
        for _ in range(depth):
            layers.append(DenseLayer(now, growth))
            now += growth
    return nn.Sequential(*layers, *_bn_relu(now), GlobalMean()), now


def _vgg11_bn(plan: _Plan) -> tuple[nn.Module, int]:
    """Eight convolutions; the five poolings stop once the image is one pixel."""
    now, size = plan.in_channels, plan.image_size
    layers: list[nn.Module] = []
    for stage in [(64,), (128,), (256, 256), (512, 512), (512, 512)]:
        for full in stage:
            layers += [*_conv_bn(now, plan.channels(full)), nn.ReLU()]
            now = plan.channels(full)
        if size > 1:
            layers.append(nn.MaxPool2d(2))
            size //= 2
    return nn.Sequential(*layers, GlobalMean()), now


def _mlp(plan: _Plan) -> tuple[nn.Module, int]:
    """Two hidden layers of 256 and 128 units."""
    now = plan.in_channels * plan.image_size**2
    layers: list[nn.Module] = [nn.Flatten()]
    for full in (256, 128):
        layers += [nn.Linear(now, plan.channels(full)), nn.ReLU()]
        now = plan.channels(full)
    return nn.Sequential(*layers), now


_BODIES: dict[str, Callable[[_Plan], tuple[nn.Module, int]]] = {
    "resnet18": _resnet18,
    "wrn28_4": _wrn28_4,
    "densenet121": _densenet121,
    "vgg11_bn": _vgg11_bn,
    "mlp": _mlp,
}
NAMES = tuple(_BODIES)


def build(
    name: str,
    num_classes: int,
    *,
    width: float = 1.0,
    in_channels: int = 3,
    image_size: int = 32,
) -> Model:
    """Build a network on the CPU, in training mode, with the weights of seed 0.

    The global random state is left alone, and two calls give equal weights; other
    weights come from `reinitialise`. Weights lie in memory channels last, the layout
    in which convolutions are fastest on a CPU.

    Args:
        name: one of `NAMES`.
        num_classes: number of classes k, at least 2.
        width: factor on every number of channels (rounded, at least 1 channel).
        in_channels: channels of the images.
        image_size: height and width of the images, at least 8.

    Returns:
        A `Model` with `.features`, `.head` and `.config`.

    Raises:
        ValueError: if the name is unknown or a number is out of range.

    >>> build("resnet18", 10, width=0.125, in_channels=1, image_size=8).head
    Linear(in_features=64, out_features=10, bias=True)
    """
    if name not in _BODIES:
        raise ValueError(f"name must be one of {', '.join(NAMES)}, got {name!r}")
    _checks.integer("num_classes", num_classes, 2)
    _checks.integer("in_channels", in_channels, 1)
    _checks.integer("image_size", image_size, _SMALLEST_IMAGE)
    _checks.positive("width", width)
    config = {
        "name": name,
        "num_classes": num_classes,
        "width": float(width),
        "in_channels": in_channels,
        "image_size": image_size,
    }
    # The layers' own initialisation draws from the global generator: give it a copy.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        body, dim = _BODIES[name](_Plan(width, in_channels, image_size))
        model = Model(config, body, dim)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return reinitialise(model, 0)


def reinitialise(model: AnyModule, seed: int) -> AnyModule:
    """Redraw all parameters in place and reset the batch statistics.

    Weights of convolutions and hidden linear layers are normal with variance
    2 / fan_out and 2 / fan_in, those of the head 1 / fan_in; biases are zero. They
    are drawn on the CPU: a seed gives the same weights on every device.

    Args:
        model: a network of convolutions, linear layers and batch normalisations.
        seed: seed of the draw, at least 0.

    Returns:
        The same model.

    Raises:
        ValueError: if the seed is not a non-negative integer.
        TypeError: if a layer has parameters and is none of these three.
    """
    _checks.integer("seed", seed, 0)
    layers = [m for m in model.modules() if next(m.parameters(False), None) is not None]
    for layer in layers:
        if not isinstance(layer, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)):
            raise TypeError(f"cannot reinitialise a {type(layer).__name__}")
    generator = torch.Generator().manual_seed(seed)
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()
        else:
            gain = 1 if layer is getattr(model, "head", None) else 2
            _draw(layer, gain, generator)
    return model


@torch.no_grad()
def _draw(layer: nn.Module, gain: int, generator: torch.Generator) -> None:
    """He initialisation of one convolution or linear layer."""
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    fan = weight.shape[1] if weight.ndim == 2 else weight[:, 0].numel()
    draw = torch.randn(weight.shape, generator=generator, device="cpu")
    weight.copy_(draw * math.sqrt(gain / fan))
    if isinstance(bias, Tensor):
        bias.zero_()


def scale_head(model: AnyModule, s: float, *, weight_only: bool = False) -> AnyModule:
    """Copy a model and multiply its head by s: logits become s * z.

    Scaling weight and bias leaves every prediction as it is; scaling the weight only
    (the way w_s = s * w is often written) moves the decision boundaries as well.

    Args:
        model: a model with a linear head; it is not changed.
        s: positive, finite factor.
        weight_only: leave the bias as it is.

    Returns:
        A deep copy with the scaled head.

    Raises:
        TypeError: if the model has no features or no linear head.
        ValueError: if s is not positive and finite, or the scaled head overflows.

    >>> model = build("mlp", 3, width=0.1)
    >>> scaled = scale_head(model, 4.0)
    >>> bool((scaled.head.weight == 4 * model.head.weight).all())
    True
    """
    check_model(model)
    _checks.positive("s", s)
    scaled = copy.deepcopy(model)
    _, head = check_model(scaled)
    bias = [] if weight_only or head.bias is None else [head.bias]
    with torch.no_grad():
        for parameter in (head.weight, *bias):
            parameter.mul_(s)
            if not parameter.isfinite().all():
                raise ValueError(f"the head times s = {s} exceeds {parameter.dtype}")
    return scaled


_KNOWN = frozenset(
    {
        *(Model, Normalise, GlobalMean, ResidualBlock, PreactivationBlock, DenseLayer),
        *(nn.Sequential, nn.Conv2d, nn.BatchNorm2d, nn.Linear, nn.ReLU, nn.Identity),
        *(nn.Flatten, nn.AvgPool2d, nn.MaxPool2d),
    }
)


def fold(model: Model) -> Model:
    """Copy a network for evaluation, its batch normalisations folded away.

    In evaluation mode batch normalisation is affine: after a convolution it becomes
    part of it, elsewhere one multiply-add. Features and logits are the same up to
    rounding, and a forward and backward pass takes about a quarter less time. The
    attacks do this by themselves.

    A network with hooks, parametrisations, shared modules, modules of other types
    than `build` uses, or anything attached to a module is copied as it is.

    Args:
        model: a network; it is not changed, and its mode does not matter.

    Returns:
        A deep copy in evaluation mode, whose parameters require no gradient and lie
        channels last. Train the original: the copy has no statistics left to update.

    Raises:
        TypeError: if it is no `Model`.

    >>> model = build("vgg11_bn", 3, width=0.1, in_channels=1, image_size=8)
    >>> [type(layer).__name__ for layer in fold(model).body[:3]]
    ['Conv2d', 'Identity', 'ReLU']
    """
    if not isinstance(model, Model):
        raise TypeError(
            f"model must be a flatbook.models.Model, got {type(model).__name__}"
        )
    if not _foldable(model):
        return _folding.frozen_copy(model, {})
    swaps = _folding.replacements(model)
    blocks = (m for m in model.modules() if isinstance(m, ResidualBlock))
    swaps |= {id(block.relu): nn.ReLU(inplace=True) for block in blocks}
    return _folding.frozen_copy(model, swaps)


def _foldable(model: nn.Module) -> TypeGuard[Model]:
    return type(model) is Model and _folding.is_plain(model, _KNOWN)


def check_model(model: nn.Module) -> tuple[Callable[[Tensor], Tensor], nn.Linear]:
    """Return the two parts of a model, its features and its linear head.

    Args:
        model: any module with a method `features` and a `torch.nn.Linear` called
            `head`.

    Raises:
        TypeError: if one of them is missing.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    features, head = getattr(model, "features", None), getattr(model, "head", None)
    if not callable(features):
        raise TypeError(f"{type(model).__name__} has no method features(x)")
    if not isinstance(head, nn.Linear):
        raise TypeError(
            f"{type(model).__name__} needs a torch.nn.Linear called head, "
            f"got {type(head).__name__}"
        )
    return features, head


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode for a while, then restore each module's mode.

    The modes come back also after an exception.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
