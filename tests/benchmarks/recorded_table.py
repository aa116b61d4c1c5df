"""The recorded table on which searches are compared: its space, its file, and what a simulated search reads from it.

It holds every configuration of ``TABLE_SPACE`` on chest X-rays under the budget ``quick``, on three patient-grouped
folds of about 200 training images, twice; ``record_table`` has recorded it. Scores are real; the seconds of a stage are
those that its kind was measured to cost once.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.simulation.workload import Evaluation, Identity, PlannedStage, TableWorkload, identity
from spaces.parameter import Choice, Value
from spaces.space import Assignment, Dimension, Space, When

TABLE = Path(__file__).parent / "tables" / "cxr_quick.json"
LARGEST = 1_000_000
"""Bytes above which a table is compressed."""
FOLDS, REPEATS = 3, 2
SCORES = ("balanced_accuracy", "auroc", "sensitivity", "specificity")
BUDGET = "quick"


def _choice(name: str, *options: Value, under: tuple[str, ...] = (), parent: str = "generator.name") -> Dimension:
    when = When(parent=parent, values=under) if under else None
    return Dimension(parameter=Choice(name=name, options=options, default=options[0]), when=when)


TABLE_SPACE = Space(
    name="recorded",
    description="A grid within the space genmix, every configuration of which was computed.",
    dimensions=(
        _choice("mixer.name", "genmix", "blend", "mixup", "cutmix", "real"),
        Dimension(
            parameter=Choice(
                name="generator.name",
                options=("dcgan", "acgan", "wgan_gp", "egan", "dae_gan", "stylegan", "diffusion"),
                default="dcgan",
            ),
            when=When(parent="mixer.name", values=("blend", "genmix")),
            otherwise="none",
        ),
        _choice("generator.gamma", 0.001, 0.1, under=("egan",)),
        _choice("generator.gamma", 0.001, 0.02, under=("dae_gan",)),
        _choice("generator.survivors", 1, under=("egan",)),
        _choice("generator.mixing_alpha", 0.1, under=("dae_gan",)),
        _choice("generator.mixture", "static", under=("dae_gan",)),
        _choice("generator.r1_weight", 2e-4, under=("stylegan",)),
        _choice("generator.augmentation", "ada", "diffaugment", under=("stylegan",)),
        _choice("generator.guidance", 1.0, 2.5, under=("diffusion",)),
        _choice("mixer.mixup_alpha", 0.2, under=("mixup",), parent="mixer.name"),
        _choice("mixer.genmix_alpha", 0.1, under=("genmix",), parent="mixer.name"),
        _choice("synthetic.ratio", 0.5, 1.5, under=("blend", "genmix"), parent="mixer.name"),
        _choice("classifier.learning_rate", 3e-4, 1e-3, 5e-3),
        _choice("affine", False, True),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A recorded table.

    Args:
        recorded: evaluations by configuration and fold, of one repeat after the other.
        configs: every configuration that has all its evaluations.
    """

    recorded: Mapping[tuple[Identity, int], Evaluation]
    configs: tuple[Assignment, ...]

    def repeat(self, number: int) -> TableWorkload:
        """One repeat (from 0), for a search to see."""
        return TableWorkload(self.recorded, folds=range(FOLDS * number, FOLDS * (number + 1)))

    def mean(self, config: Mapping[str, Value], metric: str, *, repeat: int) -> float | None:
        """The mean of a score over the folds of one repeat; None where it failed there."""
        found = self.repeat(repeat)
        values = [found.evaluation(config, fold).scores.get(metric) for fold in range(FOLDS)]
        defined = [value for value in values if value is not None]
        return sum(defined) / len(defined) if len(defined) == FOLDS else None


def kind_of(stage: str, config: Mapping[str, Value]) -> str:
    """What a stage's cost depends on, as text: what is trained, or how much is mixed."""
    own = ("mixer.name", "synthetic.ratio", "affine") if stage == "classifier" else ("generator.",)
    if stage in ("preprocess", "extractor"):
        own = ()
    chosen = {name: value for name, value in config.items() if own and name.startswith(own)}
    if stage == "generator":
        chosen.pop("generator.guidance", None)
    return f"{stage} {json.dumps(chosen, sort_keys=True)}"


def pack(rows: Iterable[Mapping[str, Any]], times: Mapping[str, float]) -> dict[str, Any]:
    """Rows as they were recorded in less space: configurations, stages and their seconds each once.

    Args:
        rows: evaluations; those of configurations outside the table's space are left out.
        times: what a stage of each kind costs.
    """
    rows = [row for row in rows if TABLE_SPACE.contains(row["config"])]
    configs: dict[str, int] = {}
    stages: dict[tuple[str, str], tuple[int, float]] = {}
    packed = []
    for row in rows:
        config = configs.setdefault(json.dumps(row["config"]), len(configs))
        numbers = []
        for name, key, _ in row.get("stages", []):
            seconds = times[kind_of(name, row["config"])]
            numbers.append(stages.setdefault((name, key), (len(stages), seconds))[0])
        ended = {"error": row["error"], "seconds": row["seconds"]} if "error" in row else {}
        scores = [row["scores"][name] for name in SCORES] if "scores" in row else None
        packed.append([config, row["fold"], scores, row.get("copy_rate"), numbers, ended])
    return {
        "space": TABLE_SPACE.to_dict(),
        "scores": SCORES,
        "configs": [json.loads(text) for text in configs],
        "stages": [[name, f"{number:x}", seconds] for (name, _), (number, seconds) in stages.items()],
        "rows": packed,
    }


def unpack(data: Mapping[str, Any]) -> Table:
    """The inverse of ``pack``; stages have other keys, equal where they were equal.

    A failed evaluation cost what it took, as one stage that all configurations with the same generator share.
    """
    stages = [PlannedStage(name=name, key=key, seconds=seconds) for name, key, seconds in data["stages"]]
    failed: dict[str, float] = {}
    for config, fold, _, _, _, ended in data["rows"]:
        if ended:
            key = _training(data["configs"][config], fold)
            failed[key] = max(failed.get(key, 0.0), ended["seconds"])
    recorded: dict[tuple[Identity, int], Evaluation] = {}
    for config, fold, scores, copies, numbers, ended in data["rows"]:
        key = _training(data["configs"][config], fold)
        broken = (PlannedStage(name="generator", key=key, seconds=failed[key]),) if ended else ()
        recorded[identity(data["configs"][config]), fold] = Evaluation(
            stages=broken or tuple(stages[number] for number in numbers),
            scores=dict(zip(data["scores"], scores, strict=True)) if scores is not None else {},
            fidelity={} if copies is None else {"copy_rate": copies},
            error=ended.get("error"),
        )
    whole = [
        config
        for config in data["configs"]
        if all((identity(config), fold) in recorded for fold in range(FOLDS * REPEATS))
    ]
    return Table(recorded=recorded, configs=tuple(whole))


def _training(config: Mapping[str, Value], fold: int) -> str:
    """The name of a fold's generator with these settings."""
    own = {name: value for name, value in config.items() if name.startswith("generator.")}
    return f"failed {json.dumps(own, sort_keys=True)} {fold}"


def write_table(
    rows: Iterable[Mapping[str, Any]], times: Mapping[str, float], path: Path, *, largest: int = LARGEST
) -> Path:
    """Write a packed table, compressed where it has more than ``largest`` bytes. Returns: where."""
    text = json.dumps(pack(rows, times), separators=(",", ":"))
    path.parent.mkdir(parents=True, exist_ok=True)
    if len(text) <= largest:
        path.write_text(text + "\n", encoding="utf-8")
        return path
    compressed = path.with_name(path.name + ".gz")
    compressed.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
    return compressed


def load_table(path: Path = TABLE) -> Table:
    """Read the table. Raises: FileNotFoundError if it is neither at ``path`` nor, compressed, beside it."""
    compressed = path.with_name(path.name + ".gz")
    if compressed.exists():
        return unpack(json.loads(gzip.decompress(compressed.read_bytes())))
    return unpack(json.loads(path.read_text(encoding="utf-8")))
