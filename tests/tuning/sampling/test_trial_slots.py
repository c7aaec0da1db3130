"""Positions of trials: exactly N finish, however workers ask, end or are late."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState, create_trial

from bdhf.tuning.sampling.trial_slots import AGAIN, DEFAULT, SURPLUS, trial_slots


def trial(number: int, state: TrialState, **attributes: Any) -> FrozenTrial:
    """A trial as Optuna keeps it."""
    frozen = create_trial(state=state, value=1.0 if state is TrialState.COMPLETE else None,
                         user_attrs=attributes)  # fmt: skip
    frozen.number = number
    return frozen


def test_a_trial_that_is_made_again_keeps_its_place() -> None:
    """The first repetition of a failed trial takes its position, whatever its number is."""
    trials = [
        trial(0, TrialState.COMPLETE),
        trial(1, TrialState.FAIL),
        trial(2, TrialState.COMPLETE),
        trial(3, TrialState.WAITING, **{AGAIN: 1}),
        trial(4, TrialState.WAITING, **{AGAIN: 1}),
    ]

    now = trial_slots(trials, 3)

    assert [t.number for t in now.positions] == [0, 3, 2]
    assert now.surplus == {4}
    assert (now.next_position, now.is_open, now.is_done) == (1, True, False)


def test_what_is_asked_for_beyond_the_places_is_surplus() -> None:
    """Of N + 1 trials that were asked for at once, the last one has no position."""
    trials = [trial(n, TrialState.RUNNING) for n in range(4)]

    now = trial_slots(trials, 3)

    assert now.position_of(3) is None
    assert now.surplus == {3}
    assert not now.is_open


def test_a_second_default_is_surplus() -> None:
    """Two workers that begin at once may both ask for the spec's settings; one counts."""
    trials = [trial(0, TrialState.WAITING, **{DEFAULT: True}),
              trial(1, TrialState.WAITING, **{DEFAULT: True})]  # fmt: skip

    assert trial_slots(trials, 3).surplus == {1}


class SimulatedStudy:
    """Workers on one study, in memory, in any order, with kills and recoveries."""

    def __init__(self, wanted: int) -> None:
        self.wanted, self.study = wanted, optuna.create_study()
        self.at: dict[int, optuna.Trial] = {}
        self.dead: list[int] = []

    @property
    def now(self) -> Any:
        return trial_slots(self.study.get_trials(deepcopy=False), self.wanted)

    def ask(self, is_open: bool) -> None:
        """A worker asks; its earlier observation (`is_open`) may be out of date."""
        if not is_open:
            return
        trial = self.study.ask()
        trial.suggest_float("x", 0, 1)
        if self.now.position_of(trial.number) is None:
            trial.set_user_attr(SURPLUS, "taken")
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            self.at[trial.number] = trial

    def end(self, which: int, *, pruned: bool) -> None:
        if not self.at:
            return
        trial = self.at.pop(sorted(self.at)[which % len(self.at)])
        if pruned:
            trial.report(1.0, 1)
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, 1.0)

    def kill(self, which: int) -> None:
        if self.at:
            number = sorted(self.at)[which % len(self.at)]
            del self.at[number]
            self.dead.append(number)

    def restart(self) -> None:
        """Recover the trials of killed workers, as every worker does before it asks."""
        while self.dead:
            self.study.tell(self.dead.pop(), state=TrialState.FAIL)
        for failed in self.now.abandoned:
            self.study.enqueue_trial(failed.params, user_attrs={AGAIN: failed.number})


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["ask", "late", "end", "prune", "kill", "revive"]), st.integers(0, 9)
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(moves=MOVES, wanted=st.integers(1, 4))
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_exactly_n_trials_finish_in_any_order_of_events(
    moves: list[tuple[str, int]], wanted: int
) -> None:
    """Whatever the order of events, N trials are completed or pruned in the end."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    simulated = SimulatedStudy(wanted)
    for move, which in moves:
        was_open = True if move == "late" else simulated.now.is_open
        if move in ("ask", "late"):
            simulated.ask(was_open)
        elif move in ("end", "prune"):
            simulated.end(which, pruned=move == "prune")
        elif move == "kill":
            simulated.kill(which)
        else:
            simulated.restart()
        assert len(simulated.now.finished) <= wanted

    while not simulated.now.is_done:
        simulated.restart()
        simulated.ask(simulated.now.is_open)
        simulated.end(0, pruned=False)

    states = [t.state for t in simulated.study.get_trials(deepcopy=False)]
    assert states.count(TrialState.COMPLETE) + states.count(TrialState.PRUNED) == wanted
