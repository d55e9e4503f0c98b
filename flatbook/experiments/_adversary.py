"""The adversary of adversarial training, for every network that is trained with one.

Natural images get the paper's: 10 steps of 2/255 within 8/255 (Walter et al., 2025,
appendix D.2). Digits, a processor and a small GPU get fewer and longer steps.

>>> adversary("full", "cifar10").steps
10
>>> adversary("cpu", "digits", share=0.5).eps
0.1
"""

from flatbook import _checks, profiles
from flatbook.training import Adversary


def adversary(profile: str, data: str, *, share: float = 1.0) -> Adversary:
    """Steps of projected gradient ascent within a radius in the maximum norm.

    Args:
        profile: one of `flatbook.profiles.NAMES`.
        data: one of `flatbook.data.NAMES`.
        share: of the usual radius, positive; the steps shrink with it.

    Raises:
        ValueError: no such profile, or a share that is not positive.
    """
    _checks.choice("profile", profile, profiles.NAMES)
    _checks.positive("share", share)
    small = data == "digits" or profile in ("cpu", "t4")
    steps, pieces = (4, 2) if small else (10, 4)
    eps = share * radius(data)
    return Adversary(eps=eps, step_size=eps / pieces, steps=steps)


def radius(data: str) -> float:
    """The usual radius: 0.2 for digits, 8/255 for natural images."""
    return 0.2 if data == "digits" else 8 / 255
