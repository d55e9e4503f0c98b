"""Files of tensors and plain values that are complete, undamaged and executed by none.

A checkpoint is a dictionary in torch's zip format. It is written beside its place and
then moved there, read with `weights_only=True`, and every record is compared with
its checksum first.
"""

import hashlib
import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["FORMAT", "check_same", "fingerprint", "read", "shapes", "write"]

FORMAT = "flatbook checkpoint 2"


def write(path: Path, content: Mapping[str, object]) -> None:
    """Write a file as a whole or not at all; missing folders are made.

    Raises:
        OSError: if the folder cannot be made or written, or the disk is full; an
            older file of that name is then unchanged.
    """
    buffer = io.BytesIO()  # torch's own writer hides what a full disk says
    torch.save({"format": FORMAT, **content}, buffer)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, temporary, buffer)
    except OSError as error:
        reason = f"the checkpoint cannot be written: {error.strerror}"
        raise OSError(error.errno, reason, str(path)) from error


def _replace(path: Path, temporary: Path, buffer: io.BytesIO) -> None:
    try:
        with temporary.open("wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read(path: Path) -> dict:
    """The content of a file that `write` wrote, on the CPU.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged or of another format; the message names the path.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint at {path}")
    try:
        with zipfile.ZipFile(path) as archive:  # torch does not compare the checksums
            damaged = archive.testzip()
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} is damaged or no checkpoint") from error
    if damaged is not None:
        raise ValueError(f"{path} is damaged: wrong checksum of {damaged}")
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise ValueError(f"{path} has format {found!r}, expected {FORMAT!r}")
    return content


def shapes(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Shape and type of each tensor, to be compared and printed."""
    return {k: f"{tuple(v.shape)} {v.dtype}" for k, v in state.items()}


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, shapes, types and values, whatever the device and layout."""
    digest = hashlib.sha256(repr(shapes(state)).encode())
    for tensor in state.values():
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_same(path: Path, what: str, stored: object, wanted: object) -> None:
    """Name the first difference between what a file holds and what was asked.

    Raises:
        ValueError: if there is one.
    """
    if stored == wanted:
        return
    if isinstance(stored, dict) and isinstance(wanted, dict):
        keys = (*wanted, *stored)
        key = next(k for k in keys if stored.get(k, keys) != wanted.get(k, keys))
        what = f"{what} ({key})"
        stored, wanted = stored.get(key), wanted.get(key)
    raise ValueError(f"{path} is of another {what}: {stored!r}, expected {wanted!r}")
