"""Where a classifier sees its training images: few features and pictures, to be kept (GenMix, figures 3 and 4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from trainables import seeding
from trainables.classifiers.trained import TrainedClassifier
from trainables.data.image_set import ImageSet
from trainables.files import read_json, write_json, written_aside
from trainables.generators.previews import to_uint8
from trainables.mixers.base import Augment, Mixer
from trainables.mixers.blend import Blend
from trainables.mixers.preview import MixedExamples, mixed_examples
from trainables.mixers.real import Real

FOLDER = "feature_map"
"""The folder of a trial that its map lies in."""
NAMES_FILE = "map.json"
"""Is written last: a map that has it is whole."""
ARRAYS_FILE = "map.safetensors"
KINDS = ("real", "synthetic", "mixed")
OF_A_KIND = 150
"""Images of each kind that a map needs, all classes together."""
EXAMPLES = 6
"""Images of each class and kind that are kept as pictures."""
COMPONENTS = 50
"""Principal components that stand for the features, as is usual before a t-SNE (van der Maaten & Hinton 2008)."""
_MIXED_FROM = 600
"""Real images that mixed ones are made of, at most: an epoch of a whole data set would take long."""
_LARGEST = 128
"""Pixels of a kept picture's side."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureMap:
    """Training images of a classifier in its feature space.

    Args:
        points_MC: float32, the principal components of M images' features, largest first.
        kind_M: int64 positions in ``KINDS``.
        label_M: int64 class indices; of a mixed image the class of the largest weight.
        weight_M: float32, the weight of that class in the image's label; 1 where nothing is mixed.
        example_E: int64 positions, among the M, of the images that there are pictures of.
        images_EHW: uint8 pictures, 0 black to 255 white.
        classes: the class names, in the order of the indices.

    Raises: ValueError if the lengths do not fit together.
    """

    points_MC: Tensor
    kind_M: Tensor
    label_M: Tensor
    weight_M: Tensor
    example_E: Tensor
    images_EHW: Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        lengths = {len(each) for each in (self.points_MC, self.kind_M, self.label_M, self.weight_M)}
        if len(lengths) != 1 or len(self.example_E) != len(self.images_EHW):
            raise ValueError(
                f"a feature map needs M points with M kinds, labels and weights, and as many examples as pictures; got "
                f"lengths {sorted(lengths)} of the first, {len(self.example_E)} and {len(self.images_EHW)} of the last."
            )

    def write(self, folder: Path, *, show_images: bool) -> None:
        """Write ``map.safetensors`` and ``map.json`` into a folder, which is made if need be.

        Args:
            folder: an earlier map in it is replaced.
            show_images: False leaves all pictures out, as those of synthetic images may be copies of patients.
        """
        folder.mkdir(parents=True, exist_ok=True)
        shown = len(self.example_E) if show_images else 0
        arrays = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "classes"}
        arrays |= {"example_E": self.example_E[:shown], "images_EHW": self.images_EHW[:shown]}
        with written_aside(folder / ARRAYS_FILE) as aside:
            save_file({name: each.contiguous() for name, each in arrays.items()}, aside)
        write_json(folder / NAMES_FILE, {"classes": self.classes, "kinds": KINDS})

    @classmethod
    def read(cls, folder: Path) -> FeatureMap:
        """The map that ``write`` wrote. Raises: OSError, ValueError, KeyError where there is none that can be read."""
        names = read_json(folder / NAMES_FILE)
        try:
            arrays: Mapping[str, Tensor] = load_file(folder / ARRAYS_FILE)
        except SafetensorError as error:
            raise ValueError(f"'{folder / ARRAYS_FILE}' is no whole safetensors file ({error}).") from error
        named = {name: arrays[name] for name in cls.__dataclass_fields__ if name != "classes"}
        return cls(**named, classes=tuple(names["classes"]))


def feature_map(
    classifier: TrainedClassifier,
    real: ImageSet,
    synthetic: ImageSet | None,
    mixer: Mixer,
    *,
    augment: Augment,
    per_class: int,
    seed: int,
) -> FeatureMap:
    """Look at a trained classifier's training images through its eyes.

    Nothing of the training is touched: the network stays as it is and every draw comes from ``seed``.

    Args:
        classifier: trained on these images.
        real: the training fold's real images.
        synthetic: this trial's share of the pool, or None.
        mixer: what it was trained with; its images are the kind "mixed", unless it only passes images on.
        augment: applied to every image, of mixed ones to their sources, as in training: left out, it would tell real
            from mixed images by itself.
        per_class: images of each class and kind, at random; fewer where there are fewer.
        seed: every draw descends from it.

    Returns:
        Up to 3 x K x ``per_class`` points, by kind, then by class.

    Raises:
        EmptyPoolError, DataError: as the mixer's epoch.
    """
    chosen = {"real": _some(real, per_class, augment=augment, rng=seeding.generator(seed, "real"))}
    if synthetic is not None:
        rng = seeding.generator(seed, "synthetic")
        chosen["synthetic"] = _some(synthetic, per_class, augment=augment, rng=rng)
    if not isinstance(mixer, Real | Blend):
        share = min(1.0, _MIXED_FROM / len(real))
        rng = seeding.generator(seed, "mixed")
        sources = (_thinned(real, share, rng=rng), _thinned(synthetic, share, rng=rng) if synthetic else None)
        chosen["mixed"] = mixed_examples(mixer, *sources, per_class=per_class, augment=augment, rng=rng)
    images_MCHW = torch.cat([each.images.images_NCHW for each in chosen.values()])
    kind_M = torch.cat([torch.full_like(each.images.labels_N, KINDS.index(kind)) for kind, each in chosen.items()])
    label_M = torch.cat([each.images.labels_N for each in chosen.values()])
    example_E = _firsts(kind_M, label_M, EXAMPLES)
    return FeatureMap(
        points_MC=principal_components(classifier.features(images_MCHW), COMPONENTS),
        kind_M=kind_M,
        label_M=label_M,
        weight_M=torch.cat([each.weight_N for each in chosen.values()]),
        example_E=example_E,
        images_EHW=_pictures(images_MCHW[example_E]),
        classes=real.classes,
    )


def principal_components(features_MF: Tensor, count: int) -> Tensor:
    """Project samples onto their directions of largest variance.

    Args:
        features_MF: float32, M at least 1.
        count: directions wanted.

    Returns:
        float32 (M, min(count, M, F)), largest variance first; distances between samples are kept as far as that many
        directions can. Computed by the M x M inner products, as features are many and images few.
    """
    centred_MF = features_MF.double() - features_MF.double().mean(dim=0)
    variance_M, direction_MM = torch.linalg.eigh(centred_MF @ centred_MF.T)
    kept = min(count, *features_MF.shape)
    scores_MC: Tensor = direction_MM.flip(1)[:, :kept] * variance_M.flip(0)[:kept].clamp(min=0).sqrt()
    return scores_MC.float()


def _some(images: ImageSet, per_class: int, *, augment: Augment, rng: torch.Generator) -> MixedExamples:
    """At most ``per_class`` images of each class, at random, sorted by class; each is wholly of its class."""
    order_N = torch.randperm(len(images), generator=rng)
    labels_N = images.labels_N[order_N]
    each = [order_N[labels_N == label][:per_class] for label in range(len(images.classes))]
    chosen = images.subset(torch.cat(each))
    chosen = replace(chosen, images_NCHW=augment(chosen.images_NCHW, rng))
    return MixedExamples(images=chosen, weight_N=torch.ones(len(chosen)))


def _thinned(images: ImageSet, share: float, *, rng: torch.Generator) -> ImageSet:
    """A random share of the images, two at least; all of them at 1."""
    if share >= 1:
        return images
    return images.subset(torch.randperm(len(images), generator=rng)[: max(2, round(share * len(images)))])


def _firsts(kind_M: Tensor, label_M: Tensor, count: int) -> Tensor:
    """Positions of the first ``count`` points of each kind and class."""
    group_M = kind_M * (int(label_M.max()) + 1) + label_M
    return torch.cat([(group_M == group).nonzero().flatten()[:count] for group in sorted(set(group_M.tolist()))])


def _pictures(images_ECHW: Tensor) -> Tensor:
    """uint8 (E, P, P) of float32 images in [-1, 1], made smaller where they are large."""
    if images_ECHW.shape[-1] > _LARGEST:
        images_ECHW = adaptive_avg_pool2d(images_ECHW, _LARGEST)
    return to_uint8(images_ECHW)
