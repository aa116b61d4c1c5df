"""A search's trials as they are read for its proposals: only what has changed since the last one is read."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from search.changes import Changes
from search.sampling.draws import Key, key_of
from search.sampling.evidence import Evidence, Piece
from search.sampling.existing import Catalogue, Existing
from trainables.results import TrialResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a proposal starts from; it holds until the next one.

    Args:
        trials: of the search.
        evidence: these, as far as they are within the space, and earlier ones.
        generators: that exist, by their digest, in the order in which they were introduced.
        newest: the place among the trials of the latest that introduced one; -1: none did.
        folds: of a whole trial.
        tried: the configurations of the trials.
    """

    trials: Sequence[TrialResult]
    evidence: Evidence
    generators: Mapping[str, Existing]
    newest: int
    folds: frozenset[int]
    tried: Set[Key]


class History:
    """Reads the trials of a search, of which there are more and more.

    What it says is what all trials, read anew, would say. But a proposal after thousands takes about as long as one
    after hundreds.

    Args:
        catalogue: knows the generators of configurations.
        read: makes evidence of a trial; None outside the space.
        earlier: evidence of other searches.
        stored: trials of other searches whose generators exist.
        objectives: how many objectives there are.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        read: Callable[[TrialResult], Piece | None],
        *,
        earlier: Sequence[Piece],
        stored: Sequence[TrialResult],
        objectives: int,
    ) -> None:
        self._catalogue = catalogue
        self._read = read
        self._changes = Changes()
        self._stored = stored
        self._tried: set[Key] = set()
        self._members: dict[str, list[int]] = {}
        self._generators: dict[str, Existing] = {}
        for place, trial in enumerate(stored, -len(stored)):
            self._introduce(place, trial)
        self._newest = -1
        self._folds: frozenset[int] = frozenset()
        self._pieces: dict[int, Piece] = {}
        self._running: dict[int, Piece] = {}
        self._known: list[tuple[int, Piece]] = []
        self._by_end: list[Piece] = []
        self._rankings: list[list[tuple[int, Piece]]] = [[] for _ in range(objectives)]
        for place, piece in enumerate(earlier, -len(earlier)):
            self._place(place, piece)
        self._rebuild(self._members, ())

    def goes_on(self, trials: Sequence[TrialResult]) -> bool:
        """Whether these are the trials that have been read, and maybe more behind them."""
        return self._changes.goes_on(trials)

    def scene(self, trials: Sequence[TrialResult]) -> Scene:
        """What the next proposal starts from; ``trials`` go on with those of the last time."""
        changed: dict[str, None] = {}
        for place, trial in self._changes.since(trials):
            digest = self._introduce(place, trial)
            if digest is not None:
                changed[digest] = None
            if trial.state == "completed":
                self._folds |= self._catalogue.folds(trial)
            piece = self._read(trial)
            if piece is not None:
                self._place(place, piece)
        self._rebuild(changed, trials)
        return Scene(
            trials=trials,
            evidence=Evidence(
                pieces=list(self._pieces.values()),
                known=[piece for _, piece in self._known],
                by_end=self._by_end,
                ranked=[[piece for _, piece in ranking] for ranking in self._rankings],
                running=list(self._running.values()),
            ),
            generators=self._generators,
            newest=self._newest,
            folds=self._catalogue.whole(self._folds),
            tried=self._tried,
        )

    def _introduce(self, place: int, trial: TrialResult) -> str | None:
        """Note what a trial is from the first. Returns: the digest of its generator."""
        if place >= 0:
            self._tried.add(key_of(trial.config))
        parts = self._catalogue.parts(trial.config)
        if parts is None:
            return None
        if parts.generator not in self._members:
            self._members[parts.generator] = []
            self._newest = max(place, -1)
        members = self._members[parts.generator]
        if not members or members[-1] < place:
            members.append(place)
        return parts.generator

    def _place(self, place: int, piece: Piece) -> None:
        """Put what a trial says now where it belongs."""
        self._pieces[place] = piece
        if not piece.has_ended:
            self._running[place] = piece
            return
        self._running.pop(place, None)
        if piece.is_known:
            insort(self._known, (place, piece), key=lambda each: each[0])
            insort(self._by_end, piece, key=lambda each: (each.ended, each.id))
            for index, ranking in enumerate(self._rankings):
                insort(ranking, (place, piece), key=_rank(index))

    def _rebuild(self, digests: Iterable[str], trials: Sequence[TrialResult]) -> None:
        """Read anew what the trials of some generators say of them."""
        for digest in digests:
            members = (trials[place] if place >= 0 else self._stored[place] for place in self._members[digest])
            self._generators[digest] = self._catalogue.existing(members)


def _rank(index: int) -> Callable[[tuple[int, Piece]], tuple[bool, float, int]]:
    """The better by one objective the smaller, and of equally good ones the earlier."""

    def rank(placed: tuple[int, Piece]) -> tuple[bool, float, int]:
        can_be_best, value = placed[1].standings[index]
        return not can_be_best, -value, placed[0]

    return rank
