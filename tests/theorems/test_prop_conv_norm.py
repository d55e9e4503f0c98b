"""prop-conv-norm: a convolution on images is part of a larger circular one."""

import math

import pytest
import sympy as sp
import torch
from torch.linalg import matrix_norm

from flatbook.lipschitz import convolution_bound
from tests.cases import dense, generator


def cases(number):
    """Kernel, image size, stride and padding (at most k - 1)."""
    g, done = generator(0), 0
    while done < number:
        k, size, stride, outputs, inputs = (
            1 + torch.randint(n, (), generator=g).item() for n in (4, 7, 3, 3, 3)
        )
        padding = torch.randint(k, (), generator=g).item()
        if size + 2 * padding >= k:
            done += 1
            kernel = torch.randn(outputs, inputs, k, k, generator=g).double()
            yield kernel, size, stride, padding


def true_norm(kernel, size, stride, padding):
    def convolve(x):
        return torch.conv2d(x, kernel, stride=stride, padding=padding)

    return matrix_norm(dense(convolve, (kernel.shape[1], size, size)), 2).item()


def on_the_torus(kernel, n, stride):
    """The bound, one frequency after the other, from its definition."""
    taps = torch.arange(kernel.shape[2], dtype=torch.float64)
    largest = 0.0
    for a in range(n // stride):
        for b in range(n // stride):
            parts = []
            for i in range(stride):
                for j in range(stride):
                    u = 2 * math.pi * (a + i * n // stride) / n
                    v = 2 * math.pi * (b + j * n // stride) / n
                    wave = torch.exp(-1j * (u * taps[:, None] + v * taps))
                    parts.append((kernel * wave).sum((2, 3)))
            largest = max(largest, matrix_norm(torch.cat(parts, 1), 2).item())
    return largest / stride


def reshaped(kernel):
    return matrix_norm(kernel.flatten(1), 2).item()


@pytest.mark.random
def test_600_convolutions_against_their_matrix():
    """600 kernels, image sizes, strides and paddings: the dense matrix is below."""
    for kernel, size, stride, padding in cases(600):
        true = true_norm(kernel, size, stride, padding)
        bound = convolution_bound(kernel, (size,) * 2, stride=stride, padding=padding)
        assert true <= bound


@pytest.mark.random
def test_150_frequency_by_frequency():
    """150 of them by the formula as stated, on every torus that is large enough."""
    for kernel, size, stride, padding in cases(150):
        true = true_norm(kernel, size, stride, padding)
        least = -(-(size + padding) // stride) * stride
        for n in (least, least + stride):
            assert true <= on_the_torus(kernel, n, stride) * (1 + 1e-12)


@pytest.mark.random
def test_500_reshaped_kernels():
    """500 reshaped kernels: at most ceil(k/s) too small, never too large inside."""
    for kernel, size, stride, padding in cases(500):
        true, matrix = true_norm(kernel, size, stride, padding), reshaped(kernel)
        assert true <= -(-kernel.shape[2] // stride) * matrix * (1 + 1e-12)
        first = -(-padding // stride) * stride - padding  # a window that starts inside
        if first + kernel.shape[2] <= size:
            assert matrix <= true * (1 + 1e-12)


@pytest.mark.symbolic
def test_second_differences():
    """(-1, 2, -1) on N pixels: sympy's eigenvalues are 2 - 2 cos(j pi / (N + 1))."""
    i, t = sp.symbols("i t")
    row = -sp.sin(i * t) + 2 * sp.sin((i + 1) * t) - sp.sin((i + 2) * t)
    wave = (2 - 2 * sp.cos(t)) * sp.sin((i + 1) * t)
    assert sp.expand((row - wave).rewrite(sp.exp)).simplify() == 0
    n, j = sp.symbols("N j", integer=True, positive=True)
    for end in (0, n + 1):  # the neighbours outside the image
        assert sp.sin(sp.cancel(end * j * sp.pi / (n + 1))) == 0


@pytest.mark.boundary
def test_equality_on_the_torus():
    """Circular convolutions, with and without stride: equality to twelve digits."""
    for kernel, _, stride, _ in cases(60):
        k, n = kernel.shape[2], 4 * stride

        def circular(x, k=k, kernel=kernel, stride=stride):
            around = torch.nn.functional.pad(x, (0, k - 1, 0, k - 1), mode="circular")
            return torch.conv2d(around, kernel, stride=stride)

        true = matrix_norm(dense(circular, (kernel.shape[1], n, n)), 2).item()
        assert on_the_torus(kernel, n, stride) == pytest.approx(true, rel=1e-12)


@pytest.mark.boundary
def test_nine_ones():
    """The box filter: reshaped 3, on the torus 9, on large images nearly 9."""
    kernel = torch.ones(1, 1, 3, 3, dtype=torch.float64)
    assert reshaped(kernel) == pytest.approx(3)
    assert convolution_bound(kernel, (20, 20), padding=1) == pytest.approx(9)
    assert 8.8 < true_norm(kernel, 20, 1, 1) < 9


@pytest.mark.needed
def test_a_torus_that_is_too_small():
    """On a torus of the image's own size the bound can fail."""
    kernel = torch.tensor([[[[1.0, 0.0, -1.0]]]]).double()
    image = torch.eye(2).double().view(2, 1, 1, 2)
    matrix = torch.conv2d(image, kernel, padding=(0, 1)).flatten(1)
    waves = [kernel.flatten() @ torch.tensor([1, s, 1.0]).double() for s in (1, -1)]
    assert max(abs(w) for w in waves) < 1e-12 < matrix_norm(matrix, 2)


@pytest.mark.needed
def test_kernels_larger_than_the_image():
    """On one pixel, eight of nine taps meet nothing: the reshaped norm is too large."""
    kernel = torch.ones(1, 1, 3, 3, dtype=torch.float64)
    assert true_norm(kernel, 1, 1, 1) == 1 < reshaped(kernel)
    kernel[0, 0, 1, 1] = 0
    assert true_norm(kernel, 1, 1, 1) == 0 < reshaped(kernel)
