"""How a product is computed: the table of methods, and the choice of "auto"."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import torch

from bdhf.optim.curvature import Curvature, Hessian, hessian_share, is_through_outputs
from bdhf.optim.errors import CurvatureError
from bdhf.optim.forward.batches import Batch
from bdhf.optim.forward.objective import Objective
from bdhf.optim.losses import is_mean, weights
from bdhf.optim.products.forecast import forecast
from bdhf.optim.products.layer_io.layer_io import LayerIO
from bdhf.optim.products.layer_io.sampling import site_samples
from bdhf.optim.products.layer_io.site_squares import site_squares
from bdhf.optim.products.layer_io.sites import Uncovered
from bdhf.optim.products.layer_io.survey import survey
from bdhf.optim.products.linearisation import Linearisation
from bdhf.optim.products.product import BlockProduct
from bdhf.optim.products.propagate.hessian import DoubleBackward
from bdhf.optim.products.propagate.propagate import Propagate
from bdhf.optim.products.request import EXPECTED_PRODUCTS, Request, Settings, Workspace
from bdhf.optim.products.weighted_sum import WeightedSum
from bdhf.optim.torch_support.failures import Failure, attempt
from bdhf.optim.torch_support.flops import Flops
from bdhf.optim.vectors.blocks import Blocks

_T = TypeVar("_T")
MethodChoice = tuple[str, str]  # method, and why


def _propagate(request: Request) -> Linearisation:
    """By sweeps through the graph of the outputs, of the gradient, or of each in turn."""
    curvature, share = request.curvature, hessian_share(request.curvature)
    if is_through_outputs(curvature):
        return Propagate(request, curvature)
    hessian = DoubleBackward(request)
    if isinstance(curvature, Hessian) or share == 1:
        return hessian
    return WeightedSum(((share, hessian), (1 - share, Propagate(request, curvature))))


def _layer_io(request: Request) -> Linearisation:
    """By cached inputs and output factors. Raises Uncovered where they do not determine it."""
    curvature = request.curvature
    if not is_through_outputs(curvature):
        raise Uncovered("the Hessian is not of the form Jᵀ H J")
    return LayerIO(request, curvature)


METHODS: Mapping[str, Callable[[Request], Linearisation]] = {
    "propagate": _propagate,
    "layer_io": _layer_io,
}


def check_method(settings: Settings) -> None:
    """Raise ValueError for an unknown method."""
    names = ["auto", *METHODS]
    if settings.method not in names:
        raise ValueError(f"unknown method {settings.method!r}; known: {', '.join(names)}")


def linearise(
    objective: Objective,
    batches: Sequence[Batch],
    *,
    curvature: Curvature,
    blocks: Blocks,
    flops: Flops,
    seed: int = 0,
    settings: Settings = Settings(),  # noqa: B008 - frozen, so shared safely
    workspace: Workspace | None = None,
    products: int = EXPECTED_PRODUCTS,
) -> BlockProduct:
    """Linearise the curvature at the current parameters on the micro-batches of one batch.

    `seed` seeds what the curvature draws; `workspace` holds what outlives the linearisation;
    `products` is the expected number of products with it. Raises ValueError for an unknown method.
    """
    check_method(settings)
    generator = torch.Generator(objective.device).manual_seed(seed)
    workspace = Workspace() if workspace is None else workspace
    with objective.naming_outside_parameters():
        requests = [
            Request(
                objective, batch, curvature, blocks, generator, flops,
                settings, workspace, products,
            )
            for batch in batches
        ]  # fmt: skip
        made = [_linearised(request) for request in requests]
    parts = [part for _, part in made]
    pairs = [(part.outputs, batch[1]) for part, batch in zip(parts, batches, strict=True)]
    shares = weights(objective.loss_fn, pairs)
    samples = sum(outputs.shape[0] if outputs.dim() else 1 for outputs, _ in pairs)
    scale = samples if is_mean(objective.loss_fn) else 1
    counted = [pair for pair in zip(shares, parts, strict=True) if pair[0] != 0]
    triples = zip(shares, requests, parts, strict=True)
    recorded = [(share, request, part.hessian) for share, request, part in triples if share != 0]
    (_, reason), first = made[0]
    reasons = filter(None, [reason, _of_the_loss(objective, curvature, blocks)])
    dtype = settings.dtype or first.gradient.dtype
    return BlockProduct(
        "; ".join(reasons), first, tuple(counted), blocks, scale, dtype,
        flops=flops, sites=partial(site_samples, recorded, blocks),
        site_squares=partial(site_squares, recorded), seed=seed,
    )  # fmt: skip


def _of_the_loss(objective: Objective, curvature: Curvature, blocks: Blocks) -> str:
    """How products treat the parameters that the loss holds; empty where it holds none."""
    if not objective.held:
        return ""
    names = ", ".join(blocks.layout.slots[i].name for i in objective.held)
    if hessian_share(curvature):
        return f"the loss reads {names} itself: its second derivatives are in the Hessian"
    return (
        f"the loss reads {names} itself: the gradient is exact, but the curvature is that through "
        "the outputs only, so a parameter of the loss alone moves by -lr/damping times its "
        "gradient, with the lr and damping of its param_group"
    )


def _linearised(request: Request) -> tuple[MethodChoice, Linearisation]:
    """Linearise one micro-batch by the method that was chosen for its shape.

    The choice is kept once it has led to a linearisation: an error of the model or the loss does
    not change it.
    """
    kept, key = request.workspace.kept, ("method", request.shapes)
    choice: MethodChoice = kept[key] if key in kept else _choose(request)
    made: Linearisation | str = choice[1]
    if choice[0] == "layer_io":
        made = _or_refusal(request, lambda: METHODS["layer_io"](request))
        if isinstance(made, str):
            choice = ("propagate", made)
    if isinstance(made, str):
        made = METHODS["propagate"](request)
    kept[key] = choice
    return choice, made


def _or_refusal(request: Request, work: Callable[[], _T]) -> _T | str:
    """The result of `work` for layer_io, or why layer_io does not apply.

    Raises CurvatureError where the caller named layer_io and torch fails in it; an error that every
    method meets is raised unchanged.
    """
    try:
        outcome = attempt(work)
    except Uncovered as refusal:
        return f"layer_io does not apply: {refusal.reason}"
    if not isinstance(outcome, Failure):
        return outcome
    if request.settings.method == "auto":
        return f"layer_io does not apply: {outcome.reason}"
    METHODS["propagate"](request)
    raise CurvatureError(
        f"layer_io cannot be set up ({outcome.reason}): use method='auto', which falls back to "
        "'propagate' where torch fails, or method='propagate'"
    ) from outcome.error


def _choose(request: Request) -> MethodChoice:
    """The requested method; for "auto" the cheaper one."""
    if request.settings.method != "auto":
        return request.settings.method, "requested by method="
    curvature = request.curvature
    if not is_through_outputs(curvature):
        return "propagate", ""
    if not request.products:
        return "propagate", "the solver uses no products"
    costs = _or_refusal(request, lambda: forecast(request, survey(request, curvature)))
    if isinstance(costs, str):
        return "propagate", costs
    return costs.method, str(costs)
