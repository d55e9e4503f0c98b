r"""Convolutions on a torus: an upper bound on the norm of one on images.

`flatbook.lipschitz` is where it is used from.

>>> convolution_bound(torch.ones(1, 1, 1, 1), (8, 8)) >= 1
True
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["ROUND_UP", "Sizes", "check_finite", "convolution_bound", "per_axis"]

# A singular value in float64 is right to far more digits: multiplying by this makes an
# upper bound of it.
ROUND_UP = 1 + 1e-9

Sizes = int | Sequence[int]


def convolution_bound(
    kernel: Tensor,
    image_size: Sequence[int],
    *,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> float:
    r"""Upper bound on the norm of a zero-padded convolution, as an operator on images.

    On a torus of n pixels per axis the Fourier transform splits a convolution into one
    matrix (c_out, c_in) per frequency, and its norm is the largest of theirs. If n is
    at least the image size plus the padding, windows that leave the image read zeros
    on the torus too: the convolution is the circular one, restricted to images and to
    some outputs, and its norm cannot be larger. Where the stride s keeps every s-th
    output, the frequencies that it makes equal stand side by side in one matrix, and
    it is divided by the root of their number (``prop-conv-norm``). Taps that no
    pixel ever meets are left out.

    Args:
        kernel: (c_out, c_in / groups, k, ...), as in `torch.nn.functional.conv2d`.
        image_size: pixels of the input along each axis, (H, W) for two.
        stride: a number or one per axis.
        padding: zeros on both sides, a number or one per axis.
        dilation: distance of the taps, a number or one per axis.
        groups: number of independent parts of the channels.

    Returns:
        The bound, rounded up. It is exact for a kernel of one pixel.

    Raises:
        ValueError: the kernel is not finite, or sizes do not fit.
    """
    axes = kernel.ndim - 2
    if axes < 1 or len(image_size) != axes or len(kernel) % groups:
        raise ValueError(
            f"a kernel of shape {tuple(kernel.shape)} in {groups} groups does not fit "
            f"images of size {tuple(image_size)}"
        )
    settings = [per_axis(value, axes) for value in (stride, padding, dilation)]
    taps = kernel.detach().double().unflatten(0, (groups, -1))
    check_finite("kernel", taps)
    each = zip(*settings, strict=True)
    for axis, (size, setting) in enumerate(zip(image_size, each, strict=True), 3):
        taps = _wrap(taps, axis, size, setting)
    matrices = _frequencies(taps, settings[0])
    norm = torch.linalg.matrix_norm(matrices, 2).amax().item()
    return norm / math.sqrt(math.prod(settings[0])) * ROUND_UP


def _wrap(taps: Tensor, axis: int, size: int, setting: tuple[int, int, int]) -> Tensor:
    """Lay one axis of a kernel around a torus on which zero padding stays zero."""
    stride, padding, dilation = setting
    offsets = torch.arange(taps.shape[axis]) * dilation - padding
    count = (size + 2 * padding - dilation * (taps.shape[axis] - 1) - 1) // stride + 1
    if size < 1 or count < 1:
        raise ValueError(
            f"the kernel is larger than the padded image: {taps.shape[axis]} taps at "
            f"distance {dilation}, {size} pixels and {padding} zeros on either side"
        )
    pixels = torch.arange(count)[:, None] * stride + offsets
    inside = (pixels >= 0) & (pixels < size)
    used = inside.any(0)
    pixels = pixels[inside.any(1)][:, used]
    if not pixels.numel():
        return taps.new_zeros(*taps.shape[:axis], stride, *taps.shape[axis + 1 :])
    period = max(size - int(pixels.min()), int(pixels.max()) + 1)
    period += -period % stride
    shape = (*taps.shape[:axis], period, *taps.shape[axis + 1 :])
    place, used = (offsets[used] % period).to(taps.device), used.to(taps.device)
    kept = taps.index_select(axis, used.nonzero()[:, 0])
    return taps.new_zeros(shape).index_add_(axis, place, kept)


def _frequencies(taps: Tensor, stride: Sequence[int]) -> Tensor:
    """The matrix of every frequency: (groups, ..., c_out, c_in times its aliases)."""
    axes = len(stride)
    spectrum = torch.fft.fftn(taps, dim=tuple(range(3, 3 + axes)))
    for axis in range(axes):  # frequency = alias * (n / s) + what the output sees
        spectrum = spectrum.unflatten(3 + 2 * axis, (stride[axis], -1))
    aliases, seen = range(3, 3 + 2 * axes, 2), range(4, 4 + 2 * axes, 2)
    half = spectrum.shape[seen[-1]] // 2 + 1  # the others are conjugate
    spectrum = spectrum.narrow(seen[-1], 0, half)
    return spectrum.permute(0, *seen, 1, 2, *aliases).flatten(axes + 2)


def per_axis(value: Sizes, axes: int) -> tuple[int, ...]:
    """One number per axis, from one for all or one each."""
    if isinstance(value, str):
        raise ValueError(f"padding must be a number of zeros, got {value!r}")
    values = (value,) * axes if isinstance(value, int) else tuple(value)
    return values * axes if len(values) == 1 else values


def check_finite(name: str, values: Tensor) -> None:
    """Refuse NaN and infinity."""
    if not torch.isfinite(values).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
