"""Where trials are kept: a journal file on one machine, a database for many.

SQLite locks under parallel workers, so the default is Optuna's journal file. In a database a worker
gives signs of life; a trial whose worker was silent for `GRACE` times the interval has failed.
"""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import optuna
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from sqlalchemy.exc import ArgumentError, IntegrityError, ProgrammingError

from bdhf.records import PLAN_INDEX, STUDY_FILE, InputError, in_brief, read_tuning, unwritable
from bdhf.tuning.lock import JournalLock
from bdhf.tuning.samplers import pruner_of
from bdhf.tuning.standing import DEFAULT
from bdhf.tuning.study import Cell, Study

#: A worker is given up after so many intervals without a sign of life.
GRACE = 3

#: Looks at an empty database, in which others may be making the same tables at this moment.
_TRIES = 6

_FINGERPRINT = "bdhf"


@dataclass(frozen=True)
class Place:
    """Where a study is kept: its folder, and a database or None for the journal in the folder."""

    folder: Path
    url: str | None = None
    heartbeat: int = 20  # seconds between signs of life, in a database

    @property
    def is_shared(self) -> bool:
        """Whether workers of other machines may be at it."""
        return self.url is not None

    @property
    def journal(self) -> Path:
        """The journal file."""
        return self.folder / "journal.log"

    def open(self) -> BaseStorage:
        """Connect. Raises InputError where that fails, and StorageError for a full disk."""
        if self.url is None:
            return self._journal()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                return self._database(self.url)
        except (ImportError, ValueError, ArgumentError) as error:
            message = f"{in_brief(error)}; as in postgresql+psycopg://user@host/database"
            raise InputError([f"--storage: {message} (pip install 'bdhf[postgresql]')"]) from None
        except Exception as error:  # every driver has errors of its own
            raise InputError([f"--storage: cannot be reached: {in_brief(error)}"]) from None

    def _database(self, url: str) -> BaseStorage:
        """Connect; of several that find no tables one makes them, and the others look again."""
        for left in reversed(range(_TRIES)):
            try:
                return RDBStorage(
                    url,
                    engine_kwargs={"pool_pre_ping": True},
                    heartbeat_interval=self.heartbeat,
                    grace_period=GRACE * self.heartbeat,
                )
            except (IntegrityError, ProgrammingError):
                if not left:
                    raise
                time.sleep(random.uniform(0.1, 0.5))
        raise AssertionError("unreachable")

    def _journal(self) -> BaseStorage:
        with unwritable(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            path = str(self.journal.resolve())
            lock = JournalLock(path)
            lock.acquire()  # which cuts a torn end, before anybody reads
            lock.release()
            return JournalStorage(JournalFileBackend(path, lock))


def refuse_others(study: Study, folder: Path) -> None:
    """Raise InputError for a folder with the results of an ablation, or of another study."""
    there = ""
    if (folder / PLAN_INDEX).exists():
        there = "the results of an ablation"
    elif (folder / STUDY_FILE).exists():
        name = read_tuning(folder / STUDY_FILE).name
        there = f"study {name}" if name != study.name else ""
    if there:
        raise InputError([f"--out: {folder} holds {there}: give the study a folder of its own"])


def study_of(study: Study, cell: Cell, storage: BaseStorage) -> optuna.Study:
    """The study of Optuna for a cell, made where there is none yet.

    Raises InputError where trials of another definition are there.
    """
    name, print_ = f"{study.name}/{cell.label}", study.fingerprint(cell)
    updates = cell.run.budget.updates
    pruner = pruner_of(study.spec.pruner, updates)
    make = partial(optuna.create_study, study_name=name, storage=storage, pruner=pruner)
    with quiet():
        try:
            found = make(directions=[StudyDirection.MINIMIZE] * len(cell.goals))
        except DuplicatedStudyError:
            found = optuna.load_study(study_name=name, storage=storage, pruner=pruner)
        there = found.user_attrs.get(_FINGERPRINT)
        if there is None:  # new, or its maker died at this point
            found.set_user_attr(_FINGERPRINT, print_)
            found.set_metric_names([goal.estimand for goal in cell.goals])
        elif there != print_:
            raise InputError(
                [
                    f"{study.file}: {name} holds trials of another space, run, seeds, objective, "
                    "sampler or pruner, and they cannot stand beside these: give the study another "
                    "`name`, or remove its results"
                ]
            )
    return found


def has_default(trials: list[FrozenTrial]) -> bool:
    """Whether a trial with the settings of the spec has been asked for."""
    return any(trial.user_attrs.get(DEFAULT) for trial in trials)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna's own words away: every trial is told in ours, every warning was weighed.

    Those are: parts that are experimental, and parameters that a sampler draws by another one.
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
