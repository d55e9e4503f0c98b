"""CIFAR-10 and CIFAR-100 as they are published for C, read out of the archive.

Krizhevsky (2009) publishes both as pickled Python objects and as plain records: label
bytes, then 3,072 bytes of pixels, three planes of 32x32. Unpickling can run anything,
so only the records are read. The archive stays in its folder as it is: its SHA-256 is
compared before each use, members are taken by their exact names, and nothing is
unpacked to the disk.

https://www.cs.toronto.edu/~kriz/cifar.html
"""

import hashlib
import tarfile
from dataclasses import dataclass
from http.client import HTTPException
from io import BufferedReader
from pathlib import Path
from urllib.error import HTTPError

import numpy as np
import torch
from torch import Tensor
from torch.hub import download_url_to_file

__all__ = ["ARCHIVES", "Archive", "Part", "read"]

_SIZE = 32
_PIXELS = 3 * _SIZE * _SIZE

# Labels (n,) int64 and images (n, 3, 32, 32) uint8, in the published order.
Part = tuple[Tensor, np.ndarray]


@dataclass(frozen=True)
class Archive:
    """What is published, and what lies in it.

    Attributes:
        stem: how the names of all versions begin.
        sha256: of the binary version.
        names: the member with a class name in each line.
        train: the members with the training images, in order.
        test: the member with the test images.
        fine: which byte of a record is the class; pixels begin after it.
        counts: how many images are for training and for the test.
        site: where it is published.
    """

    stem: str
    sha256: str
    names: str
    train: tuple[str, ...]
    test: str
    fine: int
    counts: tuple[int, int] = (50_000, 10_000)
    site: str = "https://www.cs.toronto.edu/~kriz"

    @property
    def file(self) -> str:
        """Name of the binary version."""
        return f"{self.stem}-binary.tar.gz"

    @property
    def url(self) -> str:
        """Address of the binary version."""
        return f"{self.site}/{self.file}"


# The authors' page gives MD5 only. The SHA-256 are those of TensorFlow Datasets
# (url_checksums/cifar10.txt, cifar100.txt); MLDatasets.jl (src/datasets/vision) and
# gomlx (examples/cifar) have the same.
ARCHIVES = {
    "cifar10": Archive(
        stem="cifar-10",
        sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        names="cifar-10-batches-bin/batches.meta.txt",
        train=tuple(f"cifar-10-batches-bin/data_batch_{i}.bin" for i in range(1, 6)),
        test="cifar-10-batches-bin/test_batch.bin",
        fine=0,
    ),
    "cifar100": Archive(
        stem="cifar-100",
        sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        names="cifar-100-binary/fine_label_names.txt",
        train=("cifar-100-binary/train.bin",),
        test="cifar-100-binary/test.bin",
        fine=1,
    ),
}


def read(
    name: str, root: Path, *, download: bool = False
) -> tuple[tuple[str, ...], Part, Part]:
    """Class names, training and test part of a set.

    Args:
        name: "cifar10" or "cifar100".
        root: the folder that holds the archive; the only one that is written to.
        download: fetch the archive if it is not there.

    Raises:
        FileNotFoundError: if the archive is not there and not to be fetched.
        OSError: if it cannot be fetched or read.
        ValueError: if the archive is not the published one.
    """
    archive = ARCHIVES[name]
    path = root / archive.file
    if not path.exists():
        if not download:
            raise FileNotFoundError(f"{name} is not at {root.resolve()}: "
                                    f"{_advice(archive, root)}")  # fmt: skip
        _fetch(archive, path)
    with path.open("rb") as file:  # one handle: what is checked is what is read
        _verify(file, archive, path)
        members = _members(file, {archive.names, *archive.train, archive.test})
    try:
        classes = tuple(members[archive.names].decode("ascii").split())
        raw_train = b"".join(members.pop(member) for member in archive.train)
        train = _records(raw_train, archive, archive.counts[0])
        test = _records(members[archive.test], archive, archive.counts[1])
    except KeyError as error:
        raise ValueError(f"{path} holds no regular file {error}") from None
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    return classes, train, test


def _advice(archive: Archive, root: Path) -> str:
    """What to do without the archive."""
    text = f"put {archive.url} there, or download=True fetches it"
    pickled = sorted(path.name for path in root.glob(f"{archive.stem}-*py*"))
    if pickled:
        text += f" ({', '.join(pickled)} holds pickled objects and is not read)"
    return text


def _fetch(archive: Archive, path: Path) -> None:
    """Download to a temporary file beside `path`, compare, then move it there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # An absolute path: torch would take a leading ~ for the home folder.
        download_url_to_file(archive.url, str(path.absolute()), archive.sha256)
    except (OSError, HTTPException, RuntimeError) as error:
        if isinstance(error, HTTPError):
            error.close()  # it holds the connection
        raise OSError(
            f"{archive.url} could not be fetched: {error}. Get it in another way and "
            f"put it at {path.absolute()}"
        ) from error


def _verify(file: BufferedReader, archive: Archive, path: Path) -> None:
    found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != archive.sha256:
        raise ValueError(
            f"{path} is not {archive.url}, or damaged: its SHA-256 is {found}, "
            f"expected {archive.sha256}. Move it away, and download=True fetches it"
        )
    file.seek(0)


def _members(file: BufferedReader, wanted: set[str]) -> dict[str, bytes]:
    """The regular files of these exact names; links and everything else are passed."""
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=file, mode="r|gz") as archive:
        for member in archive:
            if member.name in wanted and member.isreg():
                content = archive.extractfile(member)
                assert content is not None  # it is a regular file
                found[member.name] = content.read()
    return found


def _records(raw: bytes, archive: Archive, count: int) -> Part:
    width = archive.fine + 1 + _PIXELS
    if len(raw) != count * width:
        raise ValueError(f"{len(raw)} bytes, expected {count} records of {width}")
    records = np.frombuffer(raw, np.uint8).reshape(count, width)
    labels = torch.tensor(records[:, archive.fine], dtype=torch.int64)
    pixels = records[:, archive.fine + 1 :]
    return labels, pixels.reshape(count, 3, _SIZE, _SIZE)
