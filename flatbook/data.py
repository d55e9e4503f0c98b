"""Images in [0, 1], with fixed splits and a checksum.

The default data need no download: the 1,797 real handwritten digits of 8x8 pixels
that scikit-learn ships (Alpaydin and Kaynak, 1998). CIFAR-10 and CIFAR-100
(Krizhevsky, 2009) come from their published binary archives, own images from a folder

    root/train/<class>/*.jpg        root/test/<class>/*.jpg

>>> data = digits()
>>> data
Dataset(digits: 1297 train, 500 test, 10 classes, 1x8x8, sha256 6eca14...)
>>> data.x_train.shape, data.x_train.max().item()
(torch.Size([1297, 1, 8, 8]), 1.0)
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, one_hot

from flatbook import _checks, _cifar

__all__ = ["NAMES", "Dataset", "digits", "load"]

NAMES = ("digits", "cifar10", "cifar100", "folder")
_TEST_DIGITS = 500
# The decoders for the files that a folder is searched for. No other is tried, whatever
# a file holds: Pillow knows formats that start other programs.
_FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images and labels of a training and a test set.

    Attributes:
        name: what the data are.
        x_train: (n, C, H, H) float32 in [0, 1].
        y_train: (n,) int64 in 0 .. len(classes) - 1.
        x_test: (m, C, H, H) float32 in [0, 1].
        y_test: (m,) int64.
        classes: a name for each label.
        sha256: checksum of classes, shapes, images and labels, computed.

    Raises:
        TypeError: if a tensor has the wrong type.
        ValueError: if a shape, a pixel or a label is not as above.
    """

    name: str
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    classes: tuple[str, ...]
    sha256: str = field(init=False)

    def __post_init__(self) -> None:
        if len(set(self.classes)) != len(self.classes) or len(self.classes) < 2:
            raise ValueError(f"classes must be two or more names, got {self.classes}")
        for part in ("train", "test"):
            images, labels = getattr(self, f"x_{part}"), getattr(self, f"y_{part}")
            _check_images(f"x_{part}", images)
            _check_labels(f"y_{part}", labels, images, self.num_classes)
        if self.x_train.shape[1:] != self.x_test.shape[1:]:
            raise ValueError(
                "x_train and x_test must share the image shape, got "
                f"{tuple(self.x_train.shape[1:])} and {tuple(self.x_test.shape[1:])}"
            )
        object.__setattr__(self, "sha256", self._checksum())

    def _checksum(self) -> str:
        digest = hashlib.sha256(repr(self.classes).encode())
        for tensor in (self.x_train, self.y_train, self.x_test, self.y_test):
            digest.update(repr(tuple(tensor.shape)).encode())
            digest.update(tensor.cpu().contiguous().numpy().data)
        return digest.hexdigest()

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.x_train.shape[1:]))
        return (
            f"Dataset({self.name}: {len(self.x_train)} train, {len(self.x_test)} test, "
            f"{self.num_classes} classes, {shape}, sha256 {self.sha256[:6]}...)"
        )

    @property
    def num_classes(self) -> int:
        """Number of classes k."""
        return len(self.classes)

    @property
    def in_channels(self) -> int:
        """Channels of an image."""
        return self.x_train.shape[1]

    @property
    def image_size(self) -> int:
        """Height and width of an image."""
        return self.x_train.shape[2]


def digits(*, image_size: int = 8, seed: int = 0) -> Dataset:
    """Handwritten digits, 1297 for training and 500 for the test.

    The split is stratified: each class has its share of the test set. Larger images
    repeat each pixel, which leaves the values as they are.

    Args:
        image_size: a multiple of 8.
        seed: of the split.

    Returns:
        Images of shape (1, image_size, image_size); the order is random.

    Raises:
        ValueError: if image_size is not a positive multiple of 8.
    """
    from sklearn.datasets import load_digits

    if not isinstance(image_size, int) or image_size < 8 or image_size % 8:
        raise ValueError(f"image_size must be a multiple of 8, got {image_size!r}")
    raw = load_digits()
    images = torch.as_tensor(raw.images, dtype=torch.float32)[:, None] / 16
    for axis in (2, 3):
        images = images.repeat_interleave(image_size // 8, axis)
    labels = torch.as_tensor(raw.target, dtype=torch.int64)
    order, rank = _shuffle(labels, torch.Generator().manual_seed(seed))
    in_test = rank < _shares(labels, _TEST_DIGITS)[labels[order]]
    train, test = order[~in_test], order[in_test]
    parts = (images[train], labels[train], images[test], labels[test])
    return Dataset("digits", *parts, tuple("0123456789"))


def load(
    name: str,
    *,
    root: str | Path | None = None,
    download: bool = False,
    image_size: int | None = None,
    seed: int = 0,
    limit: int | None = None,
) -> Dataset:
    """Load a dataset by name.

    Args:
        name: "digits", "cifar10", "cifar100" or "folder" (RGB, see the module).
        root: where CIFAR's archive lies or is downloaded to (default "data"), or the
            folder. Nothing is written anywhere else.
        download: fetch the archive if it is not there.
        image_size: resize square images to this size (digits: repeat pixels, others:
            bilinear with antialiasing); default is the size they have.
        seed: of the split of the digits, of the order of a folder and of the choice
            that `limit` makes.
        limit: keep at most so many images per class, in training and in test set.

    Raises:
        FileNotFoundError: if a file or folder that is needed is missing.
        OSError: if a download fails; nothing incomplete keeps the name of the archive.
        ValueError: if the name is unknown, a number is out of range, or a file or
            folder does not hold what it should: the message names the path.
    """
    if name not in NAMES:
        raise ValueError(f"name must be one of {', '.join(NAMES)}, got {name!r}")
    for label, value in (("image_size", image_size), ("limit", limit)):
        if value is not None:
            _checks.integer(label, value, 1)
    if name == "digits":
        return _limited(digits(image_size=image_size or 8, seed=seed), seed, limit)
    if name == "folder":
        classes, sources = _folder_sources(root)
    else:
        classes, sources = _cifar_sources(name, Path(root or "data"), download)
    generator = torch.Generator().manual_seed(seed)
    parts: list[Tensor] = []
    for labels, read in sources:
        keep = _select(labels, limit, generator)
        parts += [_as_images(read(keep), image_size), labels[keep]]
    x_train, y_train, x_test, y_test = parts
    return Dataset(name, x_train, y_train, x_test, y_test, classes)


# One part (training or test) as it lies on disk: its labels, and a function from
# indices to images (n, C, H, W) uint8.
_Source = tuple[Tensor, Callable[[Tensor], np.ndarray]]


def _cifar_sources(
    name: str, root: Path, download: bool
) -> tuple[tuple[str, ...], list[_Source]]:
    classes, *parts = _cifar.read(name, root, download=download)
    return classes, [(labels, images.__getitem__) for labels, images in parts]


def _folder_sources(root: str | Path | None) -> tuple[tuple[str, ...], list[_Source]]:
    if root is None:
        raise ValueError("root must name the folder that holds train/ and test/")
    from torchvision.datasets import ImageFolder

    folders = [Path(root) / part for part in ("train", "test")]
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{folder} is missing: expected {root}/train/<class>/*.jpg and "
                f"{root}/test/<class>/*.jpg"
            )
    train, test = (ImageFolder(folder, allow_empty=True) for folder in folders)
    _check_classes(folders, train.classes, test.classes)
    sources: list[_Source] = []
    for folder, part in zip(folders, (train, test), strict=True):
        for label in sorted(set(range(len(part.classes))) - set(part.targets)):
            raise FileNotFoundError(
                f"{folder / part.classes[label]} holds no image, expected at least one"
            )
        paths = [path for path, _ in part.samples]
        sources.append((torch.tensor(part.targets), partial(_read, paths)))
    return tuple(train.classes), sources


def _check_classes(folders: list[Path], train: list[str], test: list[str]) -> None:
    different = sorted(set(train) ^ set(test))
    if different:
        raise ValueError(
            f"{folders[0]} and {folders[1]} must hold the same classes, but only one "
            f"of them has {', '.join(different)}"
        )
    if len(train) < 2:
        raise ValueError(f"{folders[0]} must hold two or more classes, got {train}")


def _read(paths: list[str], indices: Tensor) -> np.ndarray:
    """Decode images to (n, 3, H, H) uint8."""
    chosen = [paths[index] for index in indices.tolist()]
    images: list[np.ndarray] = []
    for path in chosen:
        images.append(_decode(path, images[0].shape[0] if images else None, chosen[0]))
    return np.stack(images).transpose(0, 3, 1, 2)


def _decode(path: str, size: int | None, first: str) -> np.ndarray:
    """One image (H, H, 3) uint8; its size is compared before any pixel is decoded."""
    from PIL import Image

    try:
        with Image.open(path, formats=_FORMATS) as image:
            width, height = image.size
            if width == height and size in (None, width):
                return np.asarray(image.convert("RGB"))
    except Exception as error:
        raise ValueError(f"{path} cannot be decoded as an image: {error}") from error
    if height != width:
        raise ValueError(f"{path} must be square, got {width}x{height} pixels")
    raise ValueError(
        f"{path} has {width}x{height} pixels, expected {size}x{size} as in {first}: "
        "all images must have one size"
    )


def _as_images(raw: np.ndarray, size: int | None) -> Tensor:
    """Images (n, C, H, H) uint8 as (n, C, size, size) float32 in [0, 1]."""
    images = torch.from_numpy(np.ascontiguousarray(raw))
    if size in (None, images.shape[2]):
        return images.float().div_(255)
    # In pieces: the float images before resizing may be many times larger.
    resized = [
        interpolate(piece.float() / 255, size, mode="bilinear", antialias=True)
        for piece in images.split(256)
    ]
    return torch.cat(resized).clamp(0, 1)


def _shuffle(labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A random order of the images, and the rank of each within its class."""
    order = torch.randperm(len(labels), generator=generator)
    shuffled = labels[order, None]
    rank = one_hot(shuffled[:, 0]).cumsum(0).gather(1, shuffled)[:, 0] - 1
    return order, rank


def _select(labels: Tensor, limit: int | None, generator: torch.Generator) -> Tensor:
    """Indices of at most `limit` images per class, in random order."""
    order, rank = _shuffle(labels, generator)
    return order if limit is None else order[rank < limit]


def _shares(labels: Tensor, total: int) -> Tensor:
    """How many of `total` images each class gets: largest remainders."""
    exact = labels.bincount().double() * total / len(labels)
    shares = exact.long()
    remainder = (exact - shares).argsort(descending=True, stable=True)
    shares[remainder[: total - int(shares.sum())]] += 1
    return shares


def _limited(data: Dataset, seed: int, limit: int | None) -> Dataset:
    if limit is None:
        return data
    generator = torch.Generator().manual_seed(seed)
    train = _select(data.y_train, limit, generator)
    test = _select(data.y_test, limit, generator)
    return replace(
        data,
        x_train=data.x_train[train],
        y_train=data.y_train[train],
        x_test=data.x_test[test],
        y_test=data.y_test[test],
    )


def _check_images(name: str, images: Tensor) -> None:
    if not isinstance(images, Tensor) or images.dtype != torch.float32:
        got = getattr(images, "dtype", type(images).__name__)
        raise TypeError(f"{name} must be a float32 tensor, got {got}")
    shape = tuple(images.shape)
    if len(shape) != 4 or 0 in shape or shape[2] != shape[3]:
        raise ValueError(f"{name} must have shape (n, C, H, H), got {shape}")
    low, high = (value.item() for value in images.aminmax())
    if not (low >= 0 and high <= 1):
        raise ValueError(f"{name} must lie in [0, 1], got values {low} to {high}")


def _check_labels(name: str, labels: Tensor, images: Tensor, classes: int) -> None:
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        got = getattr(labels, "dtype", type(labels).__name__)
        raise TypeError(f"{name} must be an int64 tensor, got {got}")
    if labels.shape != (len(images),):
        raise ValueError(
            f"{name} must have shape ({len(images)},), got {tuple(labels.shape)}"
        )
    low, high = (int(value) for value in labels.aminmax())
    if low < 0 or high >= classes:
        raise ValueError(f"{name} must lie in 0 .. {classes - 1}, got {low} to {high}")
