"""Locks of files: one holder until its file is closed, where the file system has locks."""

import errno
import fcntl
import os

import pytest

from bdhf.records.disk.locks import lock


@pytest.fixture
def file(tmp_path):
    """An open file, and its path."""
    path = tmp_path / "file"
    with path.open("wb") as opened:
        yield opened.fileno(), path


def test_a_lock_has_one_holder_until_its_file_is_closed(file):
    """A process that does not wait gets no lock; closing the file releases it."""
    handle, path = file
    with path.open("rb") as other:
        assert lock(other.fileno())
        assert not lock(handle, wait=False)

    assert lock(handle, wait=False)


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_no_error(file, monkeypatch, number, wait):
    """Nothing is locked there; other errors are raised."""

    def refused(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refused)
    assert not lock(file[0], wait=wait)

    number = errno.EIO
    with pytest.raises(OSError, match="Input/output error"):
        lock(file[0], wait=wait)
