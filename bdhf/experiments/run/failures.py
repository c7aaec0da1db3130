"""What an exception says about a run: out of memory, or an error. Then its memory is let go."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Iterator

import torch

from bdhf.optim.torch_support.failures import is_out_of_memory
from bdhf.records import Status, of_what_kind


def classified(error: Exception) -> tuple[Status, str]:
    """The status of a run that an exception ended, and the reason in one line.

    An error that came of a want of memory is one, whatever it was turned into on its way up.
    """
    memory = next((cause for cause in _chain(error) if is_out_of_memory(cause)), None)
    told = memory or error
    return (Status.OOM if memory else Status.ERROR), of_what_kind(told)


def release(error: Exception) -> None:
    """Free what the frames of the exceptions hold: a model, its graph, the caches of CUDA."""
    for cause in _chain(error):
        traceback.clear_frames(cause.__traceback__)
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and what it came of, as a traceback shows them."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
