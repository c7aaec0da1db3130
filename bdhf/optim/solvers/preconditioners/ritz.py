"""Ritz pairs of G from the directions of a solve, and from pairs of before.

V = [Q U] is an orthonormal basis of the directions p and of what older pairs w add to them:

    VᵀGV = [ QᵀGQ   QᵀGU ]        G Q is exact: the solve has multiplied there
           [ UᵀGQ   UᵀĜU ]        Ĝ = Σ w wᵀ is of before

The eigenpairs of this small matrix are the Ritz pairs. All vectors are rows, (rows, k, n) with one
block per row of a block matrix; small matrices are in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bdhf.optim.solvers.preconditioners.low_rank import positive


def ritz_pairs(p: Tensor, gp: Tensor, w: Tensor, most: int) -> Tensor:
    """√θ_i u_i for the `most` largest pairs with θ > 0, (rows, most, n); zero where there is none.

    `p` are directions, (rows, m, n), `gp` is G p, and `w` are pairs of before, (rows, k, n). A zero
    vector counts as none.
    """
    work = torch.promote_types(p.dtype, torch.float32)
    vectors = torch.cat([p, w], 1).to(work)
    gram = (vectors @ vectors.mT).double()
    image = (gp.to(work) @ vectors.mT).double()
    theta, combined = _small_pairs(gram, image, torch.finfo(work).eps)
    theta = positive(theta[:, :most], work).sqrt().to(work)
    basis = torch.linalg.qr((combined[:, :most].to(work) @ vectors).mT)[0].mT  # rounding removed
    made = vectors.new_zeros(len(p), most, p.shape[2])
    count = basis.shape[1]
    made[:, :count] = basis * theta[:, :count, None]
    return made.to(p.dtype)


def _small_pairs(gram: Tensor, image: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Eigenvalues of VᵀGV, (rows, M), the largest first, and u as combinations, (rows, M, M).

    Of M vectors z, the m directions first: `gram` is zᵀz and `image` is (G p)ᵀz, (rows, m, M).
    """
    m, theta = image.shape[1], gram.diagonal(dim1=1, dim2=2)
    scale = torch.where(theta > 0, theta.rsqrt(), 0.0)  # each z to length 1
    gram = gram * scale[:, :, None] * scale[:, None]
    image = image * scale[:, :m, None] * scale[:, None]
    q = torch.zeros_like(image)
    q[:, :, :m] = _whitening(gram[:, :m, :m], eps)
    u = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)[m:] - gram[:, m:] @ q.mT @ q
    u = _whitening(u @ gram @ u.mT, eps) @ u
    basis = torch.cat([q, u], 1)
    exact = q[:, :, :m] @ image @ basis.mT
    before = u @ gram[:, :, m:]
    rest = torch.cat([exact[:, :, m:].mT, before * theta[:, None, m:] @ before.mT], 2)
    small = torch.cat([exact, rest], 1)
    values, vectors = torch.linalg.eigh(0.5 * (small + small.mT))
    combined: Tensor = vectors.flip(2).mT @ basis * scale[:, None]
    return values.flip(1), combined


def _whitening(gram: Tensor, eps: float) -> Tensor:
    """C with C gram Cᵀ = I, and zero rows for what is linearly dependent; (rows, m, m).

    The gram matrix is that of unit vectors, or of what is left of them. C is at most eps^-¼, so
    that rounding in products with G is magnified to √eps at most.
    """
    values, vectors = torch.linalg.eigh(gram)
    lengths = torch.where(values > eps**0.5, values.rsqrt(), 0.0)
    whitening: Tensor = (vectors * lengths[:, None]).mT
    return whitening
