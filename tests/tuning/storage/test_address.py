"""The password of a database is in no message, no output and no file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bdhf.cli.app import app
from bdhf.records import InputError
from bdhf.tuning.storage.address import has_password, hidden, what_is_wrong
from bdhf.tuning.storage.storage import StudyLocation
from tests.messages import naming
from tests.tuning.synthetic import study

SECRET = "s3c{r}et"

URLS = {
    "plain": f"postgresql+psycopg://me:{SECRET}@127.0.0.1:1/db",
    "encoded": "postgresql+psycopg://me:s3c%7Br%7Det@127.0.0.1:1/db",
    "an @ in it": f"postgresql+psycopg://me:ab@{SECRET}@127.0.0.1:1/db",
    "a slash in it": f"postgresql+psycopg://me:{SECRET}/x@127.0.0.1:1/db",
    "in the query": f"postgresql+psycopg://me@127.0.0.1:1/db?password={SECRET}",
    "no such driver": f"mysql+nothing://me:{SECRET}@there/db",
    "no host": f"postgresql+psycopg://me:{SECRET}/db",
    "no port": f"postgresql+psycopg://me:{SECRET}@127.0.0.1:{SECRET}/db",
}


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
def test_a_password_is_in_no_message(tmp_path: Path, url: str) -> None:
    """Neither a wrong URL, nor an error of the server, nor the repr of the location shows it."""
    location = StudyLocation(tmp_path, url)

    with pytest.raises(InputError, match=r"^--storage: ") as told:
        location.open()

    assert len(told.value.lines) == 1
    assert "s3c" not in told.value.lines[0]
    assert "s3c" not in repr(location)


def test_a_password_on_the_command_line_is_warned_of_and_not_repeated(tmp_path: Path) -> None:
    """`bdhf tune` names the right place for it, and neither prints nor writes it."""
    study(tmp_path)
    words = ["tune", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "out")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "400")
        done = CliRunner().invoke(app, [*words, "--storage", URLS["plain"]])

    assert done.exit_code == 2
    assert re.search(naming("~/.pgpass", "PGPASSWORD"), done.output)
    assert "127.0.0.1" in done.output
    assert "s3c" not in done.output
    files = [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not [content for content in files if b"s3c" in content]


@pytest.mark.parametrize(
    ("url", "has"),
    [
        ("postgresql+psycopg://me@host/db", False),
        ("postgresql+psycopg://host:5432/db", False),
        ("postgresql+psycopg:///db?host=/tmp/a:b", False),
        ("sqlite:///a:b.db", False),
        ("postgresql+psycopg://me:x@host/db", True),
        ("postgresql+psycopg://me@host/db?sslpassword=x", True),
        ("postgresql+psycopg://[::1]:5432/db", False),
        ("postgresql+psycopg://me:x/db", True),
    ],
)
def test_whether_a_url_holds_a_password_is_known(url: str, has: bool) -> None:
    """Ports, sockets and files with a colon are no passwords."""
    assert has_password(url) is has
    assert (hidden(f"cannot open {url}", url) != f"cannot open {url}") is has


@pytest.mark.parametrize("rest", ["", "/", "/:memory:", "/file:x?mode=memory&uri=true"])
def test_a_database_in_memory_is_refused(tmp_path: Path, rest: str) -> None:
    """Each worker would have its own database, and the command would find no trial."""
    with pytest.raises(InputError, match=r"^--storage: ") as error:
        StudyLocation(tmp_path, f"sqlite://{rest}").open()

    assert error.value.lines[0].startswith(f"--storage: {what_is_wrong(f'sqlite://{rest}')}")
    assert what_is_wrong(f"sqlite://{rest}")
