"""The progress of an arm, whichever workers make, repeat or abandon its trials.

Optuna numbers trials in the order of their creation. The first N, without surplus ones, have the
arm's positions 0 to N-1. A trial whose worker has ended fails, and a new one with the same settings
takes its position; a trial beyond N positions fails as surplus. So exactly N trials finish, for
any number of workers, whenever they are killed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

#: User attribute of a trial that repeats another one: the number of the latter.
AGAIN = "again"

#: User attribute of the trial with the settings of the spec.
DEFAULT = "default"

#: User attribute of a trial that is not needed: the reason.
SURPLUS = "surplus"

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class TrialSlots:
    """The positions of an arm in order, each with the trial that counts for it now."""

    wanted: int
    positions: tuple[FrozenTrial, ...]  # at most `wanted`
    surplus: frozenset[int]  # numbers of trials that have no position and have not failed

    @property
    def finished(self) -> tuple[FrozenTrial, ...]:
        """Completed and pruned trials."""
        return tuple(trial for trial in self.positions if trial.state in _FINISHED)

    @property
    def abandoned(self) -> tuple[FrozenTrial, ...]:
        """Failed trials that are not repeated yet."""
        return tuple(trial for trial in self.positions if trial.state is TrialState.FAIL)

    @property
    def running(self) -> tuple[FrozenTrial, ...]:
        """Trials that are running, or whose worker was killed."""
        return tuple(trial for trial in self.positions if trial.state is TrialState.RUNNING)

    @property
    def is_done(self) -> bool:
        """Whether the trials of all positions are finished."""
        return len(self.finished) == self.wanted

    @property
    def is_open(self) -> bool:
        """Whether a worker may ask for another trial."""
        waits = any(trial.state is TrialState.WAITING for trial in self.positions)
        return waits or len(self.positions) < self.wanted

    @property
    def next_position(self) -> int:
        """The position of the next trial."""
        waiting = (i for i, t in enumerate(self.positions) if t.state is TrialState.WAITING)
        return next(waiting, len(self.positions))

    def position_of(self, number: int) -> int | None:
        """The position of a trial; None for surplus."""
        return next((i for i, t in enumerate(self.positions) if t.number == number), None)


def trial_slots(trials: Sequence[FrozenTrial], wanted: int) -> TrialSlots:
    """Assign the trials of an arm to positions."""
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
    """Trials that repeat no other one; of those with the settings of the spec only the first."""
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
