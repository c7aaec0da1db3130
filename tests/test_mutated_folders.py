"""Any damage to a file: no traceback, no other value is read, and nothing whole is changed."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from bdhf.cli import app
from bdhf.experiments.ablation import Ablation
from bdhf.experiments.observers.progress import Lines
from bdhf.records import NOT_RUN, InputError, Records, Status, collect, load, load_study
from bdhf.records.tuning import write_study
from bdhf.report import build
from tests.experiments.specs import changed
from tests.experiments.synthetic import begun, claim, write
from tests.mutations import mutate, sums
from tests.report.synthetic_study import synthetic_study

NO_FIGURES = ("seeds: {count: 2}", "report: {figures: []}\nseeds: {count: 2}")
SAMPLE, MANY = range(40), range(40, 2040)
STUDY_SAMPLE, STUDY_MANY = range(20), range(20, 320)

#: Files that are made of others, by commands that write.
MADE = ("runs.parquet", "curves.parquet", "comparisons.parquet", "multiverse.parquet",
        "report.html")  # fmt: skip

#: What the lines of `show` name that report a file that is not shown.
SHOWN = ("status.json", "spec.yaml", "curve.parquet", "env.json", "traceback.txt", "whole", "cells")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A finished folder of six runs with its report and a claim of another machine."""
    home = tmp_path_factory.mktemp("pristine")
    spec = home / "spec.yaml"
    spec.write_text(changed(NO_FIGURES))
    store, cells = begun(home / "results", NO_FIGURES)
    for n, cell in enumerate(cells):
        status = Status.DIVERGED if n == 3 else Status.DONE
        write(store, cell, status, trace="Traceback" * (n == 3), wall_seconds=10.0 + n)
    claim(store, cells[0], '{"host": "elsewhere", "pid": 7, "started": 17.0, "made": 1.5}')
    collect(store.folder)
    build(store.folder)
    shown = {cell.run_id: bdhf("show", store.runs / cell.run_id) for cell in cells}
    return spec, store.folder, load(store.folder), shown


def bdhf(*arguments: object) -> str:
    """The output of a command; it ends without a traceback, and with a reason if it fails."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert isinstance(done.exception, (SystemExit, type(None))), repr(done.exception)
    assert done.exit_code in (0, 2), done.output
    assert done.exit_code == 0 or done.stderr.strip()
    return done.stdout if done.exit_code == 0 else ""


def assert_same_values(now: Records, before: Records) -> None:
    """Each run has its old values, or none and a reason; the spec is the same."""
    for name in ("name", "spec_text", "arms", "targets", "comparisons", "budget", "alpha",
                 "evaluate_every", "budgets", "values", "stops_at_target"):  # fmt: skip
        assert getattr(now, name) == getattr(before, name), name
    counted = now.runs["status"].notna()
    assert all(
        now.runs.loc[~counted, "reason"].str.contains(f"torn: |unreadable: |foreign: |{NOT_RUN}")
    )
    intact = now.runs.loc[counted, "run_id"]
    for name in ("runs", "curves", "environments"):
        tables = getattr(now, name), getattr(before, name)
        rows = [t[t["run_id"].isin(intact)].reset_index(drop=True) for t in tables]
        pd.testing.assert_frame_equal(*rows, check_exact=True)


def words_of(text: str) -> set[str]:
    """Its lines, without the widths of columns."""
    return {" ".join(line.split()) for line in text.splitlines()}


def told(spec: Path, folder: Path, pristine, seed: int) -> None:
    """One command, in turn, on a mutated folder; its output agrees with the old content."""
    _, _, before, shown = pristine
    command = ("status", "show", "compare", "report", "plan", "run")[seed % 6]
    if command == "show":
        run_id = sorted(shown)[seed // 6 % len(shown)]
        said = bdhf("show", folder / "runs" / run_id).replace(str(folder), str(pristine[1]))
        text = " ".join(said.split())
        named = re.search(r"whole no: torn: status\.json: [^:]*?\b([0-9a-f]{16})\b", text)
        told_of = shown[run_id] + (shown.get(named[1], "") if named else "")
        new = words_of(said) - words_of(told_of)
        assert [line for line in new if not any(words in line for words in SHOWN)] == []
    elif command == "status":
        content = json.loads(bdhf("status", folder, "--json") or "{}")
        counts = {"done": 5, "diverged": 1, "failed": 0}
        assert all(content.get(key, 0) <= most for key, most in counts.items())
        troubles = sum("diverged: " not in line for line in content.get("troubles", []))
        assert not content or content["done"] + content["diverged"] + content["left"] == 6
        assert not content or content["left"] <= troubles + sum(
            not (folder / "runs" / run_id).is_dir() for run_id in shown
        )
    elif command == "plan":
        content = json.loads(bdhf("plan", spec, "--out", folder, "--json") or "{}")
        assert not content or len(content["arms"]) == 3
    elif command == "run":
        ablation = Ablation.open(spec, folder)
        with suppress(InputError):
            ablation.run([], workers=1, observer=Lines({}, 0, print))
            assert_same_values(load(folder), before)
    elif bdhf(command, folder):
        assert_same_values(load(folder), before)


def check(pristine, tmp_path: Path, seed: int) -> None:
    """Mutate a copy, run one command, and check its output and the files."""
    spec, origin, _, _ = pristine
    folder = shutil.copytree(origin, tmp_path / "results")
    what = mutate(folder, seed)
    before = sums(folder)
    try:
        told(spec, folder, pristine, seed)
        after, good = sums(folder), sums(origin)
        for path, content in before.items():
            if path.partition("/")[0] in (*MADE, "claims", "figures"):
                continue
            assert after.get(path) in (content, good.get(path)), path
    except BaseException as error:
        error.add_note(what)
        raise
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("start", range(0, len(SAMPLE), 10))
def test_a_mutated_results_folder_is_reported_and_nothing_else_is_read(pristine, tmp_path, start):
    """A sample of all mutations, with one command each."""
    for seed in SAMPLE[start : start + 10]:
        check(pristine, tmp_path, seed)


@pytest.mark.long
@pytest.mark.parametrize("start", range(0, len(MANY), 100))
def test_any_mutated_results_folder_is_reported_and_nothing_else_is_read(pristine, tmp_path, start):
    """Two thousand of them."""
    for seed in MANY[start : start + 100]:
        check(pristine, tmp_path, seed)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The folder of a study as `tune` writes it, and its content."""
    folder, records = tmp_path_factory.mktemp("study"), synthetic_study()
    tables = {"trials": records.trials, "parameters": records.parameters,
              "seeds": records.seeds, "trial_curves": records.curves}  # fmt: skip
    write_study(folder, "name: made-up\n", records.study.model_dump_json(indent=1), tables)
    return folder, load_study(folder)


def check_study(study, tmp_path: Path, seed: int) -> None:
    """Mutate a copy; its report is refused in lines, or its content is the same."""
    origin, before = study
    folder = shutil.copytree(origin, tmp_path / "study")
    what = mutate(folder, seed)
    there = sums(folder)
    try:
        try:
            now = load_study(folder)
        except InputError:
            assert bdhf("report", folder) == ""
            assert sums(folder) == there
        else:
            assert (now.text, now.study) == (before.text, before.study)
            for name in ("trials", "parameters", "seeds", "curves"):
                pd.testing.assert_frame_equal(
                    getattr(now, name), getattr(before, name), check_exact=True
                )
    except BaseException as error:
        error.add_note(what)
        raise
    finally:
        shutil.rmtree(folder)


def test_a_mutated_study_is_reported_and_nothing_else_is_read(study, tmp_path):
    """A sample of all mutations."""
    for seed in STUDY_SAMPLE:
        check_study(study, tmp_path, seed)


@pytest.mark.long
def test_any_mutated_study_is_reported_and_nothing_else_is_read(study, tmp_path):
    """Three hundred of them."""
    for seed in STUDY_MANY:
        check_study(study, tmp_path, seed)
