"""What is expected of configurations that have not been tried, after all trials so far."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.gaussian_process.kernels import Kernel

from search.objectives import Objective
from search.sampling.columns import Columns, FloatArray
from search.sampling.evidence import Evidence, Piece, leading, values_of
from search.sampling.surrogate import Posterior, expected_improvement, kernel, share_fine, tuned

TOLD_TRIALS = 200
"""Of more trials the model is told the best and the latest."""
_RUNNING = 64
"""Of more running trials the latest are taken into account."""
_TUNED_FROM = 16
"""Trials from which on the kernel's parameters are tuned."""


class Model:
    """A Gaussian process over the trials of a search, made anew for each proposal.

    Args:
        columns: of the rows.
        sources: how many more columns follow, one for each other fidelity.
        objectives: what is improved.
    """

    def __init__(self, columns: Columns, *, sources: int, objectives: tuple[Objective, ...]) -> None:
        self._columns = columns
        self._sources = sources
        self._objectives = objectives
        self._tuned: tuple[tuple[str, ...], Kernel] | None = None

    def improvement(self, rows_MC: FloatArray, evidence: Evidence, weights_K: FloatArray) -> FloatArray:
        """By how much configurations are expected to exceed the best of what is known.

        Args:
            rows_MC: the configurations.
            evidence: of all trials, of which some are known. Those that run without a score yet are taken to score what
                is expected of them, so that others look elsewhere.
            weights_K: of the objectives; they sum to 1.
        """
        running = evidence.running
        told = [*self._told(evidence), *(piece for piece in running if piece.means is not None)]
        values, variances = values_of(told, self._objectives, weights_K)
        told_rows = np.stack([piece.row for piece in told])
        posterior = Posterior(self._prior(evidence.by_end), told_rows, values, variances)
        expected = posterior.at_known()
        sound = [index for index, piece in enumerate(told) if piece.can_be_best]
        best = float(expected[sound].max()) if sound else float(expected.min())
        waiting = [piece.row for piece in running if piece.means is None][-_RUNNING:]
        if waiting:
            posterior = posterior.believing(np.stack(waiting))
        return expected_improvement(*posterior.at(rows_MC), best)

    def chances(self, rows_MC: FloatArray, evidence: Evidence) -> FloatArray:
        """How likely configurations are to train and not to copy: by their generator, and by all else."""
        judged = evidence.latest(TOLD_TRIALS, lambda piece: piece.has_failed or piece.means is not None)
        fine = np.array([float(piece.is_feasible and not piece.has_failed) for piece in judged])
        chances = np.ones(len(rows_MC))
        if fine.all():
            return chances
        judged_rows = np.stack([piece.row for piece in judged])
        for half in (self._columns.generator, self._columns.downstream):
            if half:
                chances *= share_fine(judged_rows[:, list(half)], fine, rows_MC[:, list(half)])
        return chances

    def _told(self, evidence: Evidence) -> list[Piece]:
        """The best and the latest trials."""
        if len(evidence.known) <= TOLD_TRIALS:
            return list(evidence.known)
        half = TOLD_TRIALS // 2
        latest = evidence.known[-half:]
        return [*leading(evidence, half, but={piece.id for piece in latest}), *latest]

    def _prior(self, by_end: Sequence[Piece]) -> Kernel:
        """The kernel, tuned whenever there are twice as many trials, on the first of them to end."""
        prior = kernel(self._columns, self._sources)
        if len(by_end) < _TUNED_FROM:
            return prior
        many = 2 ** (len(by_end).bit_length() - 1)
        first = by_end[:many][-TOLD_TRIALS:]
        ids = tuple(piece.id for piece in first)
        if self._tuned is None or self._tuned[0] != ids:
            even = np.full(len(self._objectives), 1 / len(self._objectives))
            values, variances = values_of(first, self._objectives, even)
            rows = np.stack([piece.row for piece in first])
            self._tuned = ids, tuned(prior, rows, values, variances)
        return self._tuned[1]
