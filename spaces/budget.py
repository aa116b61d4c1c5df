"""Budgets: how large the images, how many the folds, how long the trainings of a search are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from spaces.errors import ConfigError, nearest
from spaces.parameter import Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a trial may cost; everything here is fixed for a search, nothing is searched.

    ``settings`` are flat dotted names, as in a configuration; ``generators`` hold the same for one generator
    only (names without the leading ``generator.``). A searched dimension of the same name overrides them.
    """

    name: str
    folds: int
    trials: int
    note: str
    settings: Mapping[str, Value]
    generators: Mapping[str, Mapping[str, Value]]


def _budget(
    name: str,
    *,
    folds: int,
    trials: int,
    note: str,
    settings: dict[str, Value],
    generators: dict[str, dict[str, Value]],
) -> Budget:
    return Budget(
        name=name,
        folds=folds,
        trials=trials,
        note=note,
        settings=MappingProxyType(settings),
        generators=MappingProxyType({key: MappingProxyType(value) for key, value in generators.items()}),
    )


BUDGETS: Mapping[str, Budget] = MappingProxyType(
    {
        "quick": _budget(
            "quick",
            folds=3,
            trials=12,
            note="demonstration: the generators are undertrained, the scores show that it runs, not what helps",
            settings={
                "preprocess.pixels": 32,
                "classifier.name": "small_cnn",
                "classifier.epochs": 12,
                "classifier.batch_size": 32,
                "classifier.learning_rate": 1e-3,
            },
            generators={
                "dcgan": {"steps": 250, "batch_size": 32, "width": 24, "learning_rate": 5e-4},
                "acgan": {"steps": 250, "batch_size": 32, "width": 24, "learning_rate": 5e-4},
                "wgan_gp": {"steps": 150, "batch_size": 16, "width": 12, "learning_rate": 1e-3, "critic_steps": 3},
                "egan": {
                    "steps": 110,
                    "batch_size": 32,
                    "width": 16,
                    "learning_rate": 1e-3,
                    "discriminator_steps": 1,
                    "evaluation_batch": 64,
                    "augmentation": "diffaugment",
                },
                "dae_gan": {
                    "steps": 40,
                    "batch_size": 32,
                    "width": 8,
                    "learning_rate": 1e-3,
                    "ema": 0.9,
                    "discriminator_steps": 2,
                    "evaluation_batch": 32,
                    "affine_copies": 0,
                },
                "stylegan": {
                    "steps": 200,
                    "batch_size": 8,
                    "width": 8,
                    "learning_rate": 5e-3,
                    "ema": 0.99,
                    "ada_ramp": 40,
                },
                "diffusion": {
                    "steps": 120,
                    "batch_size": 16,
                    "width": 16,
                    "learning_rate": 2.5e-3,
                    "sampling_steps": 8,
                },
                "textual_inversion": {"steps": 40, "sampling_steps": 10},
            },
        ),
        "standard": _budget(
            "standard",
            folds=5,
            trials=50,
            note="one to two CPU-minutes of training per generator and fold, after which images are recognisable",
            settings={
                "preprocess.pixels": 32,
                "classifier.name": "small_cnn",
                "classifier.epochs": 40,
                "classifier.batch_size": 32,
                "classifier.learning_rate": 1e-3,
            },
            generators={
                "dcgan": {"steps": 1000, "batch_size": 32, "width": 32, "learning_rate": 2e-4},
                "acgan": {"steps": 1000, "batch_size": 32, "width": 32, "learning_rate": 2e-4},
                "wgan_gp": {"steps": 600, "batch_size": 32, "width": 16, "learning_rate": 5e-4},
                "egan": {
                    "steps": 500,
                    "batch_size": 32,
                    "width": 16,
                    "learning_rate": 1e-3,
                    "evaluation_batch": 64,
                    "augmentation": "diffaugment",
                },
                "dae_gan": {
                    "steps": 400,
                    "batch_size": 32,
                    "width": 16,
                    "learning_rate": 1e-3,
                    "ema": 0.99,
                    "discriminator_steps": 3,
                    "evaluation_batch": 32,
                    "affine_copies": 0,
                },
                "stylegan": {
                    "steps": 1000,
                    "batch_size": 16,
                    "width": 16,
                    "learning_rate": 2.5e-3,
                    "ema": 0.995,
                    "ada_ramp": 200,
                },
                "diffusion": {
                    "steps": 700,
                    "batch_size": 16,
                    "width": 32,
                    "learning_rate": 2e-3,
                    "sampling_steps": 12,
                },
                "textual_inversion": {"steps": 500, "sampling_steps": 25},
            },
        ),
        "paper": _budget(
            "paper",
            folds=5,
            trials=100,
            note="the papers' own settings; meant for GPUs",
            settings={
                "preprocess.pixels": 80,
                "classifier.name": "resnet50",
                "classifier.epochs": 100,
                "classifier.batch_size": 8,
                "classifier.learning_rate": 2e-4,
            },
            generators={
                "dcgan": {
                    "steps": 70_000,
                    "batch_size": 8,
                    "learning_rate": 1e-3,
                    "width": 64,
                    "per_class": True,
                    "precision": "tf32",
                },
                "acgan": {"steps": 70_000, "batch_size": 32, "width": 64, "precision": "tf32"},
                "wgan_gp": {"steps": 70_000, "batch_size": 32, "width": 64, "per_class": True},
                "egan": {"steps": 70_000, "batch_size": 32, "width": 64, "per_class": True, "precision": "tf32"},
                "dae_gan": {"steps": 70_000, "batch_size": 32, "width": 64, "per_class": True, "precision": "tf32"},
                "stylegan": {
                    "steps": 70_000,
                    "batch_size": 32,
                    "width": 32,
                    "ema": 0.999,
                    "ada_ramp": 14_000,
                    "precision": "tf32",
                },
                "diffusion": {
                    "steps": 70_000,
                    "batch_size": 32,
                    "width": 64,
                    "learning_rate": 4e-4,
                    "ema": 0.9995,
                    "sampling_steps": 50,
                    "precision": "tf32",
                },
                "textual_inversion": {"steps": 5_000, "sampling_steps": 50},
            },
        ),
    }
)


def budget_named(name: str) -> Budget:
    """The budget of that name. Raises: ConfigError, with the valid names."""
    try:
        return BUDGETS[name]
    except KeyError:
        raise ConfigError(f"budget '{name}' does not exist; {nearest(name, BUDGETS)}.") from None
