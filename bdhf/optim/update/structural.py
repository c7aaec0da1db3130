"""Structural damping: λ also holds the hidden states of a recurrent network.

With the hidden states h_n of sample n, at all steps, and their Jacobians ∂h_n/∂θ, in every block b

    (G_bb + λ_b (I + μ S_bb)) d_b = -g_b,      S = (1/N) Σ_n (∂h_n/∂θ)ᵀ (∂h_n/∂θ)

Martens & Sutskever (2011), section 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from bdhf.optim.curvature import OutputLoss
from bdhf.optim.forward.batches import Batches
from bdhf.optim.forward.hidden_states import HiddenStates, hidden_modules
from bdhf.optim.forward.objective import Objective
from bdhf.optim.losses.hessians import Diagonal
from bdhf.optim.losses.own import own_parameters
from bdhf.optim.losses.weights import LossFn
from bdhf.optim.products import BlockProduct, Settings, Workspace, linearise
from bdhf.optim.refusals.refusals import refuse_no_parts
from bdhf.optim.torch_support.flops import Flops
from bdhf.optim.update.damping import Constant, Damping
from bdhf.optim.vectors.blocks import Blocks


@dataclass(frozen=True)
class Structural:
    """λ(I + μS) in place of λI: structural damping of recurrent networks.

        S = (1/N) Σ_n (∂h_n/∂θ)ᵀ (∂h_n/∂θ),  h_n the hidden states of sample n at all steps

    λ is that of `damping`, and `weight` is μ ≥ 0: to second order a step d costs
    (λμ/2N) Σ_n ‖h_n(θ + d) - h_n(θ)‖² beside (λ/2) ‖d‖². N counts the samples of the curvature
    batch, for a summed loss too. The gradient does not change, and the reduction ratio is measured
    without either term. Martens & Sutskever (2011), section 4.

    `modules` are glob patterns on the names of the modules whose outputs are the hidden states; by
    default every PeepholeLSTM, nn.RNNBase and nn.RNNCellBase. A stack of layers in one module gives
    those of its top layer.

    Raises ValueError for a μ that is not finite and at least 0, an empty list of patterns, and a
    structural damping inside another.
    """

    damping: Damping = Constant()  # noqa: RUF009 - parts are frozen, so sharing one is safe
    weight: float = 0.1
    modules: Sequence[str] | None = None

    def __post_init__(self) -> None:
        refuse_no_parts(damping=self.damping)
        if isinstance(self.damping, Structural):
            raise ValueError(
                "damping of Structural must not be Structural itself: give the damping of the "
                "inner one, such as constant, and a single weight"
            )
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"Structural weight must be finite and at least 0; got {self.weight}")
        if self.modules is None:
            return
        if isinstance(self.modules, str) or not self.modules:
            raise ValueError(
                'Structural modules must be a list of patterns, such as ["encoder.*"], or None '
                f"for every recurrent module; got {self.modules!r}"
            )
        object.__setattr__(self, "modules", tuple(self.modules))

    @property
    def initial(self) -> float:
        """λ before the first update."""
        return self.damping.initial

    @property
    def per_block(self) -> bool:
        """Whether `damping` has a λ for each param_group."""
        return self.damping.per_block

    def update(self, damping: float, reduction_ratio: float) -> float:
        """λ for the next update, by the rule of `damping`."""
        return self.damping.update(damping, reduction_ratio)


@dataclass(frozen=True)
class StateChange:
    """The curvature (1/N) Σ_n ‖J_n v‖² of outputs that are hidden states; its gradient is 0."""

    def expand_loss(
        self, loss_fn: LossFn, outputs: Tensor, targets: Any, generator: torch.Generator
    ) -> OutputLoss:
        """(1/2N) Σ_n ‖h_n - h_n(θ)‖² at θ: 0, with H = I/N; `loss_fn` is not called."""
        h = outputs.detach()
        direct = tuple(torch.zeros_like(p) for p in own_parameters(loss_fn))
        curvature = Diagonal(torch.full_like(h, 1 / len(h)))
        return OutputLoss(h.new_zeros(()), torch.zeros_like(h), curvature, direct)


@dataclass(frozen=True)
class Structure:
    """The matrix S of a model, to be linearised in every update."""

    objective: Objective  # the model up to its hidden states
    weight: float  # μ
    settings: Settings
    workspace: Workspace = field(default_factory=Workspace)
    curvature: StateChange = StateChange()

    @torch.enable_grad()
    def linearise(
        self, batches: Batches, blocks: Blocks, flops: Flops, products: int
    ) -> BlockProduct:
        """S at the current parameters, on the micro-batches of one batch."""
        made = [
            linearise(
                self.objective, (batch,), curvature=self.curvature, blocks=blocks, flops=flops,
                settings=self.settings, workspace=self.workspace, products=products,
            )
            for batch in batches
        ]  # fmt: skip
        counts = [len(product.first.outputs) for product in made]
        shares = (count / sum(counts) for count in counts)
        parts = tuple(
            (share, product.first) for share, product in zip(shares, made, strict=True)
        )  # fmt: skip
        return replace(made[0], parts=parts)


def structure_of(
    damping: Damping, model: nn.Module, loss_fn: LossFn, settings: Settings
) -> Structure | None:
    """The S of a damping on a model; None for a damping without, and for μ = 0.

    Raises ModelError where no module matches.
    """
    if not isinstance(damping, Structural) or not damping.weight:
        return None
    states = HiddenStates(model, hidden_modules(model, damping.modules))
    settings = replace(settings, method="propagate")  # H has a column for every hidden state
    return Structure(Objective.of(states, loss_fn), damping.weight, settings)
