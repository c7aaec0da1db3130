"""Trials with parts of a user's own, whose code has changed since."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bdhf.experiments.parts import user_modules
from bdhf.tuning.outcome.collect import stored_trials
from bdhf.tuning.outcome.stale import other_code
from bdhf.tuning.storage.storage import StudyLocation
from tests.experiments.specs import CHUNKS
from tests.messages import naming
from tests.tuning.synthetic import quick, study, worked

__all__ = ["quick"]


@pytest.mark.usefixtures("quick")
def test_trials_of_other_code_are_reported_and_their_runs_not_taken_for_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line for the arm names the file; the same settings in another trial give a new run."""
    monkeypatch.setattr(user_modules._BESIDE, "folders", [])
    part = tmp_path / "oct_part.py"
    part.write_text(CHUNKS)
    own = (("partition: full", "partition: oct_part:Chunks"), ("trials: 8", "trials: 2"))
    of, folder = study(tmp_path, *own), tmp_path / "out"
    worked(of, folder)

    def told() -> list[str]:
        return list(other_code(stored_trials(of, StudyLocation(folder).open()), folder))

    before = told()
    envs = [json.loads(path.read_text()) for path in folder.glob("runs/*/env.json")]
    part.write_text(CHUNKS + "\n# another line\n")
    (line,) = told()

    assert before == []
    assert {"oct_part" in env.get("own_code", "") for env in envs} == {True, False}
    assert re.search(naming("hf:", "2 trials", part, "`name`", folder), line)

    renamed = study(tmp_path, *own, ("\nname: small", "\nname: second"))
    made = len(list(folder.glob("runs/*")))
    worked(renamed, folder)
    aside = {path.name.partition(".")[0] for path in folder.glob("stale/*")}

    assert len(list(folder.glob("runs/*"))) >= made
    assert aside
    for run_id in aside:
        spec = (folder / "runs" / run_id / "spec.yaml").read_text()
        assert "oct_part:Chunks" in spec
