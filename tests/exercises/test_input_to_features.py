"""Checkers accept the solutions and name the typical mistakes."""

import copy
import math
from functools import partial
from itertools import pairwise

import pytest
import sympy as sp
import torch
from torch import nn

from flatbook.exercises import check

N = sp.Symbol("N", positive=True)


def blocks(c, n):
    return 1 + c, math.hypot(1, c), math.hypot(1, c) ** n


def conv_norm(kernel, size, steps=4000):
    pad = kernel.shape[-1] // 2
    x = torch.linspace(1, 2, kernel.shape[1] * size**2).double()
    x = x.view(1, kernel.shape[1], size, size)
    for _ in range(steps):
        y = torch.conv2d(x / x.norm(), kernel, padding=pad)
        x = torch.conv_transpose2d(y, kernel, padding=pad)
    return y.norm()


@pytest.mark.parametrize(
    ("topic", "answer"),
    [
        ("blocks", blocks),
        ("second_difference", 2 + 2 * sp.cos(sp.pi / (N + 1))),
        ("second_difference", 4 * sp.cos(sp.pi / (2 * sp.Symbol("n") + 2)) ** 2),
        ("second_difference", "2 - 2*cos(pi*N/(N + 1))"),
        ("conv_norm", conv_norm),
    ],
)
def test_right_answers(topic, answer):
    verdict = check(f"input_to_features.{topic}", answer)
    assert verdict.ok, verdict


@pytest.mark.parametrize(
    ("topic", "answer", "message"),
    [
        ("blocks", lambda c, n: 1 + c, "three numbers"),
        ("blocks", lambda c, n: (max(1, c), *blocks(c, n)[1:]), "residual.*more than"),
        ("blocks", lambda c, n: (1 + c, 1 + c, (1 + c) ** n), "dense layer.*smaller"),
        ("blocks", lambda c, n: (1 + c, math.hypot(1, c), 1 + n * c), "in a row"),
        ("second_difference", 4, "torus"),
        ("second_difference", 2 + 2 * sp.cos(sp.pi / N), "N = 1"),
        ("second_difference", 3 - 1 / N, "not equal"),
        ("second_difference", "2 +* N", "should be an expression"),
        ("second_difference", sp.Symbol("a") * N, "should not contain a"),
        ("second_difference", 2 + 2 * sp.cos((N - 1) * sp.pi), "N = 1"),
        ("conv_norm", lambda k, n: torch.linalg.matrix_norm(k.flatten(1), 2), "resh"),
        ("conv_norm", lambda k, n: conv_norm(k, n) ** 2, "square"),
        ("conv_norm", lambda k, n: conv_norm(k, n, 1), "stretched more"),
        ("conv_norm", lambda k, n: k.abs().sum() * 9, "no image"),
        ("conv_norm", lambda k, n: k, "one finite number"),
        (
            "conv_norm",
            lambda k, n: torch.conv2d(
                torch.eye(k.shape[1] * n * n).double().view(-1, k.shape[1], n, n),
                k,
                padding=k.shape[-1] // 2,
            ).norm(),
            "Frobenius",
        ),
    ],
)
def test_typical_mistakes(topic, answer, message):
    verdict = check(f"input_to_features.{topic}", answer)
    assert not verdict.ok
    with pytest.raises(ValueError, match=f"(?s){message}"):
        raise ValueError(verdict.message)


def fold(layers, *, copied=True, shift=True, bias=True):
    layers = copy.deepcopy(layers) if copied else layers
    for conv, bn in pairwise(layers):
        if isinstance(bn, nn.BatchNorm2d):
            deviation = (bn.running_var + bn.eps).sqrt()
            factor = bn.weight / deviation
            conv.weight *= factor[:, None, None, None]
            if conv.bias is not None and bias:
                conv.bias *= factor
            if shift:
                bn.running_mean *= factor
            bn.weight[:] = deviation
    return layers


def replaced(layers):
    """Without normalisations at all: bias and shift in the convolution."""
    found = nn.Sequential()
    for conv, bn in pairwise(layers):
        if isinstance(bn, nn.BatchNorm2d):
            found.append(torch.nn.utils.fusion.fuse_conv_bn_eval(conv, bn))
        elif not isinstance(conv, nn.BatchNorm2d | nn.Conv2d):
            found.append(conv)
    return found.append(layers[-1]) if isinstance(layers[-1], nn.ReLU) else found


@pytest.mark.parametrize("answer", [fold, replaced])
def test_right_folding(answer):
    assert check("input_to_features.fold", answer).ok


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (copy.deepcopy, "layer 1 still multiplies"),
        (partial(fold, copied=False), "have changed; fold a copy"),
        (partial(fold, shift=False), "only shifts are wrong"),
        (partial(fold, bias=False), "case 1 .*only shifts are wrong"),
        (lambda layers: fold(layers)[:-1], "another one|shape|size|shifts"),
        (lambda layers: None, "of type NoneType"),
        (lambda layers: nn.Sequential(layers[0]), "raised|another one|size"),
    ],
)
def test_wrong_folding(answer, message):
    verdict = check("input_to_features.fold", answer)
    assert not verdict.ok
    with pytest.raises(ValueError, match=message):
        raise ValueError(verdict.message)
