"""The sites of a batch for a preconditioner: inputs, cotangents, and the blocks of their rows.

A separate forward pass records them, whatever the method of the products is. A parameter that a
function without a rule uses, or that two sites use, has no row here; nor has one whose rows a
partition cuts.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import starmap

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from bdhf.optim.curvature import expand_loss
from bdhf.optim.errors import CurvatureError
from bdhf.optim.losses import OutputHessian
from bdhf.optim.products.agreement import random_tangents
from bdhf.optim.products.layer_io.coverage import UNKNOWN_USE, differing
from bdhf.optim.products.layer_io.output_factor import (
    columns_of,
    gathered,
    output_columns,
    sweep_factor,
)
from bdhf.optim.products.layer_io.parameter_uses import Use
from bdhf.optim.products.layer_io.reduction import block_labels, feature_labels
from bdhf.optim.products.layer_io.site_product import pulled_through
from bdhf.optim.products.layer_io.sites import Site, Uncovered, record_sites
from bdhf.optim.products.per_sample import squared_gradients
from bdhf.optim.products.propagate.sample_independence import graph_apart
from bdhf.optim.products.request import Request
from bdhf.optim.products.site_samples import (
    Cotangents,
    DenseInputs,
    Inputs,
    ParameterRows,
    SampleShape,
    SitePart,
    SiteRecord,
    SiteSamples,
)
from bdhf.optim.products.vjp import vjp
from bdhf.optim.torch_support.graphs import structure_behind
from bdhf.optim.vectors.blocks import Blocks
from bdhf.optim.vectors.layout import split_like

#: Why a weight has no Kronecker product.
TWICE = "is used in two ways"
CUT = "has rows that the partition cuts"


@dataclass(frozen=True)
class SitePlan:
    """What depends on blocks and sites, and on nothing else."""

    structure: Hashable
    blocks: Blocks
    parts: tuple[SitePart, ...]
    uncovered: dict[str, str]
    rest: Tensor


def site_samples(
    batches: Sequence[tuple[float, Request, OutputHessian | None]], blocks: Blocks
) -> SiteSamples:
    """Record the sites of micro-batches, each with its weight and the H of its outputs.

    No parameter has a site where micro-batches take different ways through the model.
    """
    records, sites, unknown = zip(*(_record(*batch) for batch in batches), strict=True)
    ways = {tuple(site.slots for site in of_batch) for of_batch in sites}
    every = range(len(blocks.layout.slots))
    others = frozenset[int]().union(*unknown) if len(ways) == 1 else frozenset(every)
    plan = _plan(batches[0][1], blocks, sites[0], others)
    return SiteSamples(plan.parts, plan.uncovered, plan.rest, records)


@torch.enable_grad()
def _record(
    weight: float, request: Request, hessian: OutputHessian | None
) -> tuple[SiteRecord, Sequence[Site], frozenset[int]]:
    """The record of one micro-batch, its sites, and the parameters that have other uses too.

    In the precision of the model, whatever that of the products is.
    """
    request = replace(request, settings=replace(request.settings, dtype=None))
    with request.flops.counting(("site samples", request.shapes)):
        z, sites = _recorded(request)
        if hessian is None:  # of a matrix of another form
            hessian = expand_loss(request.objective.loss_fn, z, request.batch[1]).hessian
    inputs = tuple(site.inputs() for site in sites)
    shapes = tuple(starmap(_shape, zip(sites, inputs, strict=True)))
    record = SiteRecord(
        weight, inputs, shapes, z.detach(), _last(z, sites), hessian,
        column_chunks=partial(_columns, hessian, z),
        cotangents=partial(_cotangents, z, sites, shapes),
        squares=partial(squared_gradients, request),
        pulled=partial(vjp, z, request.objective.parameters),
        apart=partial(graph_apart, z, sum(len(site.edges) * len(site.uses) for site in sites)),
    )  # fmt: skip
    return record, sites, _otherwise_used(request, z, sites)


def _recorded(request: Request) -> tuple[Tensor, Sequence[Site]]:
    objective = request.objective
    run = partial(objective.outputs, request.batch[0], channels_last=False)
    names = [slot.name for slot in request.blocks.layout.slots]
    try:
        return record_sites(run, objective.parameters, names, composites=True)
    except Uncovered:
        return run(), ()


def _last(z: Tensor, sites: Sequence[Site]) -> int | None:
    """The site whose y are the outputs z (N, C); None where something follows the last one."""
    if z.dim() != 2:
        return None
    edge = get_gradient_edge(z)
    return next((i for i, site in enumerate(sites) if site.edges == (edge,)), None)


def _shape(site: Site, inputs: Inputs | None) -> SampleShape:
    """N, T, groups and features of a group."""
    n, before, features, after = site.shape
    groups = inputs.values.shape[2] if isinstance(inputs, DenseInputs) else 1
    return n, before * after, groups, features // groups


def _cotangents(
    z: Tensor, sites: Sequence[Site], shapes: Sequence[SampleShape], columns: Tensor
) -> Cotangents:
    """S of every site for k columns, (k, N, T, groups, features / groups)."""
    edges = [edge for site in sites for edge in site.edges]
    if not edges:
        return ()
    by_site = gathered(sweep_factor(z, edges, columns), range(len(sites)), sites)
    return [
        by_site[i].transpose(3, 4).reshape(len(columns), *shape) if i in by_site else None
        for i, shape in enumerate(shapes)
    ]


def _columns(hessian: OutputHessian, z: Tensor, chunk: int) -> Iterator[Tensor]:
    try:
        count = columns_of(hessian, z)
    except Uncovered as refusal:
        raise CurvatureError(
            f'KFAC(samples="exact") and EKFAC(samples="exact") do not apply: {refusal.reason}; '
            "use samples=1"
        ) from None
    for start in range(0, count, chunk):
        yield output_columns(hessian, z.detach(), start, min(start + chunk, count))


def _otherwise_used(request: Request, z: Tensor, sites: Sequence[Site]) -> frozenset[int]:
    """The parameters whose gradient is not that through the sites; compared once per graph."""
    structure = tuple(site.structure for site in sites)
    key = ("sites compared", request.shapes, structure_behind(z), structure)
    kept = request.workspace.kept
    if key not in kept:
        kept[key] = request.flops.once(key, lambda: _compare(request, z, sites))
    result: frozenset[int] = kept[key]
    return result


def _compare(request: Request, z: Tensor, sites: Sequence[Site]) -> frozenset[int]:
    (w,) = random_tangents([z])
    parameters = request.objective.parameters
    exact = split_like(vjp(z, parameters, w), parameters)
    edges = [edge for site in sites for edge in site.edges]
    through: dict[int, Tensor] = {}
    if edges:
        s = gathered(sweep_factor(z, edges, w[None]), range(len(sites)), sites)
        through = pulled_through(sites, {i: part[0] for i, part in s.items()})
    return frozenset(differing(through, exact, z.dtype))


def _plan(
    request: Request, blocks: Blocks, sites: Sequence[Site], unknown: Collection[int]
) -> SitePlan:
    """The plan of some blocks, kept in the workspace while the sites have its structure."""
    structure = (tuple(site.structure for site in sites), frozenset(unknown))
    key, kept = ("site plan", request.shapes), request.workspace.kept
    last: SitePlan | None = kept.get(key)
    if last is None or last.structure != structure or last.blocks is not blocks:
        last = kept[key] = _planned(structure, blocks, sites, unknown)
    return last


def _planned(
    structure: Hashable, blocks: Blocks, sites: Sequence[Site], unknown: Collection[int]
) -> SitePlan:
    slots, label_of = blocks.layout.slots, block_labels(blocks)
    uncovered = {slots[i].name: UNKNOWN_USE for i in unknown}
    times = torch.zeros(blocks.layout.size, dtype=torch.long)
    uses = [(use, _rows_of(use, blocks)) for site in sites for use in site.uses]
    for _, rows in uses:
        times[rows.positions] += 1
    labels: dict[int, Tensor] = {}  # of a use, by its id
    for use, rows in uses:
        by_feature = feature_labels(use, label_of)
        if by_feature is None:
            uncovered.setdefault(rows.name, CUT)
        elif bool((times[rows.positions] > 1).any()):
            uncovered.setdefault(rows.name, TWICE)
        elif use.view.slot not in unknown:
            labels[id(use)] = by_feature
    parts = [part for i, site in enumerate(sites) for part in _parts(i, site, labels, blocks)]
    rest = torch.ones(blocks.layout.size, dtype=torch.bool)
    for part in parts:
        for rows_of_part in (part.weight, part.bias):
            if rows_of_part is not None:
                rest[rows_of_part.positions] = False
    return SitePlan(structure, blocks, tuple(parts), uncovered, rest.nonzero().reshape(-1))


def _parts(index: int, site: Site, labels: dict[int, Tensor], blocks: Blocks) -> Iterator[SitePart]:
    """A weight with its bias, or each alone where the partition separates them."""
    covered = [use for use in site.uses if id(use) in labels]
    if len(covered) == 2 and torch.equal(*(labels[id(use)] for use in covered)):
        weight, bias = (_rows_of(use, blocks) for use in covered)
        yield _part(index, weight, bias, labels[id(covered[0])])
        return
    for use in covered:
        rows = _rows_of(use, blocks)
        is_weight = use.inputs is not None
        yield _part(
            index, rows if is_weight else None, None if is_weight else rows, labels[id(use)]
        )


def _part(
    index: int, weight: ParameterRows | None, bias: ParameterRows | None, labels: Tensor
) -> SitePart:
    return SitePart(index, weight, bias, labels, len(labels.unique()))


def _rows_of(use: Use, blocks: Blocks) -> ParameterRows:
    slot = blocks.layout.slots[use.view.slot]

    def rows(parameter: Tensor) -> Tensor:
        return use.rows(use.view.of(parameter))

    return ParameterRows(slot.name, slot.start, slot.shape, rows)
