"""The loss of a model as a function of its trainable parameters: what a quadratic model is of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

Batch = tuple[Any, Any]  # (inputs, targets)
LossFn = Callable[[Any, Any], Tensor]


@dataclass(frozen=True)
class Objective:
    """A model, its loss, and the parameters that are trained: those trainable at the outset."""

    model: nn.Module
    loss_fn: LossFn
    parameters: tuple[nn.Parameter, ...]

    @classmethod
    def of(cls, model: nn.Module, loss_fn: LossFn) -> Objective:
        """Take every parameter that requires a gradient now, in the order of the model."""
        return cls(model, loss_fn, tuple(p for p in model.parameters() if p.requires_grad))

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.parameters[0].device

    def outputs(self, inputs: Any) -> Tensor:
        """Run the model forward. Raises TypeError or ValueError for outputs without curvature."""
        outputs = self.model(inputs)
        name = type(self.model).__name__
        if not isinstance(outputs, Tensor):
            raise TypeError(
                f"{name} returned {type(outputs).__name__}; curvature products need one Tensor of "
                "outputs: wrap the model so that it returns what the loss reads"
            )
        if not outputs.requires_grad:
            raise ValueError(
                f"the outputs of {name} depend on no trainable parameter; check for a detach() or "
                "a no_grad() in its forward"
            )
        return outputs

    def loss(self, batch: Batch) -> Tensor:
        """The loss of one batch, ()."""
        inputs, targets = batch
        return self.loss_fn(self.model(inputs), targets)

    def check(self, *batches: Batch) -> None:
        """Refuse what would give wrong products silently, before anything is computed.

        Raises TypeError for a batch that is no pair, and ValueError for a parameter that has been
        frozen since, and for a module whose forward is not a function of each sample alone.
        """
        for batch in batches:
            if not isinstance(batch, tuple) or len(batch) != 2:
                raise TypeError(
                    f"a batch is a tuple (inputs, targets); got {type(batch).__name__}: a pair "
                    "from a DataLoader is tuple(pair)"
                )
        if not all(parameter.requires_grad for parameter in self.parameters):
            raise ValueError(
                "a parameter has been frozen since the blocks were made; build a new optimizer "
                "after changing requires_grad"
            )
        for name, module in self.model.named_modules():
            if module.training and (reason := _not_a_function(module)):
                raise ValueError(
                    f"module {name or type(module).__name__!r} ({type(module).__name__}) {reason}: "
                    "put it into eval mode, or set its rate to 0"
                )


def _not_a_function(module: nn.Module) -> str:
    """Why a module in training mode is not one fixed function of each sample; empty if it is."""
    if isinstance(module, _BatchNorm):
        return "couples the samples of a batch and moves its statistics at every forward pass"
    if isinstance(module, nn.RReLU):
        return "draws another slope at every forward pass"
    rates: Sequence[Any] = (
        getattr(module, "p", 0) if isinstance(module, _DropoutNd) else 0,
        getattr(module, "dropout", 0)
        if isinstance(module, (nn.RNNBase, nn.MultiheadAttention))
        else 0,
    )
    return "drops other units at every forward pass" if any(rates) else ""
