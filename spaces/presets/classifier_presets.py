"""How the papers trained their classifiers, as settings of ``classifier.*``.

A preset says how, not what: ``classifier.name`` and, for ImageNet weights, ``classifier.pretrained`` are set beside it.
Where a paper leaves a value open, the comment says so, and the value is this project's default.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from spaces.parameter import Value

_DAE_GAN: Mapping[str, Value] = MappingProxyType(
    {
        # section 4.4: "The learning rate is set to 1e-4, and we use the RMSprop optimizer, setting early stopping
        # method to prevent over-fitting", in Keras, whose learning rate is constant
        "classifier.optimizer": "rmsprop",
        "classifier.learning_rate": 1e-4,
        "classifier.schedule": "constant",
        "classifier.weight_decay": 0.0,  # none is named; Keras has none
        "classifier.class_weights": False,  # none are named, though 221 of the 298 images are diseased
        # open: how long without progress, for how long at most, and how many images in a batch. Nor does the paper say
        # which images early stopping looked at, or that ResNet50 and Xception were pretrained
        "classifier.patience": 10,
        "classifier.epochs": 100,
        "classifier.batch_size": 32,
    }
)

_GENMIX: Mapping[str, Value] = MappingProxyType(
    {
        # section 3.1: "For training VGG-16, we set the hyperparameters to 100 epochs, a batch size of 8, a learning
        # rate of 0.0002, and an early stopping condition of 20", from ImageNet weights
        "classifier.epochs": 100,
        "classifier.batch_size": 8,
        "classifier.learning_rate": 2e-4,
        "classifier.patience": 20,
        # open: the optimiser, its schedule and decay, and what early stopping watches (here the loss)
        "classifier.optimizer": "adam",
        "classifier.schedule": "constant",
        "classifier.weight_decay": 0.0,
        "classifier.class_weights": False,  # none are named; the paper answers imbalance with synthetic images
    }
)

CLASSIFIER_PRESETS: Mapping[str, Mapping[str, Value]] = MappingProxyType({"dae_gan": _DAE_GAN, "genmix": _GENMIX})
"""Flat settings by paper: "dae_gan" is paper 1 (ResNet50 and Xception), "genmix" paper 2 (VGG-16)."""
