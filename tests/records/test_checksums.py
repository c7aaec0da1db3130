"""Sums: a file with a single flipped bit is reported, and never read as another value."""

import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

import bdhf
from bdhf.records import InputError, collect, load_study, planned, run_status
from bdhf.records.disk.checksums import check_sum, table_bytes, with_sum
from bdhf.records.run import Run, Uncounted, read_run
from bdhf.records.tuning import read_tuning, write_study
from tests.experiments.synthetic import begun, resealed, write
from tests.report.synthetic_held_out import save_study
from tests.report.synthetic_study import synthetic_study

FILES = ("curve.parquet", "spec.yaml", "env.json", "status.json", "traceback.txt")


@pytest.fixture
def made(tmp_path):
    """A folder whose first two runs have ended, and the folder of the first."""
    store, cells = begun(tmp_path / "results")
    run = write(store, cells[0], trace="Traceback: boom")
    write(store, cells[1])
    return store, cells, run


def flip(path, byte, bit=0):
    """Change one bit of a file; the byte counts from its end where it is negative."""
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)
    return bytes(content)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("part", [0.2, 0.8])
def test_a_run_with_a_flipped_bit_is_torn_and_says_so_in_one_line(made, name, part):
    """Any of its files; the other runs count, and it is planned again."""
    store, cells, run = made
    content = (run / name).read_bytes()

    flip(run / name, int(part * len(content)))
    collect(store.folder)

    records = bdhf.load(store.folder)
    assert records.runs["status"].notna().tolist() == [False, True, False, False, False, False]
    assert records.runs["reason"][0].startswith(f"torn: {name}: ")
    assert run.name not in set(records.curves["run_id"]) | set(records.environments["run_id"])
    assert cells[0].run in store.unfinished(cells)


@pytest.mark.parametrize("name", FILES[:3])
def test_the_reason_names_the_changed_file(made, name):
    """The reason is the documented one."""
    store, _, run = made
    flip(run / name, 5)

    assert read_run(run) == Uncounted(f"torn: {name}: not the bytes that were written")
    assert run_status(store.folder, run.name) is None


@pytest.mark.parametrize("name", [*FILES[:3], "traceback.txt"])
def test_a_run_that_has_lost_a_file_is_torn(made, name):
    """If its status.json lists that file; a run without a traceback needs none."""
    store, cells, run = made
    (run / name).unlink()

    assert read_run(run) == Uncounted(f"torn: {name}: No such file or directory")
    assert isinstance(read_run(store.runs / cells[1].run_id), Run)


def test_no_flipped_bit_of_a_status_is_read_as_another_value(made):
    """Every byte in turn: the run is not counted, or has the same status."""
    _, _, run = made
    path, whole = run / "status.json", read_run(run)
    content = path.read_bytes()

    for byte in range(len(content)):
        flip(path, byte, byte % 8)
        changed_run = read_run(run)
        assert not isinstance(changed_run, Run) or changed_run.status == whole.status, byte
        path.write_bytes(content)


@pytest.mark.parametrize("names", [FILES[:1], FILES[1:2], FILES[3:4], FILES])
def test_files_of_another_run_are_not_taken_for_its_own(made, names):
    """One of them, and all of them together."""
    store, cells, run = made
    other = write(store, cells[2], trace="Traceback: bang", wall_seconds=11.0)
    pd.read_parquet(other / "curve.parquet").assign(val_loss=0.5).to_parquet(
        other / "curve.parquet", index=False
    )
    resealed(other)

    for name in names:
        shutil.copy(other / name, run / name)

    assert read_run(run).reason.startswith("torn: ")


@pytest.mark.parametrize("change", [{"sha256": {"/dev/zero": ""}}, {"sha256": 1}, {"sum": 1}])
def test_sums_that_cannot_be_those_of_a_run_are_no_sums(made, change):
    """No file outside of the run is opened for them."""
    _, _, run = made
    path = run / "status.json"
    content = json.loads(path.read_text()) | change

    path.write_text(json.dumps(content if "sum" in change else with_sum(content)))

    assert read_run(run).reason.startswith("torn: status.json: ")


def test_sums_of_files_without_one_of_their_own_are_torn(made):
    """Both were written; a status that lost one of them is not an older one."""
    _, _, run = made
    content = json.loads((run / "status.json").read_text())
    del content["sum"]
    (run / "status.json").write_text(json.dumps(content))

    assert read_run(run) == Uncounted("torn: status.json: no sum, and sums of files")


def test_a_run_of_an_older_version_has_no_sums_and_is_read(made):
    """Its files are accepted without a check."""
    _, _, run = made
    content = json.loads((run / "status.json").read_text())
    for key in ("sum", "sha256", "run_id"):
        del content[key]
    (run / "status.json").write_text(json.dumps(content))
    (run / "env.json").unlink()

    assert isinstance(read_run(run), Run)


def test_the_sum_is_of_the_values_and_not_of_their_layout():
    """Another order and other spaces are the same content; another value is not."""
    content = with_sum({"b": 1, "a": [0.1, None, "é"]})

    check_sum(json.loads(json.dumps(content, indent=4)))
    check_sum({"b": 2})  # an older one
    with pytest.raises(ValueError, match="not the bytes that were written"):
        check_sum(content | {"b": 2})


def test_a_table_with_its_sum_is_a_table_to_others():
    """Pandas and pyarrow read it like any other table."""
    table = pd.DataFrame({"a": [1.5, None], "b": ["x", "y"], "c": pd.array([1, None], "Int64")})

    content = table_bytes(table)

    pd.testing.assert_frame_equal(pd.read_parquet(pa.BufferReader(content)), table)


@pytest.mark.parametrize("name", ["plan.parquet", "runs.parquet", "curves.parquet"])
def test_no_flipped_bit_of_a_table_is_read_as_another_value(made, name):
    """At a dozen positions: an error in one line."""
    store, _, _ = made
    collect(store.folder)
    path, cells, before = store.folder / name, planned(store.folder), bdhf.load(store.folder)
    content = path.read_bytes()
    refused = []

    positions = range(0, len(content), len(content) // 11)
    for byte in positions:
        flip(path, byte, byte % 8)
        try:
            now = bdhf.load(store.folder)
            pd.testing.assert_frame_equal(planned(store.folder), cells)
            pd.testing.assert_frame_equal(now.runs, before.runs)
            pd.testing.assert_frame_equal(now.curves, before.curves)
        except InputError as error:
            refused.append(error.lines)
        path.write_bytes(content)

    assert len(refused) >= len(positions) - 1  # a bit of the key that marks the sum
    assert all(name in line for (line,) in refused)


@pytest.mark.parametrize("name", ["spec.yaml", "plan.json"])
@pytest.mark.parametrize("harm", ["flip", "lost"])
def test_spec_and_index_must_match_the_plan(made, name, harm):
    """A target with another value is refused; `begin` rewrites the file."""
    store, _, _ = made
    collect(store.folder)
    path = store.folder / name
    content = path.read_bytes()
    path.unlink() if harm == "lost" else flip(path, content.index(b"block vs full"))

    with pytest.raises(InputError) as told:
        bdhf.load(store.folder)

    assert str(path.name) in told.value.lines[0]
    path.write_bytes(content)
    bdhf.load(store.folder)


@pytest.fixture
def study(tmp_path):
    """The folder of a study as `tune` writes it."""
    records = synthetic_study()
    tables = {"trials": records.trials, "parameters": records.parameters,
              "seeds": records.seeds, "trial_curves": records.curves}  # fmt: skip
    write_study(tmp_path, "name: made-up\n", records.study.model_dump_json(), tables)
    return tmp_path


STUDY = ("study.json", "study.yaml", "trials.parquet", "parameters.parquet", "seeds.parquet",
         "trial_curves.parquet")  # fmt: skip


@pytest.mark.parametrize("name", STUDY)
@pytest.mark.parametrize("part", [0.1, 0.5, 0.95])
def test_a_study_with_a_flipped_bit_is_reported_in_one_line(study, name, part):
    """Any file, anywhere in it."""
    load_study(study)
    path = study / name
    flip(path, int(part * path.stat().st_size))

    with pytest.raises(InputError) as told:
        load_study(study)

    (line,) = told.value.lines
    assert line.startswith(str(path))


@pytest.mark.parametrize("name", STUDY[1:])
def test_a_study_that_lost_a_file_or_has_a_folder_instead_is_reported(study, name):
    """The error names the file."""
    (study / name).unlink()
    with pytest.raises(InputError, match=name):
        load_study(study)
    (study / name).mkdir()
    with pytest.raises(InputError, match=name):
        load_study(study)


def test_a_study_of_an_older_version_is_read(tmp_path):
    """Without sums, and without study.yaml."""
    folder = save_study(synthetic_study(), tmp_path)

    assert load_study(folder).text == (folder / "study.yaml").read_text()
    (folder / "study.yaml").unlink()
    assert load_study(folder).text == ""


def test_the_copy_of_a_record_needs_no_trials(study, tmp_path):
    """`NAME.tuning.json` of a spec."""
    copy = shutil.copy(study / "study.json", tmp_path / "made-up.tuning.json")

    assert read_tuning(Path(copy)) == read_tuning(study / "study.json")


def test_a_run_is_on_disk_before_it_is_renamed(tmp_path, monkeypatch):
    """Files, folder, rename, then the folder of runs: this order survives a power failure."""
    store, cells = begun(tmp_path / "results")
    order = []
    fsync, rename = os.fsync, Path.rename

    def synced(handle):
        order.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        fsync(handle)

    def renamed(path, target):
        moved = rename(path, target)
        order.append(f"-> {Path(target).name}")
        return moved

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    run = write(store, cells[0])

    *files, folder, installed, runs = order
    assert set(files) == {"spec.yaml", "env.json", "curve.parquet", "status.json"}
    assert folder.startswith(".tmp-")
    assert (installed, runs) == (f"-> {run.name}", "runs")
