"""The paper's experiments as one list of runs, and what came out of them.

`GRID` lists every figure of Walter et al. (2025) that is an experiment: four
architectures on CIFAR-10 and CIFAR-100, and a ResNet-18 that is adversarially trained.
One command trains the networks, measures them, draws the figures and files the cards::

    python -m flatbook.reproduce --profile fast --device cuda --download
    python -m flatbook.reproduce --only fig3 --dry-run

`run` gives the same list to one process, to workers on this machine or to a cluster.
`report` reads a folder of cards and tries every claim of the paper in `CLAIMS` on them.

>>> from flatbook.reproduce import GRID, select
>>> len(GRID), [entry.experiment for entry in select(only=["fig12"])]
(21, ['loss_geometry'])
"""

from flatbook.reproduce._claims import CLAIMS
from flatbook.reproduce._engine import run
from flatbook.reproduce._grid import GRID, Entry, plan, select
from flatbook.reproduce._report import Report, report
from flatbook.reproduce._rules import Claim, Part
from flatbook.reproduce._work import Job, Outcome

__all__ = [
    "CLAIMS",
    "GRID",
    "Claim",
    "Entry",
    "Job",
    "Outcome",
    "Part",
    "Report",
    "plan",
    "report",
    "run",
    "select",
]
