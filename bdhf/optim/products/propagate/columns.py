"""Some columns of Jᵀw for several w: sweeps that end at the tensors of these columns."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from bdhf.optim.products.no_derivative import no_gradient
from bdhf.optim.products.request import Request
from bdhf.optim.torch_support.failures import Failure, attempt


def some_columns(
    request: Request, outputs: Tensor, positions: Tensor, cotangents: Tensor
) -> Tensor:
    """Entries of Jᵀw at flat positions (n,), for k vectors w: (k, *shape of z) -> (k, n).

    In one sweep where torch can. Raises CurvatureError where torch has no gradient.
    """
    layout = request.blocks.layout
    slots = layout.slot_at(positions.cpu()).unique().tolist()
    parameters = [request.objective.parameters[i] for i in slots]
    held = torch.cat([layout.slots[i].positions() for i in slots])
    index = torch.searchsorted(held, positions.cpu()).to(outputs.device)
    made = attempt(partial(_swept, outputs, parameters, cotangents, batched=True))
    if isinstance(made, Failure):
        one_by_one = [w[None] for w in cotangents]
        made = attempt(
            lambda: torch.cat([_swept(outputs, parameters, w, batched=False) for w in one_by_one])
        )
    if isinstance(made, Failure):
        raise no_gradient(request, made, "the factor")
    return made[:, index]


def _swept(
    outputs: Tensor, parameters: list[Tensor], cotangents: Tensor, *, batched: bool
) -> Tensor:
    """Jᵀw of some parameters, (k, their entries)."""
    columns = torch.autograd.grad(
        outputs, parameters, cotangents if batched else cotangents[0], is_grads_batched=batched,
        retain_graph=True, allow_unused=True, materialize_grads=True,
    )  # fmt: skip
    rows = len(cotangents)
    flat = [
        column.expand(rows, *p.shape).reshape(rows, p.numel())
        for column, p in zip(columns, parameters, strict=True)
    ]
    return torch.cat(flat, dim=1).detach()
