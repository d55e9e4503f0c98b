"""What makes a host wait for a GPU, seen on a CPU."""

from contextlib import contextmanager, nullcontext
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

READS = {
    *("_local_scalar_dense", "is_nonzero", "item", "equal", "allclose"),
    *("nonzero", "masked_select", "unique_consecutive", "_unique2"),
}


class Waits(TorchDispatchMode):
    """Notes operations that read a value or whose result's shape depends on one.

    A mask as an index is one of them: it is turned into `nonzero` on a GPU.
    """

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        masks = name.startswith(("index", "_index")) and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool
            for index in (args[1] if isinstance(args[1], (list, tuple)) else ())
        )
        if name in READS or masks:
            self.names.append(name)
        return function(*args, **(kwargs or {}))


@contextmanager
def no_values():
    """The meta device: shapes only, so that reading a value is an error.

    It has no autocast, which is therefore off.
    """
    off = {"autocast": lambda *_, **__: nullcontext()}
    off["is_autocast_enabled"] = lambda device=None: False
    with mock.patch.multiple(torch, **off):
        yield torch.device("meta")
