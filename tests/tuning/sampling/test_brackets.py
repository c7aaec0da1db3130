"""A repeated trial stays in its bracket of Hyperband, and does not compete with itself."""

from __future__ import annotations

import optuna
from optuna.pruners import HyperbandPruner
from optuna.trial import TrialState, create_trial

from bdhf.tuning.sampling.brackets import Hyperband
from bdhf.tuning.sampling.trial_slots import AGAIN
from bdhf.tuning.storage.storage import quiet


def made(pruner: HyperbandPruner, dies: int | None) -> list[tuple[int, list[float]]]:
    """By position: bracket and its values, for eight trials, of which one may be repeated."""
    study = optuna.create_study(study_name="brackets", pruner=pruner)
    for position in range(8):
        attributes = {}
        if position == dies:
            left = study.ask()
            left.report(100.0 + position, 30)
            left.should_prune()
            study.tell(left, state=TrialState.FAIL)
            attributes = {AGAIN: left.number}
        number = len(study.trials)
        study.add_trial(create_trial(state=TrialState.RUNNING, user_attrs=attributes))
        trial = optuna.Trial(study, study.trials[number]._trial_id)
        trial.report(float(position), 30)
        trial.should_prune()
        study.tell(trial, float(position))
    numbers = [t.number for t in study.trials if t.state is TrialState.COMPLETE]
    brackets = [pruner._get_bracket_id(study, study.trials[number]) for number in numbers]
    there = [pruner._create_bracket_study(study, bracket).get_trials() for bracket in brackets]
    return [
        (bracket, sorted(t.intermediate_values[30] for t in trials if t.intermediate_values))
        for bracket, trials in zip(brackets, there, strict=True)
    ]


def test_without_a_death_the_brackets_are_those_of_optuna() -> None:
    """Without a repetition the positions of trials are their numbers."""
    with quiet():
        ours, optunas = (made(kind(1, 40), None) for kind in (Hyperband, HyperbandPruner))

    assert len({bracket for bracket, _ in ours}) > 1
    assert ours == optunas


def test_a_death_changes_no_bracket() -> None:
    """Whichever trial is repeated, each one is compared with the same values."""
    with quiet():
        whole = made(Hyperband(1, 40), None)
        after = [made(Hyperband(1, 40), dies) for dies in range(8)]

    assert after == [whole] * 8
