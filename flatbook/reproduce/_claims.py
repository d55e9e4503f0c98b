"""What the paper says about its experiments, as rules that a result card can meet.

Every statement of Walter et al. (2025) that its experiments could refute, with the
numbers that try it; see `flatbook.reproduce._rules` for how. Where the paper gives a
number the tolerance is five points of a share, or a factor of two of a trace. Where it
gives a word, such as "strongly" or "near zero", the bound is our reading of that word.
Bounds are shown with every verdict, so that a reader may draw them elsewhere.

>>> [claim.id for claim in CLAIMS if claim.where.startswith("Fig. 14")]
['layers-alike']
"""

import math

import numpy as np

from flatbook.reproduce._rules import (
    LAST,
    Claim,
    Part,
    at,
    close,
    computed,
    minus,
    of_curve,
    of_scales,
    partners,
    per_seed,
    ratio,
    same_size,
    times,
    together,
    value,
)

__all__ = ["CLAIMS"]

_CLEAN = 0.93  # accuracy of the paper's ResNet-18, appendix D.3

_FLIPS = (
    "An image whose label flips pays a rise that grows with the scale, and the mean "
    "follows these images."
)
_WEAK = (
    "Under the weak attack most images never leave their basin, and a share of the "
    "rise that they do not finish says little."
)
_MARGIN = (
    "Sharpness and width both follow the margin; once its ranks are taken out, little "
    "of the correlation is left."
)
_ROUNDED = (
    "The surviving images never moved: their gradients are exactly zero. A loss that "
    "knows no scale finds the examples again; more digits only move the scale at which "
    "this happens."
)
_LESS_SURE = "These networks are less sure of their images, so fewer leave the ridge."
_BOTH = (False, True)

_GEOMETRY = (
    Claim(
        "weak-attack",
        "6.1",
        "The weak attack (25 steps within 0.025) leaves 90.33 % of the test images "
        "right.",
        "loss_geometry",
        (
            close(
                "share of all test images",
                times(value("accuracy"), value("weak: robust accuracy")),
                0.9033,
                otherwise="The network gets fewer images right before any attack.",
                size=True,
            ),
            close(
                "share of those that were right",
                value("weak: robust accuracy"),
                0.9033 / _CLEAN,
                size=True,
            ),
        ),
        models=("resnet18",),
        note="The second share uses the clean accuracy that appendix D.3 implies. On "
        "digits the ball is larger, to do about the same harm.",
    ),
    Claim(
        "rise-falls",
        "Figs. 2a, 4 to 12 a; 6.1",
        "Flattening by scale reduces how much the weak attack raises the loss, towards "
        "zero.",
        "loss_geometry",
        (
            Part(
                "median rise, largest scale over s = 1",
                of_scales("weak: median rise"),
                high=0.01,
            ),
            Part(
                "mean rise, the same",
                of_scales("weak: mean rise"),
                high=0.01,
                otherwise=_FLIPS,
            ),
        ),
        adversarial=_BOTH,
    ),
    Claim(
        "basin-grows",
        "Figs. 2b, 4 to 12 b; 6.1",
        "The larger the scale, the longer the loss stays flat along the attack.",
        "loss_geometry",
        (
            Part(
                "steps to a rise of 0.1, largest scale over s = 1, strong attack",
                of_scales("strong: median rise of 0.1"),
                low=1.5,
            ),
            Part(
                "steps to a tenth of the whole rise, the same, weak attack",
                of_scales("weak: median tenth of rise"),
                low=1.5,
            ),
            Part(
                "steps to ten times the start, the same, strong attack",
                of_scales("strong: median ten times start"),
                low=1.5,
                otherwise="Relative to where it starts the loss rises sooner: the "
                "start shrinks faster than the rise.",
            ),
        ),
        adversarial=_BOTH,
    ),
    Claim(
        "take-off",
        "Figs. 2b, 2c; 6.1",
        "At a large scale the loss takes off at a point that is the effective limit of "
        "what flatness can do.",
        "loss_geometry",
        (
            Part(
                "steps to a rise of 0.1 at the largest scale, over those to the flip",
                ratio(
                    at("strong: median rise of 0.1", LAST),
                    at("strong: median label flip", LAST),
                ),
                low=0.9,
                high=1.0,
            ),
            Part(
                "steps to the flip, largest scale over s = 1",
                of_scales("strong: median label flip"),
                low=0.999,
                high=1.001,
            ),
        ),
        adversarial=_BOTH,
        note="That limit is the label flip, which no scale moves.",
    ),
    Claim(
        "width-follows",
        "Figs. 2d, 4 to 12 d; 6.1",
        "The width of the basin correlates strongly with the sharpness of the clean "
        "image: flatter, broader.",
        "loss_geometry",
        (
            Part(
                "rank correlation, rise of 0.1, strong attack",
                value("strong: correlation, rise of 0.1"),
                high=-0.5,
            ),
            Part(
                "rank correlation, label flip, strong attack",
                value("strong: correlation, label flip"),
                high=-0.5,
            ),
            Part(
                "rank correlation, a tenth of the rise, weak attack",
                value("weak: correlation, tenth of rise"),
                high=-0.5,
                otherwise=_WEAK,
            ),
        ),
        adversarial=_BOTH,
    ),
    Claim(
        "sharpness-decides",
        "6.1",
        "It is reduced sharpness that makes basins broad.",
        "loss_geometry",
        (
            Part(
                "rank correlation given the margin, rise of 0.1",
                value("strong: given the margin, rise of 0.1"),
                high=-0.5,
                otherwise=_MARGIN,
            ),
            Part(
                "rank correlation given the margin, label flip",
                value("strong: given the margin, label flip"),
                high=-0.5,
                otherwise=_MARGIN,
            ),
        ),
        adversarial=_BOTH,
    ),
    Claim(
        "larger-is-flatter",
        "6",
        "A larger scale makes the network flatter.",
        "loss_geometry",
        (
            Part(
                "median sharpness, s = 100 over s = 1",
                of_curve("median sharpness", lambda x: x[-1] / x[0]),
                high=0.01,
            ),
            Part(
                "mean sharpness, the same",
                of_curve("mean sharpness", lambda x: x[-1] / x[0]),
                high=0.01,
                otherwise="Images close to a tie become sharper as fast as they become "
                "rare, and the mean stays where it is.",
            ),
        ),
    ),
    Claim(
        "cifar100-less",
        "Figs. 5, 7, 9, 11; D.1",
        "On CIFAR-100 width and sharpness correlate less than on CIFAR-10.",
        "loss_geometry",
        (
            Part(
                "rank correlation, rise of 0.1, CIFAR-100 minus CIFAR-10",
                minus(
                    partners(value("strong: correlation, rise of 0.1")),
                    value("strong: correlation, rise of 0.1"),
                ),
                low=0.02,
            ),
            Part(
                "the same for the label flip",
                minus(
                    partners(value("strong: correlation, label flip")),
                    value("strong: correlation, label flip"),
                ),
                low=0.02,
            ),
        ),
        partner="cifar100",
    ),
)

_VALLEY = (
    Claim(
        "peak-and-valley",
        "Figs. 3, 16; 6.2",
        "Along the attack sharpness first rises and then falls to near zero.",
        "uncanny_valley",
        (
            Part(
                "mean sharpness, peak over start",
                of_curve("mean sharpness", lambda x: max(x) / x[0]),
                low=1.2,
            ),
            Part(
                "mean sharpness, end over peak",
                of_curve("mean sharpness", lambda x: x[-1] / max(x)),
                high=0.1,
                otherwise="The images that stay near the ridge hold the mean up. "
                + _LESS_SURE,
                size=True,
            ),
            Part(
                "median sharpness, end over peak",
                of_curve("median sharpness", lambda x: x[-1] / max(x)),
                high=0.1,
                otherwise=_LESS_SURE,
                size=True,
            ),
            Part(
                "share of images that end below a tenth of their own peak",
                value("standard: valley share"),
                low=0.5,
                otherwise=_LESS_SURE,
                size=True,
            ),
        ),
    ),
    Claim(
        "confidently-wrong",
        "6.2",
        "The flat regions are confident mistakes.",
        "uncanny_valley",
        (
            Part(
                "median confidence at the end",
                value("standard: confidence at the end"),
                low=0.95,
                size=True,
            ),
            Part(
                "share of images still right there",
                value("standard: robust accuracy"),
                high=0.05,
            ),
        ),
    ),
    Claim(
        "peak-is-boundary",
        "6.2",
        "The peak of sharpness marks the decision boundary.",
        "uncanny_valley",
        (
            Part(
                "share of images with the peak within a step of the flip",
                value("peak within a step of the flip"),
                low=0.8,
            ),
            Part(
                "the same within a twentieth of the straight line",
                value("peak within 5 % of the way"),
                low=0.8,
            ),
        ),
        note="Exact for two classes; for more, every path still crosses a ridge.",
    ),
    Claim(
        "loss-plateaus",
        "Fig. 3; 6.2",
        "Behind the peak the loss levels off.",
        "uncanny_valley",
        (
            Part(
                "rise of the mean loss in the last step over its largest in a step",
                of_curve(
                    "mean loss", lambda x: (x[-1] - x[-2]) / float(np.diff(x).max())
                ),
                high=0.2,
            ),
            Part(
                "median loss after 25 steps, without the ball over with it",
                ratio(value("loss free"), value("loss held")),
                high=1.1,
                otherwise="It is the ball that holds the loss: without it the same "
                "attack goes on climbing.",
            ),
        ),
    ),
    Claim(
        "gradients-vanish",
        "6.2",
        "In the flat valley gradients nearly vanish.",
        "uncanny_valley",
        (
            Part(
                "median input gradient, end over start",
                ratio(
                    value("input gradient at the end"), value("input gradient clean")
                ),
                high=0.1,
                otherwise="What vanishes is curvature. In a confident mistake the "
                "gradient in the logits has length √2, the largest there is.",
            ),
            Part(
                "median gradient in the logits at the end",
                value("logit gradient at the end"),
                high=0.1,
            ),
        ),
    ),
)

_MASKING = (
    Claim(
        "zero-at-one",
        "Fig. 13b; D.3",
        "The unscaled network has 0 % robust accuracy.",
        "gradient_masking",
        (
            close(
                "robust accuracy, s = 1", at("cross-entropy: robust accuracy", 1), 0.0
            ),
        ),
    ),
    Claim(
        "recovers",
        "Fig. 13b; D.3",
        "Scaled by 100 it has 93 %, which recovers its clean accuracy.",
        "gradient_masking",
        (
            close(
                "robust accuracy, s = 100",
                at("cross-entropy: robust accuracy", 100),
                0.93,
                otherwise="What counts is scale times margin, and never more than the "
                "clean accuracy: smaller margins need a larger scale.",
                size=True,
            ),
            Part(
                "robust over clean accuracy, s = 100",
                ratio(at("cross-entropy: robust accuracy", 100), value("accuracy")),
                low=0.95,
                otherwise="What counts is scale times margin, and never more than the "
                "clean accuracy: smaller margins need a larger scale.",
                size=True,
            ),
            Part(
                "the same at the largest scale",
                ratio(at("cross-entropy: robust accuracy", LAST), value("accuracy")),
                low=0.95,
            ),
        ),
    ),
    Claim(
        "unattackable",
        "Fig. 13; D.3",
        "Flat networks cannot be attacked by first-order methods.",
        "gradient_masking",
        (
            Part(
                "robust accuracy, s = 100, attack on the log-odds",
                at("log-odds: robust accuracy", 100),
                low=0.5,
                otherwise=_ROUNDED,
            ),
            Part(
                "the same, attack on the margin",
                at("margin: robust accuracy", 100),
                low=0.5,
                otherwise=_ROUNDED,
            ),
            Part(
                "the same, the paper's attack in float64",
                at("cross-entropy, float64: robust accuracy", 100),
                low=0.5,
                otherwise=_ROUNDED,
            ),
            Part(
                "share of the survivors of the paper's attack that moved at all",
                computed(
                    lambda kept, still: (kept - still) / kept if kept else math.inf,
                    at("cross-entropy: robust accuracy", 100),
                    at("cross-entropy: zero gradients", 100),
                ),
                low=0.5,
                otherwise=_ROUNDED,
            ),
        ),
    ),
    Claim(
        "sharpness-tracks",
        "Figs. 13a, 13c; D.3",
        "Over the scales, sharpness of clean images falls as robust accuracy rises.",
        "gradient_masking",
        (
            Part(
                "rank correlation over the scales, median sharpness",
                together("log10 median sharpness", "cross-entropy: robust accuracy"),
                high=-0.8,
            ),
            Part(
                "the same, mean sharpness",
                together("mean sharpness", "cross-entropy: robust accuracy"),
                high=-0.8,
                otherwise="The mean over images, with both norms squared, grows with "
                "the scale: the few images near a tie outweigh the rest.",
            ),
        ),
    ),
    Claim(
        "transfer",
        "Fig. 13d; D.3",
        "Examples made at s = 1 fool the other scales with 100 % success.",
        "gradient_masking",
        (
            Part(
                "share that transfers to s = 100, weight and bias scaled",
                at("transfer, both", 100),
                low=0.999,
                paper=1.0,
            ),
            Part(
                "the same, the weight alone scaled",
                at("transfer, weight only", 100),
                low=0.99,
                paper=1.0,
            ),
        ),
        note="Scaling weight and bias changes no prediction, so the first is an "
        "identity.",
    ),
)

_TRAINED = (
    Claim(
        "similar-trace",
        "D.2",
        "Tr H is similar, 0.6 for the standard and 1.0 for the adversarially trained "
        "network.",
        "adversarial_training",
        (
            same_size(
                "mean Tr H, standard",
                per_seed("standard: mean trace H"),
                0.6,
                otherwise="Tr H grows with the square of the features' length, which "
                "training is free to choose.",
                size=True,
            ),
            same_size(
                "mean Tr H, adversarially trained",
                per_seed("adversarial: mean trace H"),
                1.0,
                otherwise="Tr H grows with the square of the features' length, which "
                "training is free to choose.",
                size=True,
            ),
            same_size(
                "the second over the first",
                ratio(
                    per_seed("adversarial: mean trace H"),
                    per_seed("standard: mean trace H"),
                ),
                1.0 / 0.6,
                size=True,
            ),
        ),
    ),
    Claim(
        "less-confident",
        "D.2",
        "Adversarially trained networks are less confident.",
        "adversarial_training",
        (
            Part(
                "mean confidence, adversarial minus standard",
                minus(
                    value("adversarial: mean confidence"),
                    value("standard: mean confidence"),
                ),
                high=-0.02,
                size=True,
            ),
        ),
    ),
    Claim(
        "larger-radius",
        "D.2",
        "They keep the label within a far larger radius, 20 times the usual one.",
        "adversarial_training",
        (
            Part(
                "median distance to the flip, over that of the standard network",
                value("times farther to the flip"),
                low=1.2,
                size=True,
            ),
            Part(
                "the same for a rise of the loss by 0.1",
                value("times wider"),
                low=1.2,
                otherwise="Less confident images are closer to a given rise of the "
                "loss, even where they are farther from the flip.",
            ),
            Part(
                "the first number, against 20",
                value("times farther to the flip"),
                low=10,
                paper=20,
                otherwise="The 20 is the ratio of the radii that were tried, not of "
                "those that were found.",
            ),
        ),
    ),
)

_OTHERS = (
    Claim(
        "detected",
        "D.4",
        "A stump on sharpness tells attacked images from clean ones with accuracy "
        "0.92.",
        "detection",
        (
            close(
                "accuracy of sharpness, best radius",
                value("best accuracy"),
                0.92,
                otherwise="The paper states no strength of the attack; here the "
                "accuracy moves with it.",
                size=True,
            ),
        ),
        note="The paper's network is a WRN-28-4; the grid takes the ResNet-18.",
    ),
    Claim(
        "threshold-suffices",
        "D.4",
        "A simple threshold on sharpness is enough to detect attacks.",
        "detection",
        (
            Part("accuracy, best radius", value("best accuracy"), low=0.6),
            Part(
                "accuracy, worst radius",
                value("lowest accuracy"),
                low=0.6,
                otherwise="Weak attacks are sharper than clean images and strong ones "
                "flatter; between them nothing can be told.",
            ),
            Part(
                "trained at one radius, used at another, worst case",
                value("worst accuracy across"),
                low=0.6,
                otherwise="A stump of one strength has the wrong sign at another.",
            ),
            Part(
                "accuracy beyond that of confidence, mean over the radii",
                value("gain over confidence"),
                low=0.01,
                otherwise="Sharpness ranks the images as confidence does.",
            ),
            Part(
                "accuracy against an attack that knows, retrained",
                value("adaptive: accuracy of sharpness[2]"),
                low=0.6,
                otherwise="An attack can stop at the sharpness of a clean image.",
            ),
        ),
    ),
    Claim(
        "layers-alike",
        "Fig. 14",
        "Earlier layers show the same peak and valley as the last.",
        "earlier_layers",
        (
            Part(
                "share of images that end below a tenth of their peak, lowest layer",
                value("valley share: lowest layer"),
                low=0.5,
                otherwise=_LESS_SURE,
                size=True,
            ),
            Part(
                "share with the peak within a step of the last layer's, lowest layer",
                value("peak within a step: lowest layer"),
                low=0.8,
            ),
            Part(
                "rank correlation with the last layer, lowest layer",
                value("rank correlation: lowest layer"),
                low=0.9,
            ),
        ),
        note="The paper estimates the traces; here they are exact, in every layer.",
    ),
    Claim(
        "last-is-largest",
        "4",
        "A sharpness measure attains its maximum at the last layer.",
        "earlier_layers",
        tuple(
            Part(
                f"share of points with the last layer sharpest, {measure}",
                value(f"last layer largest: {measure}"),
                low=0.5,
                otherwise="Nothing forces it: a layer's curvature also counts the "
                "length of what comes in and the weights that follow.",
            )
            for measure in ("Tr H", "|W| Tr H", "|W|² Tr H")
        ),
    ),
    Claim(
        "prompts",
        "Fig. 15",
        "Adversarial prompts for language models first get sharper, then flatter.",
        "",
        (),
        note="Outside the grid: it needs language models of 7 billion weights.",
    ),
)

CLAIMS: tuple[Claim, ...] = (*_GEOMETRY, *_VALLEY, *_MASKING, *_TRAINED, *_OTHERS)
"""All that is tried, in the paper's order of experiments."""
