"""Squared gradients of the samples from the sites y = W·a + b: one reverse sweep, then products.

With a the inputs of a site and s = (∂z/∂y)ᵀ ∇_z L its cotangents, the gradient of sample n is

    ∂L_n/∂W = Σ_t s_nt a_ntᵀ    over the positions t,    so at one position a sample
    Σ_n (∂L_n/∂W)² = (S ∘ S)ᵀ (A ∘ A)

Blocks do not matter: an elementwise square has no rows that a partition could cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bdhf.optim.curvature.output import value_and_gradient
from bdhf.optim.losses import OutputHessian
from bdhf.optim.partitions import Full
from bdhf.optim.partitions.blocks_of import cut
from bdhf.optim.products.agreement import random_tangents
from bdhf.optim.products.layer_io.coverage import differing
from bdhf.optim.products.layer_io.sampling import site_samples
from bdhf.optim.products.per_sample import (
    gradient_squares,
    one_hot_squares,
    squared_gradients,
)
from bdhf.optim.products.request import Request
from bdhf.optim.products.site_samples import Inputs, OneHotInputs, SitePart, SiteRecord, SiteSamples
from bdhf.optim.vectors.blocks import Blocks


def site_squares(batches: Sequence[tuple[float, Request, OutputHessian | None]]) -> Tensor:
    """Σ_i w_i² Σ_n (J_nᵀ ∇_z L_i)² over micro-batches i with weights w_i, (P,).

    In the order of the parameters. Parameters that no site covers, and models whose samples the
    sites do not keep apart, take a pass over the samples. Raises ModelError as that does.
    """
    total: Tensor | None = None
    for weight, request, hessian in batches:  # one graph in memory at a time
        squares = weight**2 * _of_batch(request, hessian)
        total = squares if total is None else total.add_(squares)
    assert total is not None  # there is at least one micro-batch
    return total


def _of_batch(request: Request, hessian: OutputHessian | None) -> Tensor:
    """Σ_n (J_nᵀ ∇_z L)² of one micro-batch, (P,)."""
    exact = replace(request, settings=replace(request.settings, dtype=None))
    samples = site_samples([(1.0, exact, hessian)], _one_block(request))
    record = samples.records[0]
    with torch.enable_grad():
        z = record.outputs.clone().requires_grad_()
        u = value_and_gradient(request.objective.loss_fn, z, request.batch[1])[1].detach()
    with request.flops.counting(("site squares", request.shapes)):
        flat = _through_sites(samples, u, request.blocks.layout.size)
    if flat is None:
        return squared_gradients(request, u)
    slots = request.blocks.layout.slots
    if samples.uncovered:
        uncovered = [i for i, slot in enumerate(slots) if slot.name in samples.uncovered]
        positions = torch.cat([slots[i].positions() for i in uncovered])
        whole = torch.zeros_like(flat)
        whole[positions] = squared_gradients(request, u, uncovered)
        flat[samples.rest] = whole[samples.rest]
    return flat


def _through_sites(samples: SiteSamples, u: Tensor, size: int) -> Tensor | None:
    """The squares on the entries that sites cover, (P,); None where the sites do not give them."""
    record = samples.records[0]
    if not samples.parts:
        return None
    cotangents = [None if s is None else s[0] for s in record.cotangents(u[None])]
    if not (record.apart() or _sound(samples, cotangents, u)):
        return None
    flat = u.new_zeros(size)
    for part in samples.parts:
        _write(part, record, cotangents[part.site], flat)
    return flat


def _one_block(request: Request) -> Blocks:
    """All parameters as one block, the same object at every update."""
    kept, key = request.workspace.kept, "one block"
    if key not in kept:
        kept[key] = cut(request.blocks.layout, Full()).to(request.objective.device)
    blocks: Blocks = kept[key]
    return blocks


def _write(part: SitePart, record: SiteRecord, s: Tensor | None, flat: Tensor) -> None:
    """The squares on the rows of a part, from the cotangents (N, T, groups, features / groups)."""
    if s is None:
        return
    if part.weight is not None:
        inputs = record.inputs[part.site]
        assert inputs is not None  # the site has a weight
        part.weight.write(flat, _squares(inputs, s))
    if part.bias is not None:
        part.bias.write(flat, s.sum(1).square().sum(0).reshape(-1, 1))


def _squares(inputs: Inputs, s: Tensor) -> Tensor:
    """Σ_n (Σ_t s_nt a_ntᵀ)², (features, entries)."""
    if isinstance(inputs, OneHotInputs):
        return one_hot_squares(s[None], inputs)[0]
    return gradient_squares(s[None], inputs.values).flatten(0, 1)


def _outer(s: Tensor, a: Tensor) -> Tensor:
    """Σ_nt s_nt a_ntᵀ of every group, (groups, features / groups, entries)."""
    return s.flatten(0, 1).permute(1, 2, 0) @ a.flatten(0, 1).transpose(0, 1)


def _indexed(inputs: OneHotInputs, s: Tensor) -> tuple[Tensor, Tensor]:
    """The index of every position, (N·T,), and its cotangent, (N·T, features)."""
    return inputs.index.reshape(-1), s.reshape(s.shape[0] * s.shape[1], -1)


def _sound(samples: SiteSamples, cotangents: Sequence[Tensor | None], u: Tensor) -> bool:
    """Whether S of D u is D S of u for D = diag(d_n), and S of u gives Jᵀu, on this batch.

    Depending on its data a model may mix samples or use a parameter in another way.
    """
    record = samples.records[0]
    (d,) = random_tangents([u.new_empty(len(u))])
    mixed = record.cotangents((d.view(-1, *[1] * (u.dim() - 1)) * u)[None])
    pairs = [(m, s) for m, s in zip(mixed, cotangents, strict=True) if s is not None]
    if not pairs or not all(bool(s.isfinite().all()) for _, s in pairs):  # nothing to compare
        return True
    columns = {i: m[0] for i, (m, _) in enumerate(pairs) if m is not None}
    if differing(columns, [d.view(-1, 1, 1, 1) * s for _, s in pairs], u.dtype):
        return False
    whole = record.pulled(u)
    rows = [
        (_gradient(rows is part.weight, record.inputs[part.site], s), rows.of(whole))
        for part in samples.parts
        for s in [cotangents[part.site]]
        for rows in (part.weight, part.bias)
        if rows is not None and s is not None
    ]
    through = {i: made for i, (made, _) in enumerate(rows)}
    return not differing(through, [exact for _, exact in rows], u.dtype)


def _gradient(is_weight: bool, inputs: Inputs | None, s: Tensor) -> Tensor:
    """The gradient of a weight or a bias through its site, (features, entries)."""
    if not is_weight or inputs is None:
        return s.sum((0, 1)).reshape(-1, 1)
    if not isinstance(inputs, OneHotInputs):
        return _outer(s, inputs.values).flatten(0, 1)
    index, rows = _indexed(inputs, s)
    sums = s.new_zeros(inputs.entries, rows.shape[1])
    return sums.index_add_(0, index[index >= 0], rows[index >= 0]).T
