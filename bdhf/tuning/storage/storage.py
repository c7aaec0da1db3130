"""The storage of trials: a journal file for one machine, a database for many.

SQLite locks under parallel workers, so the default is Optuna's journal file. With a database,
workers send heartbeats; a trial fails if its worker is silent for `GRACE` times the interval.
"""

from __future__ import annotations

import random
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import optuna
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, ProgrammingError

from bdhf.records import PLAN_INDEX, STUDY_FILE, InputError, in_brief, read_tuning, unwritable
from bdhf.tuning.sampling.samplers import pruner_of
from bdhf.tuning.sampling.trial_slots import DEFAULT
from bdhf.tuning.storage.address import hidden, what_is_wrong
from bdhf.tuning.storage.database import Database
from bdhf.tuning.storage.journal import Journal, refuse_unreadable
from bdhf.tuning.storage.lock import JournalLock
from bdhf.tuning.storage.patience import PATIENCE_SECONDS, Patience
from bdhf.tuning.storage.trial_count import refuse_fewer
from bdhf.tuning.study.study import Study, StudyCell

#: Number of heartbeat intervals of silence after which a worker counts as ended.
GRACE = 3

#: Attempts at an empty database, in which other workers may be creating the same tables.
_TRIES = 6

_FINGERPRINT = "bdhf"

_EXAMPLE = "postgresql+psycopg://user@host/database"


@dataclass(frozen=True)
class StudyLocation:
    """The location of a study: its folder, and a database (None: the journal in the folder)."""

    folder: Path
    url: str | None = field(default=None, repr=False)  # may hold a password
    heartbeat: int = 20  # seconds between heartbeats, in a database
    patience: float = PATIENCE_SECONDS  # how long to wait for a database

    @property
    def is_shared(self) -> bool:
        """Whether workers of other machines may use it."""
        return self.url is not None

    @property
    def journal(self) -> Path:
        """The journal file."""
        return self.folder / "journal.log"

    def open(self, names: Mapping[str, str] | None = None, *, waits: bool = False) -> BaseStorage:
        """Connect. Raises InputError where that fails, and StorageError for a full disk.

        In a journal, `names` give the owner of a running trial. Only with `waits` do we wait for
        an unreachable database: otherwise the URL may be wrong, which is reported at once.
        """
        if self.url is None:
            return self._journal(names or {})
        wrong = what_is_wrong(self.url)
        if wrong:
            raise InputError([f"--storage: {wrong}; as in {_EXAMPLE}"])
        patience = Patience(self.patience, self.heartbeat, self._say)
        connect = partial(self._database, self.url, patience)
        try:
            return patience.keep_at(connect) if waits else connect()
        except InputError:
            raise
        except (ImportError, ValueError, ArgumentError) as error:
            message = f"{self._brief(error)}; as in {_EXAMPLE}"
            raise InputError([f"--storage: {message} (pip install 'bdhf[postgresql]')"]) from None
        except Exception as error:  # every driver has its own errors
            raise InputError([f"--storage: cannot be reached: {self._brief(error)}"]) from None

    @contextmanager
    def losable(self) -> Iterator[None]:
        """Raise InputError, one line, if the storage was lost or is torn."""
        try:
            yield
        except Exception as error:
            for behind in chain_of(error):
                if isinstance(behind, InputError):
                    raise behind from None
                if isinstance(behind, StorageInternalError):
                    way = "finished trials are kept; run the same command to resume"
                    raise InputError([f"--storage: lost: {self._brief(behind)}; {way}"]) from None
            raise

    def _say(self, line: str) -> None:
        line = line if self.url is None else hidden(line, self.url)
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    def _brief(self, error: BaseException) -> str:
        of_database = (behind for behind in chain_of(error) if isinstance(behind, DBAPIError))
        return hidden(in_brief(next(of_database, error)), self.url or "")

    def _database(self, url: str, patience: Patience) -> Database:
        """Connect. Raises InputError where another version of Optuna created the tables."""
        storage = self._connected(url, patience)
        there, ours = storage.get_current_version(), storage.get_head_version()
        if there == ours:
            return storage
        which = f"the database has tables of version {there}; Optuna {optuna.__version__}"
        if there in storage.get_all_versions():
            way = "copy the database, then run `optuna storage upgrade --storage URL`"
        else:
            way = "run `pip install -U optuna`"
        storage.engine.dispose()
        raise InputError(
            [f"--storage: {which} needs {ours}: {way}, or use an empty database; nothing changed"]
        )

    def _connected(self, url: str, patience: Patience) -> Database:
        """Connect; if several processes find no tables, one creates them and the others retry."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            for left in reversed(range(_TRIES)):
                try:
                    return Database(
                        url.replace("{", "{{").replace("}", "}}"),  # Optuna would replace them
                        patience,
                        engine_kwargs={"pool_pre_ping": True},
                        skip_compatibility_check=True,  # `_database` checks
                        heartbeat_interval=self.heartbeat,
                        grace_period=GRACE * self.heartbeat,
                    )
                except (IntegrityError, ProgrammingError):
                    if not left:
                        raise
                    time.sleep(random.uniform(0.1, 0.5))
        raise AssertionError("unreachable")

    def _journal(self, names: Mapping[str, str]) -> BaseStorage:
        with unwritable(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.journal.resolve()
            lock = JournalLock(str(path))
            lock.acquire()  # cuts a torn end before anything is read
            try:
                refuse_unreadable(path)
            finally:
                lock.release()
            return Journal(str(path), names)


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes: Optuna raises further errors after one of the storage."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def hurry(cell_study: optuna.Study) -> None:
    """Stop waiting for the database of a study, after an interruption."""
    storage = _database_of(cell_study)
    if storage is not None:
        storage.patience.end()


def had_outage(cell_study: optuna.Study, seconds: float) -> bool:
    """Whether the database of a study has an outage, or had one within the last `seconds`."""
    storage = _database_of(cell_study)
    return storage is not None and storage.patience.was_needed(seconds)


def _database_of(cell_study: optuna.Study) -> Database | None:
    storage = getattr(cell_study._storage, "_backend", None)  # behind Optuna's cache
    return storage if isinstance(storage, Database) else None


def refuse_other_contents(study: Study, folder: Path) -> None:
    """Raise InputError for a folder with the results of an ablation, or of another study."""
    there = ""
    if (folder / PLAN_INDEX).exists():
        there = "the results of an ablation"
    elif (folder / STUDY_FILE).exists():
        name = read_tuning(folder / STUDY_FILE).name
        there = f"study {name}" if name != study.name else ""
    if there:
        raise InputError([f"--out: {folder} holds {there}: use another folder for the study"])


def study_of(study: Study, cell: StudyCell, storage: BaseStorage) -> optuna.Study:
    """The study of Optuna for a cell, created if it does not exist.

    Raises InputError if it holds trials of another definition, or if more trials were asked for.
    """
    name, print_ = f"{study.name}/{cell.label}", study.fingerprint(cell)
    updates = cell.run.budget.updates
    pruner = pruner_of(study.spec.pruner, updates)
    make = partial(optuna.create_study, study_name=name, storage=storage, pruner=pruner)
    with quiet():
        try:
            cell_study = make(directions=[StudyDirection.MINIMIZE] * len(cell.goals))
        except DuplicatedStudyError:
            cell_study = optuna.load_study(study_name=name, storage=storage, pruner=pruner)
        there = cell_study.user_attrs.get(_FINGERPRINT)
        if there is None:  # new, or its creator was killed at this point
            cell_study.set_user_attr(_FINGERPRINT, print_)
            cell_study.set_metric_names([goal.estimand for goal in cell.goals])
        elif there != print_:
            raise InputError(
                [
                    f"{study.file}: {name} holds trials with another space, run, seeds, objective, "
                    "sampler or pruner, which cannot be combined with these: give the study "
                    "another `name`, or remove its results"
                ]
            )
        refuse_fewer(study, cell_study)
    return cell_study


def has_default(trials: list[FrozenTrial]) -> bool:
    """Whether a trial with the settings of the spec has been asked for."""
    return any(trial.user_attrs.get(DEFAULT) for trial in trials)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Optuna: bdhf reports every trial itself, and each warning is known.

    They concern experimental parts, and parameters that a sampler leaves to another one.
    """
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=ExperimentalWarning)
            warnings.filterwarnings("ignore", module=r"optuna\..*")
            yield
    finally:
        optuna.logging.set_verbosity(before)
