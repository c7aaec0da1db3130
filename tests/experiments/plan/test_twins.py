"""Comparisons of a run with itself: refused, or left out of a grid and reported."""

import json
import re

import pandas as pd
import pytest
from typer.testing import CliRunner

import bdhf
from bdhf.cli import app
from bdhf.experiments.ablation import Ablation
from bdhf.experiments.audit.replan import unplanned
from bdhf.experiments.errors import SpecError
from bdhf.experiments.storage.store import Store
from bdhf.records import collect, twins_among
from tests.experiments.specs import changed, planned
from tests.messages import naming

ADAM = "{type: torch.Adam, lr: 3.0e-3}"
ENTRY = "  - {name: block vs full, candidate: block_hf, baseline: full_hf}\n"
TWIN = "  - {name: again, candidate: again, baseline: adam, margin: 1.1}\n"
HF = "  - {name: again, candidate: again, baseline: full_hf, estimand: final_loss, margin: 1.1}\n"


def opened(folder, *changes, settings=()):
    """The small spec, changed and opened."""
    (folder / "spec.yaml").write_text(changed(*changes))
    return Ablation.open(folder / "spec.yaml", folder / "out", settings)


def fault(folder, *changes, settings=()):
    """The single line of the error of such a spec."""
    with pytest.raises(SpecError) as error:
        opened(folder, *changes, settings=settings)
    (line,) = error.value.lines
    return line


def arm(written):
    """One more arm, named `again`."""
    return ("arms:\n", f"arms:\n  again: {written}\n")


SPELT = {
    "a default written out": (
        "{type: torch.Adam, lr: 3.0e-3, betas: [0.9, 0.999]}", TWIN,
        ("again", "adam", "betas [0.9,0.999]"),
    ),
    "the same": (
        ADAM, TWIN, ("again", "adam"),
    ),
    "a part and its name, for a loss": (
        "{type: block_hf, partition: {type: full}, lr: 0.5, damping: {type: constant, value: "
        "1.0e-2}, solver: {type: cg, max_iters: 5, tol: 5.0e-4}}", HF,
        ("again", "full_hf", "partition", "damping", "solver.tol 0.0005"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SPELT)
def test_an_entry_of_twins_is_reported_at_its_place(tmp_path, name):
    """The line has the location, the arms and why they are equal; nothing is written."""
    written, entry, names = SPELT[name]

    line = fault(tmp_path, arm(written), (ENTRY, ENTRY + entry))

    _, location, message = line.partition("spec.yaml:18:5: compare.1: ")
    assert location
    assert re.match(naming(*names), message)
    assert not (tmp_path / "out").exists()


def test_arms_may_share_their_runs_where_nothing_compares_them(tmp_path):
    """Two names for one run are allowed."""
    ablation = opened(tmp_path, arm(ADAM))

    assert [entry.name for entry in ablation.plan.comparisons] == ["block vs full"]
    assert ablation.plan.twins == ()


def test_a_setting_of_the_command_line_makes_twins(tmp_path):
    """The line is that of the entry in the file."""
    other = arm("{type: torch.Adam, lr: 1.0e-2}")
    setting = "arms.again.lr=0.003"
    assert opened(tmp_path, other, (ENTRY, ENTRY + TWIN)).plan.twins == ()

    line = fault(tmp_path, other, (ENTRY, ENTRY + TWIN), settings=[setting])

    assert re.search(r"spec\.yaml:18:5: compare\.1: .*\bagain\b.*\badam\b", line)


def test_an_included_entry_is_reported_in_its_own_file(tmp_path):
    """The upper spec makes an arm equal to one of the lower."""
    (tmp_path / "base.yaml").write_text(
        changed(arm("{type: torch.Adam, lr: 1.0e-2}"), (ENTRY, ENTRY + TWIN))
    )
    (tmp_path / "spec.yaml").write_text("include: base.yaml\narms: {again: {lr: 3.0e-3}}\n")

    with pytest.raises(SpecError) as error:
        Ablation.open(tmp_path / "spec.yaml", tmp_path / "out")

    (line,) = error.value.lines
    assert re.search(r"base\.yaml:18:5: compare\.1: .*\bagain\b.*\badam\b", line)


def grid(axes):
    """A grid of these axes."""
    return ("seeds:", f"grid: {{{axes}}}\nseeds:")


def test_one_cell_of_a_grid_is_left_out_and_reported(tmp_path):
    """The axis varies one arm only: the cell with equal arms is not a test."""
    plan = opened(tmp_path, arm(ADAM), (ENTRY, TWIN), grid("arms.again.lr: [0.003, 0.01]")).plan

    assert [entry.name for entry in plan.comparisons] == ["again lr=0.01"]
    assert [(e.name, e.candidate, e.baseline) for e in plan.twins] == [
        ("again lr=0.003", "again lr=0.003", "adam")
    ]


def test_an_axis_that_both_arms_pass_by_leaves_nothing_to_compare(tmp_path):
    """Adam uses no curvature: every combination of the grid is the same pair of equal runs."""
    line = fault(tmp_path, arm(ADAM), (ENTRY, TWIN), grid("batch.curvature: [25, 50]"))

    assert re.search(r" compare\.0: .*\bagain\b.*\badam\b.*\bgrid\b", line)


def test_settings_of_a_grid_make_twins(tmp_path):
    """Values from `settings` count like written ones."""
    entries = "settings: [{at: {batch.gradient: 100}, set: {arms.again.lr: 3.0e-3}}]\nseeds:"
    axis = ("seeds:", f"grid: {{batch.gradient: [100, 200]}}\n{entries}")

    plan = opened(
        tmp_path, arm("{type: torch.Adam, lr: 0.1}"), (ENTRY, TWIN), axis,
        ("curvature: 50", "curvature: 0.25"),
    ).plan  # fmt: skip

    assert [entry.name for entry in plan.twins] == ["again gradient=100"]
    assert [entry.name for entry in plan.comparisons] == ["again gradient=200"]


def test_what_plan_says_to_machines_has_them_apart(tmp_path):
    """A comparison that is not made is listed, but is not a test."""
    ablation = opened(tmp_path, arm(ADAM), (ENTRY, TWIN), grid("arms.again.lr: [0.003, 0.01]"))

    said = ablation.preview(ablation.cells, ()).to_json()

    assert [entry["name"] for entry in said["comparisons"]] == ["again lr=0.01"]
    assert said["not_compared"] == [
        {"name": "again lr=0.003", "candidate": "again lr=0.003", "baseline": "adam"}
    ]


def test_the_reader_of_a_folder_has_them_apart(tmp_path):
    """plan.json lists the twins; without twins it has no such key."""
    ablation = opened(tmp_path, arm(ADAM), (ENTRY, TWIN), grid("arms.again.lr: [0.003, 0.01]"))
    for folder, plan in ((tmp_path / "grid", ablation.plan), (tmp_path / "small", planned())):
        Store(folder).begin(ablation.text, plan)
        collect(folder)

    records = bdhf.load(tmp_path / "grid")

    assert records.comparisons == ablation.plan.comparisons
    assert records.twins == ablation.plan.twins
    assert '"twins"' in (tmp_path / "grid" / "plan.json").read_text()
    assert '"twins"' not in (tmp_path / "small" / "plan.json").read_text()


def test_a_plan_of_an_older_version_is_read_alike(tmp_path):
    """There all entries are in one list, also those of twins."""
    ablation = opened(tmp_path, arm(ADAM), (ENTRY, TWIN), grid("arms.again.lr: [0.003, 0.01]"))
    Store(tmp_path).begin(ablation.text, ablation.plan)
    index = json.loads((tmp_path / "plan.json").read_text())
    index["comparisons"] += index.pop("twins")
    (tmp_path / "plan.json").write_text(json.dumps(index))
    plan = pd.read_parquet(tmp_path / "plan.parquet")
    plan.to_parquet(tmp_path / "plan.parquet", index=False)  # without sums, as it was then

    records = bdhf.load(tmp_path)

    assert records.comparisons == ablation.plan.comparisons
    assert records.twins == ablation.plan.twins
    assert unplanned(records, tmp_path / "report.html") == ()


@pytest.mark.parametrize("command", ["plan", "run"])
def test_commands_refuse_an_entry_of_twins_and_tell_of_a_cell(tmp_path, command):
    """The first gives one line and no folder; the second, one more line of `plan`."""
    spec, out = tmp_path / "spec.yaml", tmp_path / "out"
    spec.write_text(changed(arm(ADAM), (ENTRY, TWIN)))
    refused = CliRunner().invoke(app, [command, str(spec), "--out", str(out)])
    spec.write_text(changed(arm(ADAM), (ENTRY, TWIN), grid("arms.again.lr: [0.003, 0.01]")))
    planned_grid = CliRunner().invoke(app, ["plan", str(spec), "--out", str(out)])

    assert refused.exit_code == 2
    assert re.search(r"compare\.0: again\b.*\badam\b", " ".join(refused.output.split()))
    assert not out.exists()
    output = " ".join(planned_grid.output.split())
    assert re.search(r"again lr=0\.003: .*again lr=0\.003 and adam", output)
    assert planned_grid.output.count("compare again") == 1


def test_arms_without_a_common_seed_are_no_twins():
    """Nor are arms that share only some of their runs."""
    entry = planned().comparisons
    names = (entry[0].candidate, entry[0].baseline)
    apart = [(names[0], 0, "a"), (names[1], 1, "a")]
    partly = [(arm, seed, run) for arm, run in zip(names, "ab", strict=True) for seed in (0,)]

    assert twins_among(entry, apart) == ()
    assert twins_among(entry, [*partly, *((arm, 1, "c") for arm in names)]) == ()
    assert twins_among(entry, [(arm, seed, f"{seed}") for arm in names for seed in (0, 1)]) == entry
