"""The status of a run that an exception ended: out of memory, or an error; frees its memory."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Iterator

import torch

from bdhf.optim.torch_support.failures import is_out_of_memory
from bdhf.records import Status, of_what_kind


def classified(error: Exception) -> tuple[Status, str]:
    """The status of a run that an exception ended, and the reason in one line.

    An error that was caused by a lack of memory counts as one, whatever it was converted to.
    """
    memory = next((cause for cause in _chain(error) if is_out_of_memory(cause)), None)
    return (Status.OOM if memory else Status.ERROR), of_what_kind(memory or error)


def release(error: Exception) -> None:
    """Free the memory that frames of the exceptions hold: a model, its graph, caches of CUDA."""
    for cause in _chain(error):
        traceback.clear_frames(cause.__traceback__)
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and its causes, as a traceback shows them."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
