"""Locks of files, for processes of one machine: the system lets them go when their process ends.

Not on Windows, which has no `flock`: so nothing that only reads records imports this.
"""

from __future__ import annotations

import errno
import fcntl

#: What `flock` says on a file system that has no locks.
_NO_LOCKS = frozenset((errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS))


def lock(file: int, *, wait: bool = True) -> bool:
    """Lock an open file until it is closed; whether that came to be.

    It does not where the file system has no locks, nor, without `wait`, while another process has
    the lock. Raises OSError.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if isinstance(error, BlockingIOError) or error.errno in _NO_LOCKS:
            return False
        raise
    return True
