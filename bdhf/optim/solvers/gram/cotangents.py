"""S of every site for all columns of H = B Bᵀ, by reverse sweeps; a bounded part is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from bdhf.optim.products.layer_io.output_factor import columns_of
from bdhf.optim.products.site_samples import Cotangents, SiteRecord
from bdhf.optim.solvers.gram import HELD_BYTES
from bdhf.optim.torch_support.failures import Failure, attempt


def packed(sizes: Sequence[int], most: int) -> Iterator[range]:
    """Consecutive indices whose sizes add up to at most `most`; one that is larger is alone."""
    start, total = 0, 0
    for index, size in enumerate(sizes):
        if index > start and total + size > most:
            yield range(start, index)
            start, total = index, 0
        total += size
    if len(sizes):
        yield range(start, len(sizes))


class SiteCotangents:
    """S (C, N, T, groups, features / groups) of the sites of all micro-batches.

    Rows of A are ordered by micro-batch, column, sample. If all S fit below `max_bytes` they are
    swept once, else site after site, as often as they are asked for. Raises Uncovered for a Hessian
    whose root is not known sample by sample.
    """

    def __init__(self, records: Sequence[SiteRecord], max_bytes: int = HELD_BYTES) -> None:
        self.records, self._max_bytes = records, max_bytes
        self.columns = [columns_of(record.hessian, record.outputs) for record in records]
        self._samples = [len(record.outputs) for record in records]
        ends = list(accumulate(c * n for c, n in zip(self.columns, self._samples, strict=True)))
        self.rows = [slice(a, b) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
        self._sizes = [self.bytes(site) for site in range(len(records[0].shapes))]
        self._groups = {i: group for group in packed(self._sizes, max_bytes) for i in group}
        self._kept: dict[int, list[Tensor | None]] = {}
        self.swept = 0.0  # columns, each a reverse sweep of the whole batch

    def bytes(self, site: int) -> int:
        """Bytes of S of a site."""
        pairs = zip(self.columns, self.records, strict=True)
        entries = sum(c * torch.Size(record.shapes[site]).numel() for c, record in pairs)
        return entries * self.records[0].outputs.element_size()

    def of(self, site: int) -> list[Tensor | None]:
        """S of a site in every micro-batch; None is a zero."""
        if site not in self._kept:
            self._kept.clear()  # before the next sweeps
            self._kept = {i: [] for i in self._groups[site]}
            for index in range(len(self.records)):
                self._sweep(index)
        return self._kept[site]

    def _sweep(self, index: int) -> None:
        """Append S of a micro-batch to the sites that are kept."""
        record, count = self.records[index], self.columns[index]
        at_once = max(1, self._max_bytes * count // max(1, 2 * sum(self._sizes)))
        chunks: dict[int, list[Tensor | None]] = {i: [] for i in self._kept}
        for columns in record.columns(min(count, at_once)):
            swept = _swept(record, columns)
            for site, parts in chunks.items():
                parts.append(swept[site])
        for site, parts in chunks.items():
            self._kept[site].append(_joined(parts))
            parts.clear()
        self.swept += count * self._samples[index] / sum(self._samples)


def _swept(record: SiteRecord, columns: Tensor) -> Cotangents:
    """S of every site for some columns; one by one where torch cannot sweep several at once."""
    made = attempt(lambda: record.cotangents(columns))
    if not isinstance(made, Failure):
        return made
    by_column = [record.cotangents(column[None]) for column in columns]
    return [_joined(parts) for parts in zip(*by_column, strict=True)]


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    """Tensors of a site one after the other; a site has a path to the outputs or has none."""
    some = [part for part in parts if part is not None]
    return some[0] if len(some) == 1 else torch.cat(some) if some else None
