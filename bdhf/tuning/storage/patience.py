"""Wait for a database that is unreachable for a while, for example during an upgrade.

An operation is retried after pauses that double. `database` handles operations that may have been
done before the connection broke.
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

#: Seconds for which an operation is retried, and the first pause, which doubles.
PATIENCE_SECONDS, FIRST_PAUSE_SECONDS = 300.0, 0.5

#: Parts of a server's replies that will not change by waiting. For replies in other languages we
#: wait as for an unreachable server.
_ANSWERS = ("does not exist", "authentication failed", "no password supplied", "no pg_hba.conf")

_Result = TypeVar("_Result")


class LostError(BdhfError, StorageInternalError):
    """The outage was longer than the waiting time."""


class Patience:
    """Retries operations. The threads of a process share one, so each outage is reported once."""

    def __init__(self, seconds: float, longest_pause: float, say: Callable[[str], None]) -> None:
        self._seconds, self._longest = seconds, longest_pause
        self._say = say
        self._lock = threading.Lock()
        self._since: float | None = None  # start of the present outage
        self._over = float("-inf")  # end of the last outage

    def keep_at(self, operation: Callable[[], _Result]) -> _Result:
        """Do an operation, and retry it during an outage. Raises LostError in the end."""
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
                self.end()  # interrupted: stop waiting
                raise

    def once(self, operation: Callable[[], _Result]) -> _Result:
        """Do an operation, and record whether the database responded."""
        try:
            result = operation()
        except Exception as error:
            if is_outage(error):
                self._note(error)
            raise
        self._answered()
        return result

    def end(self) -> None:
        """From now on, do not wait."""
        self._seconds = 0.0

    def was_needed(self, seconds: float) -> bool:
        """Whether there is an outage, or was one within the last `seconds`."""
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
                    f"--storage: the database does not respond: {in_brief(_cause(error))}; "
                    f"retrying for up to {self._seconds:g} s"
                )

    def _answered(self) -> None:
        with self._lock:
            if self._since is not None:
                self._over = time.monotonic()
                gone, self._since = self._over - self._since, None
                self._say(f"--storage: the database responds again after {gone:.0f} s; continuing")


def is_outage(error: BaseException) -> bool:
    """Whether an error is a temporary outage of the database.

    A connection broke, or a valid connection could not be made.
    """
    return not isinstance(error, LostError) and isinstance(_cause(error), DBAPIError)


def _cause(error: BaseException) -> BaseException:
    """The outage that caused an error of Optuna or SQLAlchemy; without one, the error itself."""
    behind: BaseException | None = error
    while behind is not None and not isinstance(behind, LostError):
        if isinstance(behind, DBAPIError) and _is_disconnection(behind):
            return behind
        behind = behind.__cause__ or behind.__context__
    return StorageInternalError(in_brief(error))


def _is_disconnection(error: DBAPIError) -> bool:
    if error.connection_invalidated:
        return True
    is_connecting = error.statement is None and isinstance(error, OperationalError | InterfaceError)
    return is_connecting and not any(words in str(error) for words in _ANSWERS)
