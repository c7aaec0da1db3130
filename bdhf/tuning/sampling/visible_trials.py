"""A study as its samplers see it: the finished trials that stand, and no others.

A trial that runs may be that of a process that was killed. Were it seen, the settings that come
next would depend on the moment of the kill: TPE keeps away from such trials, the Gaussian process
fits them, and a search space is taken from them.
"""

from __future__ import annotations

import copy
from collections.abc import Container

import optuna
from optuna.trial import FrozenTrial, TrialState


class Seen(optuna.Study):
    """A study of which only trials with some numbers are there."""

    def __init__(self, study: optuna.Study, numbers: Container[int]) -> None:
        super().__init__(
            study.study_name, study._storage, sampler=study.sampler, pruner=study.pruner
        )
        self._whole, self._numbers = study, numbers

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The trials that are seen, by their numbers."""
        return self._kept(self._whole.get_trials(deepcopy=deepcopy, states=states))

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        """What samplers ask for in place of `get_trials`."""
        trials = self._whole._get_trials(deepcopy=deepcopy, states=states, use_cache=use_cache)
        return self._kept(trials)

    def _kept(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        return [trial for trial in trials if trial.number in self._numbers]


def at_position(trial: FrozenTrial, position: int | None) -> FrozenTrial:
    """A trial under the number of its place, which it would have had if nothing had died.

    CMA-ES draws by it. Without a place it keeps its own.
    """
    if position is None or position == trial.number:
        return trial
    there = copy.copy(trial)
    there.number = position
    return there
