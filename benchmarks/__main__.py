"""All benchmarks, or one theme: ``python -m benchmarks [THEME [OPTIONS]]``.

Themes: closed_forms, attack, precision, throughput; without one the first two run,
some minutes on one core. The options of a theme: ``python -m benchmarks THEME -h``.

Candidates take turns, round by round, in CPU time of one thread (on a GPU, in wall
time); tables show the median of the rounds' ratios and their range, since one
absolute time on a shared machine says little.
"""

import sys
from collections.abc import Callable, Sequence

import torch

from benchmarks import attack, closed_forms, precision, throughput

THEMES: dict[str, Callable[[Sequence[str]], None]] = {
    "closed_forms": lambda _: closed_forms.main(),
    "attack": attack.main,
    "precision": precision.main,
    "throughput": throughput.main,
}


def main(arguments: Sequence[str]) -> None:
    """Run one theme with its options, or the first two."""
    chosen, options = arguments[:1] or ["closed_forms", "attack"], arguments[1:]
    unknown = [name for name in chosen if name not in THEMES]
    if unknown:
        raise SystemExit(f"themes are {', '.join(THEMES)}, got {unknown[0]!r}")
    print(f"torch {torch.__version__}, one thread")
    for name in chosen:
        THEMES[name](options)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
