"""The feature extractor behind the fidelity of synthetic images: a small CNN trained on a fold's real images.

It knows the modality and the classes, which a network for photographs does not, and it fits in every fold. Its
features carry no unit: values may be averaged or tabled together only where ``RECIPE_DIGEST`` is equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from spaces.config import ClassifierConfig, RealConfig
from spaces.space import digest_of
from trainables.classifiers.registry import training_slice
from trainables.classifiers.small_cnn import WIDTHS, SmallCnn
from trainables.classifiers.training import CLASSIFIER_STAGE_VERSION, train_classifier
from trainables.data.affine import identity
from trainables.data.image_set import ImageSet
from trainables.mixers.real import Real
from trainables.mixers.registry import MIXER_VERSION
from trainables.training.determinism import deterministic
from trainables.training.loop import OnStep

STAGE_VERSION = 1
"""Raised by hand when the extractor computes other features than before."""

FEATURES = WIDTHS[-1]

RECIPE = ClassifierConfig(
    name="small_cnn", epochs=6, batch_size=32, learning_rate=1e-3, weight_decay=1e-2, class_weights=True, amp=False
)
"""Few epochs: on 640 to 800 images at 32 px, twenty classify held-out patients no better than five (balanced accuracy
.79 on chest X-rays, .35 on cardiac slices), and move their features away from the training images' (cardiac KID .38 to
.52)."""

RECIPE_DIGEST = digest_of(
    {
        "extractor": STAGE_VERSION,
        "classifier": CLASSIFIER_STAGE_VERSION,
        "mixer": MIXER_VERSION,
        "recipe": training_slice(RECIPE),
        "features": FEATURES,
    }
)
"""Sixteen hexadecimal digits that differ where features cannot be compared."""

_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Extractor:
    """A trained network that turns images into features.

    Args:
        network: on ``device``, in evaluation mode.
        device: where it computes.
    """

    network: SmallCnn
    device: torch.device

    @torch.no_grad()
    def features(self, images_NCHW: Tensor) -> Tensor:
        """Features of images; an image's depend on that image alone.

        Args:
            images_NCHW: float32 in [-1, 1], C = 1.

        Returns:
            float32 (N, 128), at least 0, on the CPU.
        """
        features_ND = torch.empty(len(images_NCHW), FEATURES)
        with deterministic(self.device):
            for start in range(0, len(images_NCHW), _BATCH):
                part_BCHW = images_NCHW[start : start + _BATCH]
                # always full batches: libraries choose other algorithms, with other last bits, for other batch sizes
                full_BCHW = pad(part_BCHW, (0, 0, 0, 0, 0, 0, 0, _BATCH - len(part_BCHW)))
                features_BD = self.network.features(full_BCHW.to(self.device))
                features_ND[start : start + _BATCH] = features_BD[: len(part_BCHW)].cpu()
        return features_ND

    def state(self) -> dict[str, Tensor]:
        """The weights as named CPU tensors for safetensors."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.network.state_dict().items()}


def train_extractor(train: ImageSet, *, seed: int, device: torch.device, on_step: OnStep) -> Extractor:
    """Train the extractor by ``RECIPE``, through the loop that trains every classifier.

    Args:
        train: the training fold's real images; they are not augmented. The only images it may ever see.
        seed: every random draw descends from it.
        device: where to compute.
        on_step: called after every batch with (batches done, batches in all).

    Raises:
        DivergedError: a non-finite loss.
        DataError: fewer than two images.
        StopRequested: passed on from ``on_step``.

    Source: methods, evaluation.
    """
    trained = train_classifier(
        RECIPE,
        Real(RealConfig()),
        train,
        None,
        augment=identity,
        balanced=False,
        seed=seed,
        device=device,
        on_step=on_step,
    )
    return load_extractor(trained.state(), len(train.classes), device)


def load_extractor(state: Mapping[str, Tensor], n_classes: int, device: torch.device) -> Extractor:
    """The extractor whose ``state()`` this is.

    Args:
        state: named weights.
        n_classes: classes that it was trained on.
        device: where to compute.
    """
    with torch.device("meta"):
        network = SmallCnn(n_classes=n_classes)
    network.to_empty(device=device)
    network.load_state_dict(dict(state))
    return Extractor(network=network.eval(), device=device)
