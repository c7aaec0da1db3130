"""What an update tells about itself."""

from __future__ import annotations

from dataclasses import dataclass

from bdhf.optim.solvers import Stop


@dataclass(frozen=True)
class StepInfo:
    """What one update did. Tuples are per block, or per param_group where it says so."""

    loss: float  # on the gradient batch, before the update, penalty included
    grad_norm: float  # ‖g‖₂ on the gradient batch
    step_norm: float  # ‖Δθ‖₂ as applied
    cg_iterations: tuple[int, ...]
    stop: tuple[Stop, ...]
    products: float  # Σ_b n_b · P_b / P: n_b products with block b of P_b parameters
    gradient_equivalents: float  # FLOPs of the update ÷ FLOPs of one gradient
    damping: tuple[float, ...]  # the λ that was used, per param_group
    step_size: tuple[float, ...]  # t · lr, per param_group
    reduction_ratio: float  # actual ÷ predicted change of the curvature batch's loss; NaN: no fall
