"""Grids: every combination is a spec, and makes an arm if its runs differ."""

import re

import pandas as pd
import pytest

import bdhf
from bdhf.experiments.errors import SpecError
from bdhf.experiments.parts import tables as part_tables
from bdhf.experiments.spec.grid import VARIED, combinations
from bdhf.experiments.spec.load import check_spec, variants
from bdhf.experiments.spec.yaml_source import parse
from bdhf.experiments.storage.store import Store
from bdhf.records import Budget, collect, planned
from bdhf.stats.compare import compare
from tests.experiments import specs
from tests.experiments.specs import SMALL, changed
from tests.experiments.synthetic import write
from tests.messages import naming

PARTITION = "arms.full_hf.partition: [full, per_layer]"
CURVATURE = "batch.curvature: [50, 100]"
PROBLEM = "problem: [{type: autoencoder, encoder: [784, 12, 4]}, {type: narrow, encoder: [784, 3]}]"


@pytest.fixture(autouse=True)
def tables(monkeypatch):
    """A second problem and a second curvature: the same under other names."""
    monkeypatch.setitem(part_tables.PROBLEMS, "narrow", part_tables.PROBLEMS["autoencoder"])
    monkeypatch.setitem(part_tables.CURVATURES, "other", part_tables.CURVATURES["ggn"])


def grid(*axes):
    """A change of the small spec: a grid with these axes, one per line, from line 11 on."""
    return ("seeds:", "grid:\n" + "".join(f"  {axis}\n" for axis in axes) + "seeds:")


def plan(*axes, changes=()):
    """The plan of the small spec with a grid."""
    return specs.planned(*changes, grid(*axes))


def labels(plan):
    """The labels of the arms of a plan."""
    return [arm.label for arm in plan.arms]


def faults(*axes, changes=()):
    """The lines of the error of a grid."""
    with pytest.raises(SpecError) as caught:
        variants(parse(changed(*changes, grid(*axes)), "f"))
    return caught.value.lines


def test_every_combination_is_applied():
    """The specs are those of the product, in the order of the axes, without a grid."""
    checked = variants(parse(changed(grid(PARTITION, CURVATURE))))

    assert [
        (v.spec.arms["full_hf"]["partition"]["type"], v.spec.batch.curvature) for v in checked
    ] == [("full", 50), ("full", 100), ("per_layer", 50), ("per_layer", 100)]
    assert all(v.spec.grid == {} for v in checked)


def test_a_combination_is_the_spec_that_says_so():
    """The ids of a combination's runs are those of the spec with its values written in."""
    by_hand = specs.cells(
        ("partition: full", "partition: per_layer"), ("curvature: 50", "curvature: 100")
    )
    expected = {c.run.run_id for c in by_hand if c.arm == "full_hf"}

    cells = [c for c in plan(PARTITION, CURVATURE).cells if "per_layer curvature=100" in c.arm]

    assert {c.run.run_id for c in cells} == expected


def test_labels_name_what_varies_in_an_arm_and_nothing_else():
    """A label names only the axes that change the runs of the arm; own axes come first."""
    assert labels(plan(PROBLEM, CURVATURE, PARTITION)) == [
        "adam problem=autoencoder",
        "adam problem=narrow",
        *(
            f"full_hf partition={partition} problem={problem} curvature={curvature}"
            for problem in ("autoencoder", "narrow")
            for curvature in (50, 100)
            for partition in ("full", "per_layer")
        ),
        *(
            f"block_hf problem={problem} curvature={curvature}"
            for problem in ("autoencoder", "narrow")
            for curvature in (50, 100)
        ),
    ]


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        ("arms.adam.lr: [1.0e-3, 1.0e-5]", ["adam lr=0.001", "adam lr=1e-05"]),
        ("arms.adam: [torch.SGD, {type: torch.Adam, lr: 0.1}]",
         ["adam adam=torch.SGD", "adam adam=torch.Adam"]),
        ("arms.adam.betas: [[0.9, 0.99], [0.5, 0.9]]",
         ["adam betas=[0.9,0.99]", "adam betas=[0.5,0.9]"]),
        ("arms.full_hf.solver: [cg, {type: cg, max_iters: 7}]",
         ["full_hf solver=cg", "full_hf solver=cg(max_iters=7)"]),
        ("arms.full_hf.solver.max_iters: [6, 7]", ["full_hf max_iters=6", "full_hf max_iters=7"]),
        ("arms.full_hf.damping: [0.1, {type: constant, value: 0.2}]",
         ["full_hf damping=0.1", "full_hf damping=constant"]),
        ("arms.full_hf.partition: [{type: groups, blocks: [['encoder.*'], ['dec*']]}, groups,"
         " {type: groups, blocks: [['encoder.0*'], ['encoder.2*'], ['decoder.*']]}]",
         ['full_hf partition=groups(blocks=[["encoder.*"],["dec*"]])', "full_hf partition=groups",
          'full_hf partition=groups(blocks=[["encoder.0*"],["encoder…']),
        ("batch: [{gradient: 200}, {gradient: 100}]",
         ["adam batch={\"gradient\":200}", "adam batch={\"gradient\":100}"]),
        ("dtype: [float32, float64]", ["adam dtype=float32", "adam dtype=float64"]),
        ("evaluate.every_updates: [2, 3]", ["adam every_updates=2", "adam every_updates=3"]),
    ],
)  # fmt: skip
def test_values_are_shortened(axis, expected):
    """A part by its type, with arguments if types repeat; a scalar by its value."""
    names = labels(plan(axis))

    assert names[: len(expected)] == expected or names[1 : 1 + len(expected)] == expected


def test_values_that_read_the_same_are_numbered():
    """No two values of an axis have the same words, however long they are."""
    tail = "x" * 60
    first, second = (f"{{type: groups, blocks: [['*'], ['{tail}{n}']]}}" for n in (1, 2))
    axis = f"arms.full_hf.partition: [{first}, {second}]"

    words = [picks[0].words for picks in combinations(parse(changed(grid(axis))).data)]

    assert words[0].startswith("groups(blocks=")
    assert words[1] == words[0] + "#2"


def test_paths_that_end_alike_are_distinguished():
    """The labels of `curvature` of the batch and of the arm have one more key."""
    names = labels(plan("arms.full_hf.curvature: [ggn, {type: other}]", CURVATURE))

    assert "full_hf full_hf.curvature=ggn batch.curvature=50" in names
    assert "block_hf curvature=100" in names


def test_an_arm_with_dots_in_its_name_can_vary():
    """The longest matching name is the arm."""
    twin = ("  adam:", "  adam.b: {type: torch.Adam}\n  adam:")

    assert labels(plan("arms.adam.b.lr: [0.1, 0.2]", changes=(twin,)))[:3] == [
        "adam.b lr=0.1", "adam.b lr=0.2", "adam",
    ]  # fmt: skip


def test_a_name_for_a_part_takes_arguments_from_the_grid():
    """`partition: full` becomes a mapping when a path goes into it."""
    axis = "arms.full_hf.partition.blocks: [[['encoder.*'], ['decoder.*']], [['*']]]"

    expanded = plan(axis, changes=(("partition: full", "partition: groups"),))

    assert len([label for label in labels(expanded) if label.startswith("full_hf")]) == 2


def test_a_whole_is_put_in_place_before_its_parts():
    """`problem.activation` applies to every problem of the grid, in any order of the axes."""
    checked = variants(parse(changed(grid("problem.activation: [relu, tanh]", PROBLEM))))

    assert [(v.spec.problem["type"], v.spec.problem["activation"]) for v in checked] == [
        ("autoencoder", "relu"), ("narrow", "relu"), ("autoencoder", "tanh"), ("narrow", "tanh"),
    ]  # fmt: skip


def test_what_an_arm_does_not_read_makes_no_other_run_of_it():
    """Adam is one arm in a grid over curvature batches and another arm's partition."""
    expanded = plan(PARTITION, CURVATURE)

    assert labels(expanded)[0] == "adam"
    assert len(expanded.cells) == (1 + 4 + 2) * 2
    assert len({cell.run.run_id for cell in expanded.cells}) == len(expanded.cells)


def test_values_with_the_same_run_are_one_arm():
    """A share and the equal number of samples are one value."""
    assert labels(plan("batch.curvature: [0.25, 50, 100]")) == [
        "adam", "full_hf curvature=0.25", "full_hf curvature=100",
        "block_hf curvature=0.25", "block_hf curvature=100",
    ]  # fmt: skip


def test_pairs_are_complete_as_early_as_can_be():
    """The plan goes seed by seed, and combination by combination within a seed."""
    order = [cell.arm for cell in plan(CURVATURE).cells]

    assert order[:5] == [
        "adam", "full_hf curvature=50", "block_hf curvature=50",
        "full_hf curvature=100", "block_hf curvature=100",
    ]  # fmt: skip
    assert order[5:] == order[:5]


#: A fault -> its line, column and path, and what the message names.
FAULTS = {
    "unknown part": ("arms.full_hf.partition: [full, per_leyer]",
                     "12:34: grid.arms.full_hf.partition.1", ("'per_leyer'", "per_layer")),
    "inside a part": ("arms.full_hf.solver: [cg, {type: cg, max_iters: 0}]",
                      "12:51: grid.arms.full_hf.solver.1.max_iters", ("max_iters", 0)),
    "key of a part": ("arms.full_hf.solver: [{type: cg, maxiters: 1}]",
                      "12:36: grid.arms.full_hf.solver.0.maxiters", ("'maxiters'", "max_iters")),
    "unknown key": ("arms.full_hf.partitoin: [full]",
                    "12:3: grid.arms.full_hf.partitoin", ("'partitoin'", "partition")),
    "key of torch": ("arms.adam.rate: [1]", "12:3: grid.arms.adam.rate", ("torch.Adam", "'rate'")),
    "key of a section": ("batch.gradiant: [1]", "12:3: grid.batch.gradiant", ("'gradient'",)),
    "value": ("arms.adam.lr: [0.1, -1]", "12:23: grid.arms.adam.lr.1", ("torch.Adam", -1)),
    "scalar": ("batch.gradient: [200, 9000]", "12:25: grid.batch.gradient.1", (9000, 3500)),
    "dtype": ("dtype: [float32, float16]", "12:20: grid.dtype.1", ("'float32'", "'float64'")),
    "problem": ("problem: [autoencoder, autoencodr]", "12:26: grid.problem.1", ("'autoencodr'",)),
    "unknown arm": ("arms.ful_hf.lr: [1]", "12:3: grid.arms.ful_hf.lr", ("'ful_hf'", "full_hf")),
    "all arms": ("arms: [1]", "12:3: grid.arms", ("arms.adam",)),
    "unknown path": ("bach.curvature: [1]", "12:3: grid.bach.curvature", ("'bach'", "batch")),
    "no list": ("batch.curvature: 50", "12:3: grid.batch.curvature", (50,)),
    "empty list": ("batch.curvature: []", "12:3: grid.batch.curvature", ("[]",)),
    "twice": ("batch.curvature: [50, 50.0]", "12:25: grid.batch.curvature.1", (50,)),
    "into a number": ("arms.full_hf.damping.value: [1]",
                      "12:3: grid.arms.full_hf.damping.value", ("arms.full_hf.damping", "`type`")),
    "into nothing": ("arms.full_hf.curvature.x: [1]",
                     "12:3: grid.arms.full_hf.curvature.x", ("arms.full_hf.curvature", "`type`")),
    "budgets": ("budget: [{updates: 5}, {epochs: 1}]",
                "12:3: grid.budget", ("updates", "epochs")),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_a_grid_is_reported_where_it_is_in_the_grid(fault):
    """Line and column are those of the value in the grid, or of its path."""
    axis, start, names = FAULTS[fault]

    other = "threads: [1]" if "curvature" in axis else CURVATURE

    (line,) = faults(other, axis)

    assert line.startswith(f"f:{start}: "), line
    assert re.match(naming(*names), line.removeprefix(f"f:{start}: ")), line


@pytest.mark.parametrize(
    "key", ["name", "seeds.count", "compare", "targets", "stop", "safety.seconds"]
)
def test_what_is_one_for_the_whole_ablation_cannot_vary(key):
    """The message names the key, and the keys that a grid may vary."""
    (line,) = faults(f"{key}: [1, 2]")

    assert re.match(naming(repr(key.split(".")[0]), *VARIED), line)


def test_all_faults_of_a_grid_are_reported_once():
    """Faults of values and of the rest of the spec, one line each, in file order."""
    lines = faults(
        "arms.adam.lr: [0.1, -1, -2]",
        CURVATURE,
        changes=(("solver: {type: cg", "solver: {type: gc"),),
    )

    assert [line.split(": ")[1] for line in lines] == [
        "arms.full_hf.solver.type",
        "arms.block_hf.solver.type",
        "grid.arms.adam.lr.1",
        "grid.arms.adam.lr.2",
    ]


@pytest.mark.parametrize("text", ["grid: 3", "grid: {}", "grid: [a]", "grid:"])
def test_a_grid_that_is_no_mapping_is_refused(text):
    """A grid consists of paths and lists."""
    with pytest.raises(SpecError, match=r"^f:1[01]:\d+: grid(\.0)?: "):
        check_spec(parse(changed(("seeds:", f"{text}\nseeds:")), "f"))


ADAM = ("compare:\n", "compare:\n  - {name: block vs adam, candidate: block_hf, baseline: adam}\n")


def test_every_entry_is_compared_in_every_combination_that_differs():
    """An arm that does not vary on an axis is compared with every cell of that axis."""
    comparisons = plan(PARTITION, CURVATURE, changes=(ADAM,)).comparisons

    assert [(entry.name, entry.candidate, entry.baseline) for entry in comparisons] == [
        ("block vs adam curvature=50", "block_hf curvature=50", "adam"),
        ("block vs adam curvature=100", "block_hf curvature=100", "adam"),
        *(
            (
                f"block vs full partition={partition} curvature={curvature}",
                f"block_hf curvature={curvature}",
                f"full_hf partition={partition} curvature={curvature}",
            )
            for partition in ("full", "per_layer")
            for curvature in (50, 100)
        ),
    ]


def test_no_run_is_compared_with_itself():
    """A combination in which both arms are the same run gives no comparison."""
    comparisons = plan("arms.block_hf.partition: [full, per_layer]").comparisons

    assert [entry.candidate for entry in comparisons] == ["block_hf partition=per_layer"]


def test_a_spec_without_a_grid_keeps_its_names():
    """Labels are the arms, comparisons are the entries."""
    expanded = specs.planned(ADAM)

    assert labels(expanded) == ["adam", "full_hf", "block_hf"]
    assert [entry.name for entry in expanded.comparisons] == ["block vs adam", "block vs full"]


AXES = (CURVATURE, "budget.updates: [4, 6]")


@pytest.fixture
def begun(tmp_path):
    """A results folder of a grid without runs: its store and its plan."""
    store, expanded = Store(tmp_path), plan(*AXES)
    store.begin(changed(grid(*AXES)), expanded)
    return store, expanded


def test_the_reader_sees_arms_and_comparisons_of_the_grid(begun):
    """`bdhf.load` gives the labels, the comparisons and the budget of every arm."""
    store, expanded = begun
    for cell in expanded.cells:
        write(store, cell)
    collect(store.folder)

    records = bdhf.load(store.folder)

    assert records.arms == tuple(labels(expanded))
    assert records.comparisons == expanded.comparisons
    assert records.budget == Budget(updates=6)
    assert records.budget_of("adam updates=4", "adam updates=6") == Budget(updates=4)
    assert set(records.curves["arm"]) == set(records.arms)
    assert not records.runs.duplicated(["arm", "seed"]).any()
    results = compare(records)
    assert [result.name for result in results] == [entry.name for entry in expanded.comparisons]
    assert {result.tests for result in results} == {4}
    assert [result.horizon for result in results] == [4, 6, 4, 6]


def test_a_grid_that_grows_runs_only_what_is_new(begun):
    """The runs of a smaller grid, or of no grid, are reused."""
    store, expanded = begun
    for cell in expanded.cells:
        write(store, cell)
    larger = plan("batch.curvature: [50, 100, 25]", "budget.updates: [4, 6]")

    todo = store.unfinished(larger.cells)

    assert {run.curvature_batch for run in todo} == {25}
    assert len(todo) == 2 * 2 * 2
    assert store.unfinished(specs.cells()) == []


def test_results_that_an_older_version_left_are_read(begun):
    """Without plan.json and without skips in the plan, the arms are those of the spec."""
    store, _ = begun
    old = specs.planned()
    store.begin(SMALL, old)
    write(store, old.cells[0])
    (store.folder / "plan.json").unlink()
    table = pd.read_parquet(store.folder / "plan.parquet").drop(columns="skip")
    table.to_parquet(store.folder / "plan.parquet")

    collect(store.folder)
    records = bdhf.load(store.folder)

    assert records.arms == ("adam", "full_hf", "block_hf")
    assert records.comparisons == old.comparisons
    assert records.budget_of("adam") == records.budget == Budget(updates=6)
    assert records.evaluate_every == 2
    assert planned(store.folder)["status"].notna().sum() == 1


def test_a_torn_index_is_reported_in_words(begun):
    """The error of an unreadable plan.json names the file."""
    store, _ = begun
    (store.folder / "plan.json").write_text("{")

    with pytest.raises(bdhf.records.InputError, match=r"plan\.json: "):
        bdhf.load(store.folder)
