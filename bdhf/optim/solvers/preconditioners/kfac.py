"""K-FAC: the curvature of every site as a Kronecker product of two small matrices.

    G ≈ S ⊗ A,    S = Σ s sᵀ,    A = E[a aᵀ]

a are the inputs of a site y = W·a + b, with a 1 for the bias, and s = (∂z/∂y)ᵀ B_c its cotangents,
for columns or random combinations of the root of H = B Bᵀ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bdhf.optim.errors import CurvatureError
from bdhf.optim.losses.hessians import summed_over_samples
from bdhf.optim.products.cost import Sweeps
from bdhf.optim.products.site_samples import (
    DenseInputs,
    Inputs,
    OneHotInputs,
    SitePart,
    SiteRecord,
    SiteSamples,
)
from bdhf.optim.solvers.preconditioners.kronecker import Factors, KroneckerInverse, kfac_flops
from bdhf.optim.solvers.preconditioners.moments import (
    Cut,
    DenseMoment,
    DiagonalMoment,
    Moment,
    MomentSum,
    ScalarMoment,
    cut_to,
)
from bdhf.optim.solvers.system import System

#: Columns of the root that are swept at a time where `samples` is "exact".
CHUNK = 32

#: Separates the draws of K-FAC from those of a curvature with the same seed.
_STREAM = 0x5DEECE66D


@dataclass(frozen=True)
class KFAC:
    """M = (S + √λ/π I) ⊗ (A + π√λ I) on the rows of every site, fresh at every update.

    Martens & Grosse (2015), §3 and §6.3; convolutions: Grosse & Martens (2016); shared weights
    (positions of a sequence, patches of an image): Eschenhagen et al. (2023). `samples` random
    columns of the root of the loss's Hessian estimate S (1 is a Monte-Carlo Fisher matrix); "exact"
    takes all of them. With `sharing` "expand" every position counts as a sample; "reduce" adds the
    cotangents and averages the inputs of a sample first. Parameters that no site covers (a function
    without a rule, a weight that is used in two ways, rows that the partition cuts) raise
    CurvatureError at the first update; `uncovered` "diagonal" gives them the diagonal of the same
    random matrix, by a pass over the samples. Costs one forward pass and a reverse sweep per
    column. Raises ValueError for settings out of range.
    """

    samples: int | Literal["exact"] = 1
    sharing: Literal["expand", "reduce"] = "expand"
    uncovered: Literal["error", "diagonal"] = "error"

    def __post_init__(self) -> None:
        check_settings("KFAC", self.samples, self.sharing, self.uncovered)

    def __call__(self, system: System) -> KroneckerInverse:
        """M⁻¹. Raises CurvatureError for parameters without a Kronecker product."""
        samples = system.matrix.site_samples()
        self.check_sites(samples)
        with system.matrix.counting("K-FAC"):
            factors, squares = self.factors(samples, system.matrix.seed)
            damped = [factor.damped(system.damping) for factor in factors]
        why = f"K-FAC, {_described(factors)}"
        return inverse_of(system, samples, damped, squares, why)

    def check_sites(self, samples: SiteSamples) -> None:
        """Raise CurvatureError for parameters without a Kronecker product, unless allowed."""
        refuse_uncovered("KFAC", samples, self.uncovered)

    def cost(self, sweeps: Sweeps, samples: float, uses: int) -> float:
        """A forward pass, a reverse sweep per column, the factors, and `uses` of M⁻¹."""
        columns = draws_of(self.samples, sweeps)
        flops = sum(kfac_flops(site, samples, columns, uses) for site in sweeps.sites)
        return (1 + columns) / 3 + flops / (sweeps.gradient * samples)

    def factors(self, samples: SiteSamples, seed: int) -> tuple[list[Factors], Tensor]:
        """A and S of every part of a site, and the diagonal on the entries in no part, (R,)."""
        sums = [_CotangentSum(part, samples.records, self) for part in samples.parts]
        squares = samples.records[0].outputs.new_zeros(len(samples.rest))
        for index, record in enumerate(samples.records):
            for columns in self.columns(record, seed + index):
                cotangents = record.cotangents(columns)
                for total in sums:
                    total.add(cotangents[total.part.site])
                if samples.uncovered:
                    for column in columns:
                        squares += record.squares(column)[samples.rest]
        inputs = [_inputs(total.part, samples.records, self.sharing) for total in sums]
        pairs = zip(sums, inputs, strict=True)
        return [
            Factors(total.part, a, _of_outputs(total.part, samples.records) or total.moment())
            for total, a in pairs
        ], squares

    def columns(self, record: SiteRecord, seed: int) -> Iterator[Tensor]:
        """Columns of the root of H, random or all, in chunks (k, *shape of z)."""
        if self.samples == "exact":
            yield from record.columns(CHUNK)
            return
        device = record.outputs.device
        generator = torch.Generator(device).manual_seed((seed + _STREAM) % 2**63)
        yield record.draws(int(self.samples), generator)


class _CotangentSum:
    """S of the features of one part, from the cotangents of its site."""

    def __init__(self, part: SitePart, records: Sequence[SiteRecord], kfac: KFAC) -> None:
        self.part, self._reduced = part, kfac.sharing == "reduce"
        shapes = [record.shapes[part.site] for record in records]
        groups, size = shapes[0][2:]
        draws = size if kfac.samples == "exact" else int(kfac.samples)  # exact: at least as many
        vectors = sum(n * (1 if self._reduced else t) for n, t, _, _ in shapes)
        outputs = records[0].outputs
        labels = part.blocks.to(outputs.device).view(groups, size)
        cut = None if part.distinct == 1 else Cut(labels, part.distinct == groups * size)
        self._sum = MomentSum(draws * vectors, outputs, groups, size, cut)

    def add(self, cotangents: Tensor | None) -> None:
        """Add S of k columns, (k, N, T, groups, features); None is a zero."""
        if cotangents is not None:
            summed = cotangents.sum(2, keepdim=True) if self._reduced else cotangents
            self._sum.add(summed.flatten(0, 2))

    def moment(self) -> Moment:
        """Their second moment."""
        return self._sum.moment()


def _of_outputs(part: SitePart, records: Sequence[SiteRecord]) -> Moment | None:
    """S = Σ H_n of the site whose y are the outputs, without a draw; None elsewhere."""
    totals = [summed_over_samples(r.hessian) if r.last == part.site else None for r in records]
    pairs = zip(records, totals, strict=True)
    weighted = [record.weight * total for record, total in pairs if total is not None]
    if len(weighted) < len(totals):
        return None
    total = torch.stack(weighted).sum(0)
    if total.dim() == 0:
        return ScalarMoment(total, len(part.blocks))
    if total.dim() == 1:
        return DiagonalMoment(total[None])
    labels = part.blocks.to(total.device)[None]
    return cut_to(total[None], Cut(labels, part.distinct == labels.numel()))


def _inputs(part: SitePart, records: Sequence[SiteRecord], sharing: str) -> Moment:
    """A = E[a aᵀ] of one part, over all samples and positions."""
    if part.weight is None:
        return DenseMoment(records[0].outputs.new_ones(records[0].shapes[part.site][2], 1, 1))
    inputs = [record.inputs[part.site] for record in records]
    if sharing == "expand" and all(isinstance(a, OneHotInputs) for a in inputs):
        return _frequencies([a for a in inputs if isinstance(a, OneHotInputs)], records[0].outputs)
    vectors = [with_bias(dense_inputs(a, records[0].outputs), part) for a in inputs]
    if sharing == "reduce":
        vectors = [a.mean(1, keepdim=True) for a in vectors]
    flat = [a.flatten(0, 1) for a in vectors]
    count = sum(len(a) for a in flat)
    total = MomentSum(count, flat[0], flat[0].shape[1], flat[0].shape[2], None)
    for a in flat:
        total.add(a)
    return total.moment(1 / count)


def _frequencies(inputs: Sequence[OneHotInputs], like: Tensor) -> Moment:
    """A of one-hot vectors: how often each entry occurs."""
    index = torch.cat([a.index.reshape(-1) for a in inputs])
    counts = torch.bincount(index[index >= 0], minlength=inputs[0].entries)
    return DiagonalMoment(counts.to(like)[None] / len(index))


def dense_inputs(inputs: Inputs | None, like: Tensor) -> Tensor:
    """Inputs as vectors (N, T, groups, entries)."""
    assert inputs is not None  # the site has a weight
    if isinstance(inputs, DenseInputs):
        return inputs.values
    hot = torch.nn.functional.one_hot(inputs.index.clamp_min(0), inputs.entries)
    return (hot * (inputs.index >= 0).unsqueeze(-1)).to(like).unsqueeze(2)


def with_bias(a: Tensor, part: SitePart) -> Tensor:
    """The inputs with a 1 for the bias."""
    if part.bias is None:
        return a
    return torch.cat([a, a.new_ones(*a.shape[:-1], 1)], dim=-1)


def draws_of(samples: int | str, sweeps: Sweeps) -> float:
    """Columns of the root of H per sample; all of them where `samples` is "exact"."""
    return sweeps.factor_rows if isinstance(samples, str) else samples


def check_settings(part: str, samples: int | str, sharing: str, uncovered: str) -> None:
    """Raise ValueError for settings out of range, with the name of the part that has them."""
    if samples != "exact" and (isinstance(samples, str) or samples < 1):
        raise ValueError(f'{part} samples must be at least 1, or "exact"; got {samples!r}')
    for name, value, allowed in (
        ("sharing", sharing, ("expand", "reduce")),
        ("uncovered", uncovered, ("error", "diagonal")),
    ):
        if value not in allowed:
            raise ValueError(f"{part} {name} must be one of {', '.join(allowed)}; got {value!r}")


def _described(factors: Sequence[Factors]) -> str:
    """How many factors are inverted in each way."""
    forms = Counter(moment.form for factor in factors for moment in (factor.a, factor.s))
    ways = ", ".join(f"{count} {form}" for form, count in forms.items())
    return f"sites: {len(factors)}, inverses of factors: {ways}"


def refuse_uncovered(part: str, samples: SiteSamples, uncovered: str) -> None:
    """Raise CurvatureError for a parameter of no site, unless `uncovered` allows it."""
    if not samples.uncovered or uncovered != "error":
        return
    (name, why), *others = samples.uncovered.items()
    more = f" (and {len(others)} more)" if others else ""
    raise CurvatureError(
        f"{part} has no Kronecker product for {name!r}, which {why}{more}: use "
        f'{part}(uncovered="diagonal"), another preconditioner, or a partition into whole rows'
    )


def inverse_of(
    system: System,
    samples: SiteSamples,
    damped: Sequence[Callable[[Tensor, Tensor], None]],
    squares: Tensor,
    why: str,
) -> KroneckerInverse:
    """M⁻¹ from that of every part and the diagonal of the rest, (R,); 1 where that and λ are 0."""
    ones = torch.ones_like(system.rhs)
    damping = system.blocks.add_scaled_(torch.zeros_like(ones), system.damping, ones)
    flat = system.blocks.scatter(damping)[samples.rest] + squares
    diagonal = torch.where(flat > 0, flat, 1.0)
    return KroneckerInverse(system.blocks, system.matrix, damped, samples.rest, diagonal, why)
