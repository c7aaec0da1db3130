"""Images channels-last in memory: what the CPU's convolutions read and write without a copy.

A convolution of images (N, C, rows, columns) keeps the order in memory that its input has. Channels
first, oneDNN sorts input, weight and output anew at every call; the numbers are the same.

Some kernels of torch crash or are wrong channels-last, so a model gets its images so only where all
that it does with them is on a list (`operators.py`, decision 26).
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
    guarded: bool = False  # whether some kernels must be given channels first
    graph: Counter[str] | None = None  # of the outputs, channels-last; None: not to be compared
    reason: str = ""  # why not channels-last


@dataclass
class ImageLayout:
    """Runs one model, on images channels-last where all of its operators are verified so."""

    model: nn.Module
    refused: bool = field(default=False, init=False)  # it views memory as if channels came first
    decisions: dict[Hashable, Decision] = field(default_factory=dict, init=False)

    def __call__(self, inputs: Any) -> Any:
        """What the model makes of the inputs; a tensor is contiguous, as without this.

        Raises ModelError for a model that makes images channels-last itself, and gives them so to
        a kernel that torch gets wrong.
        """
        inputs = channels_first(inputs)
        decision = self.decide(inputs)
        if not decision.channels_last:
            return self._run(inputs, decision)
        try:  # to(), since a single channel is contiguous in both orders already
            outputs = self._run(inputs.to(memory_format=torch.channels_last), decision)
        except RuntimeError:
            outputs = self._run(inputs, decision)  # raises again where it was not the layout
            self.refused = True
            return outputs
        if decision.graph is not None and graph_of(outputs) != decision.graph:
            reason = "it does not run the same operators at every forward pass"
            for enabled in (True, False):  # without gradients, there is no graph to see it by
                with torch.set_grad_enabled(enabled):
                    key = self._key(inputs)
                self.decisions[key] = Decision(guarded=decision.guarded, reason=reason)
            return self._run(inputs, decision)
        return outputs.contiguous() if isinstance(outputs, Tensor) else outputs

    def first(self, inputs: Any) -> Any:
        """The same, channels first."""
        inputs = channels_first(inputs)
        return self._run(inputs, self.decide(inputs))

    def applies(self, inputs: Any) -> bool:
        """Whether images are given to the model channels-last."""
        return self.decide(channels_first(inputs)).channels_last

    def guard(self) -> AbstractContextManager[object]:
        """For a run of the model by other means: what must be given channels first is."""
        guarded = any(decision.guarded for decision in self.decisions.values())
        return ChannelsFirst() if guarded else nullcontext()

    def decide(self, inputs: Any) -> Decision:
        """How to run the model on such inputs; found out once, by passes that are observed."""
        if not self._has_images(inputs):
            return Decision()
        key = self._key(inputs)
        if key not in self.decisions:
            self.decisions[key] = self._decide(inputs)
        decision = self.decisions[key]
        return Decision(guarded=decision.guarded) if self.refused else decision

    def _has_images(self, inputs: Any) -> bool:
        """Whether the order of channels may play a part: on the CPU."""
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
        """What may change the operators of a forward pass, as far as it can be told beforehand."""
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
        """Watch a pass channels-last, too: what is given to those kernels is seen, not supposed."""
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
    """Raise ModelError where a kernel that torch gets wrong is given images channels-last still."""
    if not passed.wrong and not passed.recomputed:
        return
    what = ", ".join(sorted(passed.wrong)) or "a group norm, instance norm or strided convolution"
    where = " in a forward pass that is run again on the way back" if passed.recomputed else ""
    raise ModelError(
        f"{type(model).__name__} makes images channels-last and gives them to {what}{where}: "
        "torch's CPU kernels crash or are wrong there; use "
        "model.to(memory_format=torch.contiguous_format), and .contiguous() before that operator"
    )
