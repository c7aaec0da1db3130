"""The columns of A that belong to some features of a site, through inputs a and cotangents S.

    A[(c, n), W_f] = Σ_t S[c, n, t, f] a_ntᵀ
    (A Aᵀ)[(c, n), (c', n')] = Σ_{t, t'} ⟨a_nt, a_n't'⟩ ⟨S_cnt, S_c'n't'⟩

The Gram matrix comes from the right-hand side, or from A by features, whichever takes fewer FLOPs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bdhf.optim.products.site_samples import ParameterRows, SitePart
from bdhf.optim.solvers.gram import inputs
from bdhf.optim.solvers.gram.cotangents import SiteCotangents
from bdhf.optim.solvers.gram.position_gram import add_position_gram
from bdhf.optim.solvers.gram.sample import Sample


@dataclass(frozen=True)
class SitePiece:
    """Features of a part of a site: the same of every one of some groups."""

    part: SitePart
    sites: SiteCotangents
    groups: slice
    local: slice | Tensor  # features of a group
    features: Tensor  # their index among all features of the site, (g f,)

    @property
    def entries(self) -> int:
        """Entries of the rows of one feature, its bias included."""
        a = self.sites.records[0].inputs[self.part.site]
        weight = inputs.row_length(a) if self.part.weight is not None and a is not None else 0
        return weight + (self.part.bias is not None)

    @property
    def size(self) -> int:
        """Columns of A."""
        return len(self.features) * self.entries

    @property
    def positions(self) -> Tensor:
        """The flat position of every column of A, in the order of `columns`."""
        kept = [rows.positions[self.features].reshape(-1) for rows in self._rows]
        return torch.cat(kept)

    @property
    def alone(self) -> bool:
        """Whether it is one feature with one position a sample, whose A has rank N."""
        shapes = [record.shapes[self.part.site] for record in self.sites.records]
        return len(self.features) == 1 and all(shape[1] == 1 for shape in shapes)

    @property
    def _rows(self) -> list[ParameterRows]:
        return [rows for rows in (self.part.weight, self.part.bias) if rows is not None]

    def samples(self) -> Iterator[Sample]:
        """S and a of every micro-batch with a path to the outputs."""
        site = self.part.site
        made = zip(self.sites.of(site), self.sites.records, self.sites.rows, strict=True)
        for s, record, rows in made:
            if s is None:
                continue
            a = record.inputs[site] if self.part.weight is not None else None
            chosen = s[:, :, :, self.groups][..., self.local]
            of_groups = None if a is None else inputs.of_groups(a, self.groups, s)
            yield Sample(rows, chosen, of_groups, self.part.bias is not None)

    def columns(self, total: int) -> Tensor:
        """A, (R, size)."""
        out = self.sites.records[0].outputs.new_zeros(total, self.size)
        for sample in self.samples():
            out[sample.rows] = sample.columns()
        return out

    def condensed(self, total: int) -> Tensor:
        """Of one feature and position: √(Σ_c S²) a, (Σ N, size); it has the same AᵀA."""
        kept = [
            replace(sample, s=sample.s.square().sum(0, keepdim=True).sqrt()).columns()
            for sample in self.samples()
        ]
        return torch.cat(kept) if kept else self.columns(1)

    def add_gram(self, gram: Tensor, max_bytes: int) -> None:
        """Add A Aᵀ in place, (R, R), in the cheaper way; temporaries are within `max_bytes`."""
        samples = list(self.samples())
        if not samples:
            return
        if self._by_positions(samples, len(gram)):
            add_position_gram(gram, samples, max_bytes)
            return
        for piece in self.split(max_bytes // (len(gram) * gram.element_size())):
            a = piece.columns(len(gram))
            gram.addmm_(a, a.T)

    def _by_positions(self, samples: list[Sample], total: int) -> bool:
        """Whether inner products over positions take fewer FLOPs than rows of A."""
        groups, features = samples[0].s.shape[3:]
        cotangents = sum(sample.s.shape[:3].numel() for sample in samples)
        vectors = sum(sample.s.shape[1:3].numel() for sample in samples)
        by_positions = cotangents**2 * (2 * features + 2) + 2 * vectors**2 * self.entries
        by_rows = 2 * (cotangents + total**2) * features * self.entries
        return groups * by_positions < groups * by_rows

    def split(self, most: int) -> Iterator[SitePiece]:
        """Pieces of up to `most` columns of A, but of one feature at least."""
        if self.size <= most or len(self.features) == 1:
            yield self
            return
        start, stop, _ = self.groups.indices(self.sites.records[0].shapes[self.part.site][2])
        if stop - start > 1:
            for group, features in zip(
                range(start, stop), self.features.view(stop - start, -1), strict=True
            ):
                single = replace(self, groups=slice(group, group + 1), features=features)
                yield from single.split(most)
            return
        at_once = max(1, most // self.entries)
        size = self.sites.records[0].shapes[self.part.site][3]
        local = torch.arange(size, device=self.features.device)[self.local]
        for chosen, features in zip(
            local.split(at_once), self.features.split(at_once), strict=True
        ):
            yield replace(self, local=chosen, features=features)

    def forward(self, flat: Tensor, total: int) -> Tensor:
        """A v for the entries of v (P,) that belong to it, (R,)."""
        out = flat.new_zeros(total)
        weight, bias = self._read(flat)
        for sample in self.samples():
            out[sample.rows] = sample.forward(weight, bias)
        return out

    def add_adjoint(self, w: Tensor, flat: Tensor) -> None:
        """Add Aᵀ w, (R,), to a flat vector (P,) in place."""
        for sample in self.samples():
            weight, bias = sample.adjoint(w[sample.rows])
            for rows, value in ((self.part.weight, weight), (self.part.bias, bias)):
                if rows is not None and value is not None:
                    at = rows.positions.to(flat.device)[self.features.to(flat.device)]
                    flat[at] += value.reshape(at.shape)

    def _read(self, flat: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The weight (g, f, d) and the bias (g, f) in a flat vector."""
        start, stop, _ = self.groups.indices(self.sites.records[0].shapes[self.part.site][2])
        weight, bias = (
            None if rows is None else rows.of(flat)[self.features.to(flat.device)]
            for rows in (self.part.weight, self.part.bias)
        )
        by_group = None if weight is None else weight.reshape(stop - start, -1, weight.shape[1])
        return by_group, None if bias is None else bias.reshape(stop - start, -1)


def pieces_of(part: SitePart, sites: SiteCotangents, block: int) -> Iterator[SitePiece]:
    """The features of a part in one block: all of them, or those of each group."""
    groups, size = sites.records[0].shapes[part.site][2:]
    every = torch.arange(groups * size)
    if part.distinct == 1:
        yield SitePiece(part, sites, slice(0, groups), slice(None), every)
        return
    chosen = part.blocks.cpu() == block
    for group in range(groups):
        local = chosen.view(groups, size)[group].nonzero().reshape(-1)
        if len(local):
            whole: slice | Tensor = slice(None) if len(local) == size else local
            yield SitePiece(part, sites, slice(group, group + 1), whole, group * size + local)
