"""How the models of two policies disagree, estimated from their predictions; what the power of a test follows from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainables.metrics.power import Disagreement

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Of what the first of two models gets right beyond the second, over evaluations.

    Args:
        disagreement: share of images that one gets right and the other wrong.
        variance: of an image's difference within its class.
        covariance: of two images of one patient and class.
        others: mean number of other images of an image's patient and class.
        independent: variance of the difference of balanced accuracies, were images independent.
        observed: that variance over the evaluations.
    """

    disagreement: float
    variance: float
    covariance: float
    others: float
    independent: float
    observed: float


def moments(probabilities_2SN: Floats, tested_SN: Bools, labels_N: Ints, patients_N: Ints) -> Moments:
    """Means over the evaluations.

    Args:
        probabilities_2SN: of the positive class, under two models in each evaluation.
        tested_SN: the test images of each.
        labels_N: 0 or 1.
        patients_N: the patient of each image, by number.
    """
    together_NN = (patients_N[:, None] == patients_N) & (labels_N[:, None] == labels_N)
    hits_2SN = (probabilities_2SN > 0.5) == labels_N
    found = [
        _moments(hits_2N[:, tested_N].astype(float), labels_N[tested_N], together_NN[np.ix_(tested_N, tested_N)])
        for hits_2N, tested_N in zip(hits_2SN.swapaxes(0, 1), tested_SN, strict=True)
    ]
    *means, _ = np.mean(found, axis=0).tolist()
    disagreement, variance, products, others, independent = means
    return Moments(
        disagreement=disagreement,
        variance=variance,
        covariance=products / others,
        others=others,
        independent=independent,
        observed=float(np.var([row[-1] for row in found], ddof=1)),
    )


def _moments(hits_2T: Floats, labels_T: Ints, together_TT: Bools) -> tuple[float, ...]:
    difference_T = hits_2T[0] - hits_2T[1]
    classes = [labels_T == label for label in (0, 1)]
    mean_2 = np.array([difference_T[is_class_T].mean() for is_class_T in classes])
    centred_T = difference_T - mean_2[labels_T]
    return (
        float(np.mean(difference_T**2)),
        float(np.mean(centred_T**2)),
        float(centred_T @ together_TT @ centred_T - centred_T @ centred_T) / len(labels_T),
        float(together_TT.sum()) / len(labels_T) - 1,
        sum(float(centred_T[is_class_T].var(ddof=1)) / int(is_class_T.sum()) for is_class_T in classes) / 4,
        float(mean_2.mean()),
    )


def disagreement(alike: Sequence[Moments], apart: Sequence[Moments], *, same_images: bool) -> Disagreement:
    """From the means over pilot cases, of pairs of models of one policy and of the two that are compared.

    The deviation between trainings is what the variance over pairs of models has beyond that of their images. Where all
    pairs are tested on the same images, those of one policy tell: images on which policies differ make no variance.
    """

    def mean(pairs: Sequence[Moments], name: str) -> float:
        return float(np.mean([getattr(each, name) for each in pairs]))

    def correlation(pairs: Sequence[Moments]) -> float:
        return min(max(0.0, mean(pairs, "covariance") / mean(pairs, "variance")), 1.0)

    pairs = alike if same_images else apart
    of_images = mean(pairs, "independent") * (1 + mean(pairs, "others") * correlation(pairs))
    return Disagreement(
        between=mean(apart, "disagreement"),
        within=mean(alike, "disagreement"),
        training=max(0.0, mean(pairs, "observed") - of_images) ** 0.5,
        correlation=correlation(apart),
    )
