"""What a caller gives as a batch: one pair (inputs, targets), or a list of micro-batches of one."""

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

    Images that lie channels-last are put channels first: the model's operators decide
    (`image_layout`). Raises ModelTypeError for anything else, and ModelError for an empty list or
    tensors that autograd cannot keep.
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
    """What was given in place of a batch, and the way out."""
    name = type(batch).__name__
    if isinstance(batch, tuple):
        return f"a tuple of {len(batch)}: a model of several inputs takes them as one, (x, mask)"
    if isinstance(batch, Mapping):
        return f"{name}: pass (batch, batch['labels']), by the name that the targets have"
    if callable(batch):
        return f"{name}: a step needs the batch itself, no closure"
    return f"{name}: a pair from a DataLoader is tuple(pair)"
