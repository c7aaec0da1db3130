"""The product through sites y = W·a + b, from cached inputs a and output factors S.

∂y = W(v)·a + b(v);    ȳ = Σ_c t S, t = S ∘ ∂y added up over each block;    G v = ȳ aᵀ
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bdhf.optim.products.layer_io.output_factor import OutputFactor
from bdhf.optim.products.layer_io.reduction import Component, Term
from bdhf.optim.products.layer_io.sites import Site


@dataclass(frozen=True)
class SiteProduct:
    """G v of components of a partition, independent of the model between the sites."""

    sites: Sequence[Site]
    factor: OutputFactor

    def __call__(
        self, components: Sequence[Component], tangents: Mapping[int, Tensor]
    ) -> dict[int, Tensor]:
        """The product for every slot of the components, from the tangents of slots."""
        pushed = [[self._push(term, tangents) for term in c.terms] for c in components]
        totals = self._reduced(components, pushed)
        return self._pulled(components, totals)

    def _push(self, term: Term, tangents: Mapping[int, Tensor]) -> Tensor:
        """∂y of some uses of a site, (N, before, features, after)."""
        uses = [self.sites[term.site].uses[i] for i in term.uses]
        parts: list[Tensor] = [use.push(tangents[use.view.slot]) for use in uses]
        return parts[0] if len(parts) == 1 else parts[0].add_(parts[1])  # a weight's is no view

    def _reduced(
        self, components: Sequence[Component], pushed: Sequence[Sequence[Tensor]]
    ) -> list[list[Tensor]]:
        """The ȳ of every term of every component, from its ∂y."""
        totals = [self._begun(c, ys) for c, ys in zip(components, pushed, strict=True)]
        triples = zip(components, pushed, totals, strict=True)
        rest = [triple for triple in triples if not self._is_closed(triple[0])]
        needed = sorted({term.site for component, _, _ in rest for term in component.terms})

        def add(s: Mapping[int, Tensor]) -> None:
            for component, ys, to in rest:
                component.add(s, ys, to)

        self.factor.visit(needed, add)
        return totals

    def _begun(self, component: Component, pushed: Sequence[Tensor]) -> list[Tensor]:
        """The initial ȳ of every term: h ∘ ∂y where h replaces S, else 0."""
        h = self.factor.h.get(component.terms[0].site) if self._is_closed(component) else None
        return [torch.zeros_like(y) if h is None else h * y for y in pushed]

    def _is_closed(self, component: Component) -> bool:
        """Whether there is h for it: there is none for blocks that the request does not name."""
        return component.closed and component.terms[0].site in self.factor.closed_sites

    def _pulled(
        self, components: Sequence[Component], totals: Sequence[Sequence[Tensor]]
    ) -> dict[int, Tensor]:
        """Σ ȳ aᵀ of every slot."""
        result: dict[int, Tensor] = {}
        for component, to in zip(components, totals, strict=True):
            for term, total in zip(component.terms, to, strict=True):
                _add_pulled(self.sites[term.site], term.uses, total, result)
        return result


def pulled_through(sites: Sequence[Site], totals: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """The cotangent of every slot, from cotangents of some sites by index."""
    result: dict[int, Tensor] = {}
    for i, total in totals.items():
        _add_pulled(sites[i], range(len(sites[i].uses)), total, result)
    return result


def _add_pulled(site: Site, uses: Sequence[int], total: Tensor, result: dict[int, Tensor]) -> None:
    """Add the cotangents of the slots of some uses of a site, from one of y."""
    for i in uses:
        use = site.uses[i]
        column, slot = use.pull(total), use.view.slot
        result[slot] = result[slot] + column if slot in result else column
