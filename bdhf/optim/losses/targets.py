"""Refusals of targets that a known loss does not take, before they broadcast or index wrongly."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bdhf.optim.errors import ModelError, ModelTypeError
from bdhf.optim.losses.likelihoods import BinaryCrossEntropy, CrossEntropy, SquaredError
from bdhf.optim.losses.log_probabilities import KullbackLeibler, NegativeLogLikelihood
from bdhf.optim.losses.recognition import recognise

#: The losses of torch, all of which take a Tensor of targets.
_OF_TORCH = (
    CrossEntropy, NegativeLogLikelihood, KullbackLeibler, SquaredError, BinaryCrossEntropy,
)  # fmt: skip


def check_targets(loss_fn: Any, outputs: Tensor, targets: Any) -> None:
    """Raise ModelError for targets of a type or shape that a known loss of torch does not take.

    ModelTypeError for anything but a Tensor. Torch reports labels out of range.
    """
    likelihood = recognise(loss_fn)
    if type(likelihood) in _OF_TORCH and not isinstance(targets, Tensor):
        raise ModelTypeError(
            f"the targets of {type(likelihood).__name__} are a Tensor; got "
            f"{type(targets).__name__}: use torch.as_tensor(targets)"
        )
    if not isinstance(targets, Tensor) or not outputs.dim():
        return
    if isinstance(likelihood, CrossEntropy) and targets.is_floating_point():
        _check_probabilities(outputs, targets)
    elif isinstance(likelihood, (CrossEntropy, NegativeLogLikelihood)):
        _check_labels(outputs, targets, bool(getattr(likelihood, "label_smoothing", 0.0)))
    elif isinstance(likelihood, BinaryCrossEntropy) and not targets.is_floating_point():
        raise ModelError(
            f"the targets of binary cross-entropy are probabilities in floating-point numbers; got "
            f"{targets.dtype}: use targets.to(outputs.dtype)"
        )
    elif isinstance(likelihood, BinaryCrossEntropy) and targets.shape != outputs.shape:
        raise ModelError(
            f"the targets of binary cross-entropy have the shape of the outputs "
            f"{tuple(outputs.shape)}; got {tuple(targets.shape)}: "
            + (
                "use targets.view_as(outputs)"
                if targets.numel() == outputs.numel()
                else "one for every output"
            )
        )


def _check_probabilities(outputs: Tensor, targets: Tensor) -> None:
    if targets.shape != outputs.shape:
        raise ModelError(
            f"targets of {targets.dtype} are class probabilities, of the shape of the outputs "
            f"{tuple(outputs.shape)}; got {tuple(targets.shape)}: class indices are integers, "
            "targets.long()"
        )


def _check_labels(outputs: Tensor, targets: Tensor, smoothed: bool) -> None:
    if targets.dtype != torch.long and (smoothed or targets.dtype != torch.uint8):
        types = (
            "with label smoothing are of torch.int64" if smoothed else "are of torch.int64 or uint8"
        )
        raise ModelError(f"class indices {types}; got {targets.dtype}: use targets.long()")
    expected = (outputs.shape[0], *outputs.shape[2:]) if outputs.dim() > 1 else ()
    if tuple(targets.shape) == expected:
        return
    advice = "one label for every sample"
    if targets.dim() > 1 and targets.squeeze(1).shape == expected:
        advice = "remove the dimension of length 1, targets.squeeze(1)"
    if targets.shape == outputs.shape:
        advice = "one-hot labels are class probabilities, targets.to(outputs.dtype), or argmax(1)"
    raise ModelError(
        f"class indices have the shape of the outputs {tuple(outputs.shape)} without the class "
        f"dimension, {expected}; got {tuple(targets.shape)}: {advice}"
    )
