"""Products with Jᵀ H J for all blocks at once, out of cached inputs and output factors.

With H = B Bᵀ and the sites y = W·a + b of `sites.py`, S[c] = (∂z/∂y)ᵀ B_c, for tangents v of all
parameters:

    ∂y = W(v)·a + b(v);    t = S ∘ ∂y added up over each block;    ȳ = Σ_c t S;    G v = ȳ aᵀ

No product walks through the model, and the number of blocks costs nothing: only the reduction
knows them. A partition whose blocks cut through rows takes one such sweep a block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from bdhf.optim.curvature import OutputCurvature, OutputLoss
from bdhf.optim.errors import CurvatureError
from bdhf.optim.losses.weights import LossFn
from bdhf.optim.products.agreement import probe
from bdhf.optim.products.layer_io.coverage import COUPLED, UNKNOWN, compare, exact_product
from bdhf.optim.products.layer_io.output_factor import OutputFactor, columns_of, gathered, sweep
from bdhf.optim.products.layer_io.reduction import Component, Term, whole
from bdhf.optim.products.layer_io.sites import Site
from bdhf.optim.products.layer_io.survey import needs_of, plan_of, recorded
from bdhf.optim.products.linearisation import block_by_block, pick, spread
from bdhf.optim.products.per_sample import squared_gradients
from bdhf.optim.products.propagate.propagate import Propagate
from bdhf.optim.products.propagate.sample_independence import graph_apart
from bdhf.optim.products.request import Request
from bdhf.optim.products.vjp import pulled
from bdhf.optim.torch_support.failures import Failure, attempt
from bdhf.optim.torch_support.graphs import structure_behind
from bdhf.optim.vectors.blocks import Block, Blocks
from bdhf.optim.vectors.layout import flatten, split_like
from bdhf.optim.vectors.strides import Strided


class LayerIO:
    """One batch at one θ under a curvature Jᵀ H J; keeps inputs and output factors.

    Raises Uncovered, with the reason, where the uses of the parameters that were found do not
    make up the gradient or the product, where the loss has no root sample by sample, and where
    not one column fits below `max_bytes`.
    """

    gradient: Tensor
    _sites: Sequence[Site]
    _factor: OutputFactor

    def __init__(self, request: Request, curvature: OutputCurvature) -> None:
        self._request, self.batch = request, request.batch
        self._flops, self.shapes = request.flops, request.shapes
        self._failure: Failure | None = None  # of a product
        drawn = request.generator.get_state()
        try:
            self._set_up(curvature)
        except Exception:
            request.generator.set_state(drawn)  # for the method that comes instead
            raise

    def _set_up(self, curvature: OutputCurvature) -> None:
        z = self._flops.run(("linearise", self.shapes), partial(self._linearise, curvature))
        self.outputs = z.detach()
        self._flops.run(("output factor", self.shapes), partial(self._factorise, z))
        self._flops.once(("layer_io checked", self.shapes), lambda: self._check(z))
        if self._factor.release():
            self._sites = [replace(site, edges=()) for site in self._sites]
        objective, direct = self._request.objective, self._expansion.direct
        self.gradient = objective.with_direct(self.gradient, direct)  # the sites make no direct one

    def _linearise(self, curvature: OutputCurvature) -> Tensor:
        objective = self._request.objective
        z, self._sites = recorded(self._request)
        self._expansion = curvature.expand_loss(
            objective.loss_fn, z, self.batch[1], self._request.generator
        )
        self.loss, self.hessian = self._expansion.loss, self._expansion.hessian
        self.gradient = self._flops.part(
            ("gradient", self.shapes, "layer_io"),
            lambda: pulled(z, objective.parameters, self._expansion.gradient),
        )
        return z

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
        """That of the table of methods which computes its products."""
        return "layer_io" if self._failure is None else "propagate"

    @property
    def why(self) -> str:
        """How its products are computed, and for what reason."""
        if self._failure is None:
            return self._how
        return f"layer_io failed in a product: {self._failure.reason}; {self._propagate.why}"

    def product(self, blocks: Blocks, v: Tensor, active: Sequence[int]) -> Tensor:
        """G_bb v_b for every active block b, zero elsewhere; (P,) -> (P,), in block order."""
        if self._failure is None:
            result = attempt(lambda: self._product(blocks, v, active))
            if not isinstance(result, Failure):
                return result
            self._give_way(result)
        return self._propagate.product(blocks, v, active)

    def _give_way(self, failure: Failure) -> None:
        """Leave products to propagation, of this linearisation and of all that come.

        Raises CurvatureError where layer_io was asked for by name.
        """
        if self._request.settings.method != "auto":
            raise CurvatureError(
                f"layer_io failed in a product ({failure.reason}): use method='auto', which gives "
                "way where torch fails, or 'propagate'"
            ) from failure.error
        self._failure = failure
        reason = f"layer_io does not apply: it failed in a product: {failure.reason}"
        self._request.workspace.kept["method", self.shapes] = ("propagate", reason)

    def _product(self, blocks: Blocks, v: Tensor, active: Sequence[int]) -> Tensor:
        plan = plan_of(self._request, blocks, self._sites)
        key = ("product", self.shapes, "layer_io")
        if plan.mixed:
            return block_by_block(blocks, v, active, self._single, self._flops, key)
        every = len(active) == len(blocks.rows)
        numbers = None if every else plan.owners(active)
        chosen = plan.components
        if numbers is not None:
            chosen = tuple(chosen[i] for i in numbers)
        result = self._flops.run(
            (*key, blocks.shapes, None if numbers is None else tuple(numbers)),
            lambda: self._multiplied(chosen, blocks.places, v),
        )
        if not every:
            idle = torch.ones(len(blocks.rows), dtype=torch.bool, device=v.device)
            idle[list(active)] = False
            blocks.zero_(idle, result)
        return result

    def _multiplied(
        self, components: Sequence[Component], places: Sequence[Strided], v: Tensor
    ) -> Tensor:
        """Whole components of a partition, zero elsewhere; (P,) -> (P,), in block order."""
        sites = {term.site for component in components for term in component.terms}
        slots = {slot for i in sites for slot in self._sites[i].slots}
        columns = self._multiply(components, {slot: places[slot].of(v) for slot in slots})
        every = len(columns) == len(places)
        result = torch.empty_like(v) if every else torch.zeros_like(v)
        for slot, column in columns.items():
            places[slot].write(result, column)
        return result

    def _single(self, block: Block, v: Tensor, out: Tensor) -> None:
        """G_bb v for one block, (P_b,) into (P_b,)."""
        parameters = self._request.objective.parameters
        tangents = dict(zip(block.slots, spread(block, v, parameters), strict=True))
        columns = self._multiply([whole(self._sites, block.slots)], tangents)
        parts = [columns.get(i, torch.zeros_like(tangents[i])) for i in block.slots]
        out.copy_(pick(block, flatten(parts)))

    def _multiply(
        self, components: Sequence[Component], tangents: Mapping[int, Tensor]
    ) -> dict[int, Tensor]:
        """Push, reduce and spread, pull: the product of every slot that is reached."""
        pushed = [[self._push(term, tangents) for term in c.terms] for c in components]
        totals = [self._begun(c, ys) for c, ys in zip(components, pushed, strict=True)]
        triples = zip(components, pushed, totals, strict=True)
        rest = [triple for triple in triples if not self._is_closed(triple[0])]
        needed = sorted({term.site for component, _, _ in rest for term in component.terms})

        def add(s: Mapping[int, Tensor]) -> None:
            for component, ys, to in rest:
                component.add(s, ys, to)

        self._factor.visit(needed, add)
        result: dict[int, Tensor] = {}
        for component, to in zip(components, totals, strict=True):
            for term, total in zip(component.terms, to, strict=True):
                self._pull(term.site, term.uses, total, result)
        return result

    def _begun(self, component: Component, pushed: Sequence[Tensor]) -> list[Tensor]:
        """The ȳ of every term before any S: h ∘ ∂y where that is all."""
        h = self._factor.h.get(component.terms[0].site) if self._is_closed(component) else None
        return [torch.zeros_like(y) if h is None else h * y for y in pushed]

    def _is_closed(self, component: Component) -> bool:
        """Whether h was made for it: not for blocks that the request did not name."""
        return component.closed and component.terms[0].site in self._factor.closed_sites

    def _push(self, term: Term, tangents: Mapping[int, Tensor]) -> Tensor:
        """∂y of some uses of a site, (N, before, features, after)."""
        uses = [self._sites[term.site].uses[i] for i in term.uses]
        parts: list[Tensor] = [use.push(tangents[use.place.slot]) for use in uses]
        return parts[0] if len(parts) == 1 else parts[0].add_(parts[1])  # a weight's is its own

    def _pull(
        self, site: int, uses: Sequence[int], total: Tensor, result: dict[int, Tensor]
    ) -> None:
        """Add what a cotangent of y gives to every slot."""
        for i in uses:
            use = self._sites[site].uses[i]
            column, slot = use.pull(total), use.place.slot
            result[slot] = result[slot] + column if slot in result else column

    def _check(self, z: Tensor) -> None:
        """Compare with autograd, once for every parameter that shows in the gradient.

        And again where the forward pass has another graph: a flag may let it mix samples.
        """
        request, kept = self._request, self._request.workspace.kept
        parameters, slots = request.objective.parameters, request.blocks.layout.slots
        key = ("layer_io checked", self.shapes, structure_behind(z))
        uses = sum(len(site.edges) * len(site.uses) for site in self._sites)
        if key in kept and not graph_apart(z, uses):
            self._check_again(z)
        gradient = split_like(self.gradient, parameters)
        unseen = kept.get(key, frozenset(range(len(slots))))
        seen = {i for i in unseen if bool(gradient[i].any())}
        if key in kept and not seen:
            return
        if not bool(self.gradient.isfinite().all()):  # nothing to learn from
            return
        dtype = request.settings.dtype or self.gradient.dtype
        compare(self._rebuilt(z), gradient, slots, dtype, UNKNOWN)
        v, everything = probe(parameters), whole(self._sites, range(len(slots)))
        found = self._multiply([everything], dict(enumerate(v)))
        compare(found, exact_product(request, z, self.hessian, v), slots, dtype, COUPLED)
        kept[key] = unseen - seen

    def _check_again(self, z: Tensor) -> None:
        """See in every linearisation that the sites make up Jᵀw, and that S of D w is D S of w.

        For D = diag(d_n) of the samples. A model may mix them, or use a parameter otherwise, by its
        data or by a gate, which was 0 when products were compared.
        """
        sites, slots = self._sites, self._request.blocks.layout.slots
        w, d = probe([z, z.new_empty(len(z))])
        both = torch.stack([w, d.view(-1, *[1] * (z.dim() - 1)) * w])
        s = gathered(
            sweep(z, [e for site in sites for e in site.edges], both), range(len(sites)), sites
        )
        mixed = dict(enumerate(part[1] for part in s.values()))
        exact = [d.view(-1, 1, 1, 1).to(part) * part[0] for part in s.values()]
        firsts = [slots[sites[i].slots[0]] for i in s]
        if all(bool(part.isfinite().all()) for part in exact):
            dtype = self._request.settings.dtype or self.gradient.dtype
            compare(mixed, exact, firsts, dtype, COUPLED)
            parameters = self._request.objective.parameters
            whole_of = split_like(pulled(z, parameters, w), parameters)
            compare(
                self._pulled({i: part[0] for i, part in s.items()}), whole_of, slots, dtype, UNKNOWN
            )

    def _rebuilt(self, z: Tensor) -> dict[int, Tensor]:
        """The gradient that the sites make up."""
        every = range(len(self._sites))
        edges = [edge for site in self._sites for edge in site.edges]
        found = gathered(sweep(z, edges, self._expansion.gradient[None]), every, self._sites)
        return self._pulled({i: s[0] for i, s in found.items()})

    def _pulled(self, totals: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """What cotangents of sites give to every slot."""
        result: dict[int, Tensor] = {}
        for i, total in totals.items():
            self._pull(i, range(len(self._sites[i].uses)), total, result)
        return result

    @cached_property
    @torch.enable_grad()
    def _propagate(self) -> Propagate:
        """The same matrix by propagation, for what is not a product."""
        plain = replace(self._request, settings=replace(self._request.settings, dtype=None))
        return Propagate(plain, _Given(self._expansion))

    def together(self, blocks: Blocks) -> bool:
        """Unless a row of a parameter lies in several blocks."""
        if self._failure is not None:
            return self._propagate.together(blocks)
        return not plan_of(self._request, blocks, self._sites).mixed

    @property
    def factor_rows(self) -> int:
        """R, one row a column of B."""
        return torch.Size(self.hessian.root_shape).numel()

    def factor(self, chunk: int) -> Tensor:
        """A = BᵀJ with H = BBᵀ, (R, P) in the order of the parameters."""
        return self._propagate.factor(chunk)

    def squared_gradients(self) -> Tensor:
        """Σ_n (J_nᵀ ∇_z L_n)² over the samples, (P,) in the order of the parameters."""
        return squared_gradients(self._request, self._expansion.gradient)


@dataclass(frozen=True)
class _Given:
    """The curvature as it was expanded before: nothing is drawn again."""

    expansion: OutputLoss

    def expand_loss(
        self, loss_fn: LossFn, outputs: Tensor, targets: Any, generator: torch.Generator
    ) -> OutputLoss:
        """What was given."""
        return self.expansion
