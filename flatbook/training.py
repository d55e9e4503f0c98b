"""One training loop: stochastic gradient descent with a cosine schedule.

The loss is the mean cross-entropy of a batch, with optional label smoothing; the
step size falls from `lr` to zero along half a cosine, step by step; momentum is
Nesterov's. Weight decay acts on all parameters. This is the recipe of wide residual
networks (Zagoruyko and Komodakis, 2016) with the schedule of Loshchilov and Hutter
(SGDR, 2017).

All randomness (order of the images, augmentation) comes from one generator, which a
checkpoint stores with the weights and the state of the descent: on a CPU an
interrupted run resumes to the same weights, bit for bit. Checkpoints hold tensors and
plain values only and are read with `weights_only=True`; nothing in them is executed.

>>> from flatbook import data, models
>>> digits = data.digits()
>>> model = models.build("mlp", 10, in_channels=1, image_size=8)
>>> history = train(model, digits, Recipe(epochs=3), progress=False)
>>> history.test_accuracy[-1] > 0.9
True
"""

import hashlib
import math
import os
import sys
import time
import zipfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from flatbook import __version__, _checks
from flatbook.data import Dataset
from flatbook.models import check_model, evaluating

__all__ = [
    "History",
    "Recipe",
    "accuracy",
    "load_checkpoint",
    "save_checkpoint",
    "train",
]

_FORMAT = "flatbook checkpoint 1"


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    Attributes:
        epochs: passes through the training set, at least 1.
        batch_size: largest number of images in a step; batches are of equal size.
        lr: step size at the start, positive.
        momentum: in [0, 1); Nesterov's where positive.
        weight_decay: at least 0.
        label_smoothing: in [0, 1).
        augment: shift images by up to an eighth of their size and mirror half of
            them. Not for digits: a mirrored 2 is none.
        seed: of the order of the images and of the augmentation. The initial weights
            are the model's own: see `models.reinitialise`.

    Raises:
        ValueError: if a value is out of range.
    """

    epochs: int
    batch_size: int = 64
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    label_smoothing: float = 0.0
    augment: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        _checks.integer("epochs", self.epochs, 1)
        _checks.integer("batch_size", self.batch_size, 1)
        _checks.positive("lr", self.lr)
        _checks.number("momentum", self.momentum, 0, 1)
        _checks.number("weight_decay", self.weight_decay)
        _checks.number("label_smoothing", self.label_smoothing, 0, 1)
        _checks.integer("seed", self.seed, 0)
        if not isinstance(self.augment, bool):
            raise ValueError(f"augment must be True or False, got {self.augment!r}")


@dataclass(frozen=True)
class History:
    """What was measured in each epoch; all fields have one value per epoch.

    Attributes:
        loss: mean training loss, as the steps saw it (with smoothing, if any).
        train_accuracy: share of training images right, as the steps saw them.
        test_accuracy: share of test images right after the epoch.
        seconds: wall time, of training and testing.
    """

    loss: tuple[float, ...] = ()
    train_accuracy: tuple[float, ...] = ()
    test_accuracy: tuple[float, ...] = ()
    seconds: tuple[float, ...] = ()

    @property
    def epochs(self) -> int:
        """Number of finished epochs."""
        return len(self.loss)

    def _with(self, measured: tuple[float, float, float, float]) -> "History":
        old = (self.loss, self.train_accuracy, self.test_accuracy, self.seconds)
        return History(*((*o, m) for o, m in zip(old, measured, strict=True)))


def train(
    model: nn.Module,
    dataset: Dataset,
    recipe: Recipe,
    *,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> History:
    """Train a model in place, from the weights it has.

    The data move to the model's device once. With `checkpoint`, the state is written
    after every epoch; the same call with the same initial weights then resumes, or
    just loads what is finished. After an interruption (also of the keyboard) the
    model holds the weights of the checkpoint.

    Args:
        model: features and a head with one output per class; ends in eval mode.
        dataset: images of the shape the model takes.
        recipe: how to train.
        checkpoint: path of the checkpoint, or None.
        progress: show a bar on the standard error.

    Raises:
        TypeError: if the model has no features or no head.
        ValueError: if model and data do not fit, or the checkpoint is damaged or
            belongs to another model, recipe, dataset or initialisation.
        FloatingPointError: if the loss is no longer finite.
    """
    _check_fit(model, dataset)
    run = _Run(model, dataset, recipe)
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None:
        run.resume(path) if path.exists() else run.save(path)
    try:
        with _bar(run, progress) as bar:
            while run.history.epochs < recipe.epochs:
                run.epoch()
                if path is not None:
                    run.save(path)
                if bar is not None:
                    bar.update()
                    bar.set_postfix(test_accuracy=run.history.test_accuracy[-1])
    except BaseException:
        if path is not None:
            run.resume(path)
        raise
    finally:
        model.eval()
    return run.history


def accuracy(model: nn.Module, x: Tensor, y: Tensor, *, batch_size: int = 512) -> float:
    """Share of images that the model gets right, in evaluation mode.

    Args:
        model: from images to logits (N, k); its mode is restored.
        x: images (N, C, H, W), on any device.
        y: labels (N,).
        batch_size: images in a pass.

    Raises:
        ValueError: if there are no images or not one label for each.
    """
    _checks.integer("batch_size", batch_size, 1)
    if not len(x) or y.shape != (len(x),):
        raise ValueError(
            f"x and y must be N > 0 images and labels, got {len(x)} images and labels "
            f"of shape {tuple(y.shape)}"
        )
    device = _device(model)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    with evaluating(model), torch.no_grad():
        for images, labels in zip(
            x.split(batch_size), y.split(batch_size), strict=True
        ):
            correct += (model(images.to(device)).argmax(1) == labels.to(device)).sum()
    return int(correct) / len(x)


class _Descent:
    """Gradient descent with weight decay and Nesterov's momentum.

    v <- momentum v + g,  w <- w - lr (g + momentum v),  g = gradient + decay w.
    The numbers are those of `torch.optim.SGD`, whose first use imports the compiler
    and takes longer than a whole training of the small models of the book.
    """

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.velocity = [torch.zeros_like(p) for p in self.parameters]
        self.recipe = recipe
        self._forget()

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Move against the gradients and forget them."""
        momentum, decay = self.recipe.momentum, self.recipe.weight_decay
        for parameter, velocity in zip(self.parameters, self.velocity, strict=True):
            if parameter.grad is not None:
                gradient = parameter.grad.add(parameter, alpha=decay)
                velocity.mul_(momentum).add_(gradient)
                parameter.sub_(gradient.add_(velocity, alpha=momentum), alpha=lr)
        self._forget()

    def _forget(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None


class _Run:
    """All that changes during training: epochs, and what a checkpoint keeps."""

    def __init__(self, model: nn.Module, dataset: Dataset, recipe: Recipe) -> None:
        self.model, self.dataset, self.recipe = model, dataset, recipe
        self.x, self.y = (
            t.to(_device(model)) for t in (dataset.x_train, dataset.y_train)
        )
        self.steps = math.ceil(len(self.y) / recipe.batch_size)
        self.descent = _Descent(model, recipe)
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.history = History()
        self.initial = _fingerprint(model.state_dict())

    def epoch(self) -> None:
        """One pass through the training set, in equal batches, then the test set."""
        start, count = time.perf_counter(), len(self.y)
        order = torch.randperm(count, generator=self.generator).to(self.y.device)
        sums = torch.zeros(2, device=self.y.device)
        self.model.train()
        for batch, indices in enumerate(order.tensor_split(self.steps)):
            sums += self._step(self.history.epochs * self.steps + batch, indices)
        loss, right = (sums / count).tolist()
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} in epoch {self.history.epochs + 1}; "
                f"lr = {self.recipe.lr} may be too large"
            )
        test = accuracy(self.model, self.dataset.x_test, self.dataset.y_test)
        seconds = time.perf_counter() - start
        self.history = self.history._with((loss, right, test, seconds))

    def _step(self, step: int, indices: Tensor) -> Tensor:
        """One descent; returns the summed loss and the number of right images."""
        x, y = self.x[indices], self.y[indices]
        if self.recipe.augment:
            x = _augment(x, self.generator)
        done = step / (self.steps * self.recipe.epochs)
        lr = self.recipe.lr * (1 + math.cos(math.pi * done)) / 2
        logits = self.model(x)
        smoothing = self.recipe.label_smoothing
        loss = cross_entropy(logits, y, label_smoothing=smoothing)
        loss.backward()
        self.descent.step(lr)
        right = (logits.argmax(1) == y).sum()
        return torch.stack([loss.detach() * len(y), right])

    def save(self, path: Path) -> None:
        """Write a checkpoint that `resume` reads."""
        content = _content(self.model, self.recipe, self.history)
        content["dataset"] = self.dataset.sha256
        content["run"] = {
            "initial": self.initial,
            "velocity": self.descent.velocity,
            "generator": self.generator.get_state(),
        }
        _write(path, content)

    def resume(self, path: Path) -> None:
        """Take over the state of a checkpoint, or refuse it and change nothing."""
        content = _read(path)
        stored = content["run"]
        if stored is None:
            raise ValueError(f"{path} holds a model, not a training run to resume")
        _check_content(path, content, self.model, self.recipe)
        _check_same(path, "dataset", content["dataset"], self.dataset.sha256)
        if self.initial not in (stored["initial"], _fingerprint(content["model"])):
            raise ValueError(
                f"{path} began with other initial weights than this model has"
            )
        self.initial = stored["initial"]
        self.history = _load(content, self.model)
        for velocity, old in zip(
            self.descent.velocity, stored["velocity"], strict=True
        ):
            velocity.copy_(old)
        self.generator.set_state(stored["generator"])


def save_checkpoint(
    path: str | Path,
    model: nn.Module,
    recipe: Recipe | None = None,
    *,
    history: History | None = None,
) -> None:
    """Write a model to a file that `load_checkpoint` reads.

    The file is complete or absent, never half written. Missing folders are made.

    Args:
        path: of the file; an old one is replaced.
        model: its weights and, where it has one, its `config` are stored.
        recipe: how it was trained, if known.
        history: of its training, if known.
    """
    _write(Path(path), _content(model, recipe, history or History()))


def load_checkpoint(
    path: str | Path, model: nn.Module, recipe: Recipe | None = None
) -> History:
    """Load the weights of a checkpoint into a model, after checking that they fit.

    Args:
        path: written by `save_checkpoint` or by `train`, finished or not.
        model: of the same architecture; changed only if all checks pass.
        recipe: the recipe the checkpoint must have been trained with, or None for
            any.

    Returns:
        The history of the training; `history.epochs` tells how far it got.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, no checkpoint, or of another model or
            recipe; the message names the path and the difference.
    """
    path = Path(path)
    content = _read(path)
    _check_content(path, content, model, recipe)
    return _load(content, model)


def _content(model: nn.Module, recipe: Recipe | None, history: History) -> dict:
    return {
        "format": _FORMAT,
        "flatbook": __version__,
        "config": getattr(model, "config", {}),
        "recipe": None if recipe is None else asdict(recipe),
        "dataset": None,
        "model": model.state_dict(),
        "history": asdict(history),
        "run": None,
    }


def _write(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path) -> dict:
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
    if found != _FORMAT:
        raise ValueError(f"{path} has format {found!r}, expected {_FORMAT!r}")
    return content


def _check_content(
    path: Path, content: dict, model: nn.Module, recipe: Recipe | None
) -> None:
    _check_same(path, "model", content["config"], getattr(model, "config", {}))
    if recipe is not None:
        _check_same(path, "recipe", content["recipe"], asdict(recipe))
    _check_same(path, "weights", _shapes(content["model"]), _shapes(model.state_dict()))


def _load(content: dict, model: nn.Module) -> History:
    model.load_state_dict(content["model"])
    return History(**{name: tuple(v) for name, v in content["history"].items()})


def _shapes(state: Mapping[str, Tensor]) -> dict[str, str]:
    return {k: f"{tuple(v.shape)} {v.dtype}" for k, v in state.items()}


def _check_same(path: Path, what: str, stored: object, wanted: object) -> None:
    """Name the first difference between what a file holds and what was asked."""
    if stored == wanted:
        return
    if isinstance(stored, dict) and isinstance(wanted, dict):
        keys = (*wanted, *stored)
        key = next(k for k in keys if stored.get(k, keys) != wanted.get(k, keys))
        what = f"{what} ({key})"
        stored, wanted = stored.get(key), wanted.get(key)
    raise ValueError(f"{path} is of another {what}: {stored!r}, expected {wanted!r}")


def _check_fit(model: nn.Module, dataset: Dataset) -> None:
    features, head = check_model(model)
    if head.out_features != dataset.num_classes:
        raise ValueError(
            f"the model has {head.out_features} classes, the dataset "
            f"{dataset.num_classes}"
        )
    with evaluating(model), torch.no_grad():
        features(dataset.x_train[:1].to(_device(model)))


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _fingerprint(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(repr(_shapes(state)).encode())
    for tensor in state.values():
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each image by up to an eighth of its size, mirror every other one.

    Pixels that come from outside are 0. Everything is one gather of tensor indices.
    """
    n, channels, size, _ = x.shape
    border = max(1, size // 8)
    shift = torch.randint(2 * border + 1, (2, n, 1), generator=generator)
    mirror = torch.randint(2, (n, 1), generator=generator).bool()
    rows, columns = shift + torch.arange(size)
    columns = torch.where(mirror, columns.flip(1), columns)
    image, channel = torch.arange(n), torch.arange(channels)
    index = (
        image[:, None, None, None],
        channel[None, :, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    )
    return pad(x, [border] * 4)[tuple(i.to(x.device) for i in index)]


def _bar(run: _Run, show: bool) -> AbstractContextManager[Any]:
    """Progress bar over epochs on the standard error, or a context without one."""
    if not show:
        return nullcontext()
    from tqdm import tqdm

    done, total = run.history.epochs, run.recipe.epochs
    return tqdm(initial=done, total=total, unit="epoch", file=sys.stderr)
