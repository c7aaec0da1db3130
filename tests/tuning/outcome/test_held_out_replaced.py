"""Warnings before the comparison on held-out seeds: other code, another plan."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from bdhf.cli.tune import _hold_out
from bdhf.experiments.storage.stale import Stale
from tests.messages import naming

STALE = Stale("hf.tuned", ("lab:Part",), ("/home/lab.py",), ("a", "b"))


def stand_in(replaced: str) -> Any:
    """An ablation without runs to make, and with two runs of other code."""
    store = SimpleNamespace(folder=Path("held_out"), runs=Path("held_out/runs"))
    return SimpleNamespace(
        cells=(), plan=SimpleNamespace(cells=()), store=store,
        left=lambda cells: {}, stale=lambda cells, left: (STALE,), labels=dict,
        run=lambda todo, **conditions: None, statuses=lambda cells: {}, replaced=lambda: replaced,
    )  # fmt: skip


@pytest.mark.parametrize("replaced", ["", "that of 'other'"])
def test_runs_of_other_code_are_reported_and_another_plan_gets_no_report(
    replaced: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A warning for the arm; for another plan exit code 1, and no report."""
    built: list[Path] = []
    monkeypatch.setattr("bdhf.tuning.outcome.held_out.held_out", lambda *of: stand_in(replaced))
    monkeypatch.setattr("bdhf.report.build", built.append)
    record: Any = SimpleNamespace(arms=())
    study: Any = SimpleNamespace(held_out_seeds=(0,), file=Path("study.yaml"))
    location: Any = SimpleNamespace(folder=Path())

    if replaced:
        with pytest.raises(typer.Exit) as ended:
            _hold_out(study, record, location, None)
        assert ended.value.exit_code == 1
    else:
        _hold_out(study, record, location, None)

    said = capsys.readouterr().err
    assert re.search(naming("warning:", "hf.tuned", "2 runs", "lab:Part"), said)
    assert bool(built) is not bool(replaced)
    assert ("that of 'other'" in said) is bool(replaced)
