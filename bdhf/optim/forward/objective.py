"""The loss of a model as a function of its trainable parameters."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves

from bdhf.optim.errors import ModelError, ModelTypeError
from bdhf.optim.forward.batches import Batches
from bdhf.optim.forward.identity import refuse_other_parameters, refuse_other_shapes
from bdhf.optim.forward.image_layout import ImageLayout
from bdhf.optim.forward.passes import Passes
from bdhf.optim.losses import weights
from bdhf.optim.losses.own import OutsideParameterError, own_parameters
from bdhf.optim.losses.weights import LossFn
from bdhf.optim.refusals.refusals import refuse_modules, refuse_types
from bdhf.optim.torch_support.precision import full_precision
from bdhf.optim.vectors.layout import Layout, flatten, layout_of, named_parameters, split_like


@contextmanager
def plain_kernels(model: nn.Module) -> Iterator[None]:
    """Use kernels with a second derivative that are the same function with and without a graph.

    No fused attention, no fast path of torch's encoders, which sets masked positions to 0 under
    no_grad, and no recurrent layers of cuDNN.
    """
    with ExitStack() as plain:
        plain.enter_context(sdpa_kernel(SDPBackend.MATH))
        plain.callback(
            torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled()
        )
        torch.backends.mha.set_fastpath_enabled(False)
        if any(isinstance(module, nn.RNNBase) for module in model.modules()):
            plain.enter_context(torch.backends.cudnn.flags(enabled=False))
        yield


@dataclass(frozen=True)
class Objective:
    """A model, its loss, and the trained parameters: those trainable at the start."""

    model: nn.Module
    loss_fn: LossFn
    parameters: tuple[nn.Parameter, ...]
    run: ImageLayout  # the forward pass
    held: tuple[int, ...]  # indices of the parameters that the loss itself holds
    names: tuple[str, ...]  # of the parameters
    shapes: tuple[torch.Size, ...]  # of the parameters, at the start
    passes: Passes  # properties of forward passes

    @classmethod
    def of(cls, model: nn.Module, loss_fn: LossFn) -> Objective:
        """Take every parameter that requires a gradient now, in the order of the model.

        Those of a loss module follow; one that both hold counts once, as the model's. Raises
        ModelTypeError or ModelError for an invalid model or loss, and for a parameter without real
        values.
        """
        refuse_types(model, loss_fn)
        named = named_parameters(model, loss_fn)
        trained = {name: parameter for name, parameter in named.items() if parameter.requires_grad}
        parameters = tuple(trained.values())
        index = {id(parameter): i for i, parameter in enumerate(parameters)}
        held = tuple(index[id(parameter)] for parameter in own_parameters(loss_fn))
        return cls(
            model, loss_fn, parameters, ImageLayout(model), held, tuple(trained),
            tuple(parameter.shape for parameter in parameters), Passes(model),
        )  # fmt: skip

    @property
    def layout(self) -> Layout:
        """The parameters by name, in their order. Raises ModelError where the model has none."""
        return layout_of(self.model, self.loss_fn)

    @contextmanager
    def naming_outside_parameters(self) -> Iterator[None]:
        """Add the names in the model to the refusal of a loss that reads its parameters."""
        try:
            yield
        except OutsideParameterError as error:
            raise error.named(self.model) from None

    def with_direct(self, gradient: Tensor, direct: Sequence[Tensor] | None) -> Tensor:
        """The gradient through the outputs, (P,), plus that of the loss's own parameters.

        `direct` is that of `OutputLoss`. Raises ModelError where it is missing, or belongs to
        other parameters than those trainable at the start.
        """
        if direct is None and self.held:
            raise ModelError(
                "the loss has trainable parameters, and the curvature returns no gradient of them: "
                "set `direct` of its OutputLoss, as bdhf.optim.curvature.expand_loss does"
            )
        if direct is not None and len(direct) != len(self.held):
            raise ModelError(
                "the loss has other trainable parameters than when the blocks were made; build a "
                "new optimizer after changing requires_grad"
            )
        if not self.held:
            return gradient
        gradient = gradient.clone()  # an estimate reuses the one through the outputs
        parts = split_like(gradient, self.parameters)
        for index, part in zip(self.held, direct or (), strict=True):
            parts[index].add_(part)
        return gradient

    @contextmanager
    def arithmetic(self) -> Iterator[None]:
        """Fix precision and kernels for a whole update, including the reverse sweeps.

        A checkpointed part of the model runs again in a sweep, and must compute the same.
        """
        with full_precision(self.device), plain_kernels(self.model):
            yield

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return self.parameters[0].device

    def theta(self) -> Tensor:
        """The current θ, (P,) in the order of the parameters."""
        return flatten(parameter.detach() for parameter in self.parameters)

    def signature(self, batch: Any) -> Hashable:
        """The key of forward passes on a batch, or on micro-batches, that behave alike."""
        return self.passes.key(batch)

    def random_state_kept(self) -> AbstractContextManager[None]:
        """Restore torch's global generators after the body."""
        devices = [self.device] if self.device.type == "cuda" else []
        return torch.random.fork_rng(devices=devices)

    def outputs(self, inputs: Any, *, channels_last: bool = True) -> Tensor:
        """Run the model forward, so that it can be differentiated twice.

        `channels_last` permits images in that order, where it is faster. Fused attention and
        cuDNN's recurrent layers have no double backward, so their plain kernels run. Raises
        ModelTypeError or ModelError for outputs without curvature.
        """
        versions, key = _versions(inputs), self.signature(inputs)
        with plain_kernels(self.model), self.passes.watching(key):
            outputs = (self.run if channels_last else self.run.first)(inputs)
        name = type(self.model).__name__
        if _versions(inputs) != versions:
            raise ModelError(
                f"{name} changes its inputs in place, so every pass reads other inputs than the "
                "previous one: build that module without inplace=True, or clone its input"
            )
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
        self.passes.check_graph(key, outputs)
        return outputs

    def loss(self, batches: Batches) -> Tensor:
        """The loss of one batch, (), without its graph."""
        with plain_kernels(self.model):
            evaluated = [self._loss(inputs, targets) for inputs, targets in batches]
        pairs = [
            (outputs, targets)
            for (outputs, _), (_, targets) in zip(evaluated, batches, strict=True)
        ]
        return _weighted(weights(self.loss_fn, pairs), [loss for _, loss in evaluated])

    def _loss(self, inputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
        """Outputs and loss of a micro-batch, detached."""
        if torch.is_grad_enabled():
            outputs, graph = self.run(inputs), True
        else:
            outputs, graph = self.passes.lean(inputs, self.run)
        with torch.set_grad_enabled(graph):
            loss = self.loss_fn(outputs, targets)
        return outputs.detach(), loss.detach()

    def loss_and_gradient(self, batches: Batches) -> tuple[Tensor, Tensor]:
        """Loss () and gradient (P,) of one batch, one micro-batch in memory at a time."""
        pairs, losses, gradients = [], [], []
        for inputs, targets in batches:
            with plain_kernels(self.model):
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
        """Refuse what would silently give wrong products, before anything is computed.

        Raises ModelError for parameters that were added, removed or frozen, for a module whose
        forward is not a function of each sample alone, and for the others of `refuse_modules`.
        """
        refuse_other_parameters(self.model, self.loss_fn, self.parameters, self.names)
        refuse_other_shapes(self.parameters, self.names, self.shapes)
        refuse_modules(self.model)


def _versions(inputs: Any) -> list[int]:
    """The number of writes to each tensor of the inputs."""
    return [leaf._version for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]


def _weighted(shares: Sequence[float], tensors: Sequence[Tensor]) -> Tensor:
    """Σ share · tensor; a micro-batch without terms, whose mean is NaN, does not count."""
    if len(tensors) == 1:
        return tensors[0]
    pairs = zip(shares, tensors, strict=True)
    return torch.stack([share * tensor for share, tensor in pairs if share != 0]).sum(0)
