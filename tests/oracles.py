"""Dense float64 oracles: the matrices as their definitions say, with none of bdhf's products."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

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


def dense_scores(case: Case, targets: list[Tensor], terms: int) -> Tensor:
    """(1/MK) Σ_{n,k} J_nᵀ s sᵀ J_n with s = Σ_{m∈n} ∇_z ℓ_m at the targets given; (P, P).

    Sample by sample, each on its own: `terms` is M, or 0 for a loss that is a sum.
    """
    total = torch.zeros(size(case), size(case), dtype=torch.float64)
    for target in targets:
        for n in range(len(target)):
            z = case.model(case.batch[0])
            one = z.detach().clone()
            one[n] = z[n]
            score = derivative(case.loss_fn(one, target), case) * (terms or 1)
            total += score.outer(score)
    return total / ((terms or 1) * len(targets))


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
