"""The output factor: S[c] = (∂z/∂y)ᵀ B_c at every site, for the columns of H = B Bᵀ.

A column is swept back for all samples at once, since samples are independent: C sweeps, as many as
a sample has outputs (K for K draws of a Fisher matrix). Columns that fit below `max_bytes` are
kept; the others are swept again from the kept graph whenever they are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from bdhf.optim.losses import OutputHessian
from bdhf.optim.losses.hessians import Diagonal, Outer, Scaled, Softmax
from bdhf.optim.products.layer_io.sites import Site, Uncovered


def columns_of(hessian: OutputHessian, outputs: Tensor) -> int:
    """C, the columns of the root of one sample's Hessian.

    Raises Uncovered for a Hessian whose root is not known sample by sample.
    """
    inner = _unscaled(hessian)
    if not isinstance(inner, (Diagonal, Softmax, Outer)):
        raise Uncovered(
            "the root of the loss's Hessian is not known sample by sample, as it is for torch's "
            "cross_entropy, mse_loss and binary_cross_entropy_with_logits"
        )
    if isinstance(inner, Softmax) and inner.classes == -outputs.dim():
        raise Uncovered("the outputs are the classes of one sample, without a batch dimension")
    if isinstance(inner, Outer):
        return inner.root_shape[0]
    return outputs.numel() // len(outputs)


def _unscaled(hessian: OutputHessian) -> OutputHessian:
    return hessian.inner if isinstance(hessian, Scaled) else hessian


def output_columns(hessian: OutputHessian, outputs: Tensor, start: int, stop: int) -> Tensor:
    """B_c of every sample, side by side, for start ≤ c < stop: (k, *shape of z)."""
    inner = _unscaled(hessian)
    index = torch.arange(start, stop, device=outputs.device)
    if isinstance(inner, Outer):
        u = outputs.new_zeros(len(index), *inner.root_shape)
        u[index - start, index] = 1.0
    else:
        u = outputs.new_zeros(len(index), len(outputs), outputs.numel() // len(outputs))
        u[index - start, :, index] = 1.0
    return hessian.root(u.view(-1, *hessian.root_shape))


def rows_by_column(hessian: OutputHessian, outputs: Tensor) -> Tensor:
    """The row of `factor` of every column c and sample n, (C N,), sample by sample in a column."""
    index = torch.arange(torch.Size(hessian.root_shape).numel(), device=outputs.device)
    if isinstance(_unscaled(hessian), Outer):
        return index
    return index.view(len(outputs), -1).T.reshape(-1)


@dataclass(frozen=True)
class Schedule:
    """How many columns are swept at a time, and how many are kept."""

    columns: int
    chunk: int
    kept: int

    @property
    def spans(self) -> list[tuple[int, int]]:
        """First and last column, exclusive, of every chunk."""
        starts = range(0, self.columns, self.chunk)
        return [(start, min(start + self.chunk, self.columns)) for start in starts]


def schedule(columns: int, swept: int, kept: int, fixed: int, max_bytes: int) -> Schedule:
    """Keep all columns if they fit below `max_bytes`, else whole chunks of them.

    In bytes: `swept` and `kept` for one column during its sweep and afterwards, `fixed` for what is
    kept independently of the columns. A sweep holds about as much again in intermediate cotangents,
    so it counts twice. Raises Uncovered where no column fits.
    """
    free = max_bytes - fixed - 2 * swept
    if free < 0:
        raise Uncovered(
            f"one column of the output factor takes {fixed + 2 * swept:,} bytes during its sweep, "
            f"above max_bytes of {max_bytes:,}: use a smaller curvature batch, or a larger "
            "max_bytes"
        )
    at_once = (max_bytes - fixed - columns * kept) // (2 * swept)
    if at_once >= 1:
        return Schedule(columns, min(columns, at_once), columns)
    chunk = max(1, (max_bytes - fixed) // (8 * swept))
    left = max_bytes - fixed - 2 * chunk * swept
    return Schedule(columns, chunk, max(0, left) // (chunk * kept) * chunk)


class OutputFactor:
    """S of every site, by chunks of columns; keeps the graph of the outputs where it is needed."""

    def __init__(
        self,
        outputs: Tensor,
        hessian: OutputHessian,
        sites: Sequence[Site],
        open_sites: Collection[int],  # whose columns are needed one by one
        closed_sites: Collection[int],  # whose h is needed
        plan: Schedule,
        dtype: torch.dtype,  # of the columns that are kept
    ) -> None:
        self._graph: Tensor | None = outputs
        self._hessian, self._plan = hessian, plan
        self._sites: Sequence[Site] = sites
        self._kept: list[dict[int, Tensor]] = []
        self.closed_sites = frozenset(closed_sites)
        self.h: dict[int, Tensor] = {}  # Σ_c S² per site, of the shape of its y
        for start, stop in plan.spans:
            keep = stop <= plan.kept
            s = self._sweep(start, stop, {*closed_sites, *(open_sites if keep else ())})
            self._square(s, closed_sites)
            if keep:
                self._kept.append({i: s.pop(i).to(dtype) for i in open_sites if i in s})
            s.clear()  # before the next sweep begins

    def release(self) -> bool:
        """Free the graph, if everything that may be needed is kept."""
        every = sum(len(part) for part in self._kept) == len(self._sites) * len(self._plan.spans)
        if every:
            self._graph, self._sites = None, ()
        return every

    def _square(self, s: Mapping[int, Tensor], closed_sites: Collection[int]) -> None:
        """Add Σ_c S² of a chunk to h."""
        for site in closed_sites:
            for column in s.get(site, ()):
                if site not in self.h:
                    self.h[site] = torch.zeros_like(column)
                self.h[site].addcmul_(column, column)

    def visit(self, sites: Collection[int], take: Callable[[Mapping[int, Tensor]], None]) -> None:
        """Pass S of some sites to `take` by chunks: site -> (k, N, before, features, after).

        Sites that the outputs do not depend on are left out.
        """
        for number, (start, stop) in enumerate(self._plan.spans if sites else ()):
            kept = self._kept[number] if number < len(self._kept) else {}
            there = {i: kept[i] for i in sites if i in kept}
            missing = [i for i in sites if i not in kept]
            take({**self._sweep(start, stop, missing), **there})  # without a reference to it here

    def _sweep(self, start: int, stop: int, wanted: Collection[int]) -> dict[int, Tensor]:
        outputs = self._graph
        edges = [edge for i in wanted for edge in self._sites[i].edges]
        if outputs is None or not edges:
            return {}
        cotangents = output_columns(self._hessian, outputs, start, stop)
        by_edge = sweep_factor(outputs, edges, cotangents)
        return gathered(by_edge, wanted, self._sites)


def sweep_factor(
    outputs: Tensor, edges: Sequence[GradientEdge], cotangents: Tensor
) -> list[Tensor | None]:
    """(∂z/∂y)ᵀ w at every edge, for k cotangents w at once: (k, *shape of y); None: no path."""
    if len(cotangents) > 1:
        return list(
            torch.autograd.grad(
                outputs, edges, cotangents,
                is_grads_batched=True, retain_graph=True, allow_unused=True,
            )
        )  # fmt: skip
    columns = torch.autograd.grad(
        outputs, edges, cotangents[0], retain_graph=True, allow_unused=True
    )
    return [None if g is None else g[None] for g in columns]


def gathered(
    by_edge: list[Tensor | None], wanted: Collection[int], sites: Sequence[Site]
) -> dict[int, Tensor]:
    """Cotangents of edges as those of sites; empties `by_edge`."""
    result = {}
    by_edge.reverse()
    for index in wanted:
        s = sites[index].gather([by_edge.pop() for _ in sites[index].edges])
        if s is not None:
            result[index] = s
    return result
