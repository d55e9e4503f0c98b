"""One training loop: stochastic gradient descent with a cosine schedule.

The loss is the mean over a batch of one of `LOSSES`, by default cross-entropy; the
step size falls from `lr` to zero along half a cosine, step by step, after an optional
linear rise; momentum is Nesterov's. Weight decay acts on all parameters. This is the
recipe of wide residual networks (Zagoruyko and Komodakis, 2016) with the schedule of
Loshchilov and Hutter (SGDR, 2017).

With an `Adversary` each batch is attacked before the step (Madry et al., Towards deep
learning models resistant to adversarial attacks, 2018). With `half` the passes run in
16 bits, the weights stay in 32 (Micikevicius et al., Mixed precision training, 2018).

No step makes the host wait for a GPU: images stay on it, in one epoch nothing is read
back, and what is drawn on the CPU is sent while the GPU computes. Convolutions run
channels last, the layout of the weights of `models.build`.

All randomness (order of the images, augmentation, start of the attacks) comes from
one generator, which a checkpoint stores with the weights and the state of the
descent: on a CPU an interrupted run resumes to the same weights, bit for bit. On a GPU
cuDNN is asked for algorithms that repeat their results; that was not measured.
Checkpoints hold tensors and plain values only and are read with `weights_only=True`;
nothing in them is executed.

>>> from flatbook import data, models
>>> digits = data.digits()
>>> model = models.build("mlp", 10, in_channels=1, image_size=8)
>>> history = train(model, digits, Recipe(epochs=3), progress=False)
>>> history.test_accuracy[-1] > 0.9
True
"""

import math
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from flatbook import (
    __version__,
    _checkpoint,
    _checks,
    _gpu,
    _steps,
    attacks,
    losses,
    softmax,
)
from flatbook.data import Dataset
from flatbook.models import check_model, evaluating

__all__ = [
    "FAST",
    "LOSSES",
    "PAPER",
    "Adversary",
    "History",
    "Recipe",
    "accuracy",
    "half_dtype",
    "history_of",
    "load_checkpoint",
    "save_checkpoint",
    "train",
]

# Without checks of the logits, which would make a GPU wait at every step.
LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        "cross_entropy": softmax._cross_entropy,
        "focal": partial(losses._focal, gamma=2.0),
        "brier": losses._brier,
        "squared_error": losses._squared_error,
    }
)
"""Per-sample losses of (logits (N, k), labels (N,)), by name; `flatbook.losses` has
them with checks and formulas. The focal loss has gamma = 2."""


@dataclass(frozen=True, kw_only=True)
class Adversary:
    """The attack that chooses the training images; see `attacks.pgd`.

    It starts at a uniform point of the ball and ascends the log-odds: in exact
    arithmetic the direction of cross-entropy, which Madry et al. (2018) ascend, but
    without its underflow at confident predictions.

    Attributes:
        norm: "linf" or "l2".
        eps: radius of the ball around each image, at least 0.
        step_size: length of a step in that norm, at least 0.
        steps: number of steps, at least 1. A step of training costs `steps` more
            forward and backward passes.

    Raises:
        ValueError: if a value is out of range.
    """

    norm: str = "linf"
    eps: float
    step_size: float
    steps: int

    def __post_init__(self) -> None:
        _checks.choice("norm", self.norm, attacks.NORMS)
        _checks.number("eps", self.eps)
        _checks.number("step_size", self.step_size)
        _checks.integer("steps", self.steps, 1)


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    Attributes:
        epochs: passes through the training set, at least 1.
        batch_size: largest number of images in a step; batches are of equal size.
        lr: largest step size, positive.
        momentum: in [0, 1); Nesterov's where positive.
        weight_decay: at least 0.
        label_smoothing: in [0, 1); for cross-entropy only.
        augment: shift images by up to an eighth of their size and mirror half of
            them. Not for digits: a mirrored 2 is none.
        seed: of the order of the images and of the augmentation. The initial weights
            are the model's own: see `models.reinitialise`.
        loss: one of `LOSSES`.
        adversary: the attack on each batch, after augmentation; None for clean images.
        warmup: share of all steps, in [0, 1), in which the step size rises linearly
            from 0 to `lr`; it falls in the others.
        half: compute in 16 bits, see `half_dtype`, and keep the weights in 32. The
            accuracy on the test set is measured in 32. In small networks accuracy,
            margins and sharpness moved no more than they vary between seeds: see
            ``python -m benchmarks precision``.
            Without it a GPU may use TensorFloat-32, as PyTorch lets it.

    Raises:
        TypeError: if adversary is neither an `Adversary` nor None.
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
    loss: str = "cross_entropy"
    adversary: Adversary | None = None
    warmup: float = 0.0
    half: bool = False

    def __post_init__(self) -> None:
        _checks.integer("epochs", self.epochs, 1)
        _checks.integer("batch_size", self.batch_size, 1)
        _checks.positive("lr", self.lr)
        _checks.number("momentum", self.momentum, 0, 1)
        _checks.number("weight_decay", self.weight_decay)
        _checks.number("label_smoothing", self.label_smoothing, 0, 1)
        _checks.integer("seed", self.seed, 0)
        _checks.number("warmup", self.warmup, 0, 1)
        _checks.choice("augment", self.augment, (True, False))
        _checks.choice("half", self.half, (True, False))
        _checks.choice("loss", self.loss, tuple(LOSSES))
        if self.label_smoothing and self.loss != "cross_entropy":
            raise ValueError(
                f"label_smoothing = {self.label_smoothing} needs the loss "
                f"'cross_entropy', got {self.loss!r}"
            )
        if self.adversary is not None and not isinstance(self.adversary, Adversary):
            raise TypeError(
                f"adversary must be an Adversary or None, got {self.adversary!r}"
            )


PAPER = Recipe(epochs=100, batch_size=128, lr=0.1, weight_decay=1e-4, augment=True)
"""The training of Walter et al. (2025), section 6: descent with a cosine schedule."""

FAST = Recipe(
    epochs=30,
    batch_size=512,
    lr=0.4,
    weight_decay=5e-4,
    augment=True,
    warmup=0.15,
    half=True,
)
"""A short training of full-width networks on CIFAR-10, meant for minutes on one GPU.

It aims at 94 % with a ResNet-18. Neither that nor its time on a GPU is measured yet:
no GPU was at hand. There is no label smoothing, because confidence is what the book
studies.
"""


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
        FloatingPointError: if the loss is no longer finite, or 16 bits are too few.
        OSError: if the checkpoint cannot be written; before the first epoch.
        torch.OutOfMemoryError: if a batch is too large for the device; the checkpoint
            keeps the finished epochs.
    """
    _check_fit(model, dataset)
    run = _Run(model, dataset, recipe)
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None:
        run.start(path)
    try:
        with _gpu.repeatable(), _bar(run, progress) as bar:
            while run.history.epochs < recipe.epochs:
                _epoch(run)
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


def half_dtype(device: str | torch.device) -> torch.dtype:
    """The 16-bit type for a device: bfloat16 where its arithmetic is fast.

    GPUs before compute capability 8 (for example the T4) only emulate it, although
    `torch.cuda.is_bf16_supported` says yes there; they and all devices but CPU and
    CUDA get float16.

    >>> half_dtype("cpu")
    torch.bfloat16
    """
    device = torch.device(device)
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        native = device.type == "cpu"
    return torch.bfloat16 if native else torch.float16


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
    with evaluating(model), torch.no_grad(), _gpu.exact():
        for images, labels in zip(
            x.split(batch_size), y.split(batch_size), strict=True
        ):
            correct += (model(images.to(device)).argmax(1) == labels.to(device)).sum()
    return int(correct) / len(x)


class _Run:
    """All that changes during training: epochs, and what a checkpoint keeps."""

    def __init__(self, model: nn.Module, dataset: Dataset, recipe: Recipe) -> None:
        self.model, self.dataset, self.recipe = model, dataset, recipe
        device = _device(model)
        self.x, self.y = (t.to(device) for t in (dataset.x_train, dataset.y_train))
        self.test = tuple(t.to(device) for t in (dataset.x_test, dataset.y_test))
        self.half = half_dtype(device) if recipe.half else None
        self.steps = math.ceil(len(self.y) / recipe.batch_size)
        self.descent = _steps.Descent(model, recipe.momentum, recipe.weight_decay)
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.history = History()
        self.initial = _checkpoint.fingerprint(model.state_dict())

    def epoch(self) -> None:
        """One pass through the training set, in equal batches, then the test set."""
        start, count = time.perf_counter(), len(self.y)
        order = torch.randperm(count, generator=self.generator)
        order = _gpu.send(order, self.y.device)
        sums = torch.zeros(2, device=self.y.device)
        self.descent.skipped.zero_()
        self.model.train()
        for batch, indices in enumerate(order.tensor_split(self.steps)):
            sums += self._step(self.history.epochs * self.steps + batch, indices)
        loss, right = (sums / count).tolist()
        if not math.isfinite(loss):
            raise self._diverged(loss)
        if self.descent.skipped == self.steps:
            raise FloatingPointError(
                f"no step of epoch {self.history.epochs + 1} had finite gradients in "
                f"{self.half}; half=False computes in 32 bits"
            )
        test = accuracy(self.model, *self.test)
        seconds = time.perf_counter() - start
        self.history = self.history._with((loss, right, test, seconds))

    def _step(self, step: int, indices: Tensor) -> Tensor:
        """One descent; returns the summed loss and the number of right images."""
        x, y = self.x[indices], self.y[indices]
        if self.recipe.augment:
            x = _steps.augment(x, self.generator)
        if self.recipe.adversary is not None:
            x = self._attacked(x, y, self.recipe.adversary)
        with self._precision():
            logits = self.model(x)
        if self.half is not None:
            logits = logits.float()
        loss = _mean_loss(self.recipe, logits, y)
        done = step / (self.steps * self.recipe.epochs)
        lr = _steps.step_size(self.recipe.lr, self.recipe.warmup, done)
        if self.half == torch.float16:
            (loss * _steps.LOSS_SCALE).backward()
            self.descent.scaled_step(lr)
        else:
            loss.backward()
            self.descent.step(lr)
        right = (logits.argmax(1) == y).sum()
        return torch.stack([loss.detach() * len(y), right])

    def _attacked(self, x: Tensor, y: Tensor, adversary: Adversary) -> Tensor:
        """The images at the end of the attack on the present model."""
        ball = attacks._Ball(**asdict(adversary))
        with self._precision():
            return attacks._end(self.model, x, y, ball, self.generator)

    def _precision(self) -> AbstractContextManager[Any]:
        if self.half is None:
            return nullcontext()
        return torch.autocast(self.y.device.type, dtype=self.half)

    def _diverged(self, loss: float) -> FloatingPointError:
        return FloatingPointError(
            f"the loss is {loss} in epoch {self.history.epochs + 1}; "
            f"lr = {self.recipe.lr} may be too large"
        )

    def start(self, path: Path) -> None:
        """Resume from a checkpoint if there is one; see that it can be written."""
        if path.exists():
            self.resume(path)
        if self.history.epochs < self.recipe.epochs:
            self.save(path)

    def save(self, path: Path) -> None:
        """Write a checkpoint that `resume` reads."""
        content = _content(self.model, self.recipe, self.history, self.dataset)
        content["run"] = {
            "initial": self.initial,
            "velocity": self.descent.velocity,
            "generator": self.generator.get_state(),
        }
        _checkpoint.write(path, content)

    def resume(self, path: Path) -> None:
        """Take over the state of a checkpoint, or refuse it and change nothing."""
        content = _checkpoint.read(path)
        stored = content["run"]
        if stored is None:
            raise ValueError(f"{path} holds a model, not a training run to resume")
        _check_content(path, content, self.model, self.recipe, self.dataset)
        if self.initial not in (stored["initial"], content["sha256"]):
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
    dataset: Dataset | None = None,
) -> None:
    """Write a model to a file that `load_checkpoint` reads.

    The file is complete or absent, never half written. Missing folders are made. The
    SHA-256 of the weights is stored with them, so that the history stays that of the
    weights it was measured on.

    Args:
        path: of the file; an old one is replaced.
        model: its weights and, where it has one, its `config` are stored.
        recipe: how it was trained, if known.
        history: of its training, if known.
        dataset: what it was trained on, if known; its checksum is stored.

    Raises:
        OSError: if the file cannot be written.
    """
    content = _content(model, recipe, history or History(), dataset)
    _checkpoint.write(Path(path), content)


def load_checkpoint(
    path: str | Path,
    model: nn.Module,
    recipe: Recipe | None = None,
    *,
    dataset: Dataset | None = None,
) -> History:
    """Load the weights of a checkpoint into a model, after checking that they fit.

    Args:
        path: written by `save_checkpoint` or by `train`, finished or not.
        model: of the same architecture; changed only if all checks pass.
        recipe: the recipe the checkpoint must have been trained with, or None for
            any.
        dataset: the data it must have been trained on, or None for any.

    Returns:
        The history of the training; `history.epochs` tells how far it got.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, no checkpoint, of another model, recipe or
            dataset, or does not say which; the message names the path and the
            difference.
    """
    path = Path(path)
    content = _checkpoint.read(path)
    _check_content(path, content, model, recipe, dataset)
    return _load(content, model)


def history_of(path: str | Path) -> History:
    """What a checkpoint says about its training; its weights are not looked at.

    Args:
        path: written by `save_checkpoint` or by `train`, finished or not.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged or no checkpoint; the message names the path.
    """
    return _history(_checkpoint.read(Path(path)))


def _content(
    model: nn.Module, recipe: Recipe | None, history: History, dataset: Dataset | None
) -> dict:
    state = model.state_dict()
    return {
        "flatbook": __version__,
        "config": getattr(model, "config", {}),
        "recipe": None if recipe is None else asdict(recipe),
        "dataset": None if dataset is None else dataset.sha256,
        "model": state,
        "sha256": _checkpoint.fingerprint(state),
        "history": asdict(history),
        "run": None,
    }


def _check_content(
    path: Path,
    content: dict,
    model: nn.Module,
    recipe: Recipe | None,
    dataset: Dataset | None,
) -> None:
    pairs = [("model", content["config"], getattr(model, "config", {}))]
    if recipe is not None:
        pairs.append(("recipe", content["recipe"], asdict(recipe)))
    if dataset is not None:
        pairs.append(("dataset", content["dataset"], dataset.sha256))
    shapes = _checkpoint.shapes
    pairs.append(("weights", shapes(content["model"]), shapes(model.state_dict())))
    for what, stored, wanted in pairs:
        _checkpoint.check_same(path, what, stored, wanted)
    if _checkpoint.fingerprint(content["model"]) != content["sha256"]:
        raise ValueError(
            f"the weights in {path} are not those that its history was measured on"
        )


def _load(content: dict, model: nn.Module) -> History:
    model.load_state_dict(content["model"])
    return _history(content)


def _history(content: dict) -> History:
    return History(**{name: tuple(v) for name, v in content["history"].items()})


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


def _mean_loss(recipe: Recipe, logits: Tensor, y: Tensor) -> Tensor:
    if recipe.loss == "cross_entropy":
        return cross_entropy(logits, y, label_smoothing=recipe.label_smoothing)
    return LOSSES[recipe.loss](logits, y).mean()


def _epoch(run: _Run) -> None:
    """One epoch; what to do if memory runs out is said."""
    try:
        run.epoch()
    except torch.OutOfMemoryError as error:
        raise torch.OutOfMemoryError(
            f"no memory left with batch_size = {run.recipe.batch_size}; a smaller one "
            f"needs less ({error})"
        ) from error


def _bar(run: _Run, show: bool) -> AbstractContextManager[Any]:
    """Progress bar over epochs on the standard error, or a context without one."""
    if not show:
        return nullcontext()
    from tqdm import tqdm

    done, total = run.history.epochs, run.recipe.epochs
    return tqdm(initial=done, total=total, unit="epoch", file=sys.stderr)
