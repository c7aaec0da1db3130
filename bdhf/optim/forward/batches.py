"""Batches as callers pass them: one pair (inputs, targets), or a list of micro-batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bdhf.optim.errors import ModelError, ModelTypeError
from bdhf.optim.refusals.refusals import refuse_inference_tensors
from bdhf.optim.torch_support.channels_last import channels_first

Batch = tuple[Any, Any]  # (inputs, targets)
Batches = tuple[Batch, ...]  # the micro-batches of one batch
BatchOrList = Batch | list[Batch]  # one batch, or its micro-batches


def micro_batches(batch_or_list: Any) -> Batches:
    """Take a tuple as one batch, a list as the micro-batches of one batch.

    Channels-last images are converted to channels first; `image_layout` chooses the order. Raises
    ModelTypeError for anything else, and ModelError for an empty list or tensors that autograd
    cannot keep.
    """
    batches = tuple(batch_or_list) if isinstance(batch_or_list, list) else (batch_or_list,)
    for batch in batches:
        if not isinstance(batch, tuple) or len(batch) != 2:
            raise ModelTypeError(
                "a batch is a tuple (inputs, targets), or a list of such micro-batches; got "
                f"{'a list with ' if isinstance(batch_or_list, list) else ''}{_no_batch(batch)}"
            )
    if not batches:
        raise ModelError("a list of micro-batches needs at least one (inputs, targets)")
    refuse_inference_tensors(batches)
    return tuple((channels_first(inputs), targets) for inputs, targets in batches)


def _no_batch(batch: object) -> str:
    """What was passed instead of a batch, and what to do."""
    name = type(batch).__name__
    if isinstance(batch, tuple):
        return f"a tuple of {len(batch)}: pass several inputs of a model as one, (x, mask)"
    if isinstance(batch, Mapping):
        return f"{name}: pass (batch, batch['labels']), with the key of the targets"
    if callable(batch):
        return f"{name}: a step needs the batch itself, not a closure"
    return f"{name}: convert a pair from a DataLoader with tuple(pair)"
