"""The journal of a study has Optuna's format: its dashboard shows the whole content."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna_dashboard
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from bdhf.tuning.outcome.collect import stored_trials
from bdhf.tuning.outcome.trial_rows import CellTrials
from bdhf.tuning.storage.storage import StudyLocation
from bdhf.tuning.study.study import Study
from tests.tuning.synthetic import quick, study, worked

__all__ = ["quick"]

#: Characters of an attribute that the dashboard shows.
SHOWN = 1000

Get = Callable[[str], Any]


@pytest.fixture
def of(tmp_path: Path, quick: None) -> Study:
    """A finished study whose runs report to a pruner."""
    tuned = study(
        tmp_path, ("trials: 8", "trials: 6"), ("sampler: {", "pruner: median\nsampler: {")
    )
    worked(tuned, tmp_path / "out")
    return tuned


@pytest.fixture
def get(of: Study, tmp_path: Path) -> Get:
    """Requests to `optuna-dashboard out/journal.log`, which opens the file like this."""
    journal = str(StudyLocation(tmp_path / "out").journal)
    app = optuna_dashboard.wsgi(JournalStorage(JournalFileBackend(journal)))

    def fetch(path: str) -> Any:
        request: dict[str, Any] = {"PATH_INFO": path}
        setup_testing_defaults(request)
        said: list[str] = []
        body = b"".join(app(request, lambda status, headers, error=None: said.append(status)))
        assert said == ["200 OK"]
        return json.loads(body)

    return fetch


def test_every_study_is_listed_under_its_name(of: Study, get: Get) -> None:
    """One study for each arm, `STUDY/ARM`, which is minimised."""
    listed = get("/api/studies")["study_summaries"]

    names = {summary["study_name"]: summary["directions"] for summary in listed}
    assert names == {f"{of.name}/{cell.label}": ["minimize"] for cell in of.cells}


def test_every_trial_is_shown_with_all_that_is_known_of_it(
    of: Study, tmp_path: Path, get: Get
) -> None:
    """States, values, parameters, attributes and curves equal the study's records."""
    location = StudyLocation(tmp_path / "out")
    before = location.journal.read_bytes()
    shown = {
        summary["study_name"]: get(f"/api/studies/{summary['study_id']}")
        for summary in get("/api/studies")["study_summaries"]
    }
    assert location.journal.read_bytes() == before

    for arm in stored_trials(of, location.open()):
        there = shown[f"{of.name}/{arm.cell.label}"]
        assert there["objective_names"] == ["updates_to_target"]
        assert there["has_intermediate_values"]
        check(arm, there["trials"])


def check(arm: CellTrials, shown: list[dict[str, Any]]) -> None:
    """Compare the trials of an arm with the shown ones."""
    assert len(shown) == len(arm.trials) == 6
    for trial, there in zip(arm.trials, shown, strict=True):
        assert there["state"] == trial.state.name.capitalize()
        assert there["values"] == trial.values
        assert {p["name"]: p["param_external_value"] for p in there["params"]} == {
            name: str(value) for name, value in trial.params.items()
        }
        steps = {point["step"]: point["value"] for point in there["intermediate_values"]}
        assert steps == trial.intermediate_values
        for attribute in there["user_attrs"]:
            value = trial.user_attrs[attribute["key"]]
            words = json.dumps(value) if isinstance(value, (list, dict)) else str(value)
            assert attribute["value"][:SHOWN] == words[:SHOWN]
        assert {attribute["key"] for attribute in there["user_attrs"]} == set(trial.user_attrs)
