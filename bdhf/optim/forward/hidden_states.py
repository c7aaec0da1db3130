"""The hidden states of a model as its outputs: what some of its modules return in a pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from bdhf.nn import PeepholeLSTM
from bdhf.optim.errors import ModelError, ModelTypeError
from bdhf.optim.refusals.refusals import named

#: The modules whose outputs are hidden states, unless others are named.
RECURRENT = (PeepholeLSTM, nn.RNNBase, nn.RNNCellBase)


def hidden_modules(model: nn.Module, patterns: Sequence[str] | None) -> dict[str, nn.Module]:
    """The modules of a model by name that match a glob pattern; None: every recurrent one.

    Raises ModelError where a pattern, or None, matches nothing.
    """
    modules = {name: module for name, module in model.named_modules() if name}
    if patterns is None:
        chosen = [name for name, module in modules.items() if isinstance(module, RECURRENT)]
        if not chosen:
            raise ModelError(
                f"{type(model).__name__} has no recurrent module (PeepholeLSTM, nn.RNNBase, "
                "nn.RNNCellBase) for structural damping: name the modules of its hidden states by "
                f"modules=; known: {', '.join(modules)}"
            )
        return {name: modules[name] for name in chosen}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in modules):
            raise ModelError(
                f"pattern {pattern!r} of the modules of structural damping matches no module of "
                f"{type(model).__name__}; known: {', '.join(modules)}"
            )
    return {
        name: module
        for name, module in modules.items()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    }


class HiddenStates(nn.Module):
    """A model with the outputs of some of its modules as its outputs, (N, K).

    Every call of one of them adds its output sequence: the first tensor that it returns, as a row
    for each sample. Samples are in dimension 0; in dimension 1 of a recurrent layer of torch
    without batch_first. `modules` are those of `hidden_modules`. Raises ModelError for a pass that
    calls none of them, and ModelTypeError for outputs without a row for each sample.
    """

    def __init__(self, model: nn.Module, modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.model = model
        self.chosen = dict(modules)
        self.kind = f"hidden states of {', '.join(modules)}"  # in the key of its forward passes

    def forward(self, inputs: Any) -> Tensor:
        """Run the model, and return the hidden states of the pass."""
        rows: list[Tensor] = []

        def collect(name: str, module: nn.Module, arguments: Any, outputs: Any) -> None:
            rows.append(_by_sample(name, module, outputs))

        hooks = [
            module.register_forward_hook(partial(collect, name))
            for name, module in self.chosen.items()
        ]
        try:
            self.model(inputs)
        finally:
            for hook in hooks:
                hook.remove()
        if not rows or len({len(part) for part in rows}) > 1:
            raise ModelError(
                f"the {self.kind} have {[tuple(part.shape) for part in rows]} (samples, numbers) "
                "in a forward pass: name modules that run in every pass, on all samples"
            )
        return torch.cat(rows, 1)


def _by_sample(name: str, module: nn.Module, outputs: Any) -> Tensor:
    """The first tensor of what a module returned, (N, numbers of a sample)."""
    states = outputs[0] if isinstance(outputs, (tuple, list)) and outputs else outputs
    if isinstance(outputs, PackedSequence) or not isinstance(states, Tensor) or not states.dim():
        raise ModelTypeError(
            f"{named(name, module)} returns {type(states).__name__} as its hidden states, without "
            "a row for each sample: pad the sequences, or name other modules of structural damping"
        )
    if isinstance(module, nn.RNNBase):
        if states.dim() == 2:  # one sequence without a batch
            states = states[None]
        elif not module.batch_first:
            states = states.transpose(0, 1)
    return states.flatten(1) if states.dim() > 1 else states[:, None]
