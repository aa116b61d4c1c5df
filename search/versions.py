"""The versions of what results may depend on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGE = "genmix-search"
_PACKAGES = (
    PACKAGE,
    "torch",
    "ray",
    "optuna",
    "mlflow",
    "scikit-learn",
    "numpy",
    "SimpleITK",
    "diffusers",
    "transformers",
)


def versions() -> dict[str, str]:
    """Python's, and those of packages; "not installed" where one is not."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
