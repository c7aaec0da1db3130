"""docs/records.md describes the files completely, and in the words of the code."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

import bdhf
from asv_bench.benchmarks.synthetic import folder_to_read as make
from bdhf.experiments.storage.store import Store
from bdhf.records import CURVE_COLUMNS, PLAN_INDEX, RECORDS_VERSION, Status, collect
from bdhf.records.columns import METRIC_PREFIXES, STATUSES, TABLES
from tests.experiments.engine_runs import engine
from tests.experiments.specs import SMALL, planned

DOCUMENT = (Path(__file__).parents[2] / "docs" / "records.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("table", TABLES)
def test_every_column_and_key_has_its_line(table):
    """Name, unit and meaning are the same in the document and in the code."""
    assert f"`{table}`" in DOCUMENT
    for name, (unit, meaning) in TABLES[table].items():
        assert f"| `{name}` | {unit} | {meaning} |" in DOCUMENT


def test_every_status_has_its_line():
    """The meaning of each status is the same in the document and in the code."""
    assert list(STATUSES) == list(Status)
    for status, meaning in STATUSES.items():
        assert f"| `{status}` | {meaning} |" in DOCUMENT
        assert ("missing data" in meaning) == status.is_missing


def test_the_document_names_the_version_of_today():
    """Code and document have the same number."""
    assert f"the version of these files, now {RECORDS_VERSION}." in DOCUMENT


def test_python_of_the_document_runs(tmp_path, monkeypatch):
    """Its examples run in the directory of the results."""
    collect(make(tmp_path / "results" / "x", cells=8, runs=8, rows=3))
    monkeypatch.chdir(tmp_path)
    namespace = {}

    for block in re.findall(r"```python\n(.*?)```", DOCUMENT, flags=re.DOTALL):
        exec(compile(block, "records.md", "exec"), namespace)

    assert len(namespace["final"]) == 8


def undocumented(names, table):
    """The names that the description of a table lacks; a problem's metrics need none."""
    described = TABLES[table]
    return [n for n in names if n not in described and not n.startswith(METRIC_PREFIXES)]


@pytest.mark.slow
def test_a_finished_run_has_no_undocumented_column_or_key(tmp_path):
    """The engine writes what the document describes, with the version."""
    plan, store = planned(), Store(tmp_path)
    store.begin(SMALL, plan)
    block = next(cell for cell in plan.cells if cell.arm == "block_hf")
    engine(store, [block], workers=1)
    collect(tmp_path)

    folder = tmp_path / "runs" / block.run.run_id
    status = json.loads((folder / "status.json").read_text())
    assert list(status) == sorted({*TABLES["status.json"]} - {"no_checkpoint"})
    without_own_parts = sorted({*TABLES["env.json"]} - {"own_code"})
    assert sorted(json.loads((folder / "env.json").read_text())) == without_own_parts
    assert status["records"] == json.loads((tmp_path / PLAN_INDEX).read_text())["records"]
    assert status["records"] == RECORDS_VERSION
    curve = pd.read_parquet(folder / "curve.parquet")
    assert tuple(curve.columns[: len(CURVE_COLUMNS)]) == CURVE_COLUMNS
    assert undocumented(curve, "curve.parquet") == []
    for table in ("plan", "runs", "curves"):
        columns = pd.read_parquet(tmp_path / f"{table}.parquet").columns
        assert undocumented(columns, f"{table}.parquet") == []
        assert set(TABLES[f"{table}.parquet"]) <= set(columns)
    assert list(bdhf.load(tmp_path).environments) == ["run_id", *without_own_parts]
