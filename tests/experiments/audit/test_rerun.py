"""A run of a report is repeated: the same bits, or the first difference and its causes."""

from __future__ import annotations

import re
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
from tests.messages import naming

HERE = {**run_environment("cpu", 1)}


def claimed(arm, *changes, **update):
    """An honest entry of a report: a run of the small spec, changed."""
    run, made = cell(arm, *changes, **update).run, outcome(arm, *changes, **update)
    text = StringIO()
    YAML().dump(run.model_dump(mode="json"), text)
    return Claimed(
        run_id=run.run_id, name=f"{arm} seed 0", spec=text.getvalue(), status=str(made.status),
        curve=made.curve.astype({"update": "Int64"}), environment=HERE, short=lambda curve: curve,
    )  # fmt: skip


@pytest.fixture(scope="module")
def adam():
    """An honest entry: a run of Adam."""
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
    """A later diagnostic is no difference, and does not count as a compared number."""
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
    """The first row and column, both values to the last digit, without an explanation."""
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
    """Wall-clock differs each time."""
    assert rerun(replace(adam, curve=adam.curve.assign(seconds=7.0))).agrees


def test_another_status_and_a_shorter_curve_are_found(adam):
    """A run that was cut short to look worse, or better."""
    again = rerun(replace(adam, status="diverged", curve=adam.curve.iloc[:2]))

    assert again.differences == (
        "status: diverged in the report, done (budget of 6 updates spent) here",
        "2 evaluations in the report, 4 here",
    )


def test_what_is_otherwise_here_is_reported_where_something_differs(adam):
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

    assert adam.run_id in again.differences[0]
    assert len(again.differences) > 1


def test_a_run_of_so_many_seconds_is_held_beside_as_far_as_both_go():
    """The number of evaluations depends on the machine; their values do not."""
    claim = claimed("adam", budget=Budget(seconds=0.02))
    longer = claimed("adam", budget=Budget(updates=400)).curve  # farther than any machine comes
    wrong = claim.curve.assign(val_loss=claim.curve["val_loss"] + 1)

    assert rerun(claim).agrees
    assert rerun(replace(claim, curve=longer, status="done")).agrees
    assert rerun(replace(claim, curve=claim.curve.iloc[:1])).agrees
    assert not rerun(replace(claim, curve=wrong)).agrees


def test_what_a_report_carries_in_short_is_held_beside_in_short(adam):
    """Both curves are rounded alike."""

    def short(curve):
        return curve.assign(grad_norm=curve["grad_norm"].round(2))

    rounded = replace(adam, curve=short(adam.curve))

    assert not rerun(rounded).agrees
    assert rerun(replace(rounded, short=short)).agrees


@pytest.mark.parametrize("spec", ["{", "seed: 1", "- 1"])
def test_a_spec_that_cannot_be_run_is_one_line(adam, spec):
    """The line names the run."""
    with pytest.raises(InputError, match=rf"^{adam.run_id} \(adam seed 0\): ") as refusal:
        rerun(replace(adam, spec=spec))

    assert len(refusal.value.lines) == 1


def test_the_same_seed_draws_the_same_runs(adam):
    """In any order of the runs; each is drawn once, and only if it must end alike."""
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


def test_a_run_that_is_recorded_to_have_failed_and_does_not_is_a_difference(adam):
    """With its curve and without: here the run is done."""
    for curve in (adam.curve, adam.curve.iloc[:0]):
        again = rerun(replace(adam, status="error", curve=curve))

        assert not again.agrees
        assert again.status == "done"
        assert re.match("status: " + naming("error", "done"), again.differences[0])


@pytest.mark.parametrize("status", ["done", "error"])
def test_a_failure_is_reported_where_the_budget_is_in_seconds_too(adam, status, monkeypatch):
    """The clock may end a run before it diverges, but not before it fails."""
    made = outcome("adam")
    other = {"done": Status.ERROR, "error": Status.DONE}[status]
    monkeypatch.setattr(
        "bdhf.experiments.audit.rerun.execute", lambda *_, **__: replace(made, status=other)
    )
    claim = claimed("adam", budget=Budget(seconds=0.5), stop_at=())

    again = rerun(replace(claim, status=status))

    assert re.match("status: " + naming(status, str(other)), again.differences[0])


def test_an_honest_error_fails_again():
    """With the same evaluations up to where it failed."""
    failing = claimed("adam", ("torch.Adam,", "tests.failing:Failing,"))

    again = rerun(failing)

    assert failing.status == "error"
    assert again.agrees


def test_a_spec_of_another_run_is_reported_for_every_run(adam):
    """Also for runs that are not drawn, and for an unreadable spec."""
    other = claimed("full_hf")
    swapped = replace(adam, spec=other.spec, status="oom")
    broken = replace(adam, run_id="b", spec="seed: [")

    told = misnamed([adam, other, swapped, broken])

    assert told[0].startswith(f"{adam.run_id} (adam seed 0): ")
    assert other.run_id in told[0]
    assert told[1].startswith("b (adam seed 0): ")
    assert len(told) == 2


def test_without_a_run_to_make_again_a_line_says_so(adam):
    """No check must not look like a passed check."""
    with pytest.raises(InputError, match="--rerun"):
        choose([replace(adam, status="oom")], 1, 0)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """The records of the small spec, without any run."""
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
    assert [line.split(":")[0] for line in told[1:]] == ["adam seed 1"]
    assert len(renamed) == 6
    ids = records.runs["run_id"]
    assert all(any(i in line and i[::-1] in line for i in ids) for line in renamed)


@pytest.mark.parametrize(
    ("changed", "name", "values"),
    [
        ({"figures": ()}, "figures", ("()", "None")),
        ({"safety_seconds": 7.0}, "safety.seconds", ("7.0", "3600.0")),
        ({"evaluate_every": 9}, "largest interval", ("9", "2")),
        ({"budget": Budget(updates=9)}, "largest budget", ("9.0", "6.0")),
        ({"questions": ("x",)}, "questions", ("('x',)", "('block vs full',)")),
        ({"tuning": Tuned(study="studies/x")}, "tuned_from", ("'studies/x'", "None")),
        ({"values": {"adam": {"batch.gradient": "9"}}}, "grid", ("'batch.gradient': '9'",)),
        ({"names": {"adam": "sgd"}}, "arms of the spec", ("{'adam': 'sgd'}",)),
    ],
)
def test_whatever_of_the_spec_decides_what_a_page_says_is_held_against_it(
    records, tmp_path, changed, name, values
):
    """Also figures, sizes of a grid and the study, not only targets and comparisons."""
    (told,) = unplanned(replace(records, **changed), tmp_path / "report.html")

    assert told.startswith(f"{name}: ")
    assert all(value in told for value in values)


def test_every_field_of_the_records_is_held_against_the_spec():
    """Except the spec itself, and the tables, which other tests check."""
    held = {"name", "alpha", "targets", "arms", "names", "values", "budgets", "budget",
            "intervals", "evaluate_every", "comparisons", "twins", "questions", "figures",
            "stops_at_target", "safety_seconds", "tuning"}  # fmt: skip

    assert {f.name for f in fields(Records)} - held == {
        "spec_text", "runs", "curves", "environments"
    }  # fmt: skip


def test_equal_arms_that_are_none_and_cells_that_no_plan_skips_are_reported(records, tmp_path):
    """Neither removes a test or a run silently."""
    twins = tuple(entry.model_copy(update={"name": "x"}) for entry in records.comparisons)
    runs = records.runs.astype({"status": object, "reason": object})
    runs.loc[0, ["status", "reason"]] = "skipped", "too costly"

    told = unplanned(replace(records, twins=twins, runs=runs), tmp_path / "report.html")

    assert told[0].startswith("not compared: (Comparison(name='x'")
    assert [line.split(":")[0] for line in told[1:]] == ["adam seed 0"]


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
