"""The lock of a journal: whoever holds it may write, and finds nothing torn at its end.

The system lets it go when its process ends, however that ends. Optuna's own lock, a file that is
there or not, stays behind and holds all others up; it is taken inside of this one, since other
programs that write into a journal (optuna-dashboard) respect it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from optuna.storages.journal import JournalFileOpenLock
from optuna.storages.journal._file import BaseJournalFileLock  # is exported nowhere

from bdhf.records.disk.locks import lock

#: Seconds after which the lock file of a program that is none of ours is broken.
_LOCK_SECONDS = 15

#: Bytes that are searched for the end of a line at a time.
_CHUNK = 1 << 16


class JournalLock(BaseJournalFileLock):
    """A lock of the system (`flock`) on the journal itself, for the processes of one machine."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._optunas = JournalFileOpenLock(path, grace_period=_LOCK_SECONDS)
        self._held: int | None = None  # the file that is locked

    def acquire(self) -> bool:
        """Wait for the lock, then cut away a line that a killed process did not finish.

        What follows such a line could not be read. Raises OSError.
        """
        self._let_go()  # what an interruption left between taking and using it
        try:
            self._held = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            if lock(self._held) and not os.path.islink(f"{self._path}.lock"):
                with suppress(FileNotFoundError):
                    os.unlink(f"{self._path}.lock")  # of one of us that has ended; a link is not
            with _interruptions():
                self._optunas.acquire()
            _cut_torn_end(self._held)
        except BaseException:
            self._let_go()
            raise
        return True

    def release(self) -> None:
        """Let the next one write."""
        try:
            # Somebody may have taken its file away: so it is gone.
            with suppress(RuntimeError), _interruptions():
                self._optunas.release()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            os.close(held)


@contextmanager
def _interruptions() -> Iterator[None]:
    """Raise the interruption that Optuna's lock hides.

    Interrupted, it removes its file; where that is gone already, the error of it takes the place of
    KeyboardInterrupt.
    """
    try:
        yield
    except (FileNotFoundError, RuntimeError) as error:
        for cause in _contexts(error):
            if isinstance(cause, KeyboardInterrupt):
                raise cause from None
        raise


def _contexts(error: BaseException) -> Iterator[BaseException]:
    """What was being handled when an error arose, from the last to the first."""
    context = error.__context__
    while context is not None:
        yield context
        context = context.__context__


def _cut_torn_end(file: int) -> None:
    """Cut an open file after its last whole line."""
    end = size = os.fstat(file).st_size
    while end:
        start = max(end - _CHUNK, 0)
        newline = os.pread(file, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(file, end)
        os.fsync(file)
