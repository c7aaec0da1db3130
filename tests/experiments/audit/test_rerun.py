"""A run that a report shows is made again: the same bits, or the first that is not, and why."""

from __future__ import annotations

from dataclasses import fields, replace
from io import StringIO

import numpy as np
import pytest
from ruamel.yaml import YAML

from bdhf.experiments.audit.replan import unplanned
from bdhf.experiments.audit.rerun import Claimed, choose, misnamed, rerun, unrepeatable_runs
from bdhf.experiments.run.provenance import run_environment
from bdhf.optim import ALGORITHM_VERSION
from bdhf.records import Budget, InputError, Records, Status, Tuned, load
from tests.experiments.specs import cell, outcome
from tests.experiments.synthetic import begun

HERE = {**run_environment("cpu", 1)}


def claimed(arm, *changes, **update):
    """An honest claim: what a report says of a run of the small spec, changed."""
    run, made = cell(arm, *changes, **update).run, outcome(arm, *changes, **update)
    text = StringIO()
    YAML().dump(run.model_dump(mode="json"), text)
    return Claimed(
        run_id=run.run_id, name=f"{arm} seed 0", spec=text.getvalue(), status=str(made.status),
        curve=made.curve.astype({"update": "Int64"}), environment=HERE, short=lambda curve: curve,
    )  # fmt: skip


@pytest.fixture(scope="module")
def adam():
    """A run of Adam, honestly claimed."""
    return claimed("adam")


@pytest.mark.parametrize("arm", ["adam", "full_hf", "block_hf"])
def test_an_honest_run_has_the_same_bits(arm):
    """Every column but the seconds, in every evaluation."""
    claim = claimed(arm)

    again = rerun(claim)

    assert again.agrees
    assert again.explanations == ()
    assert again.rows == len(claim.curve) == 4
    assert again.numbers == 4 * (claim.curve.shape[1] - 1)


def test_what_an_older_bdhf_did_not_record_is_not_held_against_it():
    """A diagnostic that came later is no difference, and no number that was held beside another."""
    claim = claimed("full_hf")
    older = replace(claim, curve=claim.curve.drop(columns=["stop_converged", "stop_progress"]))

    again = rerun(older)

    assert again.agrees
    assert again.numbers == rerun(claim).numbers - 2 * again.rows


def test_a_diverged_run_diverges_again():
    """NaN where NaN was, and the same status."""
    claim = claimed("adam", ("torch.Adam, lr: 3.0e-3", "torch.SGD, lr: 1.0e+30"))
    assert claim.status == "diverged"

    assert rerun(claim).agrees


def test_one_changed_bit_is_found(adam):
    """The first row and column, both values to the last digit, and that nothing explains it."""
    curve = adam.curve.copy()
    true = float(curve["val_loss"][2])
    curve.loc[2:, "val_loss"] = np.nextafter(true, 0)

    again = rerun(replace(adam, curve=curve))

    assert not again.agrees
    assert again.differences == (
        f"evaluation 2 (update 4), val_loss: {float(curve['val_loss'][2])!r} in the report, "
        f"{true!r} here",
    )
    assert again.explanations == ()


def test_seconds_may_differ(adam):
    """No clock shows the same time twice."""
    assert rerun(replace(adam, curve=adam.curve.assign(seconds=7.0))).agrees


def test_another_status_and_a_shorter_curve_are_found(adam):
    """A run that was cut short to look worse, or better."""
    again = rerun(replace(adam, status="diverged", curve=adam.curve.iloc[:2]))

    assert again.differences == (
        "status: diverged in the report, done (budget of 6 updates spent) here",
        "2 evaluations in the report, 4 here",
    )


def test_what_is_otherwise_here_is_told_where_something_differs(adam):
    """Versions, processor, threads, algorithm: what can change the bits, and no more."""
    other = {**HERE, "torch": "1.0", "cpu": "Z80", "threads": 64, "host": "elsewhere"}
    spec = adam.spec.replace(f"algorithm: {ALGORITHM_VERSION}", "algorithm: 0")
    curve = adam.curve.assign(val_loss=1.0)

    agreeing = rerun(replace(adam, environment=other))
    differing = rerun(replace(adam, environment=other, curve=curve, spec=spec))

    assert agreeing.explanations == ()
    told = differing.explanations
    assert told[0] == f"algorithm: version 0 there, {ALGORITHM_VERSION} here"
    assert [line.split(":")[0] for line in told[1:]] == ["torch", "cpu", "threads"]
    assert f"torch: '1.0' there, {HERE['torch']!r} here" in told


def test_the_spec_of_another_run_is_found(adam):
    """The id of a run is a hash of its spec: with another seed it is another run."""
    again = rerun(replace(adam, spec=adam.spec.replace("seed: 0", "seed: 1")))

    assert again.differences[0].startswith("the spec is that of run ")
    assert len(again.differences) > 1


def test_a_run_of_so_many_seconds_is_held_beside_as_far_as_both_go():
    """How far it comes depends on the machine; what it meets on the way does not."""
    claim = claimed("adam", budget=Budget(seconds=0.02))
    longer = claimed("adam", budget=Budget(updates=400)).curve  # farther than any machine comes
    wrong = claim.curve.assign(val_loss=claim.curve["val_loss"] + 1)

    assert rerun(claim).agrees
    assert rerun(replace(claim, curve=longer, status="done")).agrees
    assert rerun(replace(claim, curve=claim.curve.iloc[:1])).agrees
    assert not rerun(replace(claim, curve=wrong)).agrees


def test_what_a_report_carries_in_short_is_held_beside_in_short(adam):
    """Both curves go through the same rounding."""

    def short(curve):
        return curve.assign(grad_norm=curve["grad_norm"].round(2))

    rounded = replace(adam, curve=short(adam.curve))

    assert not rerun(rounded).agrees
    assert rerun(replace(rounded, short=short)).agrees


@pytest.mark.parametrize("spec", ["{", "seed: 1", "- 1"])
def test_a_spec_that_cannot_be_run_is_one_line(adam, spec):
    """It is told which run it is."""
    with pytest.raises(InputError, match=rf"^{adam.run_id} \(adam seed 0\): its spec is none"):
        rerun(replace(adam, spec=spec))


def test_the_same_seed_draws_the_same_runs(adam):
    """Whatever the order of the runs; none that must not end alike is drawn, and none twice."""
    runs = [replace(adam, run_id=f"{i:02d}") for i in range(18)]
    runs += [replace(adam, run_id=f"{i}", status="error") for i in (18, 19)]
    runs += [replace(adam, run_id="x", status="oom"), replace(adam, run_id="y", status="timeout")]
    runs += [replace(adam, run_id="z", spec="")]

    drawn = choose(runs, 5, 7)

    assert choose(runs[::-1], 5, 7) == drawn
    assert len({claim.run_id for claim in drawn}) == 5
    assert {claim.run_id for claim in choose(runs, 99, 1)} == {f"{i:02d}" for i in range(20)}
    assert {choose(runs, 1, seed)[0].run_id for seed in range(50)} > {"00", "19"}
    assert unrepeatable_runs(runs) == {"oom": 1, "timeout": 1, "done": 1}


def test_a_run_that_is_said_to_have_failed_and_does_not_is_a_difference(adam):
    """Whether its curve was taken out or left: here the run is done."""
    for curve in (adam.curve, adam.curve.iloc[:0]):
        again = rerun(replace(adam, status="error", curve=curve))

        assert not again.agrees
        assert again.status == "done"
        assert again.differences[0].startswith("status: error in the report, done (budget of 6")


@pytest.mark.parametrize("status", ["done", "error"])
def test_a_failure_is_told_where_the_budget_is_in_seconds_too(adam, status, monkeypatch):
    """The clock may end a run before it diverges, and not before it fails."""
    made = outcome("adam")
    other = {"done": Status.ERROR, "error": Status.DONE}[status]
    monkeypatch.setattr(
        "bdhf.experiments.audit.rerun.execute", lambda *_, **__: replace(made, status=other)
    )
    claim = claimed("adam", budget=Budget(seconds=0.5), stop_at=())

    again = rerun(replace(claim, status=status))

    assert again.differences[0].startswith(f"status: {status} in the report, {other} (")


def test_an_honest_error_fails_again():
    """With the same evaluations up to where it failed."""
    failing = claimed("adam", ("torch.Adam,", "tests.failing:Failing,"))

    again = rerun(failing)

    assert failing.status == "error"
    assert again.agrees


def test_a_spec_of_another_run_is_told_of_every_run(adam):
    """Also of runs that are not drawn, and of those whose spec cannot be read."""
    other = claimed("full_hf")
    swapped = replace(adam, spec=other.spec, status="oom")
    broken = replace(adam, run_id="b", spec="seed: [")

    told = misnamed([adam, other, swapped, broken])

    assert told[0].startswith(f"{adam.run_id} (adam seed 0): its spec is that of run ")
    assert told[0].endswith(other.run_id)
    assert "b (adam seed 0): its spec is none that this bdhf can run" in told[1]
    assert len(told) == 2


def test_without_a_run_to_make_again_a_line_says_so(adam):
    """Nothing passes for a check that was none."""
    with pytest.raises(InputError, match="there is none to make again"):
        choose([replace(adam, status="oom")], 1, 0)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """The records of the small spec, of which nothing has run."""
    return load(begun(tmp_path_factory.mktemp("plan") / "small")[0].folder)


def test_the_plan_of_a_spec_is_that_of_its_report(records, tmp_path):
    """Arms, seeds, run ids, targets and comparisons follow from the spec."""
    assert unplanned(records, tmp_path / "report.html") == ()


def test_what_was_left_out_of_a_plan_or_changed_is_found(records, tmp_path):
    """Runs that were dropped, a target that was moved, a comparison that was added."""
    runs = records.runs[(records.runs["arm"] != "adam") | (records.runs["seed"] != 1)]
    (target,) = records.targets
    moved = (target.model_copy(update={"below": 0.09}),)
    other = records.runs.assign(run_id=records.runs["run_id"].str[::-1])

    told = unplanned(replace(records, runs=runs, targets=moved), tmp_path / "report.html")
    renamed = unplanned(replace(records, runs=other), tmp_path / "report.html")

    assert told[0].startswith("targets: ")
    assert told[1:] == ("adam seed 1: planned by the spec, and left out of the report",)
    assert len(renamed) == 6
    assert all(line.endswith(" by its spec") for line in renamed)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"figures": ()}, "figures: () in the report, None by its spec"),
        ({"safety_seconds": 7.0}, "safety.seconds: 7.0 in the report, 3600.0 by its spec"),
        ({"evaluate_every": 9}, "largest interval: 9 in the report, 2 by its spec"),
        ({"budget": Budget(updates=9)}, "largest budget: 9.0 in the report, 6.0 by its spec"),
        ({"questions": ("x",)}, "questions: ('x',) in the report, ('block vs full',) by its spec"),
        ({"tuning": Tuned(study="studies/x")}, "tuned_from: 'studies/x' in the report, None by"),
        ({"values": {"adam": {"batch.gradient": "9"}}}, "grid: {'adam': {'batch.gradient': '9'}"),
        ({"names": {"adam": "sgd"}}, "arms of the spec: {'adam': 'sgd'} in the report"),
    ],
)
def test_whatever_of_the_spec_decides_what_a_page_says_is_held_against_it(
    records, tmp_path, changed, line
):
    """Figures that were left out, sizes of a grid, a study: not only targets and comparisons."""
    (told,) = unplanned(replace(records, **changed), tmp_path / "report.html")

    assert told.startswith(line)


def test_every_field_of_the_records_is_held_against_the_spec():
    """But the spec itself, the tables, and what a test of its own is about."""
    held = {"name", "alpha", "targets", "arms", "names", "values", "budgets", "budget",
            "intervals", "evaluate_every", "comparisons", "twins", "questions", "figures",
            "stops_at_target", "safety_seconds", "tuning"}  # fmt: skip

    assert {f.name for f in fields(Records)} - held == {
        "spec_text", "runs", "curves", "environments"
    }  # fmt: skip


def test_equal_arms_that_are_none_and_cells_that_no_plan_skips_are_told(records, tmp_path):
    """Neither takes a test or a run away without a word."""
    twins = tuple(entry.model_copy(update={"name": "x"}) for entry in records.comparisons)
    runs = records.runs.astype({"status": object, "reason": object})
    runs.loc[0, ["status", "reason"]] = "skipped", "too costly"

    told = unplanned(replace(records, twins=twins, runs=runs), tmp_path / "report.html")

    assert told[0].startswith("not compared: (Comparison(name='x'")
    assert told[1:] == ("adam seed 0: skipped in the report, and to be run by its spec",)


def test_what_a_plan_skips_and_compares_of_equal_arms_is_no_difference(tmp_path):
    """An honest report of a grid with twins, with an arm that costs too much."""
    twin = "block vs full, candidate: block_hf, baseline: full_hf}"
    changes = (
        ("  block_hf:", "  twin: {<<: *hf, partition: full}\n  block_hf:"),
        (f"  - {{name: {twin}", f"  - {{name: {twin}\n"
         "  - {name: same, candidate: twin, baseline: full_hf}\n"
         "grid: {arms.twin.lr: [0.5, 0.25]}\nsafety: {gradient_equivalents: 1.0}"),
    )  # fmt: skip
    there = load(begun(tmp_path / "small", *changes)[0].folder)

    assert there.twins
    assert "skipped" in set(there.runs["status"])
    assert unplanned(there, tmp_path / "report.html") == ()
