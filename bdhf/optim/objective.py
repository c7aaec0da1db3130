"""The loss of a model as a function of its trainable parameters: what a quadratic model is of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from bdhf.optim.errors import ModelError, ModelTypeError
from bdhf.optim.image_layout import ImageLayout
from bdhf.optim.layout import flatten
from bdhf.optim.losses import weights
from bdhf.optim.losses.weights import LossFn

Batch = tuple[Any, Any]  # (inputs, targets)
Batches = tuple[Batch, ...]  # the micro-batches of one batch


def micro_batches(given: Any) -> Batches:
    """Take a tuple as one batch, a list as the micro-batches of one batch.

    Raises ModelTypeError for anything else, and ModelError for an empty list.
    """
    batches = tuple(given) if isinstance(given, list) else (given,)
    for batch in batches:
        if not isinstance(batch, tuple) or len(batch) != 2:
            what = f"a list with {type(batch).__name__}" if isinstance(given, list) else type(batch)
            name = what if isinstance(what, str) else what.__name__
            raise ModelTypeError(
                f"a batch is a tuple (inputs, targets), or a list of such micro-batches; got "
                f"{name}: a pair from a DataLoader is tuple(pair)"
            )
    if not batches:
        raise ModelError("a list of micro-batches needs at least one (inputs, targets)")
    return batches


@contextmanager
def plain_kernels(model: nn.Module) -> Iterator[None]:
    """Keep to kernels that have a second derivative: no fused attention, no recurrent cuDNN."""
    with ExitStack() as plain:
        plain.enter_context(sdpa_kernel(SDPBackend.MATH))
        if any(isinstance(module, nn.RNNBase) for module in model.modules()):
            plain.enter_context(torch.backends.cudnn.flags(enabled=False))
        yield


@dataclass(frozen=True)
class Objective:
    """A model, its loss, and the parameters that are trained: those trainable at the outset."""

    model: nn.Module
    loss_fn: LossFn
    parameters: tuple[nn.Parameter, ...]
    run: ImageLayout  # the forward pass

    @classmethod
    def of(cls, model: nn.Module, loss_fn: LossFn) -> Objective:
        """Take every parameter that requires a gradient now, in the order of the model."""
        parameters = tuple(p for p in model.parameters() if p.requires_grad)
        return cls(model, loss_fn, parameters, ImageLayout(model))

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.parameters[0].device

    def theta(self) -> Tensor:
        """θ as it is, (P,) in the order of the parameters."""
        return flatten(parameter.detach() for parameter in self.parameters)

    def random_state_kept(self) -> AbstractContextManager[None]:
        """Whatever the body draws, torch's global generators are afterwards as before."""
        devices = [self.device] if self.device.type == "cuda" else []
        return torch.random.fork_rng(devices=devices)

    def outputs(self, inputs: Any, *, channels_last: bool = True) -> Tensor:
        """Run the model forward, so that it can be differentiated twice.

        `channels_last` allows images in that order, where it is faster. Fused attention and cuDNN's
        recurrent layers have no double backward, so their plain kernels run. Raises
        ModelTypeError or ModelError for outputs without curvature.
        """
        with plain_kernels(self.model):
            outputs = (self.run if channels_last else self.model)(inputs)
        name = type(self.model).__name__
        if not isinstance(outputs, Tensor):
            raise ModelTypeError(
                f"{name} returned {type(outputs).__name__}; curvature products need one Tensor of "
                "outputs: wrap the model so that it returns what the loss reads"
            )
        if not outputs.requires_grad:
            raise ModelError(
                f"the outputs of {name} depend on no trainable parameter; check for a detach() or "
                "a no_grad() in its forward"
            )
        return outputs

    def loss(self, batches: Batches) -> Tensor:
        """The loss of one batch, ()."""
        pairs = [(self.run(inputs), targets) for inputs, targets in batches]
        losses = [self.loss_fn(outputs, targets) for outputs, targets in pairs]
        return _weighted(weights(self.loss_fn, pairs), losses)

    def loss_and_gradient(self, batches: Batches) -> tuple[Tensor, Tensor]:
        """Loss () and gradient (P,) of one batch, one micro-batch in memory at a time."""
        pairs, losses, gradients = [], [], []
        for inputs, targets in batches:
            outputs = self.run(inputs)
            loss = self.loss_fn(outputs, targets)
            gradient = torch.autograd.grad(
                loss, self.parameters, allow_unused=True, materialize_grads=True
            )
            pairs.append((outputs.detach(), targets))
            losses.append(loss.detach())
            gradients.append(flatten(gradient).detach())  # torch 2.9's zeros require a gradient
        shares = weights(self.loss_fn, pairs)
        return _weighted(shares, losses), _weighted(shares, gradients)

    def check(self) -> None:
        """Refuse what would give wrong products silently, before anything is computed.

        Raises ModelError for a parameter that has been frozen since, and for a module whose
        forward is not a function of each sample alone.
        """
        if not all(parameter.requires_grad for parameter in self.parameters):
            raise ModelError(
                "a parameter has been frozen since the blocks were made; build a new optimizer "
                "after changing requires_grad"
            )
        for name, module in self.model.named_modules():
            if module.training and (reason := _not_a_function(module)):
                raise ModelError(
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


def _weighted(shares: Sequence[float], tensors: Sequence[Tensor]) -> Tensor:
    """Σ share · tensor; a micro-batch without terms, whose mean is no number, does not count."""
    if len(tensors) == 1:
        return tensors[0]
    pairs = zip(shares, tensors, strict=True)
    return torch.stack([share * tensor for share, tensor in pairs if share != 0]).sum(0)
