"""The lock of a journal: its holder may write, and the end of the file is complete.

The operating system releases it when the process ends for any reason. Optuna's own lock, an extra
file, remains after a kill and blocks all other processes; we take it inside of this one, because
other programs that write into a journal (optuna-dashboard) respect it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from optuna.storages.journal import JournalFileOpenLock
from optuna.storages.journal._file import BaseJournalFileLock  # not exported

from bdhf.records.disk.locks import lock

#: Seconds after which the lock file of another program is broken.
_LOCK_SECONDS = 15

#: Bytes to search at a time for the end of a line.
_CHUNK = 1 << 16


class JournalLock(BaseJournalFileLock):
    """A lock (`flock`) on the journal itself, for the processes of one machine."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._optunas = JournalFileOpenLock(path, grace_period=_LOCK_SECONDS)
        self._held: int | None = None  # the locked file

    def acquire(self) -> bool:
        """Wait for the lock, then cut an incomplete last line of a killed process.

        No record after such a line could be read. Raises OSError.
        """
        self._let_go()  # in case an interruption came between taking and using it
        try:
            self._held = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            if lock(self._held) and not os.path.islink(f"{self._path}.lock"):
                with suppress(FileNotFoundError):
                    os.unlink(f"{self._path}.lock")  # of an ended bdhf process, if it is no link
            with _interruptions():
                self._optunas.acquire()
            _cut_torn_end(self._held)
        except BaseException:
            self._let_go()
            raise
        return True

    def release(self) -> None:
        """Release the lock."""
        try:
            # Another program may have removed its file.
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

    When interrupted, that lock removes its file; if the file does not exist, the resulting error
    replaces KeyboardInterrupt.
    """
    try:
        yield
    except (FileNotFoundError, RuntimeError) as error:
        for cause in _contexts(error):
            if isinstance(cause, KeyboardInterrupt):
                raise cause from None
        raise


def _contexts(error: BaseException) -> Iterator[BaseException]:
    """The errors that were being handled when an error arose, from the last to the first."""
    context = error.__context__
    while context is not None:
        yield context
        context = context.__context__


def _cut_torn_end(file: int) -> None:
    """Cut an open file after its last complete line."""
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
