"""What is confirmed: the best of a search, what it is compared with, and what evaluating each of them costs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from search.outcome import rank
from spaces.budget import Budget, budget_named
from spaces.config import SYNTHETIC_MIXERS, BlendConfig, trial_config
from spaces.parameter import Choice, Value
from spaces.protocol import Protocol
from spaces.reference import reference_policies
from spaces.space import GENERATOR_NAME, Assignment, Space
from trainables.ledger import SearchRecord
from trainables.results import TrialResult

MIXER_NAME = "mixer.name"
_NOT_AUGMENTATION = ("classifier.", "preprocess.")
FOLDS_OF_SPLIT = 5
"""Folds of the patients that a search saw in a fixed training and validation part."""
MOST_REPEATS = 5
"""Repeats of the whole cross-validation at most; paper 1 trained every model at least five times."""
TEST_REPEATS = 5
"""Trainings of each policy for the locked test set, with fresh seeds: with fewer it shows large differences only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A configuration that is evaluated again.

    Args:
        config: what it computes.
        role: the name of the reference policy that it is ("none", "affine", "plain dcgan", ...), or None for one of
            the search's best.
        trial: the search's trial of the same configuration, or None if the search did not try it.
        seconds: what one evaluation of it costs, from the search's own records; None where nothing tells.
    """

    config: Assignment
    role: str | None
    trial: str | None
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A confirmation: which configurations, and how often.

    Args:
        candidates: in the order of their weight: the best trial and the reference "none" first.
        repeats: of the whole cross-validation, each on fresh splits.
        test_repeats: trainings for the locked test set.
        evaluations: of each candidate.
    """

    candidates: tuple[Candidate, ...]
    repeats: int
    test_repeats: int
    evaluations: int

    @property
    def seconds(self) -> float:
        """What it costs in seconds of one trial's computation, where nothing is shared."""
        known = [each.seconds for each in self.candidates if each.seconds is not None]
        typical = statistics.fmean(known) if known else 0.0
        return self.evaluations * sum(typical if each.seconds is None else each.seconds for each in self.candidates)


def candidates(record: SearchRecord, trials: Sequence[TrialResult], *, top: int) -> tuple[Candidate, ...]:
    """The best trials of a search and every reference policy, the best and "none" first, each configuration once.

    The reference policies take the classifier, its training and the preprocessing of the best trial, so that a
    difference is one of augmentation alone.

    Args:
        record: the search.
        trials: all its trials.
        top: how many of the best.

    Returns:
        Empty where no trial is complete.
    """
    ranked = rank(trials, record)
    if not ranked:
        return ()
    budget = budget_named(record.budget)
    best = [dict(trial.config) for trial in ranked[:top]]
    references = references_of(record.space)
    policies = {name: _trained_as(best[0], policy) for name, policy in references.items()}
    roles = {_digest(policy, budget): name for name, policy in reversed(policies.items())}
    tried = {_digest(trial.config, budget): trial for trial in reversed(trials)}
    tried |= {_digest(trial.config, budget): trial for trial in reversed(ranked)}
    chosen: dict[str, Candidate] = {}
    for config in (*best[:1], *policies.values(), *best[1:]):
        digest = _digest(config, budget)
        trial = tried.get(digest)
        seconds = _cost(config, [trial] if trial is not None and trial.folds else trials)
        found = Candidate(
            config=config, role=roles.get(digest), trial=None if trial is None else trial.id, seconds=seconds
        )
        chosen.setdefault(digest, found)
    return tuple(chosen.values())


def references_of(space: Space) -> dict[str, Assignment]:
    """What the best of a search is compared with, by name."""
    return {**reference_policies(space), **_plain(space)}


def protocol_of(record: SearchRecord, *, repeats: int, test_repeats: int) -> Protocol:
    """How a confirmation judges: as the search, on fresh splits.

    A fixed training and validation part is divided afresh into folds: its validation part has chosen the best trial.
    Sites stay as they are.
    """
    searched = record.protocol
    if searched.kind == "split":
        searched = replace(searched, kind="folds", folds=FOLDS_OF_SPLIT)
    return replace(searched, repeats=repeats, test_repeats=test_repeats)


def plan(record: SearchRecord, chosen: Sequence[Candidate], *, repeats: int, test_repeats: int) -> Plan:
    """The confirmation of given candidates, as many repeats as asked for."""
    each = FOLDS_OF_SPLIT if record.protocol.kind == "split" else record.folds // record.protocol.repeats
    evaluations = repeats * each + test_repeats
    return Plan(candidates=tuple(chosen), repeats=repeats, test_repeats=test_repeats, evaluations=evaluations)


def affordable(record: SearchRecord, chosen: Sequence[Candidate], *, limit: float, test_repeats: int) -> Plan | None:
    """The largest confirmation that costs no more than ``limit`` seconds.

    Candidates whose cost nothing tells are left out, then others from the end, down to the best trial and "none"; then
    repeats are added.

    Returns:
        None where even the smallest one costs more, or there is nothing to compare.
    """
    known = [each for each in chosen if each.seconds is not None]
    for count in range(len(known), 1, -1):
        found = plan(record, known[:count], repeats=1, test_repeats=test_repeats)
        if found.seconds > limit:
            continue
        for repeats in range(2, MOST_REPEATS + 1):
            more = plan(record, known[:count], repeats=repeats, test_repeats=test_repeats)
            if more.seconds > limit:
                break
            found = more
        return found
    return None


def spent(trials: Sequence[TrialResult]) -> float:
    """Seconds that a search's trials computed, without what they took from each other."""
    return sum(fold.seconds for trial in trials for fold in trial.folds)


def _plain(space: Space) -> dict[str, Assignment]:
    """Real plus as many synthetic images, unmixed, of each generator that the space has."""
    names = [each.parameter for each in space.dimensions if each.name == GENERATOR_NAME]
    generators = names[0].options if names and isinstance(names[0], Choice) else ()
    return {f"plain {name}": _plain_policy(space, name) for name in generators}


def _plain_policy(space: Space, generator: Value) -> Assignment:
    """The mixer "blend" at ratio 1 without classical augmentation, the generator with the space's defaults.

    A space that has no "blend" gives the generator's settings under another mixer that uses it, so that its training is
    the one that the search's own trials have.
    """
    mixers = [each.parameter for each in space.dimensions if each.name == MIXER_NAME]
    options = mixers[0].options if mixers and isinstance(mixers[0], Choice) else ()
    mixer = next((name for name in SYNTHETIC_MIXERS if name in options), BlendConfig.name)
    made = space.complete({MIXER_NAME: mixer, GENERATOR_NAME: generator})
    kept = {name: value for name, value in made.items() if not name.startswith("mixer.")}
    return {
        **kept,
        MIXER_NAME: BlendConfig.name,
        GENERATOR_NAME: generator,
        "synthetic.ratio": 1.0,
        "synthetic.balance": False,
        "affine": False,
    }


def _trained_as(best: Mapping[str, Value], policy: Mapping[str, Value]) -> Assignment:
    """A policy of augmentation with the classifier, its training and the preprocessing of the best trial."""
    kept = {name: value for name, value in policy.items() if not name.startswith(_NOT_AUGMENTATION)}
    return {**kept, **{name: value for name, value in best.items() if name.startswith(_NOT_AUGMENTATION)}}


def _digest(config: Mapping[str, Value], budget: Budget) -> str:
    """Equal exactly where two configurations compute the same, whatever they leave open."""
    return trial_config(config, budget).digest


def _cost(config: Mapping[str, Value], trials: Sequence[TrialResult]) -> float | None:
    """Seconds of one evaluation: what those of the trials took that have the same generator."""
    alike = [trial for trial in trials if trial.config.get(GENERATOR_NAME) == config.get(GENERATOR_NAME)]
    folds = [fold for trial in alike for fold in trial.folds]
    if not folds:
        return None
    reused = [sum(stage.seconds for stage in fold.stages if stage.reused) for fold in folds]
    return statistics.fmean(fold.seconds + more for fold, more in zip(folds, reused, strict=True))
