"""The check looks at blocks one by one: each may go another way than the full matrix."""

import re
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bdhf
from bdhf.optim.forward.objective import Objective
from bdhf.optim.inspection.block_check import BLOCKS, chosen_blocks
from bdhf.optim.inspection.check import check_curvature, examine
from bdhf.optim.partitions.blocks_of import cut
from bdhf.optim.vectors.layout import layout_of
from tests.cases import CASES, build
from tests.messages import naming
from tests.optim.optimizers import regression

CURVATURES = [bdhf.GGN(), bdhf.Fisher(), bdhf.Hessian()]


@dataclass(frozen=True)
class Skewed:
    """A linearisation with a product that is wrong for one block, and right for the full matrix."""

    inner: Any
    block: int
    wrong: Any  # (v_b, G_bb v_b) -> what is given instead

    def product(self, blocks, v, active):
        made = self.inner.product(blocks, v, active)
        if len(blocks.rows) > 1 and self.block in active:
            row = blocks.rows[self.block]
            entries = slice(row.start, row.stop)
            made[entries] = self.wrong(v[entries], made[entries])
        return made

    def __getattr__(self, name):
        return getattr(self.inner, name)


def scaled(v, product):
    """A product that is a tenth too large."""
    return 1.3 * product


def asymmetric(v, product):
    """What vᵀGv cannot detect: an antisymmetric part."""
    turned = torch.cat([v[1::2], -v[0::2]]) if len(v) % 2 == 0 else torch.zeros_like(v)
    halves = torch.zeros_like(v)
    half = len(v) // 2
    halves[0 : 2 * half : 2], halves[1 : 2 * half : 2] = turned[:half], turned[half : 2 * half]
    return product + product.norm() / v.norm() * halves


def skewed(matrix, block, wrong=scaled):
    """What the check finds where the product of one block is wrong."""
    parts = tuple((w, Skewed(part, block, wrong)) for w, part in matrix._product.parts)
    product = replace(matrix._product, parts=parts)
    return examine(matrix._objective, product, matrix._curvature)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("curvature", CURVATURES, ids=lambda c: type(c).__name__)
@pytest.mark.parametrize("block", [0, 1])
def test_a_block_that_is_wrong_alone_is_found_and_named(block, curvature, dtype):
    """The full matrix is right, so checking it alone is not enough."""
    model, (x, y) = regression()
    G = bdhf.block_curvature(
        model.to(dtype), F.mse_loss, (x.to(dtype), y.to(dtype)), curvature=curvature,
        partition=bdhf.PerLayer(),
    )  # fmt: skip

    check = skewed(G, block)

    assert G.check().passed
    assert check.asymmetry < 1e-4 < 0.1 < check.finite_difference
    assert f"block {block} ({2 * block}.weight, {2 * block}.bias)" in check.problem
    assert re.search(naming("'propagate'", "'layer_io'", "Full()"), check.problem)


def test_a_block_that_is_asymmetric_alone_is_found():
    """An antisymmetric part changes no finite difference of vᵀGv."""
    model, batch = regression()
    G = bdhf.block_curvature(model, F.mse_loss, batch, partition=bdhf.PerLayer())

    check = skewed(G, 0, asymmetric)

    assert "block 0" in check.problem
    assert check.finite_difference < 1e-4 < 0.1 < check.asymmetry


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_the_inner_blocks_of_a_blend_are_examined(alpha):
    """A blend is one system, made of the products of its inner blocks."""
    model, batch = regression()
    partition = bdhf.Blend(bdhf.PerLayer(), alpha=alpha)
    G = bdhf.block_curvature(model, F.mse_loss, batch, partition=partition)

    assert G.check().passed
    assert "block 1 (2.weight" in skewed(G, 1).problem


def test_the_optimizer_refuses_a_wrong_block_before_the_first_step(monkeypatch):
    """Nothing moves."""
    model, batch = regression()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss)
    before = [p.detach().clone() for p in model.parameters()]
    made = optimizer._product

    def product(*arguments):
        right = made(*arguments)
        return replace(right, parts=tuple((w, Skewed(p, 0, scaled)) for w, p in right.parts))

    monkeypatch.setattr(optimizer, "_product", product)

    with pytest.raises(bdhf.optim.CurvatureError, match="block 0"):
        optimizer.step(batch)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("partition", [bdhf.PerLayer(), bdhf.PerNeuron()], ids=["layer", "neuron"])
@pytest.mark.parametrize("name", CASES)
def test_the_blocks_of_every_case_pass(name, partition, dtype):
    """No case of the table is refused for the rounding of a small block."""
    case = build(name)
    model = case.model.to(dtype)
    batch = tuple(x.to(dtype) if x.is_floating_point() else x for x in case.batch)
    loss_fn = case.loss_fn.to(dtype) if isinstance(case.loss_fn, nn.Module) else case.loss_fn

    check = bdhf.block_curvature(model, loss_fn, batch, partition=partition).check()

    assert check.passed, check.problem


def test_many_blocks_are_represented_by_sixteen():
    """The first, the last, and one of every kind are among them; chance draws the others."""
    model = nn.Sequential(
        nn.Linear(6, 30), nn.LayerNorm(30), nn.PReLU(), nn.Linear(30, 2), nn.Linear(2, 20)
    )
    layout = layout_of(model)
    blocks = cut(layout, bdhf.PerNeuron())

    chosen = chosen_blocks(blocks)
    kinds = {type(layout.slots[i].owners[-1][1]) for b in chosen for i in blocks.rows[b].slots}

    assert len(blocks.rows) > BLOCKS == len(chosen) == len(set(chosen))
    assert {0, len(blocks.rows) - 1} <= set(chosen)
    assert kinds == {nn.Linear, nn.LayerNorm, nn.PReLU}
    assert chosen == chosen_blocks(blocks)


def test_a_block_costs_one_forward_pass_more():
    """The base point of the differences is shared, and a side is enough where it agrees."""
    model, batch = regression()
    model.double()
    batch = tuple(x.double() for x in batch)
    counts = {}
    for name, partition in (("full", bdhf.Full()), ("layers", bdhf.PerLayer())):
        G = bdhf.block_curvature(model, F.mse_loss, batch, partition=partition)
        calls = []
        handle = model.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        G.check()  # the hook is copied with the model
        handle.remove()
        counts[name] = len(calls)

    assert counts["layers"] <= counts["full"] + 2


def test_the_check_asks_before_every_product():
    """`watch` may end a check, block products too."""
    model, batch = regression()
    objective = Objective.of(model, F.mse_loss)
    G = bdhf.block_curvature(model, F.mse_loss, batch, partition=bdhf.PerLayer())
    asked = []

    check_curvature(objective, G._product, bdhf.GGN(), lambda: asked.append(1))

    assert len(asked) == 4  # two vectors, through the full matrix and through the blocks
