"""First losses of every generator that trains, to notice when its numbers change without its STAGE_VERSION.

After raising a STAGE_VERSION, write the new file: python -m tests.trainables.generators.golden
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import torch

from spaces.errors import ConfigError
from spaces.generators import GENERATORS as CONFIGS
from tests.trainables.generators.tiny_pipelines import stable_diffusion
from trainables.data.image_set import ImageSet
from trainables.generators.base import History
from trainables.generators.registry import GENERATORS, build
from trainables.training.loop import advance

FOLDER = Path(__file__).with_name("golden")
SMALL = {
    "steps": 20,
    "batch_size": 8,
    "width": 4,
    "latent_size": 8,
    "evaluation_batch": 16,
    "learning_rate": 2e-3,
}
SEED = 4
EVOLVING = {"learning_rate": 1e-3, "gamma": 5.0}
OWN = {"egan": (EVOLVING, 3), "dae_gan": (EVOLVING, 31)}
"""Settings and seeds under which all mutations win at times, and by more than rounding could turn round."""
TRAINED = [name for name in GENERATORS if "steps" in {field.name for field in dataclasses.fields(CONFIGS[name])}]


def golden_file(name: str) -> Path:
    """The file of the generator's present STAGE_VERSION."""
    version = sys.modules[GENERATORS[name].__module__].STAGE_VERSION
    return FOLDER / f"{name}_v{version}.json"


def needed(name: str) -> dict[str, str]:
    """Weights to start from, for a generator whose configuration is refused without."""
    try:
        CONFIGS[name]()
    except ConfigError:
        return {"pretrained": str(stable_diffusion())}
    return {}


def first_curves(name: str) -> History:
    """The curves of a short training on a fixed toy set."""
    rng = torch.Generator().manual_seed(0)
    labels_N = torch.arange(24) % 2
    images_NCHW = (0.8 * labels_N[:, None, None, None] - 0.4 + 0.2 * torch.randn(24, 1, 32, 32, generator=rng)).clamp(
        -1, 1
    )
    ids = tuple(str(index) for index in range(24))
    train = ImageSet(images_NCHW=images_NCHW, labels_N=labels_N, ids=ids, patients=ids, classes=("a", "b"))
    known = {field.name for field in dataclasses.fields(CONFIGS[name])}
    own, seed = OWN.get(name, ({}, SEED))
    settings = {**needed(name), **SMALL, **own}
    config = CONFIGS[name](**{key: value for key, value in settings.items() if key in known})
    training = build(config).begin(train, seed=seed, device=torch.device("cpu"))
    advance(training, 20, on_step=lambda done, total: None)
    return training.fitted(checked=False).history


def main() -> None:
    """Write the files that are missing; existing ones are left as they are."""
    FOLDER.mkdir(exist_ok=True)
    for name in TRAINED:
        path = golden_file(name)
        if not path.exists():
            path.write_text(json.dumps(first_curves(name), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
