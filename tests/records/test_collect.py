"""Tables from run folders: their content, the files that are read, and concurrent writers."""

import re
import shutil
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

import bdhf
from asv_bench import collect as bench
from asv_bench.benchmarks.synthetic import folder_to_read as make
from bdhf.records import NOT_RUN, collect, planned

ROWS = 3

_opened: list[str] | None = None


def _listen(event, arguments):
    if _opened is not None and event in ("open", "os.scandir"):
        _opened.append(str(arguments[0]))


sys.addaudithook(_listen)  # called for every file that is opened; a hook cannot be removed


@contextmanager
def opened():
    """Count what is opened or listed inside this context, by path."""
    global _opened
    _opened = paths = []
    counts = Counter()
    try:
        yield counts
    finally:
        _opened = None
        counts.update(paths)


def test_every_file_of_a_run_is_opened_once(tmp_path):
    """Two cells that share a run do not read it twice, and no environment is read."""
    folder = make(tmp_path / "results", cells=5, runs=4, rows=ROWS)
    plan = pd.read_parquet(folder / "plan.parquet")
    plan.loc[4, "run_id"] = plan.loc[0, "run_id"]
    plan.to_parquet(folder / "plan.parquet", index=False)

    with opened() as counts:
        collect(folder)

    runs = {Path(path): n for path, n in counts.items() if Path(path).parent.parent.name == "runs"}
    assert runs == {
        run / name: 1
        for run in (folder / "runs").iterdir()
        for name in ("status.json", "curve.parquet")
    }
    assert bdhf.load(folder).runs["val_loss"].tolist() == [2.0, 3.0, 4.0, 5.0, 2.0]


def test_a_plan_without_runs_costs_one_listing(tmp_path):
    """The files that are opened do not depend on the number of cells."""
    folder = make(tmp_path / "results", cells=10_000, runs=0, rows=ROWS)

    with opened() as counts:
        cells = planned(folder)

    assert counts == {str(folder / name): 1 for name in ("runs", "plan.json", "plan.parquet")}
    assert len(cells) == 10_000
    assert set(cells["reason"]) == {NOT_RUN}


def test_a_file_that_is_loaded_is_opened_once(tmp_path):
    """plan.json is read once for its version, its sum and its content; all others once too."""
    folder = make(tmp_path / "results", cells=5, runs=4, rows=ROWS)
    collect(folder)

    with opened() as counts:
        bdhf.load(folder)

    names = ("plan.json", "plan.parquet", "spec.yaml", "runs.parquet", "curves.parquet")
    read = [folder / name for name in names] + [*(folder / "runs").glob("*/*.json")]
    of_folder = {path: count for path, count in counts.items() if Path(path).is_relative_to(folder)}
    assert of_folder == {str(path): 1 for path in read}


def test_tables_are_the_curves_one_after_the_other(tmp_path):
    """Every cell has the rows of its run, and in the table of runs the totals of the last row."""
    folder = make(tmp_path / "results", cells=4, runs=3, rows=ROWS)
    collect(folder)
    records = bdhf.load(folder)

    for cell in records.runs.iloc[:3].itertuples():
        curve = pd.read_parquet(folder / "runs" / cell.run_id / "curve.parquet")
        rows = records.curves[records.curves["run_id"] == cell.run_id].reset_index(drop=True)
        assert set(rows["arm"]) == {cell.arm}
        assert set(rows["seed"]) == {cell.seed}
        pd.testing.assert_frame_equal(rows[curve.columns].astype(curve.dtypes), curve)
        last = records.runs.loc[cell.Index, "update":].to_dict()
        assert last == curve.iloc[-1][list(last)].to_dict()
    assert records.runs.iloc[3]["update":].isna().all()


def test_columns_have_their_types_whatever_has_run(tmp_path):
    """Empty tables and others can be concatenated."""
    tables = []
    for runs in 0, 2:
        folder = make(tmp_path / str(runs), cells=4, runs=runs, rows=ROWS)
        collect(folder)
        tables.append(bdhf.load(folder))

    for nothing, something in zip(*[(t.runs, t.curves) for t in tables], strict=True):
        assert nothing.dtypes.to_dict() == something[list(nothing)].dtypes.to_dict()


def while_writing(monkeypatch, happens):
    """Call `happens` after every written table; return the names of these tables."""
    module = sys.modules["bdhf.records.collect"]
    write, calls = module.write_table, []

    def written(path, table):
        write(path, table)
        calls.append(path.name)
        happens(len(calls))

    monkeypatch.setattr(module, "write_table", written)
    return calls


def test_a_run_that_ends_while_tables_are_written_is_in_them(tmp_path, monkeypatch):
    """The last writer has looked after writing; runs that were read are not read again."""
    folder = make(tmp_path / "results", cells=4, runs=3, rows=ROWS)
    late = shutil.move(folder / "runs" / f"{1:016x}", tmp_path / "late")

    def end(call):
        if call == 1:
            shutil.move(late, folder / "runs" / f"{1:016x}")

    calls = while_writing(monkeypatch, end)
    with opened() as counts:
        collect(folder)

    assert calls == ["runs.parquet", "curves.parquet"] * 2
    assert bdhf.load(folder).runs["status"].tolist()[:3] == ["done"] * 3
    assert bdhf.load(folder).curves["run_id"].nunique() == 3
    assert {n for path, n in counts.items() if path.endswith("curve.parquet")} == {1}


def test_a_plan_that_changes_while_tables_are_written_is_followed(tmp_path, monkeypatch):
    """Tables are those of the plan in the folder."""
    folder = make(tmp_path / "results", cells=4, runs=3, rows=ROWS)
    plan = pd.read_parquet(folder / "plan.parquet")

    def shorten(call):
        if call == 2:
            bdhf.records.write_table(folder / "plan.parquet", plan.iloc[:2])

    while_writing(monkeypatch, shorten)
    collect(folder)

    assert len(bdhf.load(folder).runs) == 2


def test_collecting_ends_while_runs_keep_ending(tmp_path, monkeypatch):
    """The number of rounds is bounded, whatever happens meanwhile."""
    folder = make(tmp_path / "results", cells=4, runs=3, rows=ROWS)
    calls = while_writing(monkeypatch, lambda call: (folder / "runs" / f"new {call}").mkdir())

    collect(folder)

    assert 2 < len(calls) < 100


def test_records_have_a_summary(tmp_path):
    """Name, counts of runs by status, arms, and the tables."""
    folder = make(tmp_path / "results", cells=7, runs=4, rows=ROWS)
    (folder / "runs" / f"{0:016x}" / "status.json").write_text('{"status": "diverged"}')
    (folder / "runs" / f"{1:016x}" / "status.json").write_text("{")
    collect(folder)

    assert repr(bdhf.load(folder)).splitlines() == [
        "Records of made-up: 3 of 7 runs have ended (3 not run yet, 2 done, 1 diverged, 1 torn)",
        "  4 arms: adam, full_hf, block_hf, neuron_hf",
        "  .runs: 7 rows × 17 columns, a row per planned run",
        "  .curves: 9 rows × 26 columns, a row per evaluation",
        "  .environments: 3 rows × 6 columns, a row per run that has ended",
    ]


def test_the_benchmark_times_every_reader(capsys):
    """`python -m asv_bench.collect` prints seconds of three readers on two folders."""
    bench.main(["--runs", "8", "--rows", "4", "--cells", "12"])

    lines = capsys.readouterr().out.splitlines()
    matches = [re.fullmatch(r"  (\w+) +\d+\.\d\d s", line) for line in lines]
    assert [match[1] for match in matches if match] == ["planned", "collect", "load"] * 2
    assert lines[0] == "8 runs that have ended:"
