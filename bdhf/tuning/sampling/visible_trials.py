"""The view of a study for its samplers: the finished trials that count, and no others.

A running trial may belong to a killed process. If samplers saw it, the next settings would depend
on the moment of the kill: TPE avoids such trials, the Gaussian process fits them, and the search
space is derived from them.
"""

from __future__ import annotations

import copy
from collections.abc import Container

import optuna
from optuna.trial import FrozenTrial, TrialState


class Seen(optuna.Study):
    """A study that contains only the trials with certain numbers."""

    def __init__(self, study: optuna.Study, numbers: Container[int]) -> None:
        super().__init__(
            study.study_name, study._storage, sampler=study.sampler, pruner=study.pruner
        )
        self._whole, self._numbers = study, numbers

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The visible trials."""
        return self._kept(self._whole.get_trials(deepcopy=deepcopy, states=states))

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        """The same for samplers, which do not call `get_trials`."""
        trials = self._whole._get_trials(deepcopy=deepcopy, states=states, use_cache=use_cache)
        return self._kept(trials)

    def _kept(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        return [trial for trial in trials if trial.number in self._numbers]


def at_position(trial: FrozenTrial, position: int | None) -> FrozenTrial:
    """A trial whose number is its position, as if no worker had been killed.

    CMA-ES draws by this number. Without a position the trial keeps its own.
    """
    if position is None or position == trial.number:
        return trial
    there = copy.copy(trial)
    there.number = position
    return there
