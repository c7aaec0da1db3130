"""EKFAC: the eigenbasis of K-FAC, with the second moments of the samples' gradients in it.

    G ≈ Q D Qᵀ,    Q = Q_S ⊗ Q_A,    D_ij = Σ_n (Q_Sᵀ G_n Q_A)_ij²

G_n = Σ_t s_nt a_ntᵀ is the gradient of sample n through a site, for a column of the root of
H = B Bᵀ; Q_S and Q_A are the eigenvectors of K-FAC's S and A.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from bdhf.optim.products.cost import Sweeps
from bdhf.optim.products.per_sample import gradient_squares, one_hot_squares
from bdhf.optim.products.site_samples import (
    Cotangents,
    OneHotInputs,
    SitePart,
    SiteRecord,
    SiteSamples,
    SiteSize,
)
from bdhf.optim.solvers.preconditioners.eigenbasis import Basis, EigenFactors, eigenbasis
from bdhf.optim.solvers.preconditioners.kfac import (
    KFAC,
    check_settings,
    dense_inputs,
    draws_of,
    inverse_of,
    refuse_uncovered,
    with_bias,
)
from bdhf.optim.solvers.preconditioners.kronecker import Factors, KroneckerInverse
from bdhf.optim.solvers.system import System


@dataclass(frozen=True)
class EKFAC:
    """M = Q (D + λ) Qᵀ on the rows of every site: K-FAC with the exact diagonal in its eigenbasis.

    George et al. (2018), "Fast approximate natural gradient descent in a Kronecker-factored
    eigenbasis". No diagonal in that basis is nearer to the curvature of the columns, in the
    Frobenius norm, and λ is added exactly. Where the features of a site lie in several blocks,
    every eigenvector of S lies in one. The gradient of a sample is summed over shared positions
    before it is squared; `sharing` concerns the basis alone. `samples`, `sharing` and `uncovered`
    are those of `KFAC`. Costs the same passes, for "exact" the reverse sweeps twice, and
    decompositions of about 9 n³ operations in place of n³/3. Raises ValueError for settings out of
    range.
    """

    samples: int | Literal["exact"] = 1
    sharing: Literal["expand", "reduce"] = "expand"
    uncovered: Literal["error", "diagonal"] = "error"

    def __post_init__(self) -> None:
        check_settings("EKFAC", self.samples, self.sharing, self.uncovered)

    def __call__(self, system: System) -> KroneckerInverse:
        """M⁻¹. Raises CurvatureError for parameters without a Kronecker product."""
        samples = system.matrix.site_samples()
        self.check_sites(samples)
        with system.matrix.counting("EKFAC"):
            factors, squares = self.factors(samples, system.matrix.seed)
            damped = [factor.damped(system.damping) for factor in factors]
        why = f"EKFAC of {len(factors)} sites"
        return inverse_of(system, samples, damped, squares, why)

    def check_sites(self, samples: SiteSamples) -> None:
        """Raise CurvatureError for parameters without a Kronecker product, unless allowed."""
        refuse_uncovered("EKFAC", samples, self.uncovered)

    def cost(self, sweeps: Sweeps, samples: float, uses: int) -> float:
        """Those of K-FAC, eigendecompositions, D in their basis, and `uses` of M⁻¹."""
        columns = draws_of(self.samples, sweeps)
        passes = (1 + (2 if self.samples == "exact" else 1) * columns) / 3
        flops = sum(_flops(site, samples, columns, uses) for site in sweeps.sites)
        return passes + flops / (sweeps.gradient * samples)

    def factors(self, samples: SiteSamples, seed: int) -> tuple[list[EigenFactors], Tensor]:
        """Bases and D of every part of a site, and the diagonal on the entries in no part, (R,)."""
        kfac = KFAC(self.samples, self.sharing, self.uncovered)
        if self.samples != "exact":
            records = [_swept(r, kfac, seed + i) for i, r in enumerate(samples.records)]
            samples = replace(samples, records=tuple(records))
        kronecker, rest = kfac.factors(samples, seed)
        bases = [_bases(factors, self._spans(factors.part, samples)) for factors in kronecker]
        pairs = [(factors.part, *basis) for factors, basis in zip(kronecker, bases, strict=True)]
        sums: list[Tensor] = []
        for record, cotangents in _sweeps(samples.records, kfac, seed):
            squares = [_squares(part, record, cotangents, a, s) for part, a, s in pairs]
            sums = [d + more for d, more in zip(sums, squares, strict=True)] if sums else squares
        made = zip(pairs, sums, strict=True)
        return [EigenFactors(part, a, s, d) for (part, a, s), d in made], rest

    def _spans(self, part: SitePart, samples: SiteSamples) -> bool:
        """Whether A and S of a part are made of the vectors of every position."""
        positions = (record.shapes[part.site][1] for record in samples.records)
        return self.sharing == "expand" or max(positions) == 1


def _flops(site: SiteSize, samples: float, columns: float, uses: int) -> float:
    """FLOPs of the bases of one part of a site, of D, and of `uses` of M⁻¹, at most."""
    rows, entries = 0 if site.apart else site.features, 0 if site.one_hot else site.entries
    vectors = samples * site.positions
    moments = 2 * vectors * (entries**2 + columns * rows**2) + 9 * (entries**3 + rows**3)
    rotated = 2 * vectors * (entries**2 + columns * rows**2)
    products = 2 * vectors * columns * site.features * site.entries
    step = 4 * site.features * site.entries * (rows + entries)
    return site.groups * (moments + rotated + products + uses * step)


def _swept(record: SiteRecord, kfac: KFAC, seed: int) -> SiteRecord:
    """The record with the S of its only draw, so that no second sweep is needed."""
    (columns,) = kfac.columns(record, seed)
    cotangents = record.cotangents(columns)
    return replace(record, cotangents=lambda _: cotangents)


def _sweeps(
    records: Sequence[SiteRecord], kfac: KFAC, seed: int
) -> Iterator[tuple[SiteRecord, Cotangents]]:
    """S of every record, by chunks of columns."""
    for index, record in enumerate(records):
        for columns in kfac.columns(record, seed + index):
            yield record, record.cotangents(columns)


def _bases(factors: Factors, spans: bool) -> tuple[Basis, Basis]:
    """Q_A and Q_S of one part."""
    labels = factors.part.blocks.view(len(factors.s.mean), -1)
    return eigenbasis(factors.a, None, spans), eigenbasis(factors.s, labels, spans)


def _squares(
    part: SitePart, record: SiteRecord, cotangents: Cotangents, a: Basis, s: Basis
) -> Tensor:
    """D of one chunk of columns, (groups, r of S, r of A)."""
    outputs, (n, t, groups, features) = record.outputs, record.shapes[part.site]
    columns = cotangents[part.site]
    if columns is None:  # no path to the outputs
        columns = outputs.new_zeros(1, n, t, groups, features)
    columns = s.coordinates_of(columns)
    if part.weight is None:
        return gradient_squares(columns, a.coordinates_of(outputs.new_ones(n, t, groups, 1)))
    inputs = record.inputs[part.site]
    if a.columns is None and isinstance(inputs, OneHotInputs):
        return one_hot_squares(columns, inputs)
    return gradient_squares(
        columns, a.coordinates_of(with_bias(dense_inputs(inputs, outputs), part))
    )
