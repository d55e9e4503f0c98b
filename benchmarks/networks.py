"""The networks of the benchmarks of attacks and precision, and their options."""

import argparse

from flatbook import data, models, training
from flatbook.experiments import Subject


def parser(theme: str) -> argparse.ArgumentParser:
    """A command line with the images, the epochs and the size of the attack."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks {theme}")
    made.add_argument("--data", choices=data.NAMES, default="digits")
    made.add_argument("--root", help="where the data lie")
    made.add_argument("--limit", type=int, help="images per class")
    made.add_argument("--epochs", type=int, default=6)
    made.add_argument("--eps", type=float, help="of linf; 16 times as much in l2")
    return made


def radius(chosen: argparse.Namespace) -> float:
    """Of the attack in linf: the one that was asked for, or one that suits the data."""
    return chosen.eps or (0.1 if chosen.data == "digits" else 1 / 255)


def trained(
    dataset: data.Dataset, recipe: training.Recipe, *, width: float = 0.25
) -> models.Model:
    """A ResNet-18 in evaluation mode; the seed of the recipe is that of its weights."""
    made = Subject("resnet18", width, dataset.name, None, recipe)
    return made.train(dataset, recipe.seed)
