"""The sites y = W·a + b of a linearisation, as a preconditioner sees them.

A site has inputs a and, for columns B_c of the root of H = B Bᵀ, cotangents S_c = (∂z/∂y)ᵀ B_c. The
rows of its parameters, one per feature of y, lie in blocks of the partition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bdhf.optim.losses import OutputHessian


@dataclass(frozen=True)
class DenseInputs:
    """The a of a site, (N, T, groups, entries): T positions a sample, groups of features."""

    values: Tensor


@dataclass(frozen=True)
class OneHotInputs:
    """One-hot vectors a of a site, by the index of their entry, (N, T); -1 for a = 0."""

    index: Tensor
    entries: int


Inputs = DenseInputs | OneHotInputs

#: N, T, groups, features / groups.
SampleShape = tuple[int, int, int, int]

#: S of every site, (k, N, T, groups, features / groups) for k columns; None: no path to z.
Cotangents = Sequence[Tensor | None]


@dataclass(frozen=True)
class ParameterRows:
    """A parameter, or a view of it, as a matrix with one row per feature of y."""

    name: str
    start: int  # flat position of the parameter's first entry
    shape: torch.Size  # of the parameter
    rows: Callable[[Tensor], Tensor]  # of that shape -> (features, entries)

    def of(self, flat: Tensor) -> Tensor:
        """The rows (features, entries) in a flat vector (P,); a view where they are strided."""
        stop = self.start + self.shape.numel()
        return self.rows(flat[self.start : stop].view(self.shape))

    def write(self, flat: Tensor, values: Tensor) -> None:
        """Set the rows in a flat vector in place."""
        target = self.of(flat)
        if target.untyped_storage().data_ptr() == flat.untyped_storage().data_ptr():
            target.copy_(values)
        else:
            flat[self.positions.to(flat.device)] = values

    @cached_property
    def positions(self) -> Tensor:
        """The flat position of every entry, (features, entries)."""
        index = torch.arange(self.start, self.start + self.shape.numel())
        return self.rows(index.view(self.shape))


@dataclass(frozen=True)
class SitePart:
    """Weight, bias, or both of a site, as far as each of their rows lies in one block."""

    site: int
    weight: ParameterRows | None
    bias: ParameterRows | None
    blocks: Tensor  # the block of every feature, (features,)
    distinct: int  # how many blocks there are

    @property
    def name(self) -> str:
        """The name of its first parameter."""
        return next(rows.name for rows in (self.weight, self.bias) if rows is not None)


@dataclass(frozen=True)
class SiteRecord:
    """The sites of one micro-batch, with the graph of its outputs."""

    weight: float  # w of the micro-batch in G = Σ w G_i
    inputs: tuple[Inputs | None, ...]  # of every site; None for a site without a weight
    shapes: tuple[SampleShape, ...]  # of every site
    outputs: Tensor
    last: int | None  # the site whose y are the outputs, if there is one
    hessian: OutputHessian
    column_chunks: Callable[[int], Iterator[Tensor]]  # all B_c, (k, *shape of z), k at most this
    cotangents: Callable[[Tensor], Cotangents]  # (k, *shape of z) -> S of every site
    squares: Callable[[Tensor], Tensor]  # u of the shape of z -> Σ_n (J_nᵀ u_n)², (P,)
    pulled: Callable[[Tensor], Tensor]  # u of the shape of z -> Jᵀu through the whole graph, (P,)
    apart: Callable[[], bool]  # whether the graph shows that sites and samples are all there is

    def draws(self, count: int, generator: torch.Generator) -> Tensor:
        """Random s = B u with E[Σ s sᵀ] = w H over the draws: (count, *shape of z).

        The u are signs, so that every sample weighs the same in every draw.
        """
        like = self.outputs
        signs = torch.empty((count, *self.hessian.root_shape), dtype=like.dtype, device=like.device)
        signs.bernoulli_(0.5, generator=generator).mul_(2).sub_(1)
        return self.hessian.root(signs * (self.weight / count) ** 0.5).detach()

    def columns(self, chunk: int) -> Iterator[Tensor]:
        """All columns of √w B, of every sample side by side, at most `chunk` at a time.

        Raises CurvatureError for a Hessian whose root is not known sample by sample.
        """
        for columns in self.column_chunks(chunk):
            yield columns * self.weight**0.5


@dataclass(frozen=True)
class SiteSize:
    """What the costs of a preconditioner depend on, for one part of a site."""

    positions: int  # per sample
    groups: int
    features: int  # of a group
    entries: int  # of a row, the bias included
    one_hot: bool  # whether the inputs are
    apart: bool  # whether every feature is a block


@dataclass(frozen=True)
class SiteSamples:
    """The sites of all micro-batches, and what no site covers."""

    parts: tuple[SitePart, ...]
    uncovered: Mapping[str, str]  # name of a parameter -> why
    rest: Tensor  # flat positions of entries in no part, (R,)
    records: tuple[SiteRecord, ...]

    @property
    def sizes(self) -> tuple[SiteSize, ...]:
        """The size of every part."""
        return tuple(map(self._size, self.parts))

    def _size(self, part: SitePart) -> SiteSize:
        record = self.records[0]
        _, positions, groups, features = record.shapes[part.site]
        rows = [rows.positions for rows in (part.weight, part.bias) if rows is not None]
        return SiteSize(
            positions, groups, features, sum(each.shape[1] for each in rows),
            one_hot=isinstance(record.inputs[part.site], OneHotInputs),
            apart=part.distinct == groups * features > 1,
        )  # fmt: skip
