"""Saddle-free steps: the absolute values of the curvature, in the Krylov space of every block.

    d = V Q (|Θ| + λI)⁻¹ Qᵀ Vᵀ b,      VᵀGV = T = Q Θ Qᵀ,      Vᵀb = ‖b‖ e_1

V is the basis of Lanczos from b, k vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bdhf.optim.curvature import Curvature
from bdhf.optim.products.cost import Sweeps
from bdhf.optim.solvers.lanczos import Lanczos
from bdhf.optim.solvers.lockstep import CHECK_EVERY, saved_iterations
from bdhf.optim.solvers.system import Iterate, Solution, Stop, System
from bdhf.optim.vectors.blocks import Blocks


@dataclass(frozen=True)
class SaddleFree:
    """Every block's (|G_bb| + λI) d = -g in its Krylov space (Dauphin et al. 2014, algorithm 1).

    |G_bb| has the eigenvectors of G_bb and the absolute values of its eigenvalues. After k products
    d = V (|T| + λI)⁻¹ Vᵀ b, where V spans b, G b, … G^{k-1} b with b = -g, and T = VᵀGV. The step
    is downhill (gᵀd < 0) and its φ is below 0, whatever the signs of the eigenvalues. In the paper
    a search chooses λ at every step; here λ is that of the damping.

    Where G_bb is positive semi-definite, d is the k-th iterate of CG from zero without a
    preconditioner. CG stops at a direction of negative curvature and keeps its last iterate;
    this solver continues, and steps along such a direction by its |θ|. A block in which the least
    eigenvalue of T + λI is below 0 reports `negative_curvature`; otherwise one whose Krylov space
    is complete reports `converged`: its d is exact. No step is taken along an eigenvector of T
    where |θ| + λ is within rounding of 0.

    `iterations` is k, the most products with a block. V holds k · P numbers: k vectors of all
    parameters.

    Every `check_every` products (None: 1 on the CPU, 10 elsewhere) the solve waits for the device
    to read which blocks are done; the answer does not depend on it.

    Raises ValueError for a setting below 1.
    """

    iterations: int = 30
    check_every: int | None = None

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ValueError(f"SaddleFree iterations must be at least 1; got {self.iterations}")
        if self.check_every is not None and self.check_every < 1:
            raise ValueError(
                f"SaddleFree check_every must be at least 1, or None; got {self.check_every}"
            )

    @property
    def warm_start(self) -> float:
        """The Krylov space starts at the right-hand side."""
        return 0.0

    def check(self, blocks: Blocks, curvature: Curvature) -> None:
        """Accept any blocks and any symmetric matrix."""

    def products(self, blocks: Blocks) -> int:
        """One product per vector of the basis; a block of n has at most n."""
        return min(self.iterations, max(n for _, n in blocks.shapes))

    def cost(self, sweeps: Sweeps, samples: float) -> float:
        """The products, the orthogonalisation and the answer: 2nk² operations in a block of n."""
        counts = [min(self.iterations, n) for n in sweeps.sizes]
        products = sum(k * cost for k, cost in zip(counts, sweeps.blocks, strict=True))
        flops = sum(2 * n * k**2 + 9 * k**3 for k, n in zip(counts, sweeps.sizes, strict=True))
        return products + max(counts) * sweeps.blended + flops / (sweeps.gradient * samples)

    def solve(self, system: System, start: Tensor | None = None) -> Solution:
        """Solve every block; `start` is not used."""
        on_cpu, steps = system.rhs.device.type == "cpu", self.products(system.blocks)
        every = self.check_every or (1 if on_cpu else CHECK_EVERY)
        lanczos = Lanczos(system, steps, eager=on_cpu and every == 1)
        for index in range(steps):
            if index % every == 0 and not lanczos.rows.look():
                break
            lanczos.step()
        return _solution(lanczos)


def _solution(lanczos: Lanczos) -> Solution:
    """The answer from all vectors, and with `keep_iterates` those from the first few."""
    system, count = lanczos.system, int(lanczos.rows.iterations.max())
    if not count:  # no block has a basis
        stay = Iterate(torch.zeros_like(system.rhs), torch.zeros_like(system.damping))
        return lanczos.rows.solution(stay, [])
    saved = sorted(saved_iterations(count)) if system.keep_iterates else []
    kept = [(index, _iterate(lanczos, index)[0]) for index in saved]
    answer, indefinite, lost = _iterate(lanczos, count)
    lanczos.rows.report(indefinite, Stop.NEGATIVE_CURVATURE)
    lanczos.rows.report(lost, Stop.NONFINITE)
    return lanczos.rows.solution(answer, kept)


def _iterate(lanczos: Lanczos, count: int) -> tuple[Iterate, Tensor, Tensor]:
    """The answer from `count` vectors, where T + λI is indefinite, and where it is not finite.

    φ is ‖b‖² Σ_i Q_1i² (½ (θ_i + λ) s_i² - s_i) with the factors s_i = 1 / (|θ_i| + λ).
    """
    theta, q = torch.linalg.eigh(lanczos.tridiagonal(count))  # (rows, count), (rows, count, count)
    damping = lanczos.system.damping.unsqueeze(1)
    damped, length = theta + damping, theta.abs() + damping
    rounding = torch.finfo(theta.dtype).eps * theta.abs().amax(1)
    scale = torch.where(length > rounding.unsqueeze(1), 1.0 / length, 0.0)
    norm = torch.where(lanczos.rows.iterations > 0, lanczos.norm, 0.0)
    first = norm.unsqueeze(1) * q.select(1, 0)  # Qᵀ Vᵀ b
    model = (first**2 * (0.5 * damped * scale**2 - scale)).sum(1)
    x = lanczos.combine(torch.einsum("bij,bj->bi", q, scale * first))
    lost = ~model.isfinite()
    lanczos.system.blocks.zero_(lost, x)
    indefinite = damped.amin(1) < -rounding
    return Iterate(x, model.masked_fill(lost, 0.0)), indefinite, lost
