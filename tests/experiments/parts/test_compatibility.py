"""Cells that are not run: refused in a spec, skipped in a grid, always listed."""

import gc
import re
import weakref

import pytest

import bdhf
from bdhf.experiments.errors import SpecError
from bdhf.experiments.parts import tables
from bdhf.experiments.parts.compatibility import triples, why_not
from bdhf.experiments.parts.problems_and_arms import resolve_arm, resolve_problem
from bdhf.experiments.plan import cost
from bdhf.experiments.spec.load import check_spec
from bdhf.experiments.spec.yaml_source import parse
from bdhf.experiments.storage.store import Store
from bdhf.records import collect, planned
from bdhf.report import build as build_report
from tests.experiments import specs
from tests.experiments.specs import SMALL, changed
from tests.experiments.synthetic import write
from tests.messages import naming

INDEFINITE = (
    "sample_space needs a positive semi-definite matrix JᵀHJ; hessian has none: use cg, or ggn"
)
MIXED = INDEFINITE.replace("hessian has none", "mixed is none")
UNDAMPED = "sample_space needs damping above 0"


def arm(curvature="ggn", solver="sample_space", damping=0.1, structural=False):
    """A resolved arm of block_hf."""
    constant = {"type": "constant", "value": damping}
    around = {"type": "structural", "damping": constant, "weight": 0.1, "modules": None}
    return {
        "type": "block_hf",
        "curvature": {"type": curvature},
        "partition": {"type": "full"},
        "solver": {"type": solver},
        "damping": around if structural else constant,
    }


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({}, ""),
        ({"solver": "cg", "curvature": "hessian", "damping": 0}, ""),
        ({"curvature": "hessian"}, INDEFINITE),
        ({"curvature": "mixed"}, MIXED),
        ({"damping": 0}, UNDAMPED),
        ({"damping": 0, "structural": True}, UNDAMPED),
        ({"damping": 0.1, "structural": True}, ""),
        ({"damping": 0.0, "curvature": "hessian"}, INDEFINITE),
    ],
)
def test_the_first_rule_that_an_arm_breaks_is_its_reason(parts, reason):
    """sample_space needs a semi-definite matrix and damping; cg works with all."""
    assert why_not(arm(**parts), {}) == reason


def test_parts_that_refuse_each_other_on_the_model_of_the_problem_are_a_reason():
    """A block that is too large to be dense is refused before anything is run."""
    parts = resolve_arm(
        "a",
        {"type": "block_hf", "solver": "cholesky", "partition": "full"},
        tables.problem_of(resolve_problem("mlp")),
    )

    reason = why_not(parts, resolve_problem("mlp"))
    assert re.match(naming("84,060", "max_block", "2,000"), reason)


@pytest.mark.parametrize(
    ("problem", "damping", "facts"),
    [
        ("mlp", "structural", ("Sequential", "recurrent", "modules=")),
        ("mlp", {"type": "structural", "weight": 0.0}, ()),
        ("sequence_lstm", "structural", ()),
        ("sequence_lstm", {"type": "structural", "modules": ["nothing.*"]}, ("nothing.*",)),
    ],
)
def test_structural_damping_needs_a_model_with_hidden_states(problem, damping, facts):
    """Every problem is told apart before anything is run; a weight of 0 needs none."""
    problem = resolve_problem(problem)
    parts = resolve_arm("a", {"type": "block_hf", "damping": damping}, tables.problem_of(problem))

    reason = why_not(parts, problem)

    assert bool(reason) == bool(facts)
    assert re.match(naming(*facts), reason)


def test_structural_damping_costs_a_product_with_each_matrix():
    """And its linearisation; the rule and the value of λ cost nothing."""
    problem = resolve_problem({"type": "mlp", "hidden": [11]})

    def updates(**damping):
        damping = {"type": "structural", "modules": ["1"], **damping}
        parts = {"type": "block_hf", "damping": damping}
        made = resolve_arm("a", parts, tables.problem_of(problem))
        return cost.arm_cost(problem, made, 100, 50)

    assert updates(weight=0.1) == updates(weight=2.0, damping=0.3) > updates(weight=0.0)


def test_arms_that_differ_in_numbers_only_build_no_further_model(monkeypatch):
    """A grid of learning rates and dampings builds one model, for optimizers of torch too."""
    built, build_model = [], tables.MLP.build
    monkeypatch.setattr(tables.MLP, "build", lambda self: built.append(1) or build_model(self))
    problem = resolve_problem({"type": "mlp", "hidden": [13]})

    for number in (0.1, 0.2, 0.3):
        for base in ({"type": "block_hf", "damping": number}, {"type": "torch.SGD"}):
            parts = resolve_arm("a", {**base, "lr": number}, tables.problem_of(problem))
            assert why_not(parts, problem) == ""

    assert len(built) == 1


def test_a_partition_that_does_not_fit_is_a_reason():
    """Also for an arm that was not resolved."""
    parts = resolve_arm("a", "block_hf", tables.problem_of(resolve_problem("mlp")))

    parts["partition"] = {"type": "groups", "blocks": [["nothing.*"]]}

    assert re.match(naming("'nothing.*'"), why_not(parts, resolve_problem("mlp")))


def test_estimates_together_are_those_apart_and_keep_no_model():
    """Shared models are freed at the end of the context; the numbers are the same."""
    problem = resolve_problem({"type": "mlp", "hidden": [11]})
    arms = [
        resolve_arm("a", {"type": "block_hf", **parts}, tables.problem_of(problem))
        for parts in (
            {}, {"curvature": "hessian"}, {"curvature": "mixed"}, {"partition": "full"},
            {"solver": "cholesky"}, {"damping": {"type": "structural", "modules": ["*"]}},
            {"damping": {"type": "structural", "modules": ["0"]}},
        )
    ]  # fmt: skip
    apart = [cost.arm_cost(problem, arm, 100, 50) for arm in arms]
    cost._counted.cache_clear()

    with cost.models_kept():
        together = [cost.arm_cost(problem, arm, 100, 50) for arm in arms]
        (bench,) = cost._BENCHES.get().values()
        model = weakref.ref(bench.model)
        del bench
    gc.collect()

    assert together == apart
    assert model() is None


def test_momentum_costs_one_product_in_advance():
    """As much as an iteration of CG."""
    problem = resolve_problem({"type": "mlp", "hidden": [11]})
    two, three, more = (
        cost.arm_cost(
            problem,
            resolve_arm("a", {"type": "block_hf", **parts}, tables.problem_of(problem)),
            100,
            50,
        )
        for parts in (
            {"solver": {"type": "cg", "max_iters": 2}},
            {"solver": {"type": "cg", "max_iters": 3}},
            {"solver": {"type": "cg", "max_iters": 2}, "momentum": "quadratic"},
        )
    )

    assert more == pytest.approx(three)
    assert more > two


def test_optimizers_of_torch_go_with_everything():
    """The rules apply only to the parts of block_hf."""
    assert why_not({"type": "torch.Adam"}, {}) == ""


def test_the_table_has_every_triple_of_parts_once():
    """Curvature × partition × solver, each with its reason or none."""
    reasons = {tuple(names): reason for *names, reason in triples()}

    sizes = [len(tables.PARTS[kind][0]) for kind in ("curvature", "partition", "solver")]
    assert len(reasons) == sizes[0] * sizes[1] * sizes[2]
    assert reasons["hessian", "full", "sample_space"] == INDEFINITE
    assert reasons["ggn", "full", "sample_space"] == reasons["hessian", "full", "cg"] == ""


SAMPLE_SPACE = ("solver: {type: cg, max_iters: 5}", "solver: sample_space")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("partition: full", "partition: full, curvature: hessian"), INDEFINITE),
        (("damping: 1.0e-2", "damping: 0"), UNDAMPED),
    ],
)
def test_without_a_grid_parts_that_do_not_go_together_are_a_fault(change, reason):
    """The fault is at the solver of every arm that has them."""
    with pytest.raises(SpecError) as caught:
        check_spec(parse(changed(SAMPLE_SPACE, change), "f"))

    assert caught.value.lines == (
        f"f:8:25: arms.full_hf.solver: {reason}",
        f"f:8:25: arms.block_hf.solver: {reason}",
    )


GRID = (
    "seeds:",
    "grid:\n  arms.full_hf.curvature: [fisher, hessian]\n"
    "  arms.full_hf.solver: [{type: cg, max_iters: 5}, sample_space]\nseeds:",
)
SKIPPED = "full_hf curvature=hessian solver=sample_space"


def test_in_a_grid_they_are_a_skipped_cell():
    """Of four combinations one cannot run; the others, and the other arms, have no reason."""
    skips = {cell.arm: cell.skip for cell in specs.planned(GRID).cells}

    assert {arm: skip for arm, skip in skips.items() if skip} == {SKIPPED: INDEFINITE}
    assert len(skips) == 6


@pytest.fixture
def begun(tmp_path):
    """A results folder of that grid without runs: its store and its plan."""
    store, plan = Store(tmp_path), specs.planned(GRID)
    store.begin(changed(GRID), plan)
    return store, plan


@pytest.mark.parametrize("retry", [False, True])
def test_a_skipped_cell_is_never_run(begun, retry):
    """It is never in the runs to do, also with `retry`."""
    store, plan = begun
    skipped = {cell.run.run_id for cell in plan.cells if cell.skip}

    todo = {run.run_id for run in store.unfinished(plan.cells, retry)}

    assert len(todo) == 10
    assert not todo & skipped


def test_a_skipped_cell_has_a_row_with_its_reason_everywhere(begun):
    """The plan, the collected tables and the page show it."""
    store, _ = begun

    collect(store.folder)
    for table in (planned(store.folder), bdhf.load(store.folder).runs):
        rows = table[table["status"] == "skipped"]
        assert rows["arm"].tolist() == [SKIPPED] * 2
        assert rows["reason"].tolist() == [INDEFINITE] * 2
        assert table["status"].isna().sum() == 10
    sentences, path, _ = build_report(store.folder)
    page = path.read_text()
    assert INDEFINITE in page
    assert len(sentences) == 4  # one per cell of full_hf
    assert "2 skipped in full_hf curvature=hessian" in page


def test_a_run_that_was_made_before_it_was_skipped_is_shown(tmp_path, monkeypatch):
    """A run with an outcome keeps it, even if the plan now skips it."""
    store, plan = Store(tmp_path), specs.planned()
    store.begin(SMALL, plan)
    write(store, plan.cells[0])
    monkeypatch.setattr(cost, "arm_cost", lambda *arguments: 100.0)

    store.begin(SMALL, specs.planned(("stop: at_budget", "safety: {gradient_equivalents: 1}")))

    assert planned(tmp_path)["status"].tolist() == ["done", *["skipped"] * 5]


LIMIT = ("stop: at_budget", "safety: {gradient_equivalents: 3000}")


@pytest.fixture
def asked(monkeypatch):
    """Estimates of 2050 for full HF and 1 for other arms; the arguments of the calls."""
    seen = []

    def estimate(problem, arm, gradient_batch, curvature_batch):
        seen.append((arm["type"], gradient_batch, curvature_batch))
        return 2050.0 if arm.get("partition") == {"type": "full"} else 1.0

    monkeypatch.setattr(cost, "arm_cost", estimate)
    return seen


def test_a_cell_above_the_limit_of_cost_is_skipped(asked):
    """The reason has the estimate of an update times the updates of the budget, and the limit."""
    skips = {cell.arm: cell.skip for cell in specs.planned(LIMIT).cells}

    reason = "estimated at 12,300 gradient equivalents, above the limit of 3,000"
    assert skips == {"adam": "", "full_hf": reason, "block_hf": ""}
    assert ("block_hf", 200, 50) in asked
    assert len(asked) == 3  # once per arm, not per seed


def test_epochs_are_counted_in_updates(asked):
    """0.4 epochs of 3,500 samples in batches of 200 are 7 updates."""
    skips = {c.arm: c.skip for c in specs.planned(LIMIT, ("updates: 6", "epochs: 0.4")).cells}

    assert re.match(naming("14,350", "3,000"), skips["full_hf"])


def test_no_limit_asks_for_no_estimate(asked):
    """Without a limit no model is built; other budgets bound the cost themselves."""
    specs.planned()
    specs.planned(LIMIT, ("updates: 6", "gradient_equivalents: 100"))

    assert asked == []


def test_an_optimizer_of_torch_is_estimated_at_one_gradient():
    """An update of Adam is one gradient of its gradient batch."""
    assert cost.arm_cost({}, {"type": "torch.Adam"}, 200, None) == 1.0


@pytest.mark.parametrize(("curvature", "skips"), [("ggn", True), ("fisher", False)])
def test_a_solve_of_too_many_rows_is_skipped_before_it_is_tried(curvature, skips):
    """50 images of 784 outputs are 39,200 rows; one draw per image is 50."""
    change = ("solver: {type: cg, max_iters: 5}", f"solver: sample_space, curvature: {curvature}")
    reasons = {cell.skip for cell in specs.cells(change) if cell.arm != "adam"}

    pattern = naming("sample_space", "39,200", "max_rows") if skips else "^$"
    assert reasons
    assert all(re.match(pattern, reason) for reason in reasons)
