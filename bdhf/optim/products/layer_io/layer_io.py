"""Products with Jᵀ H J for all blocks at once, from cached inputs and output factors.

With H = B Bᵀ and the sites y = W·a + b of `sites.py`, S[c] = (∂z/∂y)ᵀ B_c, for tangents v of all
parameters:

    ∂y = W(v)·a + b(v);    t = S ∘ ∂y added up over each block;    ȳ = Σ_c t S;    G v = ȳ aᵀ

No product runs through the model, and the number of blocks costs nothing: only the reduction
depends on them. A partition whose blocks cut through rows takes one such sweep per block.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from bdhf.optim.curvature import OutputCurvature, OutputLoss
from bdhf.optim.errors import CurvatureError
from bdhf.optim.losses.weights import LossFn
from bdhf.optim.products.layer_io.output_factor import OutputFactor, columns_of
from bdhf.optim.products.layer_io.reduction import Component, whole_reduction
from bdhf.optim.products.layer_io.site_check import SiteCheck
from bdhf.optim.products.layer_io.site_product import SiteProduct
from bdhf.optim.products.layer_io.sites import Site
from bdhf.optim.products.layer_io.survey import needs_of, plan_of, recorded
from bdhf.optim.products.linearisation import block_by_block, pick, slot_tensors
from bdhf.optim.products.per_sample import squared_gradients
from bdhf.optim.products.propagate.propagate import Propagate
from bdhf.optim.products.request import Request
from bdhf.optim.products.vjp import vjp
from bdhf.optim.torch_support.failures import Failure, attempt
from bdhf.optim.torch_support.flops import part
from bdhf.optim.vectors.blocks import Block, Blocks
from bdhf.optim.vectors.layout import flatten
from bdhf.optim.vectors.strides import Strided


class LayerIO:
    """One batch at one θ under a curvature Jᵀ H J; keeps inputs and output factors.

    Raises Uncovered, with the reason, where the recorded uses of the parameters do not give the
    gradient or the product, where the loss has no root sample by sample, and where not one column
    fits below `max_bytes`.
    """

    gradient: Tensor
    _sites: Sequence[Site]
    _factor: OutputFactor

    def __init__(self, request: Request, curvature: OutputCurvature) -> None:
        self._request, self.batch = request, request.batch
        self.flops, self.shapes = request.flops, request.shapes
        self._failure: Failure | None = None  # of a product
        drawn = request.generator.get_state()
        try:
            self._set_up(curvature)
        except Exception:
            request.generator.set_state(drawn)  # for the method that replaces this one
            raise

    def _set_up(self, curvature: OutputCurvature) -> None:
        with self.flops.counting(("linearise", self.shapes)):
            z = self._linearise(curvature)
        self.outputs = z.detach()
        with self.flops.counting(("output factor", self.shapes)):
            self._factorise(z)
        check = SiteCheck(
            self._request, self._multiply, z, self.hessian, self._expansion.gradient, self.gradient
        )
        self.flops.once(("layer_io checked", self.shapes), check)
        if self._factor.release():
            self._sites = [replace(site, edges=()) for site in self._sites]
        objective, direct = self._request.objective, self._expansion.direct
        self.gradient = objective.with_direct(self.gradient, direct)  # not through the sites

    def _linearise(self, curvature: OutputCurvature) -> Tensor:
        objective = self._request.objective
        z, self._sites = recorded(self._request)
        self._expansion = curvature.expand_loss(
            objective.loss_fn, z, self.batch[1], self._request.generator
        )
        self.loss, self.hessian = self._expansion.loss, self._expansion.hessian
        self.gradient = self._through(z)
        return z

    @part("gradient of sites")
    def _through(self, z: Tensor) -> Tensor:
        return vjp(z, self._request.objective.parameters, self._expansion.gradient)

    def _factorise(self, z: Tensor) -> None:
        needs = needs_of(self._request, self._sites, z, columns_of(self.hessian, z))
        self._factor = OutputFactor(
            z, self.hessian, self._sites,
            needs.open, needs.closed, needs.schedule, self._request.settings.dtype or z.dtype,
        )  # fmt: skip
        self._how = (
            f"all blocks at once, {len(self._sites)} sites and {needs.schedule.columns} columns"
        )

    @property
    def method(self) -> str:
        """The method that computes its products, a key of `METHODS`."""
        return "layer_io" if self._failure is None else "propagate"

    @property
    def why(self) -> str:
        """How its products are computed, and why."""
        if self._failure is None:
            return self._how
        return f"layer_io failed in a product: {self._failure.reason}; {self._propagate.why}"

    def product(self, blocks: Blocks, v: Tensor, active: Sequence[int]) -> Tensor:
        """G_bb v_b for every active block b, zero elsewhere; (P,) -> (P,), in block order."""
        if self._failure is None:
            result = attempt(lambda: self._product(blocks, v, active))
            if not isinstance(result, Failure):
                return result
            self._fall_back(result)
        return self._propagate.product(blocks, v, active)

    def _fall_back(self, failure: Failure) -> None:
        """Use propagation, for this linearisation and all later ones.

        Raises CurvatureError where the caller named layer_io.
        """
        if self._request.settings.method != "auto":
            raise CurvatureError(
                f"layer_io failed in a product ({failure.reason}): use method='auto', which falls "
                "back to 'propagate' where torch fails, or method='propagate'"
            ) from failure.error
        self._failure = failure
        reason = f"layer_io does not apply: it failed in a product: {failure.reason}"
        self._request.workspace.kept["method", self.shapes] = ("propagate", reason)

    def _product(self, blocks: Blocks, v: Tensor, active: Sequence[int]) -> Tensor:
        plan = plan_of(self._request, blocks, self._sites)
        key: tuple[Hashable, ...] = ("product", self.shapes, "layer_io")
        if plan.mixed:
            return block_by_block(blocks, v, active, self._single, self.flops, key)
        every = len(active) == len(blocks.rows)
        numbers = None if every else plan.owners(active)
        chosen = plan.components
        if numbers is not None:
            chosen = tuple(chosen[i] for i in numbers)
        key = (*key, blocks.shapes, None if numbers is None else tuple(numbers))
        with self.flops.counting(key):
            result = self._multiplied(chosen, blocks.views, v)
        if not every:
            idle = torch.ones(len(blocks.rows), dtype=torch.bool, device=v.device)
            idle[list(active)] = False
            blocks.zero_(idle, result)
        return result

    def _multiplied(
        self, components: Sequence[Component], views: Sequence[Strided], v: Tensor
    ) -> Tensor:
        """Whole components of a partition, zero elsewhere; (P,) -> (P,), in block order."""
        sites = {term.site for component in components for term in component.terms}
        slots = {slot for i in sites for slot in self._sites[i].slots}
        columns = self._multiply(components, {slot: views[slot].of(v) for slot in slots})
        every = len(columns) == len(views)
        result = torch.empty_like(v) if every else torch.zeros_like(v)
        for slot, column in columns.items():
            views[slot].write(result, column)
        return result

    def _single(self, block: Block, v: Tensor, out: Tensor) -> None:
        """G_bb v for one block, (P_b,) into (P_b,)."""
        parameters = self._request.objective.parameters
        tangents = dict(zip(block.slots, slot_tensors(block, v, parameters), strict=True))
        columns = self._multiply([whole_reduction(self._sites, block.slots)], tangents)
        parts = [columns.get(i, torch.zeros_like(tangents[i])) for i in block.slots]
        out.copy_(pick(block, flatten(parts)))

    @property
    def _multiply(self) -> SiteProduct:
        return SiteProduct(self._sites, self._factor)

    @cached_property
    @torch.enable_grad()
    def _propagate(self) -> Propagate:
        """The same matrix by propagation, for the factor and after a failure."""
        plain = replace(self._request, settings=replace(self._request.settings, dtype=None))
        return Propagate(plain, _Expanded(self._expansion))

    def together(self, blocks: Blocks) -> bool:
        """Whether no row of a parameter lies in several blocks."""
        if self._failure is not None:
            return self._propagate.together(blocks)
        return not plan_of(self._request, blocks, self._sites).mixed

    @property
    def factor_rows(self) -> int:
        """R, one row per column of B."""
        return torch.Size(self.hessian.root_shape).numel()

    def factor(self, chunk: int, positions: Tensor | None = None) -> Tensor:
        """A = BᵀJ with H = BBᵀ, (R, P) in the order of the parameters, or some columns of it."""
        return self._propagate.factor(chunk, positions)

    def squared_gradients(self) -> Tensor:
        """Σ_n (J_nᵀ ∇_z L_n)² over the samples, (P,) in the order of the parameters."""
        return squared_gradients(self._request, self._expansion.gradient)


@dataclass(frozen=True)
class _Expanded:
    """A curvature with its expansion: nothing is drawn again."""

    expansion: OutputLoss

    def expand_loss(
        self, loss_fn: LossFn, outputs: Tensor, targets: Any, generator: torch.Generator
    ) -> OutputLoss:
        """The expansion."""
        return self.expansion
