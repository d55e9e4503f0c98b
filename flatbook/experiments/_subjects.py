"""What an experiment is made on: images, a network and how it is trained."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from flatbook import _sources, data, models, profiles, results, training
from flatbook.data import Dataset
from flatbook.experiments._adversary import adversary
from flatbook.models import Model

_DIGITS_EPOCHS = {"mlp": 20, "vgg11_bn": 8, "densenet121": 8}
_SMALL = training.Recipe(
    epochs=12,
    batch_size=128,
    lr=0.1,
    weight_decay=5e-4,
    augment=True,
    warmup=0.15,
    half=True,
)
_T4 = replace(training.FAST, epochs=6, batch_size=256, lr=0.2)


@dataclass(frozen=True)
class Subject:
    """The networks of an experiment, one for each seed.

    A seed chooses the initial weights, the order of the images and their
    augmentation; the images themselves stay the same.

    Attributes:
        model: one of `flatbook.models.NAMES`.
        width: factor on its channels.
        data: one of `flatbook.data.NAMES`.
        limit: images per class, in the training and in the test set; None for all.
        recipe: how it is trained (with seed 0).
    """

    model: str
    width: float
    data: str
    limit: int | None
    recipe: training.Recipe

    def settings(self) -> dict[str, object]:
        """All of it as JSON values, for a result card."""
        return asdict(self)

    def load(
        self, *, root: str | Path | None = None, download: bool = False
    ) -> Dataset:
        """The images; see `flatbook.data.load` for the arguments and errors."""
        if self.data == "digits":
            return data.digits()
        return data.load(self.data, root=root, download=download, limit=self.limit)

    def checkpoint(self, sha256: str, recipe: training.Recipe) -> str:
        """Name of the file of a trained network: another one for each that differs.

        The images (by their SHA-256), the settings and the source of what builds and
        trains the network go into it; experiments that need the same one share it.
        """
        settings = replace(self, recipe=recipe).settings() | {
            "data": sha256,
            "source": _sources.digest("flatbook.models", "flatbook.training"),
        }
        key = results.digest(settings)
        return f"{self.model}-{self.data}-{key}-{recipe.seed}.pt"

    def build(self, dataset: Dataset, seed: int) -> Model:
        """The network before training."""
        network = models.build(
            self.model,
            dataset.num_classes,
            width=self.width,
            in_channels=dataset.in_channels,
            image_size=dataset.image_size,
        )
        return models.reinitialise(network, seed)

    def train(
        self,
        dataset: Dataset,
        seed: int,
        *,
        changes: Mapping[str, object] | None = None,
        device: str | torch.device = "cpu",
        folder: str | Path | None = None,
        progress: bool = False,
    ) -> Model:
        """The network of a seed, trained or read from its checkpoint.

        Args:
            dataset: what `load` returned.
            seed: at least 0.
            changes: fields of the recipe that differ, for example
                ``{"label_smoothing": 0.1}``.
            device: where it is trained and stays.
            folder: where checkpoints are kept; None keeps none. Training that was
                interrupted goes on from its last epoch.
            progress: show a bar on the standard error.

        Returns:
            The network in evaluation mode.

        Raises:
            TypeError: if the recipe has no such field.
            ValueError: if a checkpoint is damaged or of other images; see
                `flatbook.training.train`.
        """
        recipe = replace(self.recipe, seed=seed, **(changes or {}))  # type: ignore[arg-type]
        network = self.build(dataset, seed).to(device)
        path = None
        if folder is not None:
            path = Path(folder) / self.checkpoint(dataset.sha256, recipe)
        training.train(network, dataset, recipe, checkpoint=path, progress=progress)
        return network.eval()


def subject(
    model: str = "resnet18",
    *,
    profile: str = "cpu",
    data: str | None = None,
    adversarial: bool = False,
) -> Subject:
    """Network, images and recipe of a profile.

    ============  ===========================  ==================================
    profile       digits                       CIFAR-10, CIFAR-100, a folder
    ============  ===========================  ==================================
    ``cpu``       an eighth of the width       a quarter of the width, 1,000
                                               images per class, 12 epochs
    ``t4``        the same                     a quarter of the width, 2,000
                                               images per class, 6 epochs
    ``fast``      the same                     full width, `training.FAST`
    ``full``      the same                     full width, `training.PAPER`
    ============  ===========================  ==================================

    Args:
        model: one of `flatbook.models.NAMES`.
        profile: one of `flatbook.profiles.NAMES`.
        data: one of `flatbook.data.NAMES`; by default digits for ``cpu`` and CIFAR-10
            for the others.
        adversarial: train on attacked images, see `adversary`.

    Raises:
        ValueError: if a name is unknown.

    >>> subject("vgg11_bn").recipe.epochs
    8
    """
    for what, name, known in (
        ("model", model, models.NAMES),
        ("profile", profile, profiles.NAMES),
    ):
        if name not in known:
            raise ValueError(f"{what} must be one of {', '.join(known)}, got {name!r}")
    data = data or ("digits" if profile == "cpu" else "cifar10")
    found = _digits(model) if data == "digits" else _natural(model, profile, data)
    if not adversarial:
        return found
    attack = adversary(profile, data)
    return replace(found, recipe=replace(found.recipe, adversary=attack))


def _digits(model: str) -> Subject:
    epochs = _DIGITS_EPOCHS.get(model, 6)
    width = 1.0 if model == "mlp" else 0.125
    return Subject(
        model, width, "digits", None, training.Recipe(epochs, batch_size=128)
    )


def _natural(model: str, profile: str, data: str) -> Subject:
    if profile == "cpu":
        return Subject(model, 0.25, data, 1000, _SMALL)
    if profile == "t4":
        return Subject(model, 0.25, data, 2000, _T4)
    recipe = training.FAST if profile == "fast" else training.PAPER
    return Subject(model, 1.0, data, None, recipe)
