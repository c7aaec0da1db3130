"""Waiting for a database that is gone for a while: upgraded, restarted, or out of reach.

An operation is tried again after pauses that double. Whether it was done before the connection
broke is not this module's business (`database`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from bdhf.errors import BdhfError
from bdhf.records import in_brief

#: How long an operation is tried again, in seconds, and the first pause, which doubles.
PATIENCE_SECONDS, FIRST_PAUSE_SECONDS = 300.0, 0.5

#: What a server says that answers, and will not answer otherwise later. One that speaks another
#: language is waited for like one that is gone.
_ANSWERS = ("does not exist", "authentication failed", "no password supplied", "no pg_hba.conf")

_Result = TypeVar("_Result")


class LostError(BdhfError, StorageInternalError):
    """The database was gone for longer than is waited."""


class Patience:
    """Tries operations again. The threads of a process share one, and tell of an outage once."""

    def __init__(self, seconds: float, longest_pause: float, say: Callable[[str], None]) -> None:
        self._seconds, self._longest = seconds, longest_pause
        self._say = say
        self._lock = threading.Lock()
        self._since: float | None = None  # when the outage that lasts was noticed
        self._over = float("-inf")  # when the last one was over

    def keep_at(self, operation: Callable[[], _Result]) -> _Result:
        """Do an operation, again while the database is gone. Raises LostError in the end."""
        begun, pauses = time.monotonic(), self._pauses()
        while True:
            try:
                return self.once(operation)
            except Exception as error:
                if not is_outage(error):
                    raise
                left = begun + self._seconds - time.monotonic()
                if left <= 0:
                    raise LostError(in_brief(_cause(error))) from error
            try:
                time.sleep(min(next(pauses), left))
            except BaseException:
                self.end()  # a person does not wait any longer
                raise

    def once(self, operation: Callable[[], _Result]) -> _Result:
        """Do an operation, and take note of whether the database is there."""
        try:
            result = operation()
        except Exception as error:
            if is_outage(error):
                self._note(error)
            raise
        self._answered()
        return result

    def end(self) -> None:
        """From now on, give up at once."""
        self._seconds = 0.0

    def was_needed(self, seconds: float) -> bool:
        """Whether the database is gone, or was so this long ago or less."""
        return self._since is not None or time.monotonic() - self._over <= seconds

    def _pauses(self) -> Iterator[float]:
        pause = FIRST_PAUSE_SECONDS
        while True:
            yield min(pause, self._longest)
            pause *= 2

    def _note(self, error: Exception) -> None:
        with self._lock:
            if self._since is None:
                self._since = time.monotonic()
                self._say(
                    f"--storage: the database does not answer: {in_brief(_cause(error))}; "
                    f"trying again, for {self._seconds:g} s at most"
                )

    def _answered(self) -> None:
        with self._lock:
            if self._since is not None:
                self._over = time.monotonic()
                gone, self._since = self._over - self._since, None
                self._say(f"--storage: the database answers again, after {gone:.0f} s: going on")


def is_outage(error: BaseException) -> bool:
    """Whether an error says that the database is gone for now.

    A connection broke, or none could be made though nothing was wrong with what was asked for.
    """
    return not isinstance(error, LostError) and isinstance(_cause(error), DBAPIError)


def _cause(error: BaseException) -> BaseException:
    """The outage behind an error: Optuna and SQLAlchemy stumble over it once more; else itself."""
    behind: BaseException | None = error
    while behind is not None and not isinstance(behind, LostError):
        if isinstance(behind, DBAPIError) and _says_gone(behind):
            return behind
        behind = behind.__cause__ or behind.__context__
    return StorageInternalError(in_brief(error))


def _says_gone(error: DBAPIError) -> bool:
    if error.connection_invalidated:
        return True
    is_connecting = error.statement is None and isinstance(error, OperationalError | InterfaceError)
    return is_connecting and not any(words in str(error) for words in _ANSWERS)
