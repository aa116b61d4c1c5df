"""A small space, trials of it with made-up scores, and the sampler of a search of it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from search.objectives import Objective
from search.reuse import ReuseProposer
from spaces.budget import budget_named
from spaces.space import Assignment
from spaces.space_file import space_from_yaml
from trainables.results import FoldResult, StageRecord, TrialResult
from trainables.results import TrialState as State

TOY = space_from_yaml(
    """
    name: toy
    dimensions:
    - {name: mixer.name, type: choice, options: [genmix, blend, mixup], default: genmix}
    - {name: generator.name, type: choice, options: [egan, diffusion], default: egan,
       when: {mixer.name: [genmix, blend]}, otherwise: none}
    - {name: generator.gamma, type: float, low: 0.001, high: 0.1, log: true, default: 0.005,
       when: {generator.name: [egan]}}
    - {name: generator.guidance, type: float, low: 1.0, high: 4.0, default: 1.0, when: {generator.name: [diffusion]}}
    - {name: generator.learning_rate, type: float, low: 0.0001, high: 0.01, log: true, default: 0.001,
       when: {generator.name: [diffusion]}}
    - {name: mixer.genmix_alpha, type: float, low: 0.05, high: 2.0, log: true, default: 0.3,
       when: {mixer.name: [genmix]}}
    - {name: synthetic.ratio, type: float, low: 0.25, high: 2.0, default: 1.0, when: {mixer.name: [genmix, blend]}}
    - {name: affine, type: choice, options: [false, true], default: false}
    """,
    source="test",
)
AUROC = (Objective(name="auroc", maximize=True),)


def score(config: Assignment) -> float:
    """Best with GenMix over E-GANs of small gamma, at an alpha near 0.3."""
    found = 0.6 + 0.02 * bool(config["affine"])
    if config.get("generator.name") == "egan":
        found += 0.05 - 0.03 * math.log10(float(config["generator.gamma"]) / 0.001)
    if config["mixer.name"] == "genmix":
        found += 0.1 - 0.08 * abs(math.log10(float(config["mixer.genmix_alpha"]) / 0.3))
    return found


def other_score(config: Assignment) -> float:
    """Best with GenMix at a large alpha."""
    alpha = float(config.get("mixer.genmix_alpha", 0.01))
    return 0.5 + 0.1 * math.log10(alpha) + 0.05 * (config.get("generator.name") == "egan")


def trial(
    number: int,
    config: Assignment,
    *,
    state: State = "completed",
    folds: int = 3,
    training: float = 100.0,
    rate: float | None = None,
    error: str | None = None,
    scores: Callable[[Assignment], float] = score,
) -> TrialResult:
    """A trial of made-up scores, noise and fold effects, and of made-up seconds."""
    noise = random.Random(number)
    stages = [StageRecord(name="classifier", key="c", seconds=2.0, reused=False)]
    if "generator.name" in config:
        stages.append(StageRecord(name="generator", key="g", seconds=training, reused=False))
    done = tuple(
        FoldResult(
            fold=fold,
            scores={"auroc": scores(config) + 0.03 * fold + noise.gauss(0, 0.003), "other": other_score(config)},
            stages=tuple(stages),
            predictions=(),
            counts={},
            seconds=0.0,
            peak_bytes=0,
            fidelity={} if rate is None else {"copy_rate": rate},
        )
        for fold in range(folds)
    )
    ended = None if state == "unfinished" else float(number + 1)
    return TrialResult(
        id=f"t{number:04d}", config=config, reference=None, state=state, folds=done, error=error, created=0, ended=ended
    )


def sampler(seed: int = 0, **given: object) -> ReuseProposer:
    return ReuseProposer(TOY, seed=seed, budget=budget_named("quick"), **{"objectives": AUROC, **given})  # type: ignore[arg-type]


def drawn(many: int, **given: object) -> list[TrialResult]:
    return [trial(number, TOY.sample(random.Random(number)), **given) for number in range(many)]  # type: ignore[arg-type]
