"""How far an arm is with its trials, whoever made, repeats or abandons them.

Optuna numbers trials as they are asked for. The first N that nobody asked for by mistake are the
arm's places 0 to N-1. A trial whose worker has died fails, and is asked for again with the same
settings in the same place; what is asked for beyond N places fails as surplus. So, however many
workers there are and whenever they die, exactly N trials finish.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

#: User attribute of a trial that does another one again: the number of that one.
AGAIN = "again"

#: User attribute of the trial with the settings of the spec.
DEFAULT = "default"

#: User attribute of a trial that nobody needs, with why.
SURPLUS = "surplus"

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class TrialSlots:
    """The places of an arm in order, each with the trial that counts for it now."""

    wanted: int
    positions: tuple[FrozenTrial, ...]  # at most `wanted`
    surplus: frozenset[int]  # numbers of trials that are in no place and have not failed

    @property
    def finished(self) -> tuple[FrozenTrial, ...]:
        """The trials that are completed or pruned."""
        return tuple(trial for trial in self.positions if trial.state in _FINISHED)

    @property
    def abandoned(self) -> tuple[FrozenTrial, ...]:
        """Trials that failed, which nobody does again yet."""
        return tuple(trial for trial in self.positions if trial.state is TrialState.FAIL)

    @property
    def running(self) -> tuple[FrozenTrial, ...]:
        """Trials that some worker is at, or was."""
        return tuple(trial for trial in self.positions if trial.state is TrialState.RUNNING)

    @property
    def is_done(self) -> bool:
        """Whether every place is finished."""
        return len(self.finished) == self.wanted

    @property
    def is_open(self) -> bool:
        """Whether there is a trial to be asked for."""
        waits = any(trial.state is TrialState.WAITING for trial in self.positions)
        return waits or len(self.positions) < self.wanted

    @property
    def next_position(self) -> int:
        """The place of the trial that is asked for next."""
        waiting = (i for i, t in enumerate(self.positions) if t.state is TrialState.WAITING)
        return next(waiting, len(self.positions))

    def position_of(self, number: int) -> int | None:
        """The place of a trial; None for one that is surplus."""
        return next((i for i, t in enumerate(self.positions) if t.number == number), None)


def trial_slots(trials: Sequence[FrozenTrial], wanted: int) -> TrialSlots:
    """Sort the trials of an arm into places."""
    trials = sorted(trials, key=lambda trial: trial.number)
    later: dict[int, FrozenTrial] = {}
    for trial in trials:
        if AGAIN in trial.user_attrs and SURPLUS not in trial.user_attrs:
            later.setdefault(int(trial.user_attrs[AGAIN]), trial)  # the first one counts
    first = _originals(trials)[:wanted]
    positions = []
    for trial in first:
        while trial.state is TrialState.FAIL and trial.number in later:
            trial = later[trial.number]
        positions.append(trial)
    kept = {trial.number for trial in positions}
    surplus = (t for t in trials if t.number not in kept and t.state is not TrialState.FAIL)
    return TrialSlots(wanted, tuple(positions), frozenset(trial.number for trial in surplus))


def _originals(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Trials that do no other one again; of those with the spec's settings the first."""
    originals, has_default = list[FrozenTrial](), False
    for trial in trials:
        if AGAIN in trial.user_attrs or SURPLUS in trial.user_attrs:
            continue
        if trial.user_attrs.get(DEFAULT):
            if has_default:
                continue
            has_default = True
        originals.append(trial)
    return originals
