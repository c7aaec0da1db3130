"""The two passes of a plan: the cells, without a model, and the reasons for skipped cells."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from torch import nn

from bdhf.experiments.parts import meta_models
from bdhf.experiments.plan import cost
from bdhf.experiments.plan.expand import Plan, expand
from bdhf.experiments.plan.limits import with_skips
from bdhf.experiments.spec.load import load_spec
from tests.experiments.specs import planned
from tests.messages import naming

SHIPPED = Path(__file__).parents[3] / "ablations"

#: Arm of a shipped spec -> its estimated gradient equivalents; all other arms are run.
TOO_COSTLY = {
    "hf curvature=hessian partition=per_neuron problem=autoencoder": 214,
    "hf curvature=ggn partition=per_neuron problem=transformer": 349,
    "hf curvature=fisher partition=per_neuron problem=transformer": 346,
    "hf curvature=empirical_fisher partition=per_neuron problem=transformer": 344,
    "hf curvature=hessian partition=per_neuron problem=transformer": 448,
}


@pytest.fixture
def models(monkeypatch):
    """The modules that are built, with empty caches."""
    built, begin = list[type](), nn.Module.__init__

    def counted(module, *arguments, **named):
        built.append(type(module))
        begin(module, *arguments, **named)

    for kept in (meta_models._meta_model, meta_models._block_sizes, cost._counted, cost._refused):
        kept.cache_clear()
    monkeypatch.setattr(nn.Module, "__init__", counted)
    return built


def test_cells_take_no_model_and_reasons_do(models):
    """The cells need no module, also of arms above the limit; the reasons do."""
    variants, _ = load_spec(SHIPPED / "smoke.yaml")
    meta_models._block_sizes.cache_clear()
    models.clear()

    plan = expand(variants)
    assert models == []
    assert {cell.skip for cell in plan.cells} == {""}

    with_skips(plan, variants[0].spec.safety)
    assert models


@pytest.mark.parametrize(
    "file", sorted(SHIPPED.rglob("*.yaml")), ids=lambda file: str(file.relative_to(SHIPPED))
)
def test_reasons_of_the_shipped_specs(file):
    """Only the smoke test has arms above the limit of cost."""
    variants, _ = load_spec(file)
    plan = expand(variants)
    skips = {cell.arm: cell.skip for cell in with_skips(plan, variants[0].spec.safety).cells}

    expected = TOO_COSTLY if file.name == "smoke.yaml" else {}
    assert {arm: skip for arm, skip in skips.items() if skip} == {
        arm: f"estimated at {total} gradient equivalents, above the limit of 150"
        for arm, total in expected.items()
    }


def test_reasons_change_nothing_else():
    """Arms, questions, ids and the order of the cells are those of the first pass."""
    variants, _ = load_spec(SHIPPED / "smoke.yaml")
    plan = expand(variants)
    judged = with_skips(plan, variants[0].spec.safety)

    without = tuple((cell.arm, cell.seed, cell.run, cell.run_id) for cell in judged.cells)
    assert without == tuple((cell.arm, cell.seed, cell.run, cell.run_id) for cell in plan.cells)
    assert judged == Plan(plan.arms, judged.cells, plan.questions, plan.excluded)


#: Problem -> its line in the small spec.
PROBLEM = "{type: autoencoder, encoder: [784, 12, 4]}"
OTHERS = {
    "autoencoder": PROBLEM,
    "mlp": "{type: mlp, hidden: [12]}",
    "sequence_lstm": "{type: sequence_lstm, hidden: 5}",
    "resnet": "{type: resnet, data: mnist5k}",
    "transformer": "{type: transformer}",
}


def reasons(*changes):
    """The reason of every arm of the small spec, changed."""
    every = ("solver: {type: cg, max_iters: 5}", "solver: cg"), *changes
    return {cell.arm: cell.skip for cell in planned(*every).cells}


@pytest.mark.parametrize("problem", OTHERS)
def test_kfac_covers_every_problem(problem):
    """No parameter of a problem lacks a site, under whole rows."""
    blocks = ('partition: {type: groups, blocks: [["encoder.*"], ["decoder.*"]]}', "lr: 0.4")
    skips = reasons(
        (PROBLEM, OTHERS[problem]), ("val_loss, below: 0.08", "val_loss, below: 0.5"), blocks,
        ("solver: cg", "solver: {type: cg, preconditioner: kfac}"),
    )  # fmt: skip

    assert set(skips.values()) == {""}


def test_a_partition_that_cuts_rows_is_refused_by_the_plan():
    """The reason names a parameter and what to use; with the diagonal there is none."""
    random = ("partition: full", "partition: {type: random, blocks: 2}")
    kfac = "solver: {type: cg, preconditioner: kfac}"
    allowed = "solver: {type: cg, preconditioner: {type: kfac, uncovered: diagonal}}"

    refused = reasons(random, ("solver: cg", kfac))
    diagonal = reasons(random, ("solver: cg", allowed))

    assert re.search(naming("KFAC", "encoder", 'uncovered="diagonal"'), refused["full_hf"]), (
        refused["full_hf"]
    )
    assert diagonal["full_hf"] == refused["block_hf"] == refused["adam"] == ""
