"""`bdhf compare`: what it prints is what was computed; it writes the table and nothing else."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from typer.testing import CliRunner

from bdhf.cli import app
from bdhf.records import load
from bdhf.stats.compare import compare
from bdhf.stats.text.sentences import sentence
from tests.commands import bdhf
from tests.report.synthetic import ENTRIES, save, synthetic_records


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A collected folder whose spec has two comparisons, one with a margin."""
    entries = [ENTRIES[0].model_copy(update={"margin": 1.1}), ENTRIES[2]]
    records = synthetic_records(comparisons=entries)
    save(records, tmp_path)
    text = (tmp_path / "spec.yaml").read_text(encoding="utf-8")
    head, _, _ = text.partition("compare:")
    named = json.dumps([entry.model_dump(exclude_none=True) for entry in entries])
    (tmp_path / "spec.yaml").write_text(f"{head}compare: {named}\n", encoding="utf-8")
    monkeypatch.setattr("bdhf.records.collect", lambda results: None)
    return tmp_path


def test_every_comparison_is_a_table_its_sentence_and_its_flags(folder):
    """Nothing that a reader must know is left out."""
    printed = bdhf("compare", folder).stdout

    for result in compare(load(folder)):
        assert sentence(result) in printed
        assert all(flag in printed for flag in result.flags)
        assert f"{result.pairs} of {result.planned}" in printed


def test_json_has_every_number_and_null_for_none(folder):
    """What JSON says is the row of comparisons.parquet."""
    found = json.loads(bdhf("compare", folder, "--json").stdout)["comparisons"]
    table = pd.read_parquet(folder / "comparisons.parquet")

    assert [row["p"] for row in found] == table["p"].tolist()
    assert [row["margin"] for row in found] == [1.1, None]
    assert [row["verdict"] for row in found] == table["verdict"].tolist()
    assert set(found[0]) == {*table.columns, "sentence"}


def test_latex_has_a_row_a_comparison_and_escapes_names(folder):
    """Underscores of metrics do not break the document; flags follow as comments."""
    printed = bdhf("compare", folder, "--latex").stdout

    rows = [line for line in printed.splitlines() if line.endswith(r"\\") and "&" in line]
    assert len(rows) == 1 + 2
    assert r"val\_loss $\leq$ 0.02" in printed
    assert printed.count("% block vs full") == sum(
        len(result.flags) for result in compare(load(folder))
    )


def test_one_form_at_a_time(folder):
    """Two forms of one output would be neither."""
    done = CliRunner().invoke(app, ["compare", str(folder), "--json", "--latex"])

    assert done.exit_code == 2
    assert "not both" in done.output


def test_an_older_folder_of_twins_has_no_verdict_of_them(folder):
    """An entry whose arms are the same runs is told in words, as JSON and in LaTeX; no more."""
    runs = pd.read_parquet(folder / "runs.parquet")
    one = runs["arm"].isin(["full_hf", "adam"])
    runs.loc[one, "run_id"] = [f"one-{seed}" for seed in runs.loc[one, "seed"]]
    runs.to_parquet(folder / "runs.parquet", index=False)
    text = (folder / "spec.yaml").read_text(encoding="utf-8")
    twin = '"margin": 1.1}, {"name": "twin", "candidate": "full_hf", "baseline": "adam"}, '
    assert '"margin": 1.1}, ' in text
    (folder / "spec.yaml").write_text(text.replace('"margin": 1.1}, ', twin), encoding="utf-8")
    said = "twin: not compared, since full_hf and adam are the same runs"

    printed = " ".join(bdhf("compare", folder).stdout.split())
    found = json.loads(bdhf("compare", folder, "--json").stdout)

    assert said in printed
    assert f"% {said}" in bdhf("compare", folder, "--latex").stdout
    assert [row["name"] for row in found["comparisons"]] == [ENTRIES[0].name, ENTRIES[2].name]
    assert {row["tests"] for row in found["comparisons"]} == {2}
    assert found["not_compared"] == [{"name": "twin", "candidate": "full_hf", "baseline": "adam"}]
