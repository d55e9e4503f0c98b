r"""Does sharpness give an attack away?

Walter et al. (2025), appendix D.4, train a *decision stump* on the relative sharpness
of clean images and of their attacked versions: one threshold and one side of it. Here
it is done at several strengths of the attack (projected gradient ascent in the maximum
norm, T = 10 steps of a quarter of the radius, on test images whether right or wrong),
and the same stump is given other features of the same forward pass:

================  =====================================================================
``sharpness``     :math:`\log \kappa = \log(\|W\|^2 \|\phi\|^2 \operatorname{tr} P)`
``confidence``    :math:`\log(1 - p_{\max})`
``margin``        the largest logit minus the second
``feature norm``  :math:`\log \|\phi\|^2`
================  =====================================================================

The accuracies are those of a cross-validation that keeps the two versions of an image
in one fold. Then the stump of one strength is used at another; and an adaptive attack
walks the straight line from the image to its attacked version, past the flip, to the
point whose kappa is that of a clean image.

The best stump of a feature is right with probability :math:`(1 + D) / 2`, where D is
the Kolmogorov-Smirnov distance of the two populations (``prop-stump``).

>>> clean, attacked = torch.tensor([2.0, 5.0, 8.0]), torch.tensor([1.0, 2.0, 4.0])
>>> best_stump(clean, attacked)
Stump(threshold=4.5, attacked_above=False, accuracy=0.833...)
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor, nn

from flatbook import _checks, attacks, curvature, profiles, softmax
from flatbook.data import Dataset
from flatbook.experiments import _common, _statistics
from flatbook.models import check_model, evaluating

VERSION = 1
FEATURES = ("sharpness", "confidence", "margin", "feature norm")

_STEPS_TO_EDGE = 4
_TOGETHER = 3
_FLOOR = -1e6
_SHARES = 128


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        eps: radii of the attack, rising.
        adaptive: of them, those at which the adaptive attack is made.
        steps: of the attack.
        images: of the test set, the first ones.
        pieces: of the straight line on which the adaptive attack looks for kappa.
        halvings: of the piece where it has found it.
        folds: of the cross-validation.
        batch: images at a time.

    Raises:
        ValueError: if a value is out of range.
    """

    eps: tuple[float, ...]
    adaptive: tuple[float, ...]
    steps: int = 10
    images: int = 500
    pieces: int = 20
    halvings: int = 10
    folds: int = 5
    batch: int = 250

    def __post_init__(self) -> None:
        for eps in self.eps:
            _checks.positive("eps", eps)
        if not self.eps or list(self.eps) != sorted(set(self.eps)):
            raise ValueError(f"eps must be rising radii, got {self.eps}")
        if not self.adaptive or not set(self.adaptive) <= set(self.eps):
            raise ValueError(f"adaptive must be some of {self.eps}: {self.adaptive}")
        for field in fields(self)[2:]:
            _checks.integer(field.name, getattr(self, field.name), 1)
        _checks.integer("folds", self.folds, 2)
        _checks.integer("images", self.images, self.folds)


def sizes(profile: str, data: str) -> Sizes:
    """Digits are attacked up to 0.5, natural images up to 16/255.

    Raises:
        ValueError: no such profile.
    """
    _checks.choice("profile", profile, profiles.NAMES)
    if data == "digits":
        return Sizes((0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5), (0.3, 0.4, 0.5))
    radii = tuple(n / 255 for n in (0.5, 1, 2, 4, 8, 16))
    images = {"cpu": 1000, "t4": 1000}.get(profile, 10_000)
    return Sizes(radii, radii[-3:], images=images)


@dataclass(frozen=True)
class Stump:
    """One threshold on one feature.

    Attributes:
        threshold: between the two sides.
        attacked_above: whether what lies above it is called attacked.
        accuracy: share that it gets right, both populations weighing the same.
    """

    threshold: float
    attacked_above: bool
    accuracy: float

    def calls_attacked(self, values: Tensor) -> Tensor:
        """What the stump says of each value (bool)."""
        above = values > self.threshold
        return above if self.attacked_above else ~above

    def score(self, clean: Tensor, attacked: Tensor) -> float:
        """Share that it gets right, both populations weighing the same."""
        hits = self.calls_attacked(attacked).double().mean()
        alarms = self.calls_attacked(clean).double().mean()
        return float(1 + hits - alarms) / 2


@dataclass(frozen=True, eq=False, repr=False)
class Matched:
    """What the adaptive attack ends in, at one radius.

    Attributes:
        features: (4, N), in the order of `FEATURES`.
        wrong: (N,), bool: still classified wrong.
        size: (N,), largest change of a pixel.
        gap: (N,), log kappa minus that of the clean image it should look like.
        same: (folds,), accuracy of the stump that was trained on the plain attack.
        retrained: (5, folds), accuracy of stumps trained on the adaptive attack, one
            for each feature; the last row is a tree of depth three on all of them.
    """

    features: Tensor
    wrong: Tensor
    size: Tensor
    gap: Tensor
    same: Tensor
    retrained: Tensor


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """Clean and attacked images of one network, seen by four features.

    Attributes:
        sizes: what was asked.
        features: (4, S + 1, N), float64: clean images, then the S radii.
        wrong: (S + 1, N), bool: classified wrong.
        stuck: (S, N), bool: every gradient of the attack was exactly zero.
        accuracy: (4, S, folds), of a stump on each feature, at each radius.
        leaky: (S, folds), of the stump on sharpness when the two versions of an image
            may lie in different folds.
        across: (S, S), the stump on sharpness trained at the radius of the row, used
            at that of the column; mean over the folds.
        matched: radius -> the adaptive attack.
    """

    sizes: Sizes
    features: Tensor
    wrong: Tensor
    stuck: Tensor
    accuracy: Tensor
    leaky: Tensor
    across: Tensor
    matched: Mapping[float, Matched]

    @property
    def auc(self) -> Tensor:
        """(S,), probability that a clean image is sharper than an attacked one."""
        clean, *attacked = self.features[0]
        return torch.tensor([auc(clean, other) for other in attacked])

    @property
    def robust(self) -> Tensor:
        """(S,), share of all images that are right after the attack."""
        return (~self.wrong[1:]).double().mean(1)

    def likeness(self, feature: str) -> Tensor:
        """Size of the rank correlation of sharpness and another feature.

        Args:
            feature: one of `FEATURES`.

        Returns:
            (S,), over the clean and the attacked images of each radius together.

        Raises:
            ValueError: no such feature.
        """
        _checks.choice("feature", feature, FEATURES)
        kappa, other = self.features[0], self.features[FEATURES.index(feature)]
        both = [
            [torch.cat([values[0], values[i]]) for values in (kappa, other)]
            for i in range(1, len(kappa))
        ]
        rho = [_statistics.rank_correlation(*pair).value for pair in both]
        return torch.tensor(rho).abs()


def run(model: nn.Module, dataset: Dataset, sizes: Sizes) -> Result:
    """Attack a network, train the stumps, and attack the stumps.

    Args:
        model: with `features` and `head`.
        dataset: whose test images are attacked.
        sizes: how much.

    Raises:
        ValueError: fewer test images than folds.
    """
    x, y = dataset.x_test[: sizes.images], dataset.y_test[: sizes.images]
    if len(x) < sizes.folds:
        raise ValueError(f"{len(x)} test images for {sizes.folds} folds")
    pieces = [_look(model, *pair, sizes) for pair in _batches(model, x, y, sizes)]
    features, wrong, stuck = (torch.cat(p, -1) for p in zip(*pieces, strict=True))
    matched = {
        eps: _adapt(model, (x, y), features[:, [0, 1 + i]], sizes, eps=eps)
        for i, eps in enumerate(sizes.eps)
        if eps in sizes.adaptive
    }
    return Result(
        sizes, features, wrong, stuck, *_stumps(features, sizes.folds), matched
    )


def observe(model: nn.Module, features: Tensor, logits: Tensor) -> Tensor:
    """The four features of a forward pass: (4, N), float64, on the CPU.

    Logarithms of zero are set to -1e6.

    Args:
        model: whose head gave the logits.
        features: (N, d).
        logits: (N, k).
    """
    weight = check_model(model)[1].weight.detach().cpu().double()
    phi, z = features.cpu().double(), logits.cpu().double()
    top = z.topk(2, 1).values
    seen = [
        2 * weight.norm().log() + curvature.log_hessian_trace(phi, z),
        softmax.log_one_minus(z).amin(1),
        top[:, 0] - top[:, 1],
        2 * phi.norm(dim=1).log(),
    ]
    return torch.stack(seen).clamp_min(_FLOOR)


def best_stump(clean: Tensor, attacked: Tensor) -> Stump:
    """The stump of highest accuracy, both populations weighing the same.

    Of equally good ones the lowest threshold is taken, halfway between two values.

    Args:
        clean: (N,), a feature of clean images.
        attacked: (M,), the same feature of attacked ones.

    Raises:
        ValueError: an empty population, or NaN.
    """
    _check_populations(clean, attacked)
    values = torch.cat([clean, attacked]).double().unique()
    difference = _below(attacked, values) - _below(clean, values)
    best = int(difference.abs().argmax())
    threshold = float(values[best : best + 2].mean())
    accuracy = (1 + difference[best].abs().item()) / 2
    return Stump(threshold, bool(difference[best] < 0), accuracy)


def auc(clean: Tensor, attacked: Tensor) -> float:
    """Probability that a clean value exceeds an attacked one; ties count one half.

    Args:
        clean: (N,).
        attacked: (M,).

    Raises:
        ValueError: an empty population, or NaN.

    >>> auc(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 2.0]))
    0.625
    """
    _check_populations(clean, attacked)
    order = attacked.sort().values
    sides = (torch.searchsorted(order, clean, right=right) for right in (False, True))
    return float(sum(side.double().mean() for side in sides) / (2 * len(attacked)))


def cross_validate(
    clean: Tensor,
    attacked: Tensor,
    *,
    used_on: Sequence[Tensor] | None = None,
    folds: int = 5,
    depth: int = 1,
    grouped: bool = True,
) -> Tensor:
    """Accuracy of a decision tree of scikit-learn, clean against attacked.

    Args:
        clean: (N,) or (N, F), features of N images.
        attacked: of the same shape, those of the same images under attack.
        used_on: other attacks on these images, on which the tree is tested (default:
            the one that it was trained on). It sees them with images of the held-out
            fold only.
        folds: of the cross-validation.
        depth: of the tree; 1 is a stump.
        grouped: whether the two versions of an image are kept in one fold.

    Returns:
        (U, folds) for U attacks used on.

    Raises:
        ValueError: shapes differ, or fewer images than folds.
    """
    from sklearn import model_selection, tree

    others = [attacked] if used_on is None else used_on
    if any(other.shape != clean.shape for other in [attacked, *others]):
        shapes = [tuple(other.shape) for other in [clean, attacked, *others]]
        raise ValueError(f"expected features of one shape, got {shapes}")
    table, *tables = (_table(clean, other) for other in [attacked, *others])
    labels = np.repeat([0, 1], len(clean))
    images = np.tile(np.arange(len(clean)), 2)
    if grouped:
        splits = model_selection.GroupKFold(folds).split(table, labels, images)
    else:
        shuffled = model_selection.StratifiedKFold(folds, shuffle=True, random_state=0)
        splits = shuffled.split(table, labels)
    scores = []
    for train, test in splits:
        fitted = tree.DecisionTreeClassifier(max_depth=depth, random_state=0)
        fitted.fit(table[train], labels[train])
        scores.append([fitted.score(other[test], labels[test]) for other in tables])
    return torch.tensor(scores, dtype=torch.float64).T


def targets(clean: Tensor, ends: Tensor) -> Tensor:
    """A clean value for every attacked one, each clean value given away once.

    The flattest end gets the flattest clean image, and so on in order: so that as
    many as possible lie above their own end and are met on the way to it.

    Args:
        clean: (N,).
        ends: (N,).

    >>> targets(torch.tensor([3.0, 1.0, 2.0]), torch.tensor([10.0, 30.0, 20.0]))
    tensor([1., 3., 2.])
    """
    return clean.sort().values[ends.argsort(stable=True).argsort()]


def match(
    model: nn.Module,
    pair: tuple[Tensor, Tensor],
    labels: Tensor,
    goal: Tensor,
    *,
    sizes: Sizes,
) -> Tensor:
    """Points on the straight line from images to attacked ones, of a wished sharpness.

    The last crossing of the goal that is classified wrong is taken. Where there is
    none it is the wrong point nearest to the goal; where no point is wrong, the end.

    Args:
        model: with `features` and `head`.
        pair: images (N, C, H, W) and their attacked versions.
        labels: (N,).
        goal: (N,), log kappa.
        sizes: for `pieces` and `halvings`.

    Returns:
        (N, C, H, W).
    """
    start, end = pair
    path = attacks.line(model, start, end, labels, steps=sizes.pieces)
    seen = zip(path.features, path.logits, strict=True)
    kappa = torch.stack([observe(model, *one)[0] for one in seen])
    wrong = (path.logits.argmax(-1) != labels).cpu()
    low, high = bracket(kappa - goal, wrong)
    for _ in range(sizes.halvings):
        middle = (low + high) / 2
        with evaluating(model), torch.no_grad():
            seen_there = _forward(model, _between(start, end, middle / sizes.pieces))
            above = observe(model, *seen_there)[0] >= goal
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return _between(start, end, high / sizes.pieces)


def bracket(excess: Tensor, wrong: Tensor) -> tuple[Tensor, Tensor]:
    """Where to look for the last point that is wrong and as sharp as wished.

    Args:
        excess: (T + 1, N), log kappa minus the goal along the way.
        wrong: (T + 1, N), bool.

    Returns:
        Two places (N,), float64, counted in steps. They are one step apart where the
        goal is crossed between them, and equal where it is not: at the wrong point
        nearest to the goal, or at the end where none is wrong.
    """
    last = len(excess) - 1
    crossing = (wrong & (excess >= 0))[:-1] & (wrong & (excess < 0))[1:]
    steps = torch.arange(last)[:, None]
    place = torch.where(crossing, steps, -1).amax(0)
    nearest = torch.where(wrong, excess.abs(), torch.inf).argmin(0)
    nearest = torch.where(wrong.any(0), nearest, last)
    low = torch.where(place >= 0, place, nearest).double()
    return low, low + (place >= 0)


def numbers(result: Result) -> dict[str, float]:
    """For a card: accuracies, shares and probabilities, for each radius."""
    values = _summary(result)
    for i in range(len(result.sizes.eps)):
        values |= {f"{name}[{i}]": v for name, v in _at(result, i).items()}
    for i, found in enumerate(result.matched.values()):
        named = _of_matched(found, result.sizes.adaptive[i])
        values |= {f"adaptive: {name}[{i}]": v for name, v in named.items()}
    return values


def _summary(result: Result) -> dict[str, float]:
    """What can be compared between images that were attacked at different radii."""
    mean = result.accuracy.mean(2)
    last = _at(result, len(result.sizes.eps) - 1)
    return {
        "clean accuracy": float((~result.wrong[0]).double().mean()),
        "mistakes are sharper": _mistakes_are_sharper(result),
        "best accuracy": float(mean[0].max()),
        "lowest accuracy": float(mean[0].min()),
        "worst accuracy across": float(result.across.min()),
        "lowest share clean is sharper": float(result.auc.min()),
        "gain of a leak": float((result.leaky.mean(1) - mean[0]).mean()),
        **{
            f"gain over {name}": float((mean[0] - mean[i]).mean())
            for i, name in enumerate(FEATURES[1:], 1)
        },
        **{
            f"rank correlation with {name}": float(result.likeness(name).min())
            for name in FEATURES[1:3]
        },
        **{f"{name} at the largest radius": value for name, value in last.items()},
    }


def _mistakes_are_sharper(result: Result) -> float:
    """Probability that a clean image is sharper if wrong; 1/2 where none is wrong."""
    kappa, wrong = result.features[0, 0], result.wrong[0]
    if wrong.all() or not wrong.any():
        return 0.5
    return auc(kappa[wrong], kappa[~wrong])


def _at(result: Result, i: int) -> dict[str, float]:
    """One radius."""
    return {
        **{
            f"accuracy of {name}": float(result.accuracy[f, i].mean())
            for f, name in enumerate(FEATURES)
        },
        "clean is sharper": float(result.auc[i]),
        "robust accuracy": float(result.robust[i]),
        "zero gradients": float(result.stuck[i].double().mean()),
    }


def _of_matched(found: Matched, eps: float) -> dict[str, float]:
    """The adaptive attack at one radius."""
    names = (*FEATURES, "all features")
    return {
        "misclassified": float(found.wrong.double().mean()),
        "median size over radius": float(found.size.median()) / eps,
        "accuracy of the same stump": float(found.same.mean()),
        **{
            f"accuracy of {name}": float(found.retrained[f].mean())
            for f, name in enumerate(names)
        },
    }


def panels(result: Result) -> dict[str, Tensor]:
    """Distributions, detectors and the adaptive attack, as small arrays of one seed.

    The paper has no figure of this, only five accuracies (appendix D.4).

    Returns:
        For S radii, A of them with an adaptive attack:

        - `eps` (S,), `adaptive_eps` (A,) and `levels` (Q,), the axes;
        - `log10_sharpness` (1 + S, Q), quantiles of clean images, then of each radius;
        - `adaptive_log10_sharpness` (A, Q), of what the adaptive attacks end in;
        - `threshold` (S,), in log10, and `attacked_above` (S,), 0 or 1, of the best
          stump on sharpness for all images;
        - `accuracy` (4, S, folds), of a stump on each of `FEATURES`;
        - `leaky` (S, folds), on sharpness, when an image may lie in two folds;
        - `across` (S, S), trained at the radius of the row, used at the column's;
        - `clean_sharper` (S,), probability that a clean image is the sharper one;
        - `robust` (S,), share of images that survive, and `never_moved` (S,);
        - `adaptive_wrong` (A,), share of images that are misclassified there, and
          `adaptive_size` (A,), their median size over the radius;
        - `same_stump` (A, folds), accuracy of the stump of the plain attack there;
        - `retrained` (A, 5, folds), after training there: `FEATURES`, and all of them.
    """
    kappa = result.features[0] / math.log(10)
    stumps = [best_stump(kappa[0], other) for other in kappa[1:]]
    seen = {
        "eps": _vector(result.sizes.eps),
        "levels": _levels(),
        "log10_sharpness": kappa.quantile(_levels(), 1).T,
        "threshold": _vector([stump.threshold for stump in stumps]),
        "attacked_above": torch.tensor([int(s.attacked_above) for s in stumps]),
        "accuracy": result.accuracy,
        "leaky": result.leaky,
        "across": result.across,
        "clean_sharper": result.auc,
        "robust": result.robust,
        "never_moved": result.stuck.double().mean(1),
    }
    return seen | _adaptive_panels(result)


def passes(
    sizes: Sizes,
    *,
    classes: int,
    test_images: int,
    networks: int = 1,
) -> float:
    """Work of `run`, in forward passes of one image; stumps cost next to nothing.

    Args:
        sizes: how much is measured.
        classes: not used; `experiments` have this signature in common.
        test_images: of the data set; no more than `sizes.images` are used.
        networks: each is measured.
    """
    attack = 2 * sizes.steps + 1
    search = sizes.pieces + 1 + sizes.halvings + 1
    each = len(sizes.eps) * attack + len(sizes.adaptive) * (attack + search)
    return float(networks * min(sizes.images, test_images) * each)


def _adaptive_panels(result: Result) -> dict[str, Tensor]:
    """The adaptive attacks, in the order of their radii."""
    radii = sorted(result.matched)
    found = [result.matched[eps] for eps in radii]
    kappa = torch.stack([one.features[0] for one in found]) / math.log(10)
    sizes = [
        float(one.size.median()) / eps for eps, one in zip(radii, found, strict=True)
    ]
    return {
        "adaptive_eps": _vector(radii),
        "adaptive_log10_sharpness": kappa.quantile(_levels(), 1).T,
        "adaptive_wrong": torch.stack([one.wrong.double().mean() for one in found]),
        "adaptive_size": _vector(sizes),
        "same_stump": torch.stack([one.same for one in found]),
        "retrained": torch.stack([one.retrained for one in found]),
    }


def _levels() -> Tensor:
    """Levels in the middle of equal shares: their quantiles stand for a population."""
    return (torch.arange(_SHARES, dtype=torch.float64) + 0.5) / _SHARES


def _vector(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _batches(
    model: nn.Module, x: Tensor, y: Tensor, sizes: Sizes
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and labels, piece by piece, on the device of the model."""
    device = _common.device_of(model)
    for images, labels in zip(x.split(sizes.batch), y.split(sizes.batch), strict=True):
        yield images.to(device), labels.to(device)


def _attack(
    model: nn.Module, x: Tensor, y: Tensor, *, eps: float, steps: int
) -> attacks.Trajectory:
    step_size = eps / _STEPS_TO_EDGE
    return attacks.pgd(
        model, x, y, norm="linf", eps=eps, step_size=step_size, steps=steps
    )


def _look(
    model: nn.Module, x: Tensor, y: Tensor, sizes: Sizes
) -> tuple[Tensor, Tensor, Tensor]:
    """Features, errors and stuck attacks of a batch, clean and at every radius."""
    paths = [_attack(model, x, y, eps=eps, steps=sizes.steps) for eps in sizes.eps]
    phi = [paths[0].features[0], *(path.features[-1] for path in paths)]
    z = [paths[0].logits[0], *(path.logits[-1] for path in paths)]
    seen = [observe(model, *one) for one in zip(phi, z, strict=True)]
    wrong = [(logits.argmax(1) != y).cpu() for logits in z]
    stuck = [path.stuck.cpu() for path in paths]
    return torch.stack(seen, 1), torch.stack(wrong), torch.stack(stuck)


def _each_feature(clean: Tensor, attacked: Tensor, folds: int) -> Tensor:
    """Stumps on each of the features (F, N): (F, folds)."""
    pairs = zip(clean, attacked, strict=True)
    return torch.cat([cross_validate(*pair, folds=folds) for pair in pairs])


def _stumps(features: Tensor, folds: int) -> tuple[Tensor, Tensor, Tensor]:
    """What stumps reach: `accuracy`, `leaky` and `across` of a `Result`."""
    clean, *attacked = features.unbind(1)
    accuracy = [_each_feature(clean, other, folds) for other in attacked]
    kappa = [other[0] for other in attacked]
    leaky = [cross_validate(clean[0], k, folds=folds, grouped=False) for k in kappa]
    across = [cross_validate(clean[0], k, used_on=kappa, folds=folds) for k in kappa]
    return torch.stack(accuracy, 1), torch.cat(leaky), torch.stack(across).mean(2)


def _adapt(
    model: nn.Module,
    images: tuple[Tensor, Tensor],
    seen: Tensor,
    sizes: Sizes,
    *,
    eps: float,
) -> Matched:
    """The adaptive attack at one radius, and what detects it.

    `seen` are the features (4, 2, N) of the images and of their attacked versions.
    """
    clean, plain = seen.unbind(1)
    goals = targets(clean[0], plain[0])
    batches = zip(
        _batches(model, *images, sizes), goals.split(sizes.batch), strict=True
    )
    pieces = []
    for (x, y), goal in batches:
        end = _attack(model, x, y, eps=eps, steps=sizes.steps).adversarial
        point = match(model, (x, end), y, goal, sizes=sizes)
        pieces.append(_arrival(model, x, y, point))
    found, wrong, size = (torch.cat(p, -1) for p in zip(*pieces, strict=True))
    together = cross_validate(clean.T, found.T, folds=sizes.folds, depth=_TOGETHER)
    same = cross_validate(clean[0], plain[0], used_on=[found[0]], folds=sizes.folds)
    return Matched(
        features=found,
        wrong=wrong,
        size=size,
        gap=found[0] - goals,
        same=same[0],
        retrained=torch.cat([_each_feature(clean, found, sizes.folds), together]),
    )


def _arrival(
    model: nn.Module, x: Tensor, y: Tensor, point: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Features, errors and sizes of the points that an attack ends in."""
    with evaluating(model), torch.no_grad():
        phi, z = _forward(model, point)
    size = (point - x).abs().flatten(1).amax(1)
    return observe(model, phi, z), (z.argmax(1) != y).cpu(), size.cpu()


def _forward(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    features, head = check_model(model)
    phi = features(x)
    return phi, head(phi)


def _between(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """Points on straight lines, one share (N,) of the way for each image."""
    weight = share.to(start).view(-1, *[1] * (start.ndim - 1))
    return torch.lerp(start, end, weight)


def _below(population: Tensor, values: Tensor) -> Tensor:
    """Share of a population that is at most each of the values, float64."""
    counts = torch.searchsorted(population.sort().values, values, right=True)
    return counts.double() / len(population)


def _table(clean: Tensor, attacked: Tensor) -> np.ndarray:
    """Both versions of N images as rows of an array: (2 N, F)."""
    return torch.cat([clean, attacked]).view(2 * len(clean), -1).numpy()


def _check_populations(clean: Tensor, attacked: Tensor) -> None:
    for name, values in (("clean", clean), ("attacked", attacked)):
        if values.ndim != 1 or not len(values) or values.isnan().any():
            raise ValueError(f"{name} must be a vector of numbers, got {values}")
