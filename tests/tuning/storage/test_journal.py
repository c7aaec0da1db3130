"""A journal with a line that is not a record: reported with its number, nothing is changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bdhf.records import InputError
from bdhf.tuning.outcome.collect import stored_trials
from bdhf.tuning.storage.storage import StudyLocation
from bdhf.tuning.study.study import Study
from tests.tuning.small import placed
from tests.tuning.synthetic import study, synthetic_run, worked

WRONG = {
    "empty": b"\n",
    "spaces": b"  \n",
    "no JSON": b"torn\n",
    "two in one": b'{"op_code":8,"wor{"op_code":8}\n',
    "no text": b"\xff\xfe\x00\n",
    "no mapping": b"5\n",
    "no operation": b"{}\n",
    "no such operation": b'{"op_code":99,"worker_id":"x"}\n',
    "no such trial": b'{"op_code":4,"worker_id":"x"}\n',
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished study of random trials."""
    home = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bdhf.experiments.engines.execution.execute", synthetic_run)
        worked(of_few(home), home / "out")
    return home / "out"


@pytest.fixture
def location(tmp_path: Path, made: Path) -> StudyLocation:
    """A copy of it."""
    return StudyLocation(shutil.copytree(made, tmp_path / "out"))


def of_few(home: Path) -> Study:
    """Its study."""
    return study(home, ("{type: tpe, startup: 3}", "random"), ("trials: 8", "trials: 2"))


def with_line(location: StudyLocation, number: int, line: bytes) -> bytes:
    """Put a line into a journal; its whole content."""
    lines = location.journal.read_bytes().splitlines(keepends=True)
    lines.insert(number - 1, line)
    location.journal.write_bytes(b"".join(lines))
    return location.journal.read_bytes()


@pytest.mark.parametrize("line", WRONG.values(), ids=WRONG)
def test_a_line_that_is_no_record_is_reported_with_its_number(
    tmp_path: Path, location: StudyLocation, line: bytes
) -> None:
    """One line: file, line number, content and the command to delete it, which then works."""
    of = of_few(tmp_path)
    whole = placed(of, location.open())
    content = with_line(location, 5, line)

    with pytest.raises(InputError) as told:
        worked(of, location.folder)

    (words,) = told.value.lines
    assert words.startswith(f"{location.journal.resolve()}:5: ")
    text = line.strip().decode(errors="replace")
    assert not text or repr(text) in words
    assert f"sed -i 5d {location.journal.resolve()}" in words
    assert location.journal.read_bytes() == content
    kept = content.splitlines(keepends=True)
    location.journal.write_bytes(b"".join(kept[:4] + kept[5:]))
    assert placed(of, location.open()) == whole


@pytest.mark.parametrize("line", [b"\n", b"torn\n"])
def test_a_whole_last_line_is_not_cut(location: StudyLocation, line: bytes) -> None:
    """A line that ends with a line feed is complete, so it was not torn by a kill."""
    number = location.journal.read_bytes().count(b"\n") + 1
    content = with_line(location, number, line)

    with pytest.raises(InputError, match=f"journal.log:{number}: "):
        location.open()
    assert location.journal.read_bytes() == content


def test_a_line_that_comes_while_a_study_is_open_is_reported_too(
    tmp_path: Path, location: StudyLocation
) -> None:
    """A storage that was valid when it was opened reports the invalid line."""
    of = of_few(tmp_path)
    storage = location.open()
    number = location.journal.read_bytes().count(b"\n") + 1
    with location.journal.open("ab") as journal:
        journal.write(b"torn\n")

    with pytest.raises(InputError, match=f"journal.log:{number}: 'torn' "):
        storage.set_study_user_attr(0, "said", "after")
    with pytest.raises(InputError, match=f"journal.log:{number}: "), location.losable():
        stored_trials(of, storage)
