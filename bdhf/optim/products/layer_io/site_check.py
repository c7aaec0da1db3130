"""Whether the products through sites are those of the model, once per batch shape and graph.

Results through the sites are compared with autograd (`coverage.py`): the gradient and a product for
every parameter with a nonzero gradient, and what a later batch or flag may have changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bdhf.optim.losses import OutputHessian
from bdhf.optim.products.agreement import random_tangents
from bdhf.optim.products.layer_io.coverage import (
    COUPLED,
    UNKNOWN_USE,
    compare_with_autograd,
    exact_product,
)
from bdhf.optim.products.layer_io.output_factor import gathered, sweep_factor
from bdhf.optim.products.layer_io.reduction import whole_reduction
from bdhf.optim.products.layer_io.site_product import SiteProduct, pulled_through
from bdhf.optim.products.propagate.sample_independence import graph_apart
from bdhf.optim.products.request import Request
from bdhf.optim.products.vjp import vjp
from bdhf.optim.torch_support.graphs import structure_behind
from bdhf.optim.vectors.layout import split_like


@dataclass(frozen=True)
class SiteCheck:
    """Compares at outputs z with their graph; raises Uncovered for a difference."""

    request: Request
    product: SiteProduct
    z: Tensor
    hessian: OutputHessian
    u: Tensor  # ∇_z L
    gradient: Tensor  # of the parameters, through the outputs, (P,)

    def __call__(self) -> None:
        """Compare, once for every parameter with a nonzero gradient.

        And again where the forward pass has another graph: a flag may make it mix samples.
        """
        request, kept, sites = self.request, self.request.workspace.kept, self.product.sites
        parameters, slots = request.objective.parameters, request.blocks.layout.slots
        key = ("layer_io checked", request.shapes, structure_behind(self.z))
        uses = sum(len(site.edges) * len(site.uses) for site in sites)
        if key in kept and not graph_apart(self.z, uses):
            self._check_again()
        gradient = split_like(self.gradient, parameters)
        unseen = kept.get(key, frozenset(range(len(slots))))
        seen = {i for i in unseen if bool(gradient[i].any())}
        if key in kept and not seen:
            return
        if not bool(self.gradient.isfinite().all()):  # nothing to compare
            return
        self._compare(self._rebuilt(), gradient, UNKNOWN_USE)
        v, everything = random_tangents(parameters), whole_reduction(sites, range(len(slots)))
        through_sites = self.product([everything], dict(enumerate(v)))
        self._compare(through_sites, exact_product(request, self.z, self.hessian, v), COUPLED)
        kept[key] = unseen - seen

    def _check_again(self) -> None:
        """Check in every linearisation that the sites give Jᵀw, and that S of D w is D S of w.

        For D = diag(d_n) over the samples. Depending on its data, or on a gate that was 0 when
        products were compared, a model may mix samples or use a parameter in another way.
        """
        sites, slots, z = self.product.sites, self.request.blocks.layout.slots, self.z
        w, d = random_tangents([z, z.new_empty(len(z))])
        both = torch.stack([w, d.view(-1, *[1] * (z.dim() - 1)) * w])
        edges = [edge for site in sites for edge in site.edges]
        s = gathered(sweep_factor(z, edges, both), range(len(sites)), sites)
        mixed = dict(enumerate(part[1] for part in s.values()))
        exact = [d.view(-1, 1, 1, 1).to(part) * part[0] for part in s.values()]
        firsts = [slots[sites[i].slots[0]] for i in s]
        if all(bool(part.isfinite().all()) for part in exact):
            compare_with_autograd(mixed, exact, firsts, self._dtype, COUPLED)
            parameters = self.request.objective.parameters
            through_graph = split_like(vjp(z, parameters, w), parameters)
            through_sites = pulled_through(sites, {i: part[0] for i, part in s.items()})
            self._compare(through_sites, through_graph, UNKNOWN_USE)

    def _rebuilt(self) -> dict[int, Tensor]:
        """The gradient through the sites."""
        sites = self.product.sites
        edges = [edge for site in sites for edge in site.edges]
        s = gathered(sweep_factor(self.z, edges, self.u[None]), range(len(sites)), sites)
        return pulled_through(sites, {i: part[0] for i, part in s.items()})

    def _compare(self, slots: Mapping[int, Tensor], exact: Sequence[Tensor], why: str) -> None:
        compare_with_autograd(slots, exact, self.request.blocks.layout.slots, self._dtype, why)

    @property
    def _dtype(self) -> torch.dtype:
        return self.request.settings.dtype or self.gradient.dtype
