"""The paper's experiments, each a question with a module of its own.

================================  ====================================================
`loss_geometry`                   How does the loss rise on the way to an attack?
`uncanny_valley`                  What does an attack walk through?
`earlier_layers`                  Do the other layers see the same?
`gradient_masking`                Why does scaling stop an attack?
`adversarial_training`            Are robust networks flat?
`detection`                       Does sharpness give an attack away?
================================  ====================================================

A module has ``run(models, dataset, sizes) -> Result`` for one seed, ``sizes(profile,
data)``, and ``numbers(result)`` for a result card; `flatbook.figures` has a module of
the same name that draws it. A chapter runs it at the size of a laptop. Long runs are
started from the command line, which files a card in ``results/``::

    python -m flatbook.experiments uncanny_valley --profile full

>>> from flatbook.experiments import subject
>>> digits = subject("mlp")
>>> digits.width, digits.recipe.batch_size
(1.0, 128)
"""

from flatbook.experiments._cards import Table, beside, cards, curve
from flatbook.experiments._runner import NAMES, load, summarise
from flatbook.experiments._statistics import (
    Estimate,
    mean_interval,
    partial_rank_correlation,
    rank_correlation,
)
from flatbook.experiments._subjects import Subject, subject

__all__ = [
    "NAMES",
    "Estimate",
    "Subject",
    "Table",
    "beside",
    "cards",
    "curve",
    "load",
    "mean_interval",
    "partial_rank_correlation",
    "rank_correlation",
    "subject",
    "summarise",
]
