"""Images channels-last in memory, which the CPU's convolutions read and write without a copy.

A convolution of images (N, C, rows, columns) keeps the memory order of its input. With channels
first, oneDNN reorders input, weight and output in every call; the numbers are the same.

Some kernels of torch crash or are wrong in channels-last, so a model gets such images only if all
of its operators are on a list (`channels_last_operators.py`, decision 26).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.utils._pytree import tree_leaves

from bdhf.optim.errors import ModelError
from bdhf.optim.forward.observation import Observation, graph_of, observe_pass, pass_signature
from bdhf.optim.torch_support.channels_last import ChannelsFirst, channels_first


@dataclass(frozen=True)
class Decision:
    """How a model is run on inputs of one signature."""

    channels_last: bool = False
    guarded: bool = False  # whether some kernels need channels first
    graph: Counter[str] | None = None  # of the outputs, channels-last; None: not compared
    reason: str = ""  # why not channels-last


@dataclass
class ImageLayout:
    """Runs one model, on channels-last images where all of its operators are verified for them."""

    model: nn.Module
    refused: bool = field(default=False, init=False)  # it assumes channels first in memory
    decisions: dict[Hashable, Decision] = field(default_factory=dict, init=False)

    def __call__(self, inputs: Any) -> Any:
        """The outputs of the model; a tensor is contiguous, as without this.

        Raises ModelError for a model that makes channels-last images itself, and passes them to a
        kernel that is wrong in torch.
        """
        inputs = channels_first(inputs)
        decision = self.decide(inputs)
        if not decision.channels_last:
            return self._run(inputs, decision)
        try:  # to(), since a single channel is contiguous in both orders already
            outputs = self._run(inputs.to(memory_format=torch.channels_last), decision)
        except RuntimeError:
            outputs = self._run(inputs, decision)  # raises again if the layout is not the cause
            self.refused = True
            return outputs
        if decision.graph is not None and graph_of(outputs) != decision.graph:
            reason = "it does not run the same operators at every forward pass"
            for enabled in (True, False):  # without gradients, no graph shows it
                with torch.set_grad_enabled(enabled):
                    key = self._key(inputs)
                self.decisions[key] = Decision(guarded=decision.guarded, reason=reason)
            return self._run(inputs, decision)
        return outputs.contiguous() if isinstance(outputs, Tensor) else outputs

    def first(self, inputs: Any) -> Any:
        """The outputs, with channels first."""
        inputs = channels_first(inputs)
        return self._run(inputs, self.decide(inputs))

    def applies(self, inputs: Any) -> bool:
        """Whether the model gets channels-last images."""
        return self.decide(channels_first(inputs)).channels_last

    def guard(self) -> AbstractContextManager[object]:
        """Channels first where needed, for a run of the model by other means."""
        guarded = any(decision.guarded for decision in self.decisions.values())
        return ChannelsFirst() if guarded else nullcontext()

    def decide(self, inputs: Any) -> Decision:
        """How to run the model on such inputs; decided once, by observed passes."""
        if not self._has_images(inputs):
            return Decision()
        key = self._key(inputs)
        if key not in self.decisions:
            self.decisions[key] = self._decide(inputs)
        decision = self.decisions[key]
        return Decision(guarded=decision.guarded) if self.refused else decision

    def _has_images(self, inputs: Any) -> bool:
        """Whether the order of channels may matter: on the CPU."""
        leaves = [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]
        if any(leaf.device.type != "cpu" for leaf in leaves):
            return False
        return self._takes_images or any(leaf.dim() in (4, 5) for leaf in leaves)

    @cached_property
    def _takes_images(self) -> bool:
        """Whether a module convolves, or normalises channels."""
        kinds = (nn.GroupNorm, _InstanceNorm)
        return any(isinstance(module, kinds) for module in self.model.modules()) or any(
            parameter.dim() in (4, 5) for parameter in self.model.parameters()
        )

    def _key(self, inputs: Any) -> Hashable:
        """What may change the operators of a forward pass, as far as known in advance."""
        modes = torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")
        return pass_signature(self.model, inputs), modes

    def _decide(self, inputs: Any) -> Decision:
        own = observe_pass(self.model, inputs)
        guarded = bool(own.wrong)
        if guarded:
            _refuse(self.model, observe_pass(self.model, inputs, guarded=True))
        images = isinstance(inputs, Tensor) and inputs.dim() == 4
        if own.unverified or not images or not own.convolves:
            return Decision(guarded=guarded, reason=own.unverified or "no convolution of images")
        return self._channels_last(inputs, guarded=bool(own.sensitive))

    def _channels_last(self, inputs: Tensor, guarded: bool) -> Decision:
        """Observe a pass on channels-last images too, for the real inputs of those kernels."""
        try:
            images = inputs.to(memory_format=torch.channels_last)
            passed = observe_pass(self.model, images, guarded=guarded)
        except RuntimeError as error:
            self.refused = True
            return Decision(reason=str(error))
        if reason := passed.unverified or next(iter(passed.wrong), ""):
            return Decision(reason=reason)
        graph = passed.graph if torch.is_grad_enabled() else None
        return Decision(channels_last=True, guarded=guarded, graph=graph)

    def _run(self, inputs: Any, decision: Decision) -> Any:
        with ChannelsFirst() if decision.guarded else nullcontext():
            return self.model(inputs)


def _refuse(model: nn.Module, passed: Observation) -> None:
    """Raise ModelError where a kernel that is wrong in torch still gets channels-last images."""
    if not passed.wrong and not passed.recomputed:
        return
    what = ", ".join(sorted(passed.wrong)) or "a group norm, instance norm or strided convolution"
    where = " in a forward pass that the backward pass runs again" if passed.recomputed else ""
    raise ModelError(
        f"{type(model).__name__} makes channels-last images and passes them to {what}{where}: "
        "torch's CPU kernels crash or are wrong there; use "
        "model.to(memory_format=torch.contiguous_format), and .contiguous() before that operator"
    )
