"""The factors of all blocks: which pieces come from sites, and which are swept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bdhf.optim.products.layer_io.output_factor import rows_by_column
from bdhf.optim.products.layer_io.sites import Uncovered
from bdhf.optim.products.site_samples import SitePart, SiteSamples
from bdhf.optim.solvers.gram import HELD_BYTES
from bdhf.optim.solvers.gram.block_factor import BlockFactor, Piece
from bdhf.optim.solvers.gram.columns import ColumnPiece, SweptColumns
from bdhf.optim.solvers.gram.cotangents import SiteCotangents
from bdhf.optim.solvers.gram.site_piece import pieces_of
from bdhf.optim.solvers.system import System

#: Why no block is solved through sites: a Blend, or structural damping.
OTHER_ROWS = "the matrix is a sum with rows that no site has"
TOO_LARGE = f"has cotangents of more than {HELD_BYTES:,} bytes"


@dataclass(frozen=True)
class BlockFactors:
    """A_b of every block, and why some of its columns are swept row by row."""

    rows: tuple[BlockFactor, ...]
    swept: Mapping[str, str]  # name of a parameter, or "" for all -> why
    sites: SiteCotangents | None
    columns: SweptColumns

    @property
    def products(self) -> float:
        """Products that the reverse sweeps so far were worth; a sweep is half of one."""
        by_column = 0.0 if self.sites is None else self.sites.swept
        return 0.5 * (by_column + self.columns.swept)


def block_factors(system: System, chunk: int) -> BlockFactors:
    """Record the sites of a system and find the pieces of its blocks; nothing is swept yet."""
    sites, samples, swept = _sites(system)
    parts = (
        []
        if samples is None or sites is None
        else [part for part in samples.parts if sites.bytes(part.site) <= HELD_BYTES]
    )
    positions = _positions(system, samples, parts, swept)
    cuts = [list(_cut(system, at)) for at in _by_block(system, positions)]
    lists = [at for of_block in cuts for at in of_block]
    columns = SweptColumns(system, lists, _order(sites), chunk)
    by_block: list[list[Piece]] = [[] for _ in system.blocks.rows]
    for part in parts:
        assert sites is not None
        for block in part.blocks.unique().tolist():
            by_block[block].extend(pieces_of(part, sites, block))
    numbered = enumerate((block, at) for block, of_block in enumerate(cuts) for at in of_block)
    for index, (block, at) in numbered:
        by_block[block].append(ColumnPiece(columns, index, at))
    total = system.matrix.factor_rows
    factors = tuple(BlockFactor(pieces, total) for pieces in by_block)
    return BlockFactors(factors, swept, sites, columns)


def _sites(
    system: System,
) -> tuple[SiteCotangents | None, SiteSamples | None, dict[str, str]]:
    """The cotangents of the sites, and the parameters that are swept; None: all of them."""
    if system.blocks.blend is not None:
        return None, None, {"": OTHER_ROWS}
    samples = system.matrix.site_samples()
    try:
        sites = SiteCotangents(samples.records)
    except Uncovered as refusal:
        return None, None, {"": refusal.reason}
    if sites.rows[-1].stop != system.matrix.factor_rows:
        return None, None, {"": OTHER_ROWS}
    swept = dict(samples.uncovered)
    for part in samples.parts:
        if sites.bytes(part.site) > HELD_BYTES:
            for rows in (part.weight, part.bias):
                if rows is not None:
                    swept[rows.name] = TOO_LARGE
    return sites, samples, swept


def _positions(
    system: System,
    samples: SiteSamples | None,
    parts: Sequence[SitePart],
    swept: Mapping[str, str],
) -> Tensor:
    """Flat positions of the entries of swept parameters that no part has, (n,)."""
    layout = system.blocks.layout
    if samples is None:
        return torch.arange(layout.size)
    mask = torch.zeros(layout.size, dtype=torch.bool)
    for slot in layout.slots:
        if slot.name in swept:
            mask[slot.start : slot.stop] = True
    for part in parts:
        for rows in (part.weight, part.bias):
            if rows is not None:
                mask[rows.positions] = False
    return mask.nonzero().reshape(-1)


def _by_block(system: System, positions: Tensor) -> Iterator[Tensor]:
    """The positions that lie in each block."""
    wanted = torch.zeros(system.blocks.layout.size, dtype=torch.bool)
    wanted[positions] = True
    for at in system.blocks.positions():
        yield at[wanted[at]]


def _cut(system: System, positions: Tensor) -> Iterator[Tensor]:
    """Lists of positions whose columns of A fit below the bound."""
    if len(positions):
        size = system.matrix.factor_rows * system.rhs.element_size()
        yield from positions.split(max(1, HELD_BYTES // size))


def _order(sites: SiteCotangents | None) -> Tensor | None:
    """The row of `factor` for every row of A by sites, over all micro-batches."""
    if sites is None:
        return None
    made = [
        rows_by_column(record.hessian, record.outputs) + rows.start
        for record, rows in zip(sites.records, sites.rows, strict=True)
    ]
    return torch.cat(made)
