"""Locks of files, for processes of one machine: the system releases them when a process ends.

Not on Windows, which has no `flock`: so code that only reads records does not import this.
"""

from __future__ import annotations

import errno
import fcntl

#: Errors of `flock` on a file system without locks.
_NO_LOCKS = frozenset((errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS))


def lock(file: int, *, wait: bool = True) -> bool:
    """Lock an open file until it is closed, and return whether that succeeded.

    It fails where the file system has no locks and, without `wait`, while another process has the
    lock. Raises OSError.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if isinstance(error, BlockingIOError) or error.errno in _NO_LOCKS:
            return False
        raise
    return True
