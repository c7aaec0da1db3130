"""One run in full, with any damage to its files."""

import json
import re

import pandas as pd
import pytest

from bdhf.experiments.storage.claims import Claims
from bdhf.experiments.storage.show import find_run, run_detail
from bdhf.records import NOT_RUN, InputError, Status
from tests.experiments.synthetic import begun, write


@pytest.fixture
def made(tmp_path):
    """A folder that has begun, and the six cells of its plan."""
    return begun(tmp_path / "results" / "small")


def head(folder):
    """The first section: the cells and the status."""
    return run_detail(folder)[str(folder)]


def test_a_whole_run_says_what_it_is_and_how_it_ended(made):
    """Cells of the plan, status, spec, last row and machine are all there."""
    store, cells = made
    folder = write(store, cells[1], Status.ERROR, trace="Traceback:\n  boom\n")

    detail = run_detail(folder)

    assert head(folder)["cells"] == "full_hf seed 0"
    assert head(folder)["status"] == "error"
    assert detail["spec"]["optimizer.partition.type"] == "full"
    assert detail["last row of the curve"]["evaluations"] == "3"
    assert detail["environment"] == {"cpu": "x"}
    assert detail["traceback"] == "Traceback:\n  boom\n"


@pytest.mark.parametrize("name", ["status.json", "spec.yaml", "curve.parquet", "env.json"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"[1]", b"\xff\xfe", b"PAR1"])
def test_a_torn_file_is_reported_and_the_rest_is_shown(made, name, content):
    """A file that is missing, empty or of another kind affects no other file."""
    store, cells = made
    folder = write(store, cells[0])
    whole = run_detail(folder)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)

    detail = run_detail(folder)

    said = [rows[name] for rows in detail.values() if name in rows]
    assert len(said) == 1
    assert (said[0] == "missing") == (content is None)
    assert sum(detail[title] == whole[title] for title in detail) >= 2
    assert head(folder)["whole"].startswith(f"no: torn: {name}: ")


def test_odd_characters_are_shown_and_do_nothing(made):
    """Control characters and surrogates are replaced; the rest stays."""
    store, cells = made
    folder = write(store, cells[0])
    odd = {
        "status": "done",
        "reason": "é [bold] \x1b[2J \ud800",
        "list": ["ü"],
        "nan": float("nan"),
    }
    (folder / "status.json").write_text(json.dumps(odd))
    (folder / "traceback.txt").write_bytes(b"caf\xe9\n")

    detail = head(folder)

    assert detail["reason"] == "é [bold] \N{REPLACEMENT CHARACTER}[2J \N{REPLACEMENT CHARACTER}"
    assert detail["list"] == '["ü"]'
    assert run_detail(folder)["traceback"] == "caf\N{REPLACEMENT CHARACTER}\n"
    "".join(detail.values()).encode("utf-8")


def test_a_curve_of_other_columns_is_shown(made):
    """Words, whole numbers in full and missing values do not stop it."""
    store, cells = made
    folder = write(store, cells[0])
    (folder / "status.json").write_text('{"status": "done"}')  # an older one, without sums
    row = {"update": 1234567, "val_loss": 0.123456789, "note": "x", "none": None, "far": 1e300}
    pd.DataFrame([row]).to_parquet(folder / "curve.parquet")

    assert run_detail(folder)["last row of the curve"] == {
        "evaluations": "1", "update": "1234567", "val_loss": "0.123457", "note": "x",
        "far": "1e+300",
    }  # fmt: skip


def test_a_run_is_found_by_its_folder_and_by_the_beginning_of_its_id(made, monkeypatch):
    """With a results folder, without one in results/, and as a path, also where it is torn."""
    store, cells = made
    folder = write(store, cells[0])
    (folder / "status.json").unlink()
    monkeypatch.chdir(store.folder.parent.parent)

    assert find_run(str(folder), None) == folder
    assert find_run(folder.name[:5], store.folder) == folder
    assert find_run(folder.name[:5], None).resolve() == folder


def test_an_id_that_fits_many_lists_them(made):
    """The message names the folders, and a longer part of the id selects one."""
    store, cells = made
    folder = write(store, cells[0])
    other = folder.rename(store.runs / f"{folder.name[:8]}00000000")
    write(store, cells[0])

    with pytest.raises(InputError) as told:
        find_run(folder.name[:6], store.folder)

    assert str(folder) in str(told.value)
    assert str(other) in str(told.value)
    assert find_run(folder.name, store.folder) == folder


@pytest.mark.parametrize("run", ["", "*", "../runs", "zzzz", "[0-9]", "é"])
def test_what_names_no_run_is_refused_in_words(made, run):
    """Wildcards and folders find nothing by accident."""
    store, cells = made
    write(store, cells[0])

    with pytest.raises(InputError, match=re.escape(str(store.folder))):
        find_run(run, store.folder)


def test_a_run_that_has_not_ended_is_named_with_its_state(made):
    """For a planned run the message says whether it is under way."""
    store, cells = made
    claims = Claims(store.folder)
    claims.take(cells[0].run_id)

    with pytest.raises(InputError, match=r"adam seed 0 in .*: under way"):
        find_run(cells[0].run_id[:6], store.folder)
    claims.close()
    with pytest.raises(InputError, match=rf"adam seed 0 in .*: {NOT_RUN}"):
        find_run(cells[0].run_id[:6], store.folder)


def test_a_run_that_was_copied_away_is_shown(made, tmp_path):
    """Without a plan, a run is shown from its own files."""
    store, cells = made
    folder = write(store, cells[0]).rename(tmp_path / "copy")

    assert find_run(str(folder), None) == folder
    assert "seed" not in head(folder)["cells"]
    assert head(folder)["status"] == "done"
