"""The randomized Nyström preconditioner, from products with a random matrix.

Y = GΩ,    Ĝ = Y (ΩᵀY)⁻¹ Yᵀ = U Λ̂ Uᵀ,    M⁻¹ = (λ̂_r + λ) U(Λ̂ + λI)⁻¹Uᵀ + (I - UUᵀ)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bdhf.optim.curvature import Curvature, Hessian
from bdhf.optim.errors import CurvatureError
from bdhf.optim.solvers.preconditioners.low_rank import (
    LowRankInverse,
    eigenvalues,
    low_rank_flops,
    low_rank_inverse,
    positive,
    stacks,
)
from bdhf.optim.solvers.system import System
from bdhf.optim.vectors.blocks import Blocks

#: Separates the draws of the sketch from those of a curvature with the same seed.
_STREAM = 0x2545F4914F6CDD1D

#: An eigenvalue of the sketch below this share of -‖GΩ‖ is no rounding, even of bfloat16 products.
_INDEFINITE = 0.05


@dataclass(frozen=True)
class Nystrom:
    """M = (Ĝ + λI) / (λ̂_r + λ) on the range of a sketch Ĝ of G, and I beyond it.

    Frangella, Tropp & Udell (2023), algorithm 2.1 and §5. For solves of many iterations, with any
    model: it needs products only. Ĝ has `rank` r in every block (a smaller block is exact) and is
    made at the updates 0, `refresh`, 2 · `refresh`, …, at the cost of r products; λ is always that
    of the update. The state of the optimizer holds r vectors of the parameters, and a solve r more;
    a new sketch takes five times as many for a moment. Raises ValueError for settings below 1, and
    for the Hessian; CurvatureError for another matrix with negative eigenvalues.
    """

    rank: int = 50
    refresh: int = 10

    def __post_init__(self) -> None:
        for name in ("rank", "refresh"):
            if getattr(self, name) < 1:
                raise ValueError(f"Nystrom {name} must be at least 1; got {getattr(self, name)}")

    def check(self, blocks: Blocks, curvature: Curvature) -> None:
        """Raise ValueError for the Hessian."""
        if isinstance(curvature, Hessian):
            raise ValueError(
                "Nystrom needs a positive semi-definite matrix, which the Hessian is not: use "
                "Recycled or no preconditioner, or GGN"
            )

    def products(self, largest: int) -> int:
        """One per column of the sketch."""
        return min(self.rank, largest)

    def flops(self, sizes: Sequence[int], iterations: int) -> float:
        """Two QR decompositions and four products in every block, and M⁻¹ r at every iteration."""
        return sum(_sketch_flops(n, min(self.rank, n)) for n in sizes) + low_rank_flops(
            self.rank, sizes, iterations
        )

    def __call__(self, system: System) -> NystromInverse:
        """M⁻¹. Raises CurvatureError for a matrix with negative eigenvalues."""
        blocks, vectors, spent = system.blocks, system.memory, (0,) * len(system.blocks.rows)
        renewed = vectors is None or system.updates % self.refresh == 0
        if vectors is None or renewed:
            vectors = self.sketch(system)
            spent = tuple(min(len(vectors), block.size) for block in blocks.rows)
        last = torch.tensor([min(len(vectors), block.size) - 1 for block in blocks.rows])
        values = eigenvalues(blocks, vectors)
        rest = values.gather(0, last.to(values.device)[None])[0]
        why = f"Nyström sketch of rank {len(vectors)}"
        inverse = low_rank_inverse(system, vectors, rest, why)
        return NystromInverse(inverse, spent, vectors if renewed else None)

    def sketch(self, system: System) -> Tensor:
        """√λ̂_i u_i of every block, the largest first; (r, P) in block order."""
        blocks = system.blocks
        with system.matrix.counting(f"Nyström test matrix of rank {self.rank}"):
            test = self._test_matrix(system)
        image = torch.empty_like(test)
        for column, vector in enumerate(test):
            active = [b for b, block in enumerate(blocks.rows) if column < block.size]
            every = len(active) == len(blocks.rows)
            image[column] = system.matrix(vector, None if every else active)
        first = 0
        with system.matrix.counting(f"Nyström sketch of rank {self.rank}"):
            pairs = zip(stacks(blocks, test), stacks(blocks, image), strict=True)
            for omega, y in pairs:
                m = min(omega.shape[1:])
                lowest = _eigenpairs_(omega[:, :m], y[:, :m])
                _refuse_indefinite(lowest, first)
                y[:, m:] = 0.0
                first += len(y)
        return image

    def _test_matrix(self, system: System) -> Tensor:
        """Ω of every block, orthonormal and random; (r, P) in block order."""
        like, blocks = system.rhs, system.blocks
        generator = torch.Generator(like.device)
        generator.manual_seed((system.matrix.seed + _STREAM) % 2**63)
        rank = self.products(max(n for _, n in blocks.shapes))
        test = like.new_zeros(rank, len(like))
        for omega in stacks(blocks, test):
            rows, k, n = omega.shape
            draws = torch.randn(
                (rows, n, min(k, n)), generator=generator, device=like.device, dtype=_work(like)
            )
            omega[:, : min(k, n)] = torch.linalg.qr(draws)[0].mT
        return test


@dataclass(frozen=True)
class NystromInverse:
    """M⁻¹ of a sketch."""

    inverse: LowRankInverse
    products: tuple[int, ...]
    renewed: Tensor | None  # the sketch, if it was made at this update

    @property
    def why(self) -> str:
        """The rank."""
        return self.inverse.why

    def __call__(self, r: Tensor) -> Tensor:
        """M⁻¹ r, (P,) -> (P,) in block order."""
        return self.inverse(r)

    def see(self, p: Tensor, ap: Tensor) -> None:
        """Ignore the directions of the solve."""

    def memory(self, iterations: int) -> Tensor | None:
        """The sketch, if it was made at this update."""
        return self.renewed


def _sketch_flops(n: int, m: int) -> float:
    """FLOPs of a sketch of rank m, without its products."""
    return 13 * n * m**2 + 40 * m**3


def _work(like: Tensor) -> torch.dtype:
    """A precision that decompositions have."""
    return torch.promote_types(like.dtype, torch.float32)


def _eigenpairs_(omega: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """In place: y = (GΩ)ᵀ becomes √λ̂ Uᵀ, (rows, m, n); zero in a row that is not finite.

    The shift ν keeps the Cholesky decomposition of ΩᵀY + νI from failing, and is taken back from
    the eigenvalues. It is at least the rounding of Y, and twice any negative eigenvalue. Returns
    the lowest eigenvalue of ΩᵀY and ‖Y‖, (rows,).
    """
    finite = y.isfinite().all(2).all(1)
    y.masked_fill_(~finite[:, None, None], 0.0)
    omega, image = omega.to(_work(y)), y.to(_work(y))
    core = (omega @ image.mT).double()
    core = 0.5 * (core + core.mT)
    size = image.double().square().sum((1, 2)).sqrt()
    lowest = torch.linalg.eigvalsh(core)[:, 0]
    rounding = torch.finfo(image.dtype).eps * size
    shift = torch.maximum(torch.where(size > 0, rounding, 1.0), -2 * lowest)
    core.diagonal(dim1=1, dim2=2).add_(shift[:, None])
    lower = torch.linalg.cholesky_ex(core)[0].to(image.dtype)
    shifted = torch.addcmul(image, shift.to(image.dtype)[:, None, None], omega)
    root = torch.linalg.solve_triangular(lower, shifted, upper=False)  # Bᵀ
    basis, triangle = torch.linalg.qr(root.mT)
    rotation, singular, _ = torch.linalg.svd(triangle.double())
    values = positive(singular.square() - shift[:, None], image.dtype)
    y.copy_((basis @ (rotation * values.sqrt()[:, None]).to(basis.dtype)).mT)
    return lowest, size


def _refuse_indefinite(sketch: tuple[Tensor, Tensor], first: int) -> None:
    """Raise CurvatureError for a negative eigenvalue; `first` is the index of the first row."""
    lowest, size = sketch
    negative = (lowest < -_INDEFINITE * size).nonzero().flatten().tolist()
    if negative:
        row: int = negative[0]
        raise CurvatureError(
            f"Nystrom needs a positive semi-definite matrix, and that of block {first + row} has "
            f"an eigenvalue below {float(lowest[row]):.2g}, at a norm of about "
            f"{float(size[row]):.2g}: use Recycled or no preconditioner, or a curvature "
            "Jᵀ H J (GGN, Fisher)"
        )
