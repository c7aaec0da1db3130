"""The loop of a worker: trial after trial of an arm, until all positions are finished.

Workers communicate through the storage only. Before every trial, trials of killed workers are
failed and enqueued again (`recover`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field

import optuna
import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.storages._heartbeat import BaseHeartbeat, is_heartbeat_enabled
from optuna.trial import FrozenTrial, TrialState

from bdhf.experiments.run.provenance import resolve_devices
from bdhf.experiments.storage.store import Store
from bdhf.records import Owner
from bdhf.tuning.sampling.samplers import ByPosition
from bdhf.tuning.sampling.trial_slots import DEFAULT, SURPLUS, TrialSlots, trial_slots
from bdhf.tuning.storage.storage import StudyLocation, has_default, hurry, quiet, study_of
from bdhf.tuning.study.space import defaults
from bdhf.tuning.study.study import Study, StudyCell
from bdhf.tuning.workers.liveness import present
from bdhf.tuning.workers.recovery import INTERRUPTED, OWNER, POOL, fail_own_trials, recover
from bdhf.tuning.workers.trial import run_trial

#: Seconds between two looks at the trials of other workers.
TRIAL_POLL_SECONDS = 1.0

#: Called for every trial that ends, with the cell, the trial and the state of the arm.
OnTrial = Callable[[StudyCell, FrozenTrial, TrialSlots], None]


class _Surplus(Exception):  # noqa: N818 - not an error
    """Another worker was faster: all positions are taken."""


@dataclass(frozen=True)
class TrialLoop:
    """Makes trial after trial in this process, possibly with other processes."""

    study: Study
    location: StudyLocation
    on_trial: OnTrial
    poll_seconds: float = TRIAL_POLL_SECONDS
    slot: int = 0  # of its worker in a pool; it selects the device
    pool: str = ""  # the process of the pool, as `Owner` writes it; "": no pool
    seen: dict[int, float] = field(default_factory=dict)  # trial without an owner -> first seen

    def run(self, labels: Sequence[str]) -> None:
        """Work on these arms until all are finished; the arm with the fewest trials is next.

        Raises InputError where the storage cannot be reached or nothing can be written.
        """
        with self.location.losable():
            self._run(labels)

    def _run(self, labels: Sequence[str]) -> None:
        # The parent of a pool's worker has just used the storage, so the worker waits for it.
        storage = self.location.open(self._names(), waits=bool(self.pool))
        store = Store(self.location.folder)
        store.sweep()
        with nullcontext() if self.location.is_shared else present(self.location.folder):
            self._run_in(storage, store, labels)

    def _names(self) -> dict[str, str]:
        """The attributes that name the owner of a running trial."""
        return {**({POOL: self.pool} if self.pool else {}), OWNER: str(Owner.here())}

    def _run_in(self, storage: BaseStorage, store: Store, labels: Sequence[str]) -> None:
        torch.set_num_threads(max(v.spec.threads for v in self.study.variants))
        devices = resolve_devices(self.study.variants[0].spec.device)
        device = devices[self.slot % len(devices)]
        arms = {label: study_of(self.study, self.study.cell(label), storage) for label in labels}
        while arms:
            stands = {label: self._look(label, cell_study) for label, cell_study in arms.items()}
            for label in [label for label, now in stands.items() if now.is_done]:
                del arms[label], stands[label]
            open_ = [label for label, now in stands.items() if self._is_open(now)]
            if open_:
                label = min(open_, key=lambda label: len(stands[label].positions))
                self._try(label, arms[label], store, device)
            elif arms:
                time.sleep(self.poll_seconds)

    def _is_open(self, now: TrialSlots) -> bool:
        """Whether to ask for a trial.

        In a journal, wait while a running trial has no owner: its worker may have been killed, and
        the sampler must see its repetition first.
        """
        unnamed = any(OWNER not in trial.user_attrs for trial in now.running)
        return now.is_open and (self.location.is_shared or not unnamed)

    def _look(self, label: str, cell_study: optuna.Study) -> TrialSlots:
        """The state of an arm, after trials of killed workers are enqueued again."""
        with quiet():
            cell = self.study.cell(label)
            recover(cell_study, cell, self.location, self.study.spec.trials, self.seen)
            trials = cell_study.get_trials(deepcopy=False)
            if not has_default(trials):
                own = defaults(cell.space, cell.arm)
                cell_study.enqueue_trial(own, user_attrs={DEFAULT: True})
                trials = cell_study.get_trials(deepcopy=False)
        return trial_slots(trials, self.study.spec.trials)

    def _try(self, label: str, cell_study: optuna.Study, store: Store, device: str) -> None:
        """Make a trial of an arm."""
        cell, wanted = self.study.cell(label), self.study.spec.trials
        made, errors = list[optuna.Trial](), list[BaseException]()
        asked = list[int]()

        def look(number: int) -> TrialSlots:
            asked.append(number)
            return trial_slots(cell_study.get_trials(deepcopy=False), wanted)

        def objective(trial: optuna.Trial) -> list[float]:
            made.append(trial)
            try:
                _give_sign(cell_study, trial)
                if look(trial.number).position_of(trial.number) is None:
                    trial.set_user_attr(SURPLUS, "every place was taken")
                    raise _Surplus
                if self.pool:
                    trial.set_user_attr(POOL, self.pool)
                return run_trial(trial, cell, self.study.seeds, store, device)
            except (optuna.TrialPruned, UpdateFinishedTrialError, _Surplus):
                raise
            except BaseException as error:  # an interruption or a full disk; not the settings
                errors.append(error)
                if isinstance(error, KeyboardInterrupt):
                    hurry(cell_study)
                with suppress(Exception):
                    trial.set_user_attr(INTERRUPTED, True)
                raise

        def report_end(study: optuna.Study, trial: FrozenTrial) -> None:
            if trial.state is not TrialState.FAIL:
                trials = study.get_trials(deepcopy=False)
                self.on_trial(cell, trial, trial_slots(trials, wanted))

        with quiet():
            cell_study.sampler = ByPosition(self.study.spec.sampler, label, look)
            try:
                cell_study.optimize(
                    objective, n_trials=1, catch=(_Surplus,), callbacks=[report_end]
                )
            except KeyboardInterrupt:
                hurry(cell_study)
                with suppress(Exception):
                    fail_own_trials(cell_study, asked[0])
                raise
            except Exception:
                for error in errors:
                    if isinstance(error, KeyboardInterrupt):
                        raise error from None
                if errors or not made or not _is_failed(cell_study, made[0]):
                    raise  # else another worker considered this one ended, and failed its trial


def _give_sign(cell_study: optuna.Study, trial: optuna.Trial) -> None:
    """Send a first heartbeat before the trial names its owner, which makes heartbeats decisive.

    Optuna sends them from a thread, which may not have started when a process is killed.
    """
    storage = cell_study._storage
    if isinstance(storage, BaseHeartbeat) and is_heartbeat_enabled(storage):
        storage.record_heartbeat(trial._trial_id)


def _is_failed(cell_study: optuna.Study, trial: optuna.Trial) -> bool:
    return cell_study._storage.get_trial(trial._trial_id).state is TrialState.FAIL
