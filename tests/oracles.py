"""Dense float64 oracles: the matrices as their definitions say, with none of bdhf's products."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from bdhf.optim.vectors.blocks import Blocks
from tests.cases import Case


def size(case: Case) -> int:
    """P."""
    return sum(p.numel() for p in parameters(case))


def parameters(case: Case) -> list[Tensor]:
    """The trainable parameters themselves, a tied one once."""
    return [p for p in case.model.parameters() if p.requires_grad]


def derivative(value: Tensor, case: Case) -> Tensor:
    """∂(scalar)/∂θ by one plain backward pass, (P,)."""
    grads = torch.autograd.grad(
        value, parameters(case), retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return torch.cat([grad.reshape(-1) for grad in grads]).detach()  # 2.9's zeros require one


def flat_parameters(case: Case) -> Tensor:
    """θ, (P,)."""
    return torch.cat([p.detach().reshape(-1) for p in parameters(case)])


def dense_ggn(case: Case) -> Tensor:
    """Jᵀ H J, (P, P), with the whole J, row by row, and the whole H."""
    z = case.model(case.batch[0])
    jacobian = torch.stack([derivative(output, case) for output in z.reshape(-1)])
    hessian = torch.autograd.functional.hessian(
        lambda flat: case.loss_fn(flat.view(z.shape), case.batch[1]), z.detach().reshape(-1)
    )
    return jacobian.T @ hessian @ jacobian


def dense_hessian(case: Case) -> Tensor:
    """∇²L, (P, P), row by row from the graph of the gradient."""
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernel has no second derivative
        loss = case.loss_fn(case.model(case.batch[0]), case.batch[1])
    gradient = torch.autograd.grad(
        loss, parameters(case), create_graph=True, allow_unused=True, materialize_grads=True
    )
    entries = torch.cat([part.reshape(-1) for part in gradient])
    zero = sum(parameter.sum() * 0 for parameter in parameters(case))  # so that each has a graph
    return torch.stack([derivative(entry + zero, case) for entry in entries])


def dense_scores(
    case: Case, losses: list[Callable[[Tensor], Tensor]], terms: float, is_mean: bool
) -> Tensor:
    """(1/MK) Σ_{n,k} J_nᵀ s sᵀ J_n with s = ∇_z Σ_{m∈n} ℓ_m; (P, P); M = 1 for a sum.

    Sample by sample, each on its own: `losses` gives Σ_m ℓ_m of the outputs, one for each k.
    """
    total = torch.zeros(size(case), size(case), dtype=torch.float64)
    for loss in losses:
        for n in range(len(case.batch[0])):
            z = case.model(case.batch[0])
            attached_at_n = z.detach().clone()
            attached_at_n[n] = z[n]
            score = derivative(loss(attached_at_n), case)
            total += score.outer(score)
    return total / ((terms if is_mean else 1) * len(losses))


def dense_gradient(case: Case) -> Tensor:
    """∇L, (P,)."""
    return derivative(case.loss_fn(case.model(case.batch[0]), case.batch[1]), case)


def cut(matrix: Tensor, blocks: list[Tensor]) -> Tensor:
    """Set everything outside the blocks to zero."""
    result = torch.zeros_like(matrix)
    for block in blocks:
        result[block[:, None], block] = matrix[block[:, None], block]
    return result


def blocked(matrix: Tensor, blocks: Blocks) -> Tensor:
    """What a partition leaves of a matrix, (P, P): cut to its blocks, or blended with the cut."""
    if blocks.blend is None:
        return cut(matrix, blocks.positions())
    alpha, inner = blocks.blend.alpha, blocks.blend.inner.positions()
    return alpha * matrix + (1 - alpha) * cut(matrix, inner)
