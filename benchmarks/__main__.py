"""All benchmarks: ``python -m benchmarks``, some minutes on one core.

Candidates take turns, round by round, in CPU time of one thread; tables show the
median of the rounds' ratios and their range, since one absolute time on a shared
machine says little. Each theme also runs by itself, `python -m benchmarks.attack`
with other data: see ``--help``.
"""

import torch

from benchmarks import attack, closed_forms

if __name__ == "__main__":
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread")
    closed_forms.main()
    attack.main([])
