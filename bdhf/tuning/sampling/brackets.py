"""Hyperband by the places of trials.

Optuna puts a trial into a bracket by its number, and holds it against all trials that reached the
same rung. A trial that is made again has another number, and what is left of it when its worker was
killed would compete with it.
"""

from __future__ import annotations

from collections.abc import Container

import optuna
from optuna.pruners import HyperbandPruner
from optuna.trial import FrozenTrial, TrialState

from bdhf.tuning.sampling.trial_slots import trial_slots
from bdhf.tuning.sampling.visible_trials import Seen, at_position


class Hyperband(HyperbandPruner):
    """Successive halving in brackets; a trial that is made again stays in its bracket."""

    def _get_bracket_id(self, study: optuna.Study, trial: FrozenTrial) -> int:
        trials = study._get_trials(deepcopy=False)
        position = trial_slots(trials, len(trials)).position_of(trial.number)
        return super()._get_bracket_id(study, at_position(trial, position))

    def _create_bracket_study(self, study: optuna.Study, bracket_id: int) -> optuna.Study:
        trials, bracket_of = study._get_trials(deepcopy=False), super()._get_bracket_id
        numbers = {
            trial.number
            for position, trial in enumerate(trial_slots(trials, len(trials)).positions)
            if bracket_of(study, at_position(trial, position)) == bracket_id
        }
        return _Bracket(study, numbers)


class _Bracket(Seen):
    """The trials of a bracket; what a sampler asks for is all trials, as of Optuna's brackets."""

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        return self._whole._get_trials(deepcopy=deepcopy, states=states, use_cache=use_cache)
