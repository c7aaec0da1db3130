"""The draws of a sampler depend only on the finished trials that count."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from bdhf.records import Owner
from bdhf.tuning.sampling.samplers import SAMPLERS, ByPosition
from bdhf.tuning.sampling.trial_slots import SURPLUS, TrialSlots, trial_slots
from bdhf.tuning.storage.storage import StudyLocation, quiet
from bdhf.tuning.study.schema import Sampler
from bdhf.tuning.workers.trial_loop import TrialLoop
from tests.tuning.small import placed
from tests.tuning.synthetic import quick, study

__all__ = ["quick"]

TRIALS = 5
GONE = Owner(Owner.here().host, 2**22 + 7, 1.0)  # no process has such a number


def drawn(of: optuna.Study, sampler: str, *, tells: bool = True) -> optuna.Trial:
    """Ask for the next trial of two ranges, and tell its value."""

    def look(number: int) -> TrialSlots:
        return trial_slots(of.get_trials(deepcopy=False), 20)

    of.sampler = ByPosition(Sampler(type=sampler, startup=3), "arm", look)
    trial = of.ask()
    x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 1e-3, 1, log=True)
    if tells:
        of.tell(trial, (x - 0.3) ** 2 + y)
    return trial


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_trial_that_a_dead_process_left_running_steers_nothing(sampler: str) -> None:
    """A trial that stays running does not change the next settings."""
    next_ones = []
    with quiet():
        for leaves in (False, True):
            of = optuna.create_study()
            for _ in range(6):
                drawn(of, sampler)
            if leaves:
                left = drawn(of, sampler, tells=False)
                left.set_user_attr(SURPLUS, "so that the next one has the same place")
            next_ones.append(drawn(of, sampler).params)

    assert next_ones[0] == next_ones[1]


class Killed:
    """A study of one arm whose process is killed after a line of the journal."""

    def __init__(
        self, home: Path, sampler: str, patch: pytest.MonkeyPatch, pruner: str = "none"
    ) -> None:
        change = ("{type: tpe, startup: 3}", f"{{type: {sampler}, startup: 3}}")
        trials = ("trials: 8", f"trials: {TRIALS}\npruner: {pruner}")
        self.study = study(home, change, trials)
        self._home = home
        with patch.context() as life:
            life.setattr(Owner, "here", classmethod(lambda cls: GONE))
            self.work(StudyLocation(home / "whole"))
        self.lines = StudyLocation(home / "whole").journal.read_bytes().splitlines(keepends=True)
        self.whole = placed(self.study, StudyLocation(home / "whole").open())["hf"]

    def work(self, location: StudyLocation) -> None:
        """Make all trials of the arm."""
        pool = str(Owner.here())
        loop = TrialLoop(self.study, location, lambda *of_trial: None, poll_seconds=0.01, pool=pool)
        loop.run(["hf"])

    def of_trial(self, position: int) -> list[int]:
        """The numbers of the lines from asking for a trial to telling its value.

        Without the reports of a run, which are all alike.
        """
        ends = [i for i, line in enumerate(self.lines, 1) if b'"op_code":6' in line]
        between = range(ends[position] + 1, ends[position + 1])
        return [i for i in between if b'"op_code":7' not in self.lines[i - 1]]

    def check(self, lines: int) -> None:
        """After a kill at this line, it ends with the same settings, values and trials."""
        location = StudyLocation(self._home / f"after-{lines}")
        location.folder.mkdir()
        location.journal.write_bytes(b"".join(self.lines[:lines]))
        self.work(location)

        assert placed(self.study, location.open())["hf"] == self.whole, self.lines[lines - 1]
        states = [trial.state for trial in location.open().get_all_trials(0, deepcopy=False)]
        assert sum(state in (TrialState.COMPLETE, TrialState.PRUNED) for state in states) == TRIALS
        assert all(state.is_finished() for state in states)


def check_all(killed: Killed, lines: Sequence[int], patch: pytest.MonkeyPatch) -> None:
    """Kill it after each of these lines."""
    patch.setattr("bdhf.tuning.workers.recovery._UNNAMED_SECONDS", 0.05)
    assert lines
    for number in lines:
        killed.check(number)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("pruner", ["none", "hyperband"])
def test_killed_before_its_report_a_trial_is_made_again_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pruner: str
) -> None:
    """After asking, amid its parameters, and before telling: no other trial is drawn before it.

    A sampler models this trial, and another trial follows.
    """
    killed = Killed(tmp_path, "tpe", monkeypatch, pruner)
    lines = killed.of_trial(2)

    check_all(killed, [lines[0], lines[2], lines[-1]], monkeypatch)


@pytest.mark.long
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("pruner", ["none", "hyperband"])
def test_killed_after_any_line_of_its_journal_a_study_is_the_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str, pruner: str
) -> None:
    """After every line of every trial."""
    killed = Killed(tmp_path, sampler, monkeypatch, pruner)

    check_all(killed, [i for t in range(TRIALS - 1) for i in killed.of_trial(t)], monkeypatch)
