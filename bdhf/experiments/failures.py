"""What an exception says about a run: out of memory, or an error. Then its memory is let go."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Iterator

import torch

from bdhf.records import Status, of_what_kind

#: What torch says, in lower case, where it has no exception of its own for memory.
_WORDS = (
    "can't allocate memory",  # on the CPU
    "not enough memory",  # on the CPU under Windows
    "out of memory",  # of a CUDA call outside torch's allocator
    "status_alloc_failed",  # of cuBLAS, cuDNN
)


def classified(error: Exception) -> tuple[Status, str]:
    """The status of a run that an exception ended, and the reason in one line.

    An error that came of a want of memory is one, whatever it was turned into on its way up.
    """
    memory = next((cause for cause in _chain(error) if _is_out_of_memory(cause)), None)
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


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _WORDS)
