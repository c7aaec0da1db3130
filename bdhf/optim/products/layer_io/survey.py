"""What `layer_io` would cost, by one forward pass: columns, bytes, and the plan of a partition.

S takes N · Σ d numbers per column, with d the entries of y per sample at a site; h takes as many
for all columns together.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bdhf.optim.curvature import OutputCurvature
from bdhf.optim.products.layer_io.output_factor import Schedule, columns_of, schedule
from bdhf.optim.products.layer_io.reduction import ReductionPlan, plan_reduction
from bdhf.optim.products.layer_io.sites import Site, Uncovered, record_sites
from bdhf.optim.products.request import Request
from bdhf.optim.torch_support.flops import part
from bdhf.optim.vectors.blocks import Blocks


@dataclass(frozen=True)
class Survey:
    """What `layer_io` would cost, before any column is swept."""

    columns: int  # C, of the root of one sample's Hessian
    sites: tuple[tuple[tuple[int, ...], int], ...]  # slots; flops of a push; as first used
    column_bytes: int  # of one column of S at all sites
    kept_bytes: int  # of the cache for the blocks of the request
    swept: int  # columns that do not fit and are swept again in every product
    mixed: bool  # whether a product takes one sweep per block


def survey(request: Request, curvature: OutputCurvature) -> Survey:
    """Measure by one forward pass what `LayerIO` would cost; raises Uncovered where it fails."""
    state = request.generator.get_state()
    generator = torch.Generator(request.objective.device).set_state(state)  # the same draws
    outputs, sites = recorded(request)
    loss_fn, targets = request.objective.loss_fn, request.batch[1]
    hessian = curvature.expand_loss(loss_fn, outputs, targets, generator).hessian
    needs = needs_of(request, sites, outputs, columns_of(hessian, outputs))
    kept = needs.schedule.kept
    return Survey(
        columns=needs.schedule.columns,
        sites=tuple((site.slots, site.flops) for site in sites),
        column_bytes=needs.swept,
        kept_bytes=needs.fixed + kept * needs.kept,
        swept=needs.schedule.columns - kept if needs.kept else 0,
        mixed=any(plan.mixed for plan in plans(request, sites)),
    )


@dataclass(frozen=True)
class Needs:
    """What is kept, in bytes per column, and how columns are swept."""

    open: tuple[int, ...]  # sites whose columns are needed one by one
    closed: tuple[int, ...]  # sites for which h is enough
    swept: int  # a column of all sites
    kept: int  # a column of the open sites
    fixed: int  # h of the closed ones
    schedule: Schedule


def recorded(request: Request) -> tuple[Tensor, list[Site]]:
    """The outputs of the batch and the sites of its forward pass. Raises Uncovered for none."""
    outputs, sites = _recorded(request)
    if not sites:
        raise Uncovered("no function for which layer_io has a rule uses a parameter of the model")
    return outputs, sites


@part("sites")
def _recorded(request: Request) -> tuple[Tensor, list[Site]]:
    objective = request.objective
    return record_sites(
        lambda: objective.outputs(request.batch[0], channels_last=False), objective.parameters,
        [slot.name for slot in request.blocks.layout.slots], request.settings.dtype,
    )  # fmt: skip


def plan_of(request: Request, blocks: Blocks, sites: Sequence[Site]) -> ReductionPlan:
    """The reduction plan for some blocks, kept in the workspace while the sites have its structure.

    For blocks that the request does not name only the last one is kept: every probe cuts new ones.
    """
    structure = tuple(site.structure for site in sites)
    # The plan references the blocks, so their id is not reused.
    number = id(blocks) if any(blocks is some for some in _named(request)) else None
    kept, key = request.workspace.kept, ("layer_io plan", request.shapes, number)
    last: tuple[tuple[Hashable, ...], ReductionPlan] | None = kept.get(key)
    if last is None or last[0] != structure or last[1].blocks is not blocks:
        last = kept[key] = structure, plan_reduction(blocks, sites, request.objective.device)
    return last[1]


def plans(request: Request, sites: Sequence[Site]) -> list[ReductionPlan]:
    """The plans of the blocks that the request names."""
    return [plan_of(request, blocks, sites) for blocks in _named(request)]


def _named(request: Request) -> list[Blocks]:
    """The blocks that a request names."""
    blend = request.blocks.blend
    return [request.blocks] if blend is None else [request.blocks, blend.inner]


def needs_of(request: Request, sites: Sequence[Site], outputs: Tensor, columns: int) -> Needs:
    """Raises Uncovered where no column fits."""
    every = frozenset(range(len(sites)))
    made = plans(request, sites)
    needed = frozenset().union(*(every if p.mixed else p.open_sites for p in made))
    closed = frozenset().union(*(p.closed_sites for p in made))
    sizes = [torch.Size(site.shape).numel() for site in sites]
    size = outputs.element_size()
    cached = size if request.settings.dtype is None else request.settings.dtype.itemsize
    swept, kept = size * sum(sizes), cached * sum(sizes[i] for i in needed)
    fixed = size * sum(sizes[i] for i in closed)
    largest = swept + size * outputs.numel()  # a column of B is held too
    timetable = schedule(columns, largest, kept, fixed, request.settings.max_bytes)
    return Needs(tuple(sorted(needed)), tuple(sorted(closed)), swept, kept, fixed, timetable)
