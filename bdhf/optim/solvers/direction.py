"""The direction of a preconditioner alone: d = M⁻¹ rhs in every block, without iterations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from bdhf.optim.curvature import Curvature
from bdhf.optim.products.cost import Sweeps
from bdhf.optim.solvers.lockstep import Rows
from bdhf.optim.solvers.preconditioners import KFAC, Preconditioner, cost_of
from bdhf.optim.solvers.system import Iterate, Solution, Stop, System
from bdhf.optim.vectors.blocks import Blocks


@dataclass(frozen=True)
class Direction:
    """The step d = -M⁻¹ g of a preconditioner M, which contains λ, without conjugate gradients.

    With K-FAC it is the method of Martens & Grosse (2015) without momentum and rescaling; with
    M = I it is gradient descent, whatever λ is. `model` is what φ_b, and so the reduction ratio,
    refers to: "matrix" is the block's (G_bb + λ_b I), as with other solvers, for one product;
    "preconditioner" is M, φ = -½ gᵀM⁻¹g, without any. A block whose direction or φ is not finite
    stays where it is. Raises ValueError for another `model`.
    """

    preconditioner: Preconditioner = KFAC()  # noqa: RUF009 - frozen, so shared safely
    model: Literal["matrix", "preconditioner"] = "matrix"

    def __post_init__(self) -> None:
        if self.model not in ("matrix", "preconditioner"):
            raise ValueError(
                f"Direction model must be one of matrix, preconditioner; got {self.model!r}"
            )

    @property
    def warm_start(self) -> float:
        """A direction has no start."""
        return 0.0

    def check(self, blocks: Blocks, curvature: Curvature) -> None:
        """Accept any blocks and any symmetric matrix."""

    def products(self, blocks: Blocks) -> int:
        """One for φ of the matrix."""
        return int(self.model == "matrix")

    def cost(self, sweeps: Sweeps, samples: float) -> float:
        """The product for φ, and the preconditioner."""
        apart = cost_of(self.preconditioner, sweeps, samples, 1)
        return apart + (sweeps.product if self.model == "matrix" else 0.0)

    def solve(self, system: System, start: Tensor | None = None) -> Solution:
        """Compute the direction of every block; `start` is not used."""
        blocks, rhs = system.blocks, system.rhs
        d = self._direction(system)
        slope = blocks.dot(rhs, d)
        rows = Rows(slope, eager=rhs.device.type == "cpu")
        _stop(blocks, rows, slope + blocks.dot(d, d), d)
        phi = -0.5 * slope
        if self.model == "matrix" and rows.look():
            image = blocks.add_scaled_(system.matrix(d, rows.listed), system.damping, d)
            rows.products += rows.active
            phi = 0.5 * blocks.dot(d, image) - slope
        _stop(blocks, rows, phi, d)
        phi = phi.masked_fill(~rows.active, 0.0)
        rows.rest(rows.active, Stop.CONVERGED)
        return rows.solution(Iterate(d, phi), [])

    def _direction(self, system: System) -> Tensor:
        """M⁻¹ rhs, a new tensor."""
        m = self.preconditioner(system)
        if m is None:
            return system.rhs.clone()
        return system.rhs / m if isinstance(m, Tensor) else m(system.rhs)


def _stop(blocks: Blocks, rows: Rows, value: Tensor, d: Tensor) -> None:
    """Stop the rows whose value is not finite, at d = 0."""
    lost = ~value.isfinite()
    rows.rest(lost, Stop.NONFINITE)
    if rows.any(lost):
        blocks.zero_(lost, d)
