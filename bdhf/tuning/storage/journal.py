"""The journal file: every trial names its process at once, and no line is skipped.

A trial is running before a sampler has proposed its settings. If its process is killed in between,
other processes must be able to detect that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from bdhf.records import InputError
from bdhf.tuning.storage.lock import JournalLock

#: Errors of Optuna at a record that it did not write.
_SENSELESS = (LookupError, TypeError, ValueError, AttributeError, AssertionError)

#: Characters of a line that a message quotes.
_SHOWN = 60


class Journal(JournalStorage):
    """Trials in a journal file. `names` are attributes with the owner of a running trial.

    Raises InputError for a line that is not a record.
    """

    def __init__(self, path: str, names: Mapping[str, str]) -> None:
        self._names = dict(names)
        try:
            super().__init__(_File(path))
        except _SENSELESS:
            number = self._replay_result.log_number_read
            with open(path, "rb") as file:
                line = next((text for i, text in enumerate(file, 1) if i == number), b"")
            raise _refusal(path, number, line) from None

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Add a trial; the same line names the owner of a running one."""
        if template_trial is None:
            template_trial = create_trial(state=TrialState.RUNNING, user_attrs=dict(self._names))
        return super().create_new_trial(study_id, template_trial)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Change the state of a trial; an enqueued one gets its names when it starts."""
        is_done = super().set_trial_state_values(trial_id, state, values)
        if is_done and state is TrialState.RUNNING:
            for name, content in self._names.items():
                self.set_trial_user_attr(trial_id, name, content)
        return is_done


class _File(JournalFileBackend):
    """The file of a journal."""

    def __init__(self, path: str) -> None:
        super().__init__(path, JournalLock(path))

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        """The records from a number on. Raises InputError at a line that is not a record."""
        try:
            yield from super().read_logs(log_number_from)
        except ValueError:
            refuse_unreadable(Path(self._file_path))
            raise


def refuse_unreadable(path: Path) -> None:
    """Raise InputError for the first line that is not a record; the last may be incomplete."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.endswith(b"\n") and not _is_record(line):
                raise _refusal(str(path), number, line)


def _is_record(line: bytes) -> bool:
    try:
        record = json.loads(line)
    except ValueError:
        return False
    return isinstance(record, dict) and isinstance(record.get("op_code"), int)


def _refusal(path: str, number: int, line: bytes) -> InputError:
    text = line.strip().decode(errors="replace")
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    what = f"{shown!r} is not a record of Optuna" if text else "the line is empty"
    way = f"delete the line (`sed -i {number}d {path}`)" + (
        " if it replaces no record, else restore the file from a copy" if text else ""
    )
    return InputError(
        [
            f"{path}:{number}: {what}. Nothing was changed; {way}; then run the same command "
            "to resume"
        ]
    )
