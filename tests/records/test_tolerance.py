"""Damaged, foreign and newer folders are left out with a reason; all others are unaffected."""

import json
import shutil
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bdhf
from asv_bench.benchmarks.synthetic import folder_to_read as make
from bdhf.experiments.storage.status import ablation_status
from bdhf.records import (
    NOT_RUN,
    PLAN_INDEX,
    RECORDS_VERSION,
    InputError,
    collect,
    planned,
    run_status,
)

CELLS, RUNS, ROWS = 6, 4, 3


@pytest.fixture
def folder(tmp_path):
    """A results folder of six cells, the first four of which have run."""
    return make(tmp_path / "results", CELLS, RUNS, ROWS)


@pytest.fixture
def run(folder):
    """The folder of the first run."""
    return folder / "runs" / f"{0:016x}"


def rewrite(run, **columns):
    """Write the curve of a run with other columns; None removes one."""
    path = run / "curve.parquet"
    curve = pd.read_parquet(path).assign(**columns)
    curve.drop(columns=[n for n, c in columns.items() if c is None]).to_parquet(path)


def assert_left_out(folder, run):
    """The run is not counted, with a reason; all others stay, with their curves."""
    collect(folder)
    records = bdhf.load(folder)
    assert records.runs["status"].isna().tolist() == [True, False, False, False, True, True]
    assert records.runs["reason"][0].startswith("torn: ")
    assert records.runs["reason"][4] == NOT_RUN
    assert sorted(set(records.curves["run_id"])) == [f"{n:016x}" for n in range(1, RUNS)]
    assert run_status(folder, run.name) is None
    cells = planned(folder)
    pd.testing.assert_frame_equal(cells, records.runs[cells.columns])


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"status": "odd"}', '{"status": ["done"]}',
     '{"status": "done", "reason": 1}', r'{"status": "done", "reason": "\ud800"}',
     '{"status": "done", "records": "new"}', '{"status": "done", "records": -1}', "[" * 100_000],
)  # fmt: skip
def test_a_run_without_a_status_is_left_out(folder, run, content):
    """For any content of status.json it is not counted, and the other runs stay."""
    (run / "status.json").write_text(content)

    assert_left_out(folder, run)


@pytest.mark.parametrize(
    "columns",
    [{"val_loss": None}, {"val_loss": "low"}, {"val_accuracy": "high"}, {"update": 0.5}, {"arm": 1},
     {"val_accuracy": [[1]] * ROWS}],
    ids=str,
)  # fmt: skip
def test_a_table_that_is_no_curve_is_left_out(folder, run, columns):
    """The columns of every curve must be there, and all columns be numbers."""
    rewrite(run, **columns)

    assert_left_out(folder, run)


@pytest.mark.parametrize("kept", [0, 4, -20])
def test_a_curve_that_is_cut_is_left_out(folder, run, kept):
    """Nothing, the first bytes, and all but the last bytes of a curve are no curve."""
    path = run / "curve.parquet"
    path.write_bytes(path.read_bytes()[:kept])

    assert_left_out(folder, run)


def test_a_curve_whose_pages_are_lost_is_left_out(folder, run):
    """A valid footer alone is not a curve."""
    path = run / "curve.parquet"
    path.write_bytes(b"PAR1" + bytes(1000) + path.read_bytes()[1004:])

    assert_left_out(folder, run)


@pytest.mark.parametrize("name", ["status.json", "curve.parquet"])
def test_a_run_that_cannot_be_opened_is_left_out(folder, run, name):
    """A lost file, and a folder instead of it."""
    (run / name).unlink()
    assert_left_out(folder, run)
    (run / name).mkdir()
    assert_left_out(folder, run)


@pytest.mark.parametrize("name", ["status.json", "curve.parquet"])
def test_a_run_that_the_system_does_not_let_one_read_stays(folder, run, name):
    """It may be whole: it is not counted, has a reason, and is not run again."""
    (run / name).unlink()
    (run / name).symlink_to(name)  # to itself: the system refuses to open it for every user

    collect(folder)

    assert bdhf.load(folder).runs["reason"][0].startswith("unreadable: ")
    with pytest.raises(InputError, match=name):
        run_status(folder, run.name)


def test_what_is_no_folder_is_no_run(folder, run):
    """A file and a dead link instead of a run."""
    shutil.rmtree(run)
    run.touch()
    assert_left_out(folder, run)
    run.unlink()
    run.symlink_to("nowhere")
    assert_left_out(folder, run)


def test_what_the_plan_does_not_name_is_left_alone(folder):
    """Files, hidden folders and names that are no ids change no table."""
    collect(folder)
    before = bdhf.load(folder)
    (folder / "runs" / "notes.txt").write_text("mine")
    (folder / "runs" / ".tmp-elsewhere-1-x").mkdir()
    shutil.copytree(folder / "runs" / f"{0:016x}", folder / "runs" / "copy of a run")

    collect(folder)

    pd.testing.assert_frame_equal(bdhf.load(folder).runs, before.runs)
    pd.testing.assert_frame_equal(bdhf.load(folder).curves, before.curves)


@pytest.mark.parametrize("content", ["[]", "{", '"x"', '{"records": 2}'])
def test_an_environment_that_is_none_has_no_row(folder, run, content):
    """The run counts; where it ran is not known."""
    (run / "env.json").write_text(content)
    collect(folder)

    records = bdhf.load(folder)

    assert records.runs["status"].notna().sum() == RUNS
    assert run.name not in set(records.environments["run_id"])
    assert len(records.environments) == RUNS - 1


def test_files_of_an_older_version_are_read(folder, run):
    """Without a number they are of version 0; diagnostics that came later are missing."""
    for path in [folder / PLAN_INDEX, *folder.glob("runs/*/status.json")]:
        content = json.loads(path.read_text())
        assert content.pop("records") == RECORDS_VERSION
        path.write_text(json.dumps(content))
    rewrite(run, off_block_energy=None, negative_curvature=None, stop_converged=None)

    collect(folder)

    records = bdhf.load(folder)
    assert (records.runs["status"] == "done").sum() == RUNS
    assert records.curves["off_block_energy"].isna().sum() == ROWS
    assert "stop_converged" in records.curves


def newer(path):
    """Mark a file as one of the next version, which has other keys."""
    content = json.loads(path.read_text())
    path.write_text(json.dumps({"sort": content, "records": RECORDS_VERSION + 1}))


@pytest.mark.parametrize("reader", [planned, collect, bdhf.load])
def test_a_folder_of_a_newer_version_is_refused(folder, reader):
    """The error has the file, its version, and the version that is read."""
    collect(folder)
    newer(folder / PLAN_INDEX)

    with pytest.raises(InputError, match=r"plan\.json: .*version 2.*version 1"):
        reader(folder)


def test_a_run_of_a_newer_version_is_foreign_and_never_made_again(folder, run):
    """Tables leave it out with a reason; running it again is an error."""
    newer(run / "status.json")
    collect(folder)

    runs = bdhf.load(folder).runs

    assert pd.isna(runs["status"][0])
    assert runs["reason"][0].startswith("foreign: records of version 2")
    assert (runs["status"] == "done").sum() == RUNS - 1
    with pytest.raises(InputError, match=r"status\.json: .*version 2"):
        run_status(folder, run.name)


def test_the_status_of_an_ablation_includes_a_newer_run(folder, run):
    """The newer run is listed with its reason, and the others are counted."""
    newer(run / "status.json")

    status = ablation_status(folder)

    assert (status.done, status.left) == (RUNS - 1, CELLS - RUNS + 1)
    assert [run.name in line and "foreign: " in line for line in status.troubles] == [True]


@pytest.mark.parametrize("name", ["plan.parquet", "runs.parquet", "curves.parquet"])
@pytest.mark.parametrize("source", ["curve.parquet", "status.json"])
def test_a_table_that_is_another_file_is_refused(folder, run, name, source):
    """A readable table with other columns is refused like a torn one."""
    collect(folder)
    shutil.copy(run / source, folder / name)

    with pytest.raises(InputError, match=rf"{name}: .*`bdhf run`"):
        [bdhf.load(folder), planned(folder)]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("spec.yaml", "a: [", r"`bdhf run`"),
        ("spec.yaml", "[]", r"`bdhf run`"),
        ("spec.yaml", "schema: 1", r"name: Field required"),
        ("spec.yaml", "name: x\ntargets: [{metric: a}]", r"targets\.0: .*`below`.*`above`"),
        (PLAN_INDEX, "{}", r"arms: Field required"),
        (PLAN_INDEX, '{"arms": [], "comparisons": []}', r"arms: Tuple should have at least 1"),
    ],
)
def test_spec_and_index_must_be_readable(folder, name, content, said):
    """The error has the file and its first fault."""
    collect(folder)
    (folder / name).write_text(content)

    with pytest.raises(InputError, match=rf"{name}: .*{said}"):
        bdhf.load(folder)


def test_runs_that_cannot_be_listed_are_no_empty_ablation(folder):
    """A file instead of the folder of runs is an error, not an empty ablation."""
    shutil.rmtree(folder / "runs")
    (folder / "runs").touch()

    with pytest.raises(InputError, match=r"runs: .*Not a directory"):
        collect(folder)


def damaged(content, kind, position, byte):
    """The content with one kind of damage."""
    position %= max(1, len(content))
    return {
        "cut": content[:position],
        "flip": content[:position] + bytes([byte]) + content[position + 1 :],
        "insert": content[:position] + bytes([byte]) * 5 + content[position:],
        "zero": content[:position] + bytes(len(content) - position),
    }[kind]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A small collected folder and its records; tests damage copies of it."""
    folder = make(tmp_path_factory.mktemp("pristine") / "results", CELLS, RUNS, ROWS)
    collect(folder)
    return folder, bdhf.load(folder)


def damage(folder, origin, harm):
    """Damage files of the folder, a copy of `origin`; return their paths."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    touched = [files[which % len(files)] for which, *_ in harm]
    for path, (_, kind, position, byte) in zip(touched, harm, strict=True):
        if kind == "lost":
            path.unlink(missing_ok=True)
        elif kind == "swap":
            shutil.copy(origin / files[position % len(files)].relative_to(folder), path)
        elif path.exists():
            path.write_bytes(damaged(path.read_bytes(), kind, position, byte))
    return touched


def assert_kept(before, after, intact):
    """The rows of these runs are the same; metrics go with the last run that has any."""
    for new, old in (after.runs, before.runs), (after.curves, before.curves):
        rows, expected = (t[t["run_id"].isin(intact)].reset_index(drop=True) for t in (new, old))
        aligned = rows.reindex(columns=old.columns)
        pd.testing.assert_frame_equal(aligned, expected, check_exact=True)


@settings(max_examples=100, deadline=None)
@given(
    harm=st.lists(
        st.tuples(
            st.integers(0, 10**6),
            st.sampled_from(["cut", "flip", "insert", "zero", "lost", "swap"]),
            st.integers(0, 10**6),
            st.integers(0, 255),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_whatever_is_damaged_intact_runs_keep_their_values(pristine, harm):
    """Readers raise InputError at most, and no intact run is lost."""
    origin, before = pristine
    with tempfile.TemporaryDirectory() as temporary:
        folder = shutil.copytree(origin, Path(temporary) / "results")
        touched = damage(folder, origin, harm)
        in_runs = all(path.parent.parent.name == "runs" for path in touched)
        try:
            collect(folder)
            after = bdhf.load(folder)
        except InputError:
            assert not in_runs  # a damaged run is no reason to refuse the others
        else:
            if folder / "plan.parquet" not in touched:  # it lists the runs
                harmed = {path.parent.name for path in touched}
                assert_kept(before, after, set(before.runs["run_id"]) - harmed)
