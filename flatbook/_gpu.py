"""What a GPU has to be told: do not wait, do not round more, do the same twice.

* `send` copies to a GPU while the host goes on.
* `algorithms` says which of its algorithms cuDNN may choose, and `repeatable` those
  whose result does not vary from run to run.
* `exact` also forbids TensorFloat-32. On GPUs since compute capability 8, cuDNN
  rounds the factors of a float32 convolution to 10 bits unless it is told not to
  (PyTorch's documentation, CUDA semantics): a relative error of about 1e-3, where
  float32 has 1e-7.
* `measuring` also ends an autocast.

The switches are global in torch. The contexts set them back, also after an exception.
A backward pass reads them when it runs: it belongs into the context too.

>>> with exact():
...     torch.get_float32_matmul_precision()
'highest'
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor

__all__ = ["algorithms", "exact", "measuring", "repeatable", "send"]

_NAME = "fp32_precision"


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device; the host does not wait for a GPU to take it.

    Only memory that is pinned can be read by a GPU while the host goes on; torch
    keeps it until that is done.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@contextmanager
def algorithms(*, same_bits: bool, trials: bool) -> Iterator[None]:
    """Which algorithms cuDNN chooses among, and how.

    Args:
        same_bits: only among those that give the same bits each time.
        trials: by their time in trials, which is not always alike.
    """
    cudnn = torch.backends.cudnn
    old = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = same_bits, trials
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = old


def repeatable() -> AbstractContextManager[None]:
    """Let cuDNN use algorithms that give the same bits each time, without trials."""
    return algorithms(same_bits=True, trials=False)


@contextmanager
def exact() -> Iterator[None]:
    """Let float32 be float32, in convolutions and products, and be `repeatable`.

    It does not end an autocast, which is its caller's choice.
    """
    switches = _switches()
    kept = [_read(read) for read, _, _ in switches]
    try:
        for _, write, full in reversed(switches):
            write(full)
        with repeatable():
            yield
    finally:
        for (_, write, _), value in zip(switches, kept, strict=True):
            if value is not None:
                write(value)


@contextmanager
def measuring(device: torch.device) -> Iterator[None]:
    """Compute nothing in fewer bits than its tensors have: `exact`, and no autocast.

    The book measures in float32 or better; `python -m benchmarks precision` shows
    what 16 bits would do to the numbers.
    """
    with torch.autocast(device.type, enabled=False), exact():
        yield


def _read(read: Callable[[], object]) -> object:
    """A switch, or None: torch refuses to read an older one if a newer one rules."""
    with suppress(RuntimeError):
        return read()
    return None


def _switches() -> list[tuple[Callable[[], object], Callable[[Any], None], object]]:
    """How to read and write what lets float32 be less, and its strictest value.

    Since 2.9 torch has a switch for each operation, and refuses to multiply where it
    contradicts the older two. These move the others along: they are to be set first,
    and to be set back last. They come last here.
    """
    cudnn, cuda = torch.backends.cudnn, torch.backends.cuda
    parts = (cudnn.conv, cudnn.rnn, cuda.matmul) if hasattr(cudnn, "conv") else ()
    newer = [
        (partial(getattr, part, _NAME), partial(setattr, part, _NAME), "ieee")
        for part in parts
    ]
    return [
        *newer,
        (
            partial(getattr, cudnn, "allow_tf32"),
            partial(setattr, cudnn, "allow_tf32"),
            False,
        ),
        (
            torch.get_float32_matmul_precision,
            torch.set_float32_matmul_precision,
            "highest",
        ),
    ]
