"""`bdhf compare`: what it prints is what was computed; it writes the table and nothing else."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from typer.testing import CliRunner

from bdhf.cli import app
from bdhf.records import load
from bdhf.stats.caveats.twins import not_compared
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
    """Nothing is left out."""
    printed = bdhf("compare", folder).stdout

    for result in compare(load(folder)):
        assert sentence(result) in printed
        assert all(flag in printed for flag in result.flags)
        assert f"{result.pairs} of {result.planned}" in printed


def test_json_has_every_number_and_null_for_none(folder):
    """The JSON has the rows of comparisons.parquet."""
    rows = json.loads(bdhf("compare", folder, "--json").stdout)["comparisons"]
    table = pd.read_parquet(folder / "comparisons.parquet")

    assert [row["p"] for row in rows] == table["p"].tolist()
    assert [row["margin"] for row in rows] == [1.1, None]
    assert [row["verdict"] for row in rows] == table["verdict"].tolist()
    assert set(rows[0]) == {*table.columns, "sentence"}


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
    """Two forms of one output exclude each other."""
    done = CliRunner().invoke(app, ["compare", str(folder), "--json", "--latex"])

    assert done.exit_code == 2
    assert "--json" in done.output
    assert "--latex" in done.output


def test_an_older_folder_of_twins_has_no_verdict_of_them(folder):
    """An entry whose arms are the same runs is only listed, in words, as JSON and in LaTeX."""
    runs = pd.read_parquet(folder / "runs.parquet")
    twins = runs["arm"].isin(["full_hf", "adam"])
    runs.loc[twins, "run_id"] = [f"one-{seed}" for seed in runs.loc[twins, "seed"]]
    runs.to_parquet(folder / "runs.parquet", index=False)
    text = (folder / "spec.yaml").read_text(encoding="utf-8")
    twin = '"margin": 1.1}, {"name": "twin", "candidate": "full_hf", "baseline": "adam"}, '
    assert '"margin": 1.1}, ' in text
    (folder / "spec.yaml").write_text(text.replace('"margin": 1.1}, ', twin), encoding="utf-8")
    (said,) = not_compared(load(folder).twins)

    printed = " ".join(bdhf("compare", folder).stdout.split())
    content = json.loads(bdhf("compare", folder, "--json").stdout)

    assert said in printed
    assert f"% {said}" in bdhf("compare", folder, "--latex").stdout
    assert [row["name"] for row in content["comparisons"]] == [ENTRIES[0].name, ENTRIES[2].name]
    assert {row["tests"] for row in content["comparisons"]} == {2}
    assert content["not_compared"] == [{"name": "twin", "candidate": "full_hf", "baseline": "adam"}]
