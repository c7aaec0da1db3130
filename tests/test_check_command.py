"""`bdhf plan` and `bdhf run` refuse what cannot run, before anything is written or claimed."""

import json

import pytest

from tests.commands import bdhf
from tests.experiments.own_problems import written


@pytest.fixture
def there(tmp_path, monkeypatch):
    """The working directory of the commands."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


#: A command, and what it refuses: an arm, the problem of all arms, and data that only `run` loads.
REFUSED = {
    "plan an arm": ("plan", "Dropping", ("arms.hf: hf: ", "Dropout")),
    "plan a problem": ("plan", "Flat", ("problem: own_problems_here:Flat", "mse_loss")),
    "run an arm": ("run", "Dropping", ("arms.hf: hf: ", "Dropout")),
    "run on data": ("run", "Many", ("`samples`", "5000", "load()", "40")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_run_is_refused_before_anything_is_written(there, case):
    """Exit code 2, one line on stderr with the location, and no results folder."""
    command, problem, facts = REFUSED[case]
    written(there, problem)

    done = bdhf(command, "spec.yaml", "--out", "results", code=2)

    (line,) = done.stderr.splitlines()
    assert line.startswith("spec.yaml:")
    assert all(fact in line for fact in facts)
    assert done.stdout == ""
    assert not (there / "results").exists()


def test_no_check_plans_all_the_same(there):
    """The user can skip the check."""
    written(there, "Dropping")

    assert "4 runs, 0 done" in bdhf("plan", "spec.yaml", "--no-check").stdout


def test_arms_that_are_not_selected_are_not_tried(there):
    """A valid arm of a spec can be planned alone."""
    written(there, "Dropping")

    assert "own: 2 runs, 0 done, 2 to do" in bdhf("plan", "spec.yaml", "--only", "adam").stdout
    bdhf("plan", "spec.yaml", "--only", "hf", code=2)


def test_what_is_left_out_is_reported_on_stderr(there, monkeypatch):
    """The JSON output stays the same."""
    monkeypatch.setattr("bdhf.experiments.dry_run.check.SECONDS", -1.0)
    monkeypatch.setattr("bdhf.experiments.dry_run.check.is_kept", lambda key: False)
    written(there)

    done = bdhf("plan", "spec.yaml", "--json")

    assert json.loads(done.stdout)["runs"] == 4
    assert done.stderr.startswith("warning: not checked: adam and 1 more: ")
    assert " -1 s " in done.stderr


@pytest.mark.slow
def test_no_check_runs_what_fails_and_records_it(there):
    """The runs then fail themselves; and with nothing left to do, nothing is tried."""
    written(there, "Dropping", ("count: 2", "count: 1"))

    bdhf("run", "spec.yaml", "--no-check", "--out", "results", code=1)
    again = bdhf("run", "spec.yaml", "--out", "results", code=1)

    assert "own: 2 runs, 1 done, 1 error, 0 to do" in again.stdout
    assert "1 error" in again.stderr
