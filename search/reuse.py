"""Proposals that count what they cost: a new generator, or new downstream settings over one that is trained already."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import ThreadpoolController

from search.objectives import Objective
from search.sampling.columns import Columns, FloatArray
from search.sampling.costs import DRAWING, REST, TRAINING, Costs, Measured
from search.sampling.draws import Draws, Key, key_of
from search.sampling.earlier import EarlierTrial
from search.sampling.evidence import OWN, Piece, leading, piece_of
from search.sampling.existing import Catalogue, Existing, Parts
from search.sampling.history import History, Scene
from search.sampling.model import TOLD_TRIALS, Model
from search.sampling.moves import Moves
from search.sampling.tpe import TpeProposer
from spaces.budget import Budget
from spaces.parameter import Value
from spaces.space import Assignment, Space
from trainables.results import TrialResult
from trainables.seeding import stream

STARTUP = 8
"""Known trials, reference policies included, before anything is modelled."""
NEW_WITHIN = 5
"""One of so many successive proposals, at least, is a generator that no trial had before."""
SHARED_BEFORE = 20
"""Known trials from which on nobody shares a generator's training: there are others to use by then.

Those that share one wait for each other at its end, the more the more their slots differ: 2.8 % of the slots' time
where a whole search shares (``tests/benchmarks/scale.py --small``).
"""
_TOLD_TPE = 100
"""Of more trials TPE is told the best and the latest."""
_LIKELY = 0.5
"""Candidates less likely than this to train, and not to copy, are passed over for others."""
_TPE_EVERY = 4
"""How often TPE, which takes as long as all else, supplies a candidate."""
_DRAWN, _NEAR, _BEST, _GENERATORS, _OVER = 16, 20, 8, 16, 4
"""Candidates: drawn from the space; near one of so many best trials; and over so many generators, so many settings."""
_PLAIN_DRAWS = 50
"""Draws from the space among which a configuration without a generator is looked for at first."""
_MOST_DRAWN = 500
"""Draws from the space among which a new generator is looked for, where it is time for one."""
_BLAS = ThreadpoolController()
"""The libraries that NumPy and SciPy, imported above, multiply matrices with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    config: Assignment
    parts: Parts | None
    row: FloatArray


class ReuseProposer:
    """Ranks new generators and new uses of existing ones by the improvement that a second of computing may bring.

    TPE, draws from the space, neighbours of the best trials and the existing generators supply candidates. A Gaussian
    process over all trials says how good each may be, its expected improvement is weighed by how likely it is to train
    and not to copy, and divided by what it will cost: a generator that is trained costs nothing again.

    Running trials are taken to score what is expected of them. At first, a generator that is being trained is shared by
    as many trials as it has folds left: each trains another fold of it, and all is known of it the sooner. Later it is
    left alone, so that nobody waits for it. One that diverged, or copies more than the limit, is not used again. One in
    ``NEW_WITHIN`` proposals has a new generator.

    Args:
        space: what is searched.
        seed: the search's seed.
        objectives: what is improved, at least one; several are weighed anew for each proposal (ParEGO, Knowles 2006).
        budget: settles what the space leaves open.
        max_copy_rate: the limit of a trial's copy rate; None: no limit.
        earlier: trials of earlier searches of the same data; those outside the space are ignored. Of the same
            fidelity their generators are taken to be stored.
        in_order: whether trials take their folds by their numbers, so that they cannot share a generator's training.
    """

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        objectives: tuple[Objective, ...],
        budget: Budget,
        max_copy_rate: float | None = None,
        earlier: Sequence[EarlierTrial] = (),
        in_order: bool = False,
    ) -> None:
        self._in_order = in_order
        self._space = space
        self._seed = seed
        self._draws = Draws(space, seed=seed)
        self._objectives = objectives
        self._max_copy_rate = max_copy_rate
        self._columns = Columns.of(space)
        self._moves = Moves(space)
        self._catalogue = Catalogue(budget)
        self._tpe = TpeProposer(
            space, seed=seed, objectives=objectives, max_copy_rate=max_copy_rate, earlier=earlier, told=_TOLD_TPE
        )
        earlier = [each for each in earlier if space.contains(each.trial.config)]
        self._others = tuple(dict.fromkeys(each.search for each in earlier if not each.same_fidelity))
        self._earlier = [self._earlier_piece(each) for each in earlier]
        self._stored = [each.named for each in earlier if each.same_fidelity]
        self._history = self._new_history()
        self._model = Model(self._columns, sources=len(self._others), objectives=objectives)

    @_BLAS.wrap(limits=1, user_api="blas")  # type: ignore[untyped-decorator]
    def propose(self, number: int, trials: Sequence[TrialResult]) -> Assignment | None:
        """See ``Proposer``. One thread: matrices so small take several threads three times the computation."""
        if not self._history.goes_on(trials):
            self._history = self._new_history()
        scene = self._history.scene(trials)
        rng = random.Random(stream(self._seed, f"proposal{number}/reuse"))  # noqa: S311 - no secret
        if len(scene.evidence.known) < STARTUP:
            return self._first(number, scene, rng)
        candidates = self._candidates(number, scene, rng)
        if not candidates:
            return self._draws.untried(number, trials)
        gains = self._gains(candidates, scene, rng)
        return candidates[int(np.argmax(gains))].config

    def _new_history(self) -> History:
        return History(
            self._catalogue,
            self._piece,
            earlier=self._earlier,
            stored=self._stored,
            objectives=len(self._objectives),
        )

    def _first(self, number: int, scene: Scene, rng: random.Random) -> Assignment | None:
        """A draw that needs no generator, unless it is time for a new one: it tells as much of all else for less.

        Where every configuration needs one, every second draw is over one that is trained, or shared in training.

        Source: what is cheap first, as in Lee et al. 2020, "Cost-aware Bayesian optimization".
        """
        if self._is_time_for_a_new_one(scene):
            return self._draws.untried(number, scene.trials)
        plain = self._drawn(_PLAIN_DRAWS, scene, rng, lambda parts: parts is None)
        if plain is not None:
            return plain
        ready = [each for digest, each in scene.generators.items() if self._is_ready(digest, scene)]
        if number % 2 and ready:
            existing = rng.choice(ready)
            for _ in range(_OVER):
                drawn = self._moves.over(existing.config, rng)
                if key_of(drawn) not in scene.tried and self._is_over(drawn, existing):
                    return drawn
        return self._draws.untried(number, scene.trials)

    def _is_over(self, config: Assignment, existing: Existing) -> bool:
        parts, other = self._catalogue.parts(config), self._catalogue.parts(existing.config)
        return parts is not None and other is not None and parts.generator == other.generator

    def _is_ready(self, digest: str, scene: Scene) -> bool:
        existing = scene.generators[digest]
        is_there = bool(existing.trained or existing.running)
        return existing.is_fit(self._max_copy_rate) and is_there and not self._is_busy(existing, scene)

    def _is_time_for_a_new_one(self, scene: Scene) -> bool:
        many = len(scene.trials)
        return bool(self._columns.generator) and scene.newest < many - min(NEW_WITHIN - 1, many)

    def _piece(self, trial: TrialResult) -> Piece | None:
        """A trial of the search as evidence, None outside the space."""
        if not self._space.contains(trial.config):
            return None
        return piece_of(trial, self._row(trial.config), self._objectives, max_copy_rate=self._max_copy_rate)

    def _earlier_piece(self, earlier: EarlierTrial) -> Piece:
        source = OWN if earlier.same_fidelity else earlier.search
        return piece_of(
            earlier.named,
            self._row(earlier.trial.config, source),
            self._objectives,
            source=source,
            is_own=earlier.same_fidelity,
            max_copy_rate=self._max_copy_rate,
        )

    def _row(self, config: Mapping[str, Value], source: str = OWN) -> FloatArray:
        """A configuration's columns, and one for each other fidelity."""
        sources = [1.0 if source == each else 0.0 for each in self._others]
        return np.concatenate([self._columns.row(config), sources])

    def _candidates(self, number: int, scene: Scene, rng: random.Random) -> list[_Candidate]:
        """Configurations to choose among, none of them tried, as strict as leaves any."""
        made = self._made(number, scene, rng)
        found: dict[Key, _Candidate] = {}
        for config in made:
            key = key_of(config)
            if key not in scene.tried and key not in found:
                found[key] = self._candidate(config)
        fit = [each for each in found.values() if self._is_allowed(each, scene)]
        free = [each for each in fit if not self._would_wait(each, scene)]
        new = [each for each in free if each.parts is not None and each.parts.generator not in scene.generators]
        if self._is_time_for_a_new_one(scene) and not new:
            new = self._drawn_new(scene, rng)
        choices = [new if self._is_time_for_a_new_one(scene) else [], free, fit, list(found.values())]
        return next((each for each in choices if each), [])

    def _drawn_new(self, scene: Scene, rng: random.Random) -> list[_Candidate]:
        """A draw with a generator that does not exist yet; nothing where so many draws have none."""

        def is_new(parts: Parts | None) -> bool:
            return parts is not None and parts.generator not in scene.generators

        config = self._drawn(_MOST_DRAWN, scene, rng, is_new)
        return [] if config is None else [self._candidate(config)]

    def _drawn(
        self, most: int, scene: Scene, rng: random.Random, is_wanted: Callable[[Parts | None], bool]
    ) -> Assignment | None:
        """The first of so many draws that has not been tried and has the parts that are wanted; None: there is none."""
        for _ in range(most):
            config = self._space.sample(rng)
            if is_wanted(self._catalogue.parts(config)) and key_of(config) not in scene.tried:
                return config
        return None

    def _candidate(self, config: Assignment) -> _Candidate:
        return _Candidate(config=config, parts=self._catalogue.parts(config), row=self._row(config))

    def _is_allowed(self, candidate: _Candidate, scene: Scene) -> bool:
        existing = scene.generators.get(candidate.parts.generator) if candidate.parts else None
        return existing is None or existing.is_fit(self._max_copy_rate)

    def _would_wait(self, candidate: _Candidate, scene: Scene) -> bool:
        existing = scene.generators.get(candidate.parts.generator) if candidate.parts else None
        return existing is not None and self._is_busy(existing, scene)

    def _is_busy(self, existing: Existing, scene: Scene) -> bool:
        is_shared = not self._in_order and len(scene.evidence.known) < SHARED_BEFORE
        return existing.is_busy(scene.folds, most=None if is_shared else 1)

    def _made(self, number: int, scene: Scene, rng: random.Random) -> list[Assignment]:
        """Configurations of all kinds, tried or not."""
        best = [piece.config for piece in leading(scene.evidence, _BEST)]
        made = [] if number % _TPE_EVERY else [self._tpe.suggestion(f"proposal{number}", scene.trials)]
        made += [self._space.sample(rng) for _ in range(_DRAWN)]
        made += [self._moves.near(rng.choice(best), rng) for _ in range(_NEAR)]
        for existing in self._some_generators(scene, best, rng):
            made.append(self._moves.over(existing.config, rng))
            for _ in range(_OVER - 1):
                made.append(self._moves.over(existing.config, rng, like=rng.choice(best)))
        return made

    def _some_generators(self, scene: Scene, best: Sequence[Assignment], rng: random.Random) -> list[Existing]:
        """Generators that nobody waits for: those of the best trials, and others by chance where there are many."""
        ready = [digest for digest in scene.generators if self._is_ready(digest, scene)]
        if len(ready) > _GENERATORS:
            leading = {parts.generator for config in best if (parts := self._catalogue.parts(config))} & set(ready)
            others = [digest for digest in ready if digest not in leading]
            ready = [digest for digest in ready if digest in leading]
            ready += rng.sample(others, _GENERATORS - len(ready))
        return [scene.generators[digest] for digest in ready]

    def _gains(self, candidates: Sequence[_Candidate], scene: Scene, rng: random.Random) -> FloatArray:
        """The logarithm of each candidate's expected improvement per second."""
        rows = np.stack([each.row for each in candidates])
        weights = np.array([rng.expovariate(1.0) for _ in self._objectives])
        improvement = self._model.improvement(rows, scene.evidence, weights / weights.sum())
        fine = self._model.chances(rows, scene.evidence)
        gains = np.log(improvement * fine + 1e-300) - np.log(self._seconds(candidates, rows, scene))
        return np.asarray(np.where((fine >= _LIKELY) | (fine.max() < _LIKELY), gains, -np.inf))

    def _seconds(self, candidates: Sequence[_Candidate], rows: FloatArray, scene: Scene) -> FloatArray:
        """What candidates will cost, a fold on average."""
        measured = [
            Measured(row=piece.row[: self._columns.width], seconds=piece.seconds)
            for piece in scene.evidence.latest(TOLD_TRIALS, lambda piece: bool(piece.seconds) and piece.is_own)
        ]
        costs = Costs(self._columns, measured)
        plain = rows[:, : self._columns.width]
        training, drawing, rest = (costs.of(part, plain) for part in (TRAINING, DRAWING, REST))
        for index, candidate in enumerate(candidates):
            parts = candidate.parts
            existing = scene.generators.get(parts.generator) if parts else None
            if parts is None:
                training[index] = drawing[index] = 0.0
            elif existing is not None:
                training[index] *= existing.missing(parts.steps, scene.folds)
                drawing[index] *= existing.undrawn(parts, scene.folds)
        total = training + drawing + rest
        return np.asarray(total if total.any() else np.ones(len(rows)))
