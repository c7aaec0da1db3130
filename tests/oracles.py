"""Dense float64 oracles: the matrices as their definitions say, with none of bdhf's products."""

from __future__ import annotations

import torch
from torch import Tensor

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
    return torch.cat([grad.reshape(-1) for grad in grads])


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


def dense_gradient(case: Case) -> Tensor:
    """∇L, (P,)."""
    return derivative(case.loss_fn(case.model(case.batch[0]), case.batch[1]), case)


def cut(matrix: Tensor, blocks: list[Tensor]) -> Tensor:
    """Set everything outside the blocks to zero."""
    result = torch.zeros_like(matrix)
    for block in blocks:
        result[block[:, None], block] = matrix[block[:, None], block]
    return result


def dense_block_step(case: Case, blocks: list[Tensor], damping: float) -> Tensor:
    """Solve -(G_bb + λI)⁻¹ g_b for every block, (P,)."""
    matrix, gradient = dense_ggn(case), dense_gradient(case)
    step = torch.zeros_like(gradient)
    for block in blocks:
        damped = matrix[block[:, None], block] + damping * torch.eye(len(block), dtype=matrix.dtype)
        step[block] = torch.linalg.solve(damped, -gradient[block])
    return step
