"""Excluded cells of a grid, unions of grids, and the comparisons that remain."""

import re

import pytest

from bdhf.experiments.errors import SpecError
from bdhf.experiments.spec.load import variants
from bdhf.experiments.spec.yaml_source import parse
from tests.experiments.specs import changed, planned
from tests.messages import naming

GRID = "grid:\n  batch.gradient: [100, 200]\n  arms.full_hf.lr: [0.25, 1.0]\n"


def plan(*lines):
    """The plan of the small spec with these lines before the seeds."""
    return planned(("count: 2", "count: 1"), ("seeds:", "\n".join([*lines, "seeds:"])))


def labels(planned):
    """The arms of a plan."""
    return [arm.label for arm in planned.arms]


def pairs(planned):
    """Candidate and baseline of every comparison."""
    return [(entry.candidate, entry.baseline) for entry in planned.comparisons]


def faults(*lines):
    """The lines of the error of the small spec with these lines."""
    with pytest.raises(SpecError) as caught:
        variants(parse(changed(("seeds:", "\n".join([*lines, "seeds:"]))), "f"))
    return caught.value.lines


def test_a_list_of_grids_is_their_union():
    """Each grid has its product; a combination of two grids counts once."""
    repeated = "{batch.gradient: [100, 200], arms.full_hf.lr: [0.25]}"
    union = plan(f"grid:\n  - {repeated}\n  - {{batch.gradient: [50]}}\n  - {repeated}")

    assert labels(union) == [
        "adam gradient=100", "adam gradient=200", "adam gradient=50",
        "full_hf gradient=100", "full_hf gradient=200", "full_hf gradient=50",
        "block_hf gradient=100", "block_hf gradient=200", "block_hf gradient=50",
    ]  # fmt: skip
    rates = {c.run.gradient_batch: c.run.optimizer["lr"] for c in union.cells if "full" in c.arm}
    assert rates == {100: 0.25, 200: 0.25, 50: 0.5}


def test_a_value_has_the_same_words_in_every_grid():
    """Two solvers of one type have different words across the grids of a union."""
    union = plan(
        "grid:",
        "  - {arms.full_hf.solver: [{type: cg, max_iters: 3}]}",
        "  - {arms.full_hf.solver: [{type: cg, max_iters: 4}]}",
    )

    assert [label for label in labels(union) if "full" in label] == [
        "full_hf solver=cg(max_iters=3)",
        "full_hf solver=cg(max_iters=4)",
    ]


def test_what_is_excluded_is_not_planned_and_says_why():
    """Cells that match an entry are left out, and listed with the entry."""
    reduced = plan(GRID + "exclude: [{arm: full_hf, batch.gradient: 100, arms.full_hf.lr: [1.0]}]")

    assert "full_hf lr=1 gradient=100" not in labels(reduced)
    assert "full_hf lr=0.25 gradient=100" in labels(reduced)
    assert [(e.arm, e.combination, e.why) for e in reduced.excluded] == [
        ("full_hf", "gradient=100 lr=1", "full_hf, batch.gradient 100, arms.full_hf.lr 1")
    ]


def test_an_entry_without_arms_leaves_out_every_arm():
    """A combination without arms has no cell."""
    reduced = plan(GRID + "exclude: [{batch.gradient: [100]}]")

    assert {cell.run.gradient_batch for cell in reduced.cells} == {200}


def test_a_value_may_be_named_by_its_words():
    """A part is excluded by its type, with any arguments."""
    reduced = plan(
        "grid: {arms.full_hf.solver: [cg, {type: cholesky, max_block: 100000}]}",
        "exclude: [{arms.full_hf.solver: cholesky, arm: full_hf}]",
    )

    assert [label for label in labels(reduced) if "full" in label] == ["full_hf"]


def test_an_arm_that_is_left_out_on_an_axis_is_compared_with_every_cell_of_it():
    """It runs once on that axis, and is compared with each of the other arm's cells."""
    reduced = plan(
        "grid: {batch.gradient: [50, 100, 200]}",
        "exclude: [{arm: full_hf, batch.gradient: [50, 100]}]",
    )

    assert [label for label in labels(reduced) if "full" in label] == ["full_hf"]
    assert pairs(reduced) == [
        ("block_hf gradient=50", "full_hf"),
        ("block_hf gradient=100", "full_hf"),
        ("block_hf gradient=200", "full_hf"),
    ]


def test_on_other_axes_a_left_out_arm_is_compared_with_its_own_cell():
    """An exclusion on one axis does not reuse a cell across another axis."""
    reduced = plan(
        "grid: {batch.gradient: [100, 200], batch.curvature: [25, 50]}",
        "exclude: [{arm: full_hf, batch.curvature: 25}]",
    )

    assert pairs(reduced) == [
        (f"block_hf gradient={gradient} curvature={curvature}", f"full_hf gradient={gradient}")
        for gradient in (100, 200)
        for curvature in (25, 50)
    ]


def test_where_two_cells_are_left_none_is_chosen():
    """With two possible baselines there is no comparison."""
    reduced = plan(
        "grid: {batch.gradient: [50, 100, 200]}",
        "exclude: [{arm: full_hf, batch.gradient: 50}]",
    )

    assert pairs(reduced) == [
        ("block_hf gradient=100", "full_hf gradient=100"),
        ("block_hf gradient=200", "full_hf gradient=200"),
    ]


#: A fault -> how its line begins, and what the line names.
FAULTS = {
    "no list": ("exclude: {arm: adam}", "f:13:10: exclude: ", ("{'arm': 'adam'}",)),
    "no mapping": ("exclude: [adam]", "f:13:11: exclude.0: ", ("`arm`", "'adam'")),
    "arm": ("exclude: [{arm: adm}]", "f:13:17: exclude.0.arm: ", ("'adm'", "adam")),
    "path": ("exclude: [{arms.adm.lr: 1}]", "f:13:12: exclude.0.arms.adm.lr: ", ("'adm'", "adam")),
    "value": (
        "exclude: [{arm: adam, batch.gradient: 300}]",
        "f:13:11: exclude.0: ",
        ("adam", "batch.gradient 300"),
    ),
    "all": ("exclude: [{arm: adam}]", "f:13:1: exclude: ", ("'adam'", "`arms`")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_entry_that_cannot_be_meant_is_reported(fault):
    """An unknown name, a value that no cell has, an arm without cells."""
    text, start, names = FAULTS[fault]

    line = faults(GRID + text)[0]

    assert line.startswith(start)
    assert re.match(naming(*names), line.removeprefix(start))


@pytest.mark.parametrize("grid", ["[]", "[{}]", "[3]", "3", "{}"])
def test_what_is_no_grid_is_reported(grid):
    """Anything but a mapping of paths to lists."""
    assert re.match(r"f:10:\d+: grid(\.0)?: ", faults(f"grid: {grid}")[0])


def test_in_a_union_an_arm_is_labelled_by_what_it_is():
    """A grid that does not vary an axis takes the value of the spec."""
    union = plan("grid: [{arms.full_hf.lr: [0.1]}, {arms.block_hf.lr: [0.1]}]")

    assert labels(union) == [
        "adam", "full_hf lr=0.1", "full_hf lr=0.5", "block_hf lr=0.5", "block_hf lr=0.1",
    ]  # fmt: skip
    rates = {c.arm: c.run.optimizer["lr"] for c in union.cells if c.arm != "adam"}
    assert all(label.endswith(f"={rate}") for label, rate in rates.items())


@pytest.mark.parametrize(
    "axis", ["budget.updates: [5, 50]", "problem.encoder: [[784, 5], [784, 6]]"]
)
def test_no_baseline_is_lent_by_another_problem_or_budget(axis):
    """Where the arm is excluded, there is no comparison."""
    path, _, values = axis.partition(": ")
    last = values.strip("[]").rpartition(", ")[2] if "budget" in axis else "[[784, 6]]"
    reduced = plan(f"grid: {{{axis}}}", f"exclude: [{{arm: full_hf, {path}: {last}}}]")

    assert len(pairs(reduced)) == 1


def test_an_entry_inside_of_an_axis_is_about_that_axis():
    """A part's type names the axis of whole parts: the cell is reused across it."""
    reduced = plan(
        "grid: {arms.full_hf.solver: [cg, cholesky]}",
        "exclude: [{arm: block_hf, arms.full_hf.solver.type: cholesky}]",
    )

    assert pairs(reduced) == [
        ("block_hf", "full_hf solver=cg"),
        ("block_hf", "full_hf solver=cholesky"),
    ]
