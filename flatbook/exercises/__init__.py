r"""Checkers for the exercises: they say what is wrong, not the answer.

A chapter asks and the reader answers with a number, a tensor, a sympy expression or
a function:

>>> def hessian(logits):
...     p = torch.softmax(logits, 0)
...     return torch.diag(p) + torch.outer(p, p)
>>> check("softmax_hessian.hessian", hessian)
Not yet: case 1 (k = 2): entry (0, 1) of your answer has the wrong sign

Each chapter has its checkers in a module of its name; how to write one is told in
``flatbook/exercises/_framework.py``.
"""

import torch  # noqa: F401  (for the example above)

from flatbook.exercises import (  # noqa: F401  (they register their checkers)
    adversarial_examples,
    adversarial_training,
    cardano_radius,
    confidence_collapse,
    curvature_backwards,
    detection,
    earlier_layers,
    gradient_masking,
    input_to_features,
    intro,
    linear_model,
    loss_bound,
    loss_geometry,
    relative_flatness,
    reproduce,
    softmax_hessian,
    third_derivative,
    uncanny_valley,
    what_flatness_guarantees,
)
from flatbook.exercises._framework import Verdict, check, names

__all__ = ["Verdict", "check", "names"]
