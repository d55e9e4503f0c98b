"""Run an experiment and file its result card: ``python -m flatbook.experiments``."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from flatbook import models, profiles
from flatbook.experiments._runner import (
    NAMES,
    Places,
    Plan,
    check_data,
    check_device,
    check_seeds,
    execute,
    first_line,
    load,
)
from flatbook.experiments._subjects import subject

_DESCRIPTION = """\
Train the networks of an experiment, run it and write a result card: a JSON file with
the values and their spread over seeds, the command, the commit, the versions, the
device, the time and the hash of the images. The book shows the cards that lie in its
folder results/.

experiments:
{experiments}

profiles:
  cpu    a laptop: digits, or a quarter-width network on 1,000 images per class
  t4     a free Colab GPU: CIFAR-10, quarter width, 2,000 images per class
  fast   a modern GPU: CIFAR-10, full width, 30 epochs of large batches
  full   the paper's size: CIFAR-10, full width, 100 epochs
"""

_EPILOG = """\
A run that is interrupted (Ctrl-C, out of memory, power) loses at most the current
epoch of training or the current seed: networks and finished seeds are kept in the
folder --work. The same command goes on from there.

examples:
  python -m flatbook.experiments uncanny_valley
      digits, three seeds, on the processor
  python -m flatbook.experiments loss_geometry --profile full --device cuda --download
      the paper's main figure; fetches CIFAR-10 into data/
  python -m flatbook.experiments uncanny_valley --profile t4 --device cuda \\
      --model resnet18 wrn28_4 densenet121 vgg11_bn --data cifar100
      one card for each of the four architectures
  python -m flatbook.experiments detection --data folder --root ~/birds --label birds
      images of your own: ~/birds/train/<class>/*.png and ~/birds/test/<class>/*.png

exit status: 0 done, 1 failed, 2 wrong arguments, 130 interrupted
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, run, and tell where the cards are; the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        plans = _plans(options)
    except ValueError as error:
        parser.error(str(error))
    places = _places(options, sys.argv[1:] if arguments is None else arguments)
    try:
        dataset = plans[0].subject.load(root=options.root, download=options.download)
        for plan in plans:
            print(execute(plan, dataset, places))
    except KeyboardInterrupt:
        print(
            f"\ninterrupted; what is finished lies in {places.work}, and the same "
            "command goes on from there",
            file=sys.stderr,
        )
        return 130
    except (MemoryError, torch.OutOfMemoryError) as error:
        return _failed(
            f"out of memory on {places.device}: {first_line(error)}\n"
            "Close what else runs there, or take a smaller --profile. What is finished "
            f"lies in {places.work}."
        )
    except (ValueError, OSError, FloatingPointError) as error:
        return _failed(str(error))
    return 0


def _plans(options: argparse.Namespace) -> list[Plan]:
    """What is to be done, checked before any work.

    Raises:
        ValueError: arguments that cannot work; the message says which.
    """
    data = options.data or ("digits" if options.profile == "cpu" else "cifar10")
    check_data(data, options.root)
    check_device(options.device)
    check_seeds(options.seeds)
    return [
        Plan(
            options.name,
            options.profile,
            subject(model, profile=options.profile, data=data),
            tuple(options.seeds),
            options.label or data,
        )
        for model in options.model
    ]


def _places(options: argparse.Namespace, arguments: Sequence[str]) -> Places:
    return Places(
        Path(options.results),
        Path(options.work),
        options.device,
        progress=not options.quiet,
        command=shlex.join(["python", "-m", "flatbook.experiments", *arguments]),
    )


def _parser() -> argparse.ArgumentParser:
    listed = "\n".join(f"  {name:22s} {_question(name)}" for name in NAMES)
    parser = argparse.ArgumentParser(
        prog="python -m flatbook.experiments",
        description=_DESCRIPTION.format(experiments=listed),
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("name", choices=NAMES, metavar="NAME", help="the experiment (see above)")
    add("--profile", choices=profiles.NAMES, default=profiles.current())
    add("--model", nargs="+", choices=models.NAMES, default=["resnet18"],
        help="one card for each (default: resnet18)")  # fmt: skip
    add("--data", metavar="DATA",
        help="digits, cifar10, cifar100 or folder (default: digits for the profile "
        "cpu, cifar10 otherwise)")  # fmt: skip
    add("--root", metavar="DIR", help="where CIFAR lies (default: data), or the folder")
    add("--download", action="store_true", help="fetch CIFAR if it is not there")
    add("--label", metavar="TEXT", help="what the images are called on the card")
    add("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED",
        help="default: 0 1 2; the book takes cards of three or more")  # fmt: skip
    add("--results", default="results", metavar="DIR",
        help="where the card goes (default: %(default)s)")  # fmt: skip
    add("--work", default="_build/experiments", metavar="DIR",
        help="checkpoints and finished seeds (default: %(default)s)")  # fmt: skip
    add("--quiet", action="store_true", help="no progress on the standard error")
    return parser


def _question(name: str) -> str:
    return str(load(name).__doc__).splitlines()[0]


def _failed(text: str) -> int:
    print(f"error: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
