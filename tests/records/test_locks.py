"""Locks of files: one holder, until its file is closed, and no more than the file system can."""

import errno
import fcntl
import os

import pytest

from bdhf.records.disk.locks import lock


@pytest.fixture
def file(tmp_path):
    """An open file, and the path of it."""
    path = tmp_path / "file"
    with path.open("wb") as opened:
        yield opened.fileno(), path


def test_a_lock_has_one_holder_until_its_file_is_closed(file):
    """Another that does not wait goes without; closing is all that it takes to let go."""
    handle, path = file
    with path.open("rb") as other:
        assert lock(other.fileno())
        assert not lock(handle, wait=False)

    assert lock(handle, wait=False)


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_told_from_an_error(file, monkeypatch, number, wait):
    """Nothing is locked there; what else goes wrong is raised."""

    def refused(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refused)
    assert not lock(file[0], wait=wait)

    number = errno.EIO
    with pytest.raises(OSError, match="Input/output error"):
        lock(file[0], wait=wait)
