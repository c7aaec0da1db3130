"""Trials in a database that may be unreachable for a while: no operation takes effect twice.

Where a connection breaks, it is unknown whether the operation was done. Most operations can be
repeated. Three cannot, and recognise a first attempt: creating a trial and claiming a waiting one
write a mark, and ending a trial looks at its state.
"""

from __future__ import annotations

import copy
import functools
import threading
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.orm import Session

from bdhf.tuning.storage.patience import Patience, is_outage

#: System attributes of a trial: the marks of the calls that created and claimed it.
_MADE, _CLAIMED = "bdhf:made", "bdhf:claimed"

#: Operations of Optuna that can be repeated.
_REPEATABLE = (
    "create_new_study",  # the second time the study exists, which the caller expects
    "set_study_user_attr",
    "set_study_system_attr",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_directions",
    "get_study_user_attrs",
    "get_study_system_attrs",
    "get_all_studies",
    "get_trial",
    "get_trial_id_from_study_id_trial_number",
    "set_trial_intermediate_value",
    "set_trial_user_attr",
    "set_trial_system_attr",
    "_set_trial_param",
    "_get_best_trial_id",
    "_get_trials",
)


class Database(RDBStorage):
    """Optuna's database, whose operations survive an outage."""

    def __init__(self, url: str, patience: Patience, **how: Any) -> None:
        self.patience = patience
        self._thread = threading.get_ident()  # all other threads are Optuna's heartbeats
        super().__init__(url, **how)

    def _create_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None = None
    ) -> FrozenTrial:
        """Create a trial once, although Optuna itself tries several times."""
        template = copy.copy(template_trial or create_trial(state=TrialState.RUNNING))
        template.system_attrs = {**template.system_attrs, _MADE: uuid.uuid4().hex}
        make = super()._create_new_trial
        return self.patience.keep_at(lambda: make(study_id, template))

    def _get_prepared_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None, session: Session
    ) -> models.TrialModel:
        """The trial that this call has already created, if any; the study is locked meanwhile."""
        mark = template_trial.system_attrs[_MADE] if template_trial else ""
        attribute = models.TrialSystemAttributeModel
        made = (
            session.query(models.TrialModel)
            .join(attribute)
            .filter(models.TrialModel.study_id == study_id)
            .filter(attribute.key == _MADE, attribute.value_json == f'"{mark}"')
            .first()
        )
        return made or super()._get_prepared_new_trial(study_id, template_trial, session)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Claim a waiting trial, or end one. Raises UpdateFinishedTrialError as Optuna does."""
        if state is TrialState.RUNNING:
            mark = uuid.uuid4().hex
            return self.patience.keep_at(lambda: self._claim(trial_id, mark))
        end, tries = super().set_trial_state_values, list[int]()

        def ended() -> bool:
            tries.append(1)
            try:
                return end(trial_id, state, values)
            except UpdateFinishedTrialError:
                if len(tries) > 1 and self._has_ended(trial_id, state, values):
                    return True
                raise

        return self.patience.keep_at(ended)

    def _claim(self, trial_id: int, mark: str) -> bool:
        """Set a trial to running and mark it, in one transaction; whether this call claimed it."""
        with _create_scoped_session(self.scoped_session) as session:
            find: Any = models.TrialModel.find_or_raise_by_id  # its types are those of columns
            trial = find(trial_id, session, for_update=True)
            self.check_trial_is_updatable(trial_id, trial.state)
            if trial.state is not TrialState.WAITING:
                attribute = models.TrialSystemAttributeModel
                there: Any = attribute.find_by_trial_and_key(trial, _CLAIMED, session)
                return there is not None and bool(there.value_json == f'"{mark}"')
            trial.state, trial.datetime_start = TrialState.RUNNING, datetime.now()
            self._set_trial_attr_without_commit(
                session, models.TrialSystemAttributeModel, trial_id, _CLAIMED, mark
            )
        return True

    def _has_ended(self, trial_id: int, state: TrialState, values: Sequence[float] | None) -> bool:
        trial = self.get_trial(trial_id)
        return trial.state is state and (values is None or trial.values == list(values))

    def record_heartbeat(self, trial_id: int) -> None:
        """Send a heartbeat; during an outage the heartbeat's thread skips it."""
        give = super().record_heartbeat
        if threading.get_ident() == self._thread:
            self.patience.keep_at(lambda: give(trial_id))
            return
        try:
            self.patience.once(lambda: give(trial_id))
        except Exception as error:
            if not is_outage(error):
                raise

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        """Trials whose workers are silent; none after an outage, which blocked all heartbeats."""
        if self.patience.was_needed(self.grace_period or 0):
            return []
        return self.patience.keep_at(lambda: super(Database, self)._get_stale_trial_ids(study_id))


def _repeated(name: str) -> Callable[..., Any]:
    operation = getattr(RDBStorage, name)

    @functools.wraps(operation)
    def kept_at(self: Database, *arguments: Any, **more: Any) -> Any:
        return self.patience.keep_at(lambda: operation(self, *arguments, **more))

    return kept_at


for _name in _REPEATABLE:
    setattr(Database, _name, _repeated(_name))
