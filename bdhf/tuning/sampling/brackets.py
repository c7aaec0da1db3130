"""Hyperband by the positions of trials.

Optuna assigns a trial to a bracket by its number, and compares it with all trials that reached the
same rung. A repeated trial has another number, and would compete with the reports that it made
before its worker was killed.
"""

from __future__ import annotations

from collections.abc import Container

import optuna
from optuna.pruners import HyperbandPruner
from optuna.trial import FrozenTrial, TrialState

from bdhf.tuning.sampling.trial_slots import trial_slots
from bdhf.tuning.sampling.visible_trials import Seen, at_position


class Hyperband(HyperbandPruner):
    """Successive halving in brackets; a repeated trial stays in its bracket."""

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
    """The trials of a bracket; samplers get all trials, as with Optuna's brackets."""

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        return self._whole._get_trials(deepcopy=deepcopy, states=states, use_cache=use_cache)
