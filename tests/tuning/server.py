"""A PostgreSQL for the tests, in a temporary folder and on a socket in it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

#: Users that may run it; it refuses to run as root.
_USERS = ("postgres", "nobody")


@dataclass
class Server:
    """A running PostgreSQL."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it responds."""
        data = self.folder / "data"
        start = ["-D", data, "-k", self.folder, "-c", "listen_addresses=", "-c", "fsync=off"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                _lowly(_binary("postgres"), *start),
                cwd=self.folder, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.wait(self.process)

    def stop(self) -> None:
        """End it at once, connections or not."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(timeout=60)
            self.process = None

    def database(self, name: str) -> str:
        """Make an empty database; its URL."""
        self.tell(f'CREATE DATABASE "{name}"')
        return f"postgresql+psycopg://bdhf@/{name}?host={self.folder}"

    def tell(self, command: str) -> None:
        """Run a command as its owner."""
        with self._connect() as connection:
            connection.execute(command)

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(
            host=str(self.folder), user="bdhf", dbname="postgres", autocommit=True
        )

    def wait(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until it responds."""
        deadline = time.monotonic() + 60
        while True:
            try:
                self.tell("SELECT 1")
                return
            except psycopg.OperationalError:
                log = self.folder / "log"
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)


@contextmanager
def running() -> Iterator[Server]:
    """Start one, and end it."""
    folder = Path(tempfile.mkdtemp(prefix="bdhf-pg-"))  # a socket's path is short
    try:
        _allow(folder)
        data = folder / "data"
        make = ["-D", data, "-U", "bdhf", "-A", "trust", "-E", "UTF8", "--no-locale", "-N"]
        command = _lowly(_binary("initdb"), *make)
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        server = Server(folder)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _binary(name: str) -> str:
    """The newest version in Debian's folder; else the one on the path."""
    versions = Path("/usr/lib/postgresql").glob(f"*/bin/{name}")
    newest = max(versions, key=lambda path: int(path.parts[4].split(".")[0]), default=None)
    binary = newest or shutil.which(name)
    if binary is None:
        pytest.fail(f"no {name} of PostgreSQL: install it (Debian: apt install postgresql)")
    return str(binary)


def _user() -> pwd.struct_passwd | None:
    """The user that runs it; None for the user of the tests."""
    if os.getuid() != 0:
        return None
    users = {entry.pw_name: entry for entry in pwd.getpwall()}
    return next(users[name] for name in _USERS if name in users)


def _lowly(*command: object) -> list[str]:
    user, words = _user(), list(map(str, command))
    if user is None:
        return words
    rights = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    return ["setpriv", *rights, *words]


def _allow(folder: Path) -> None:
    user = _user()
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)
