"""The reduction of a partition: which entries of S ∘ ∂y `layer_io` adds up for one block.

    t[c, n, b] = Σ over the sites, positions and features of block b of S ∘ ∂y
    ȳ = Σ_c t[c, n, b of the feature] S[c]

Only this file depends on the partition. Every feature of a site (a row of a linear layer, a
channel, a column of an embedding) is labelled with the block of its parameters. Blocks that share a
site are one component with one t. Where every block of a component has one entry of y per sample,
h = Σ_c S² replaces S: ȳ = h ∘ ∂y.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bdhf.optim.products.layer_io.parameter_uses import Use
from bdhf.optim.products.layer_io.sites import Site
from bdhf.optim.vectors.blocks import Blocks

#: A site, some of its uses, and the block of every feature (features,).
Labelled = tuple[int, tuple[int, ...], Tensor]


@dataclass(frozen=True)
class Term:
    """Some parameters of one site whose features have the same labels."""

    site: int  # its index
    uses: tuple[int, ...]  # of the site
    columns: Tensor | None  # (features,) the column of t of each; None: one column per feature


@dataclass(frozen=True)
class Component:
    """Blocks that share sites, with the sites that they share."""

    terms: tuple[Term, ...]
    blocks: tuple[int, ...]  # ascending; column i of t belongs to blocks[i]
    closed: bool  # whether h replaces S

    def add(self, s: Mapping[int, Tensor], pushed: Sequence[Tensor], to: Sequence[Tensor]) -> None:
        """Add Σ_c t S, over the columns c in `s`, to the ȳ of every term.

        `s` has S of every site, (k, N, before, features, after); `pushed` and `to` are one tensor
        of the shape of y per term.
        """
        triples = [
            (term, s[term.site].to(y.dtype), y, total)
            for term, y, total in zip(self.terms, pushed, to, strict=True)
            if term.site in s
        ]
        k = len(triples[0][1]) if triples else 0
        for c in range(k):
            t = self._reduced([(term, part[c], y) for term, part, y, _ in triples])
            for term, part, _, total in triples:
                total.addcmul_(part[c], self._spread(term, t))

    def _reduced(self, triples: Sequence[tuple[Term, Tensor, Tensor]]) -> Tensor:
        """T of one column, (N, blocks)."""
        total: Tensor | None = None
        for term, s, y in triples:
            part = self._part(term, s * y)
            total = part if total is None else total + part
        assert total is not None
        return total

    def _part(self, term: Term, product: Tensor) -> Tensor:
        """S ∘ ∂y of one site, (N, before, features, after), added up: (N, blocks)."""
        if len(self.blocks) == 1:
            return product.flatten(1).sum(1, keepdim=True)
        by_feature = product.sum((1, 3))
        if term.columns is None:
            return by_feature
        zero = product.new_zeros(len(product), len(self.blocks))
        return zero.index_add_(1, term.columns, by_feature)

    def _spread(self, term: Term, t: Tensor) -> Tensor:
        """T of one column, (N, blocks), at the features of a site; broadcasts to the shape of y."""
        if len(self.blocks) > 1 and term.columns is not None:
            t = t.index_select(1, term.columns)
        return t[:, None, :, None]


@dataclass(frozen=True)
class ReductionPlan:
    """The components of a partition; none where a feature depends on several blocks (`mixed`)."""

    blocks: Blocks
    components: tuple[Component, ...]
    mixed: bool

    def owners(self, active: Sequence[int]) -> list[int]:
        """The components of some blocks, ascending; a block without uses has none."""
        return sorted({self._owner[b] for b in active if b in self._owner})

    @cached_property
    def _owner(self) -> dict[int, int]:
        """Block -> its component."""
        return {b: i for i, component in enumerate(self.components) for b in component.blocks}

    @property
    def open_sites(self) -> frozenset[int]:
        """The sites for which S is needed."""
        return frozenset(t.site for c in self.components if not c.closed for t in c.terms)

    @property
    def closed_sites(self) -> frozenset[int]:
        """The sites for which h is enough."""
        return frozenset(t.site for c in self.components if c.closed for t in c.terms)


def plan_reduction(blocks: Blocks, sites: Sequence[Site], device: torch.device) -> ReductionPlan:
    """Group the sites by the blocks that their features belong to."""
    label_of = block_labels(blocks)
    terms: list[Labelled] = []
    for index, site in enumerate(sites):
        labels = [feature_labels(use, label_of) for use in site.uses]
        if any(part is None for part in labels):
            return ReductionPlan(blocks, (), mixed=True)
        terms += _terms(index, [part for part in labels if part is not None])
    return ReductionPlan(blocks, tuple(_components(terms, sites, device)), mixed=False)


def whole_reduction(sites: Sequence[Site], slots: Collection[int]) -> Component:
    """The sites that use some slots as one component of one block."""
    uses = [[u for u, slot in enumerate(site.slots) if slot in slots] for site in sites]
    terms = (Term(index, tuple(of), None) for index, of in enumerate(uses) if of)
    return Component(tuple(terms), (0,), closed=False)


def block_labels(blocks: Blocks) -> list[Tensor]:
    """The block of every entry, in the shapes of the parameters."""
    flat = torch.empty(blocks.layout.size, dtype=torch.long)
    for index, positions in enumerate(blocks.positions()):
        flat[positions] = index
    return blocks.layout.split(flat)


def feature_labels(use: Use, label_of: Sequence[Tensor]) -> Tensor | None:
    """The block of every feature, (features,); None where a feature has several."""
    rows = use.rows(use.view.of(label_of[use.view.slot]))
    return rows[:, 0].contiguous() if bool((rows == rows[:, :1]).all()) else None


def _terms(index: int, labels: Sequence[Tensor]) -> list[Labelled]:
    """A weight and its bias are one term, unless a partition separates them."""
    if all(torch.equal(part, labels[0]) for part in labels):
        return [(index, tuple(range(len(labels))), labels[0])]
    return [(index, (use,), part) for use, part in enumerate(labels)]


def _components(
    terms: Sequence[Labelled], sites: Sequence[Site], device: torch.device
) -> list[Component]:
    groups: list[tuple[set[int], list[int]]] = []  # labels, terms
    for index, (_, _, labels) in enumerate(terms):
        own, members, apart = set(labels.tolist()), [index], []
        for group in groups:
            if group[0].isdisjoint(own):
                apart.append(group)
            else:
                own, members = own | group[0], group[1] + members
        groups = [*apart, (own, members)]
    return [
        _component(sorted(own), [terms[i] for i in sorted(members)], sites, device)
        for own, members in groups
    ]


def _component(
    blocks: list[int], terms: Sequence[Labelled], sites: Sequence[Site], device: torch.device
) -> Component:
    parts = []
    for site, uses, labels in terms:
        columns = torch.searchsorted(torch.tensor(blocks), labels)
        identity = torch.equal(columns, torch.arange(len(blocks)))
        parts.append(Term(site, uses, None if identity else columns.to(device)))
    _, before, features, after = sites[parts[0].site].shape
    single = before * after == 1 and features == len(blocks) and len(parts) == 1
    return Component(tuple(parts), tuple(blocks), closed=single)
