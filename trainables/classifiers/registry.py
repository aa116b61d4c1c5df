"""The classifier architectures by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from trainables.classifiers.base import Architecture
from trainables.classifiers.resnet50 import resnet50
from trainables.classifiers.small_cnn import small_cnn

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType({"small_cnn": small_cnn, "resnet50": resnet50})
"""The names are those of ``spaces.config.CLASSIFIERS``."""
