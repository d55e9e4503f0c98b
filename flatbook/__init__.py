"""Flatness and adversarial robustness: small, exact, fast.

The package behind the book. Numeric modules are pure functions of tensors;
models, data and attacks stand above them, figures and sliders on top:

* `softmax`, `losses`, `curvature`, `radius`, `scaling`: closed forms of the softmax
  head
* `lipschitz`: how far features can move, bounds from above and estimates from below
* `symbolic`: the same, derived with sympy; `paper`: as printed, to be refuted
* `data`, `models`, `training`, `attacks`: from images to an attacked network
* `experiments`: the paper's, each a module, from networks to a result card
* `figures`, `explorer`, `exercises`, `results`, `profiles`, `notebook`: the book

Modules load on first use, so that ``import flatbook`` costs nothing beyond torch:

>>> import flatbook
>>> flatbook.softmax.__name__
'flatbook.softmax'
"""

import importlib
from types import ModuleType

__version__ = "0.1.0"

__all__ = [
    "attacks",
    "curvature",
    "data",
    "exercises",
    "experiments",
    "explorer",
    "figures",
    "lipschitz",
    "losses",
    "models",
    "notebook",
    "paper",
    "profiles",
    "radius",
    "results",
    "scaling",
    "softmax",
    "symbolic",
    "training",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module 'flatbook' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
