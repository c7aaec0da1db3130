"""Settings for some combinations of a grid: other values under the labels of the grid."""

import re

import pytest

from bdhf.experiments.errors import SpecError
from bdhf.experiments.spec.compose import read_spec
from bdhf.experiments.spec.load import variants
from bdhf.experiments.spec.yaml_source import parse
from bdhf.optim import CG
from bdhf.records import Budget
from tests.experiments.specs import SMALL, cells, changed, planned
from tests.messages import naming

GRADIENT = "batch.gradient: [100, 200]"


def lines(*entries, grid=GRADIENT):
    """A change of the small spec: a grid, and settings, one entry per line from line 12 on."""
    listed = "".join(f"  - {entry}\n" for entry in entries)
    axes = f"grid: {{{grid}}}\n" if grid else ""
    return ("seeds:", f"{axes}settings:\n{listed}seeds:")


def plan(*entries, changes=(), grid=GRADIENT):
    """The plan of the small spec with settings."""
    return planned(*changes, lines(*entries, grid=grid))


def labels(plan):
    """The arms of a plan."""
    return [arm.label for arm in plan.arms]


def pairs(plan):
    """Candidate and baseline of every comparison."""
    return [(entry.candidate, entry.baseline) for entry in plan.comparisons]


def faults(*entries, changes=(), grid=GRADIENT):
    """The lines of the error of the small spec with these settings."""
    with pytest.raises(SpecError) as caught:
        variants(parse(changed(*changes, lines(*entries, grid=grid)), "f"))
    return caught.value.lines


def ids(cells):
    """The ids of the runs of cells."""
    return [cell.run_id for cell in cells]


BOTH = (
    "{at: {batch.gradient: 100}, set: {arms.adam.lr: 0.1, budget.updates: 4}}",
    "{at: {batch.gradient: 200}, set: {arms.full_hf.solver.max_iters: 9, batch.curvature: 25}}",
)


def test_a_combination_is_the_spec_with_its_values_written_in():
    """The runs of each are those of the equal spec without a grid."""
    combined = plan(*BOTH).cells

    small = cells(
        ("gradient: 200", "gradient: 100"), ("lr: 3.0e-3", "lr: 0.1"), ("updates: 6", "updates: 4")
    )
    large = cells(
        ("partition: full, lr: 0.5", "partition: full, lr: 0.5"),
        ("curvature: 50", "curvature: 25"),
        ("partition: {type: groups", "solver: {type: cg, max_iters: 5}, partition: {type: groups"),
        ("solver: {type: cg, max_iters: 5}}\n", "solver: {type: cg, max_iters: 9}}\n"),
    )
    assert ids(c for c in combined if c.run.gradient_batch == 100) == ids(small)
    assert ids(c for c in combined if c.run.gradient_batch == 200) == ids(large)


def test_arms_are_labelled_by_the_grid_alone():
    """Settings change no label, and every combination has its budget."""
    combined = plan(*BOTH)

    assert labels(combined) == [
        f"{arm} gradient={size}"
        for arm in ("adam", "full_hf", "block_hf")
        for size in (100, 200)
    ]  # fmt: skip
    assert [arm.budget for arm in combined.arms] == [Budget(updates=4), Budget(updates=6)] * 3


def test_comparisons_pair_the_arms_of_one_combination():
    """The same pairs as without settings."""
    assert pairs(plan(*BOTH)) == pairs(planned(("seeds:", f"grid: {{{GRADIENT}}}\nseeds:")))


def test_later_entries_win():
    """Also a whole part over its argument, which an earlier entry has set."""
    combined = plan(
        "{at: {batch.gradient: [100, 200]}, set: {arms.full_hf.solver.max_iters: 9}}",
        "{at: {batch.gradient: 200}, set: {arms.full_hf.solver: cg, arms.adam.lr: 0.1}}",
        "{at: {batch.gradient: 200}, set: {arms.adam.lr: 0.2}}",
    ).cells

    solver = {c.arm: c.run.optimizer["solver"]["max_iters"] for c in combined if "full" in c.arm}
    rate = {c.arm: c.run.optimizer["lr"] for c in combined if "adam" in c.arm}
    assert solver == {"full_hf gradient=100": 9, "full_hf gradient=200": CG().max_iters}
    assert rate == {"adam gradient=100": 0.003, "adam gradient=200": 0.2}


def test_within_an_entry_a_whole_comes_before_its_parts():
    """In any order of the keys."""
    entry = "{at: {batch.gradient: 100}, set: {arms.adam.lr: 0.1, arms.adam: torch.SGD}}"

    (run,) = {c.run_id: c.run for c in plan(entry).cells if c.arm == "adam gradient=100"
              and c.seed == 0}.values()  # fmt: skip
    assert (run.optimizer["type"], run.optimizer["lr"]) == ("torch.SGD", 0.1)


def test_a_combination_is_named_by_what_stands_there_before_any_setting():
    """By its words too; values of other settings do not count, so the order does not matter."""
    grid = "arms.full_hf.solver: [cg, {type: cholesky, max_block: 100000}]"
    combined = plan(
        "{at: {arms.full_hf.solver: cholesky}, set: {arms.full_hf.lr: 0.9, batch.curvature: 25}}",
        "{at: {batch.curvature: 50, arms.full_hf.lr: [0.5]}, set: {arms.block_hf.lr: 0.8}}",
        grid=grid,
    )

    rates = {c.arm: c.run.optimizer["lr"] for c in combined.cells if "adam" not in c.arm}
    assert rates["full_hf solver=cg"] == 0.5
    assert rates["full_hf solver=cholesky"] == 0.9
    assert {rate for arm, rate in rates.items() if "block" in arm} == {0.8}


def test_an_arm_that_settings_change_is_labelled_by_the_axis_of_another():
    """With the name of that arm: `lr` alone would mean its own rate."""
    combined = plan(
        "{at: {arms.full_hf.lr: 0.25}, set: {budget.updates: 4}}",
        grid="arms.full_hf.lr: [0.25, 1.0]",
    )

    assert labels(combined) == [
        "adam full_hf.lr=0.25", "adam full_hf.lr=1",
        "full_hf lr=0.25", "full_hf lr=1",
        "block_hf full_hf.lr=0.25", "block_hf full_hf.lr=1",
    ]  # fmt: skip
    assert pairs(combined) == [
        (f"block_hf full_hf.lr={rate}", f"full_hf lr={rate}") for rate in ("0.25", "1")
    ]


def test_an_argument_may_be_set_in_a_part_that_the_grid_gives_by_name():
    """Only values that the grid itself gives cannot be set."""
    combined = plan(
        "{at: {arms.full_hf.solver: cg}, set: {arms.full_hf.solver.max_iters: 7}}",
        grid="arms.full_hf.solver: [cg, cholesky]",
    ).cells

    assert {
        c.run.optimizer["solver"].get("max_iters") for c in combined if "full_hf s" in c.arm
    } == {
        7,
        None,
    }


def test_no_baseline_is_lent_where_settings_change_the_budget():
    """Another cell represents an excluded arm only if it answers the same question."""
    left_out = ("stop:", "exclude: [{arm: full_hf, batch.gradient: 100}]\nstop:")
    rate, budget = (
        f"{{at: {{batch.gradient: 100}}, set: {{{path}: 4}}}}"
        for path in ("arms.block_hf.lr", "budget.updates")
    )

    assert ("block_hf gradient=100", "full_hf") in pairs(plan(rate, changes=[left_out]))
    assert pairs(plan(budget, changes=[left_out])) == [("block_hf gradient=200", "full_hf")]


AT = "at: {batch.gradient: 100}"
#: An entry -> the text at whose column the line points, the path, and the names in the message.
FAULTS = {
    "arm": ("arms.adm.lr: 1", "arms.adm", "set.arms.adm.lr", "'adm'", "adam"),
    "path": ("bugdet.updates: 1", "bugdet", "set.bugdet.updates", "'bugdet'", "budget"),
    "whole ablation": ("seeds.count: 1", "seeds", "set.seeds.count", "'seeds'", "batch", "arms"),
    "key": ("arms.full_hf.lrr: 1", "arms", "set.arms.full_hf.lrr", "'lrr'", "lr"),
    "key of a section": ("batch.gradint: 1", "batch.gradint", "set.batch.gradint", "'gradient'"),
    "value": ("arms.adam.lr: -1", "-1", "set.arms.adam.lr", "torch.Adam", -1),
    "inside a part": ("arms.full_hf.solver: {type: cg, max_iters: 0}", "0",
                      "set.arms.full_hf.solver.max_iters", "max_iters", 0),
    "key of a part": ("arms.full_hf.solver: {type: cg, iters: 0}", "iters",
                      "set.arms.full_hf.solver.iters", "'iters'", "max_iters"),
    "part": ("arms.full_hf.partition: ful", "ful",
             "set.arms.full_hf.partition", "'ful'", "full"),
    "into nothing": ("arms.full_hf.curvature.x: 1", "arms",
                     "set.arms.full_hf.curvature.x", "arms.full_hf.curvature", "`type`"),
    "around it": ("arms.adam.type: torch.Muon", "torch.Muon",
                  "set.arms.adam.type", "torch.Muon"),
    "two budgets": ("budget.epochs: 3", "3", "set.budget.epochs", "updates", "epochs"),
    "two axes": ("budget: {epochs: 3}", "budget", "set.budget", "epochs", "updates"),
    "consistency": ("batch.curvature: 101", "101", "set.batch.curvature", 101, 1, 100),
    "varied": ("batch.gradient: 150", "batch.gradient: 150",
               "set.batch.gradient", "batch.gradient"),
    "varied inside": ("batch: {gradient: 150}", "batch: {g", "set.batch", "batch.gradient"),
}  # fmt: skip
FAULTS = {name: (f"{{{AT}, set: {{{put}}}}}", *facts) for name, (put, *facts) in FAULTS.items()}
FAULTS |= {
    "no such value": ("{at: {batch.gradient: [300, 130]}, set: {threads: 2}}", "{batch",
                      "at", "batch.gradient", 300, 130),
    "path to find": ("{at: {bach.gradient: 100}, set: {threads: 2}}", "bach",
                     "at.bach.gradient", "'bach'", "batch"),
    "arm to find": ("{at: {arms.adm.lr: 100}, set: {threads: 2}}", "arms",
                    "at.arms.adm.lr", "'adm'", "adam", "full_hf", "block_hf"),
    "empty": (f"{{{AT}, set: {{}}}}", "{}}", "set", "{}"),
    "list": (f"{{{AT}, set: [threads]}}", "[", "set", "['threads']"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_reported_where_it_is_in_the_settings(fault):
    """Line and column are those of the value, or of its path."""
    entry, at, path, *names = FAULTS[fault]
    start = f"f:12:{5 + entry.rindex(at)}: settings.0.{path}: "

    (line,) = faults(entry)

    assert line.startswith(start), line
    assert re.match(naming(*names), line.removeprefix(start)), line


@pytest.mark.parametrize("entry", ["3", "[]", "{}", f"{{{AT}}}", f"{{{AT}, sets: {{threads: 2}}}}"])
def test_what_is_no_entry_is_reported(entry):
    """An entry has `at` and `set`, and nothing else."""
    (line,) = faults(entry)

    assert line.startswith("f:12:5: settings.0: ")
    assert re.match(naming("`at`", "`set`"), line)


def test_all_that_is_wrong_with_settings_is_reported():
    """In the order of the file, each once, even if two combinations have it."""
    lines_of_error = faults(
        "{at: {batch.gradient: [100, 200]}, set: {arms.adm.lr: 1, arms.ful_hf.lr: 1}}",
        "{at: {batch.gradient: 100}, set: {seeds.count: 1}}",
        changes=[("lr: 3.0e-3", "lr: -1")],
    )

    assert [line.split(": ")[1] for line in lines_of_error] == [
        "arms.adam.lr", "settings.0.set.arms.adm.lr", "settings.0.set.arms.ful_hf.lr",
        "settings.1.set.seeds.count",
    ]  # fmt: skip


def test_a_piece_of_what_the_grid_gives_is_varied_too():
    """Otherwise the label would show one value, and the run would have another."""
    path = "arms.full_hf.solver.max_iters"
    entry = f"{{at: {{batch.gradient: 200, {path}: 3}}, set: {{{path}: 7}}}}"

    (line,) = faults(entry, grid="arms.full_hf.solver: [{type: cg, max_iters: 3}, cholesky]")

    assert re.match(rf"f:12:\d+: settings\.0\.set\.{path}: .* arms\.full_hf\.solver\b", line)


def test_what_the_spec_itself_has_wrong_is_reported_there():
    """Once, and not at an unrelated setting."""
    wrong = ("torch.Adam, lr: 3.0e-3", "torch.Muon, lr: 3.0e-3")

    (line,) = faults(f"{{{AT}, set: {{arms.adam.weight_decay: 0.1}}}}", changes=[wrong])

    assert line.startswith("f:6:9: arms.adam: torch.Muon ")


def test_settings_need_a_grid():
    """Without a grid there is only one combination."""
    entry = f"{{{AT}, set: {{threads: 2}}}}"

    (line,) = faults(entry, grid="")

    assert line.startswith("f:10:1: settings: ")
    assert re.match(naming("`grid`"), line)


@pytest.mark.parametrize("value", ["3", "{}", "null", "a"])
def test_settings_that_are_no_list_are_reported(value):
    """Anything but a list of entries."""
    with pytest.raises(SpecError, match=r"^f:10:\d+: settings: "):
        variants(parse(changed(("seeds:", f"settings: {value}\nseeds:")), "f"))


def test_settings_are_taken_as_a_whole_by_what_is_on_top(tmp_path):
    """An upper file and `--set` replace the list, and null removes it."""
    (tmp_path / "base.yaml").write_text(SMALL + f"grid: {{{GRADIENT}}}\nsettings:\n  - {BOTH[0]}\n")
    upper = tmp_path / "upper.yaml"
    upper.write_text(f"include: base.yaml\nsettings: [{BOTH[1]}]\n")
    gone = tmp_path / "gone.yaml"
    gone.write_text("include: upper.yaml\nsettings: null\n")
    set_on_top = f"settings=[{BOTH[0]}]"

    def settings_paths(file, *settings):
        return [
            tuple(".".join(map(str, s.keys)) for s in variant.settings)
            for variant in variants(read_spec(file, settings))
        ]

    assert settings_paths(upper) == [(), ("batch.curvature", "arms.full_hf.solver.max_iters")]
    assert settings_paths(upper, set_on_top) == [("budget.updates", "arms.adam.lr"), ()]
    assert settings_paths(gone) == settings_paths(upper, "settings=null") == [(), ()]
