"""A process whose plan was replaced meanwhile reports it, and gives no verdict."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from bdhf.cli import app
from bdhf.experiments.ablation import Ablation
from bdhf.experiments.storage.replaced import replaced
from bdhf.records import InputError, run_status
from tests.experiments.specs import changed
from tests.experiments.synthetic import write

#: The other spec -> its description.
OTHERS = {
    "a setting": (("lr: 3.0e-3", "lr: 0.3"), "'small' (arms.adam.lr: 0.3 there, 0.003 here)"),
    "a name": (("name: small", "name: large"), "'large' (name: 'large' there, 'small' here)"),
    "a target": (("below: 0.08", "below: 0.07"), "(targets: ["),
    "more seeds": (("count: 2", "count: 3"), "(seeds.count: 3 there, 2 here)"),
    "a key more": (("stop: at_budget", "stop: at_budget\nalpha: 0.01"),
                   "(alpha: 0.01 there, nothing here)"),
    "an escape": (("name: block vs full", 'name: "a\\eb"'), "'a\\x1bb'"),
}  # fmt: skip


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with the small spec, where the commands run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spec.yaml").write_text(changed())
    return tmp_path


def opened(home, *changes):
    """The ablation of the small spec, changed, in one and the same results folder."""
    (home / "other.yaml").write_text(changed(*changes))
    return Ablation.open(home / "other.yaml", home / "out")


def run_by(ablation):
    """Make up its runs and its tables, as another process would."""
    ablation.store.begin(ablation.text, ablation.plan, ablation.tuning)
    for cell in ablation.cells:
        write(ablation.store, cell)
    ablation.store.end()


@pytest.mark.parametrize("other", OTHERS)
def test_another_spec_in_the_folder_is_reported_with_what_differs(home, other):
    """Its name, and the values on both sides, on one line that a terminal can show."""
    change, expected = OTHERS[other]
    ours = opened(home)
    run_by(opened(home, change))

    said = ours.replaced()

    assert expected in said
    assert said.isprintable()


def test_the_same_spec_is_none(home):
    """Another process with the same spec, also with other comments, shares the work."""
    ours = opened(home)
    run_by(ours)
    assert ours.replaced() == ""

    run_by(opened(home, ("schema: 1", "# of somebody else\nschema: 1")))
    assert ours.replaced() == ""


def test_the_same_text_with_other_runs_is_another_plan(home):
    """Another bdhf, or other defaults of own parts, give it other runs."""
    ours, other = opened(home), opened(home, ("lr: 3.0e-3", "lr: 0.3"))
    other.store.begin(ours.text, other.plan)

    assert ours.replaced() != ""


def test_a_folder_that_is_gone_is_reported(home):
    """One line, as for any other folder without results."""
    ours = opened(home)

    with pytest.raises(InputError, match=r"spec\.yaml: "):
        replaced(home / "out", ours.text, ours.plan)


def test_run_gives_no_verdict_on_another_plan(home, monkeypatch):
    """Another spec starts and ends during a run: exit code 1, and all runs are whole."""
    other, runs = opened(home, ("lr: 3.0e-3", "lr: 0.3")), []

    def run_all(todo, store, conditions, observer):
        runs.extend(todo)
        for cell in Ablation.open(home / "spec.yaml", home / "out").cells:
            write(store, cell)
        run_by(other)

    monkeypatch.setattr("bdhf.experiments.ablation.run_all", run_all)

    done = CliRunner().invoke(app, ["run", "spec.yaml", "--out", "out"])

    assert done.exit_code == 1, done.output
    line = done.stderr.splitlines()[-1]
    assert line.startswith("out: ")
    facts = "arms.adam.lr: 0.3 there, 0.003 here", "out/runs", "`bdhf run spec.yaml`", "--out"
    assert all(fact in line for fact in facts)
    assert "block vs full" not in done.output
    assert not (home / "out" / "report.html").exists()
    ids = {run.run_id for run in runs} | {cell.run_id for cell in other.cells}
    assert len(ids) == 8
    assert all(run_status(home / "out", run_id)["status"] == "done" for run_id in ids)
    assert (home / "out" / "spec.yaml").read_text() == other.text
