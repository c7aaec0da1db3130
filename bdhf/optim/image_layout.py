"""Images channels-last in memory: what the CPU's convolutions read and write without a copy.

A convolution of images (N, C, rows, columns) keeps the order in memory that its input has. Channels
first, oneDNN sorts input, weight and output anew at every call; the numbers are the same.

A convolution of one pixel with a stride is given channels first: torch 2.13 writes outside of its
memory in the way back of such a one, channels-last (decision 13).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class ImageLayout:
    """Runs one model, on images channels-last where its forward pass can take them."""

    model: nn.Module
    refused: bool = field(default=False, init=False)  # it views memory as if channels came first

    def __call__(self, inputs: Any) -> Any:
        """What the model makes of the inputs; a tensor is contiguous, as without this."""
        if not self.applies(inputs):
            return self.model(inputs)
        try:  # to(), since a single channel is contiguous in both orders already
            with _strides_of_one_pixel_first(self.model):
                outputs = self.model(inputs.to(memory_format=torch.channels_last))
        except RuntimeError:
            outputs = self.model(inputs)  # raises again where it was not the layout
            self.refused = True
            return outputs
        return outputs.contiguous() if isinstance(outputs, Tensor) else outputs

    def applies(self, inputs: Any) -> bool:
        """Whether the inputs are images that the model's convolutions read on the CPU."""
        images = isinstance(inputs, Tensor) and inputs.dim() == 4 and inputs.device.type == "cpu"
        if not images or self.refused:
            return False
        return any(isinstance(module, nn.Conv2d) for module in self.model.modules())


@contextmanager
def _strides_of_one_pixel_first(model: nn.Module) -> Iterator[None]:
    """Convolutions of one pixel with a stride get their images channels first."""
    hooks = [
        module.register_forward_pre_hook(_channels_first)
        for module in model.modules()
        if isinstance(module, nn.Conv2d) and max(module.kernel_size) == 1 < max(module.stride)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _channels_first(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    inputs, *others = arguments
    return inputs.contiguous(), *others
