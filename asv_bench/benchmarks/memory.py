"""Peak memory of a piece of work: the bytes of the tensors that it makes and that live at once.

On the CPU a dispatch mode sees every operator below autograd and holds a weak reference on every
storage that one makes, so what autograd saves for a reverse sweep counts until it is let go.
Storages from before (parameters, the batch) do not count, nor does what an operator takes and
returns within itself. On CUDA the allocator of torch is asked, which knows that too.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


def peak_bytes(work: Callable[[], object], device: str = "cpu") -> int:
    """The most bytes that `work` holds at once beyond what was there before."""
    gc.collect()  # what a cycle still holds would be let go during the work
    if device != "cpu":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    meter = _Meter()
    with meter:
        work()
    return meter.peak


class _Meter(TorchDispatchMode):
    """Adds up storages that operators make, as long as they live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        self.now = self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}  # address of a storage -> the storage

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for tensor in _tensors((args, kwargs)):
            self._know(tensor.untyped_storage(), 0)  # not made here: it was there before
        result = func(*args, **kwargs)
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            self._know(storage, storage.nbytes())
        return result

    def _know(self, storage: torch.UntypedStorage, size: int) -> None:
        address = storage._cdata
        if address in self._known:
            return

        def forget(_: object) -> None:
            del self._known[address]
            self.now -= size

        self._known[address] = weakref.ref(storage, forget)
        self.now += size
        self.peak = max(self.peak, self.now)


def _tensors(tree: object) -> Iterator[Tensor]:
    """The tensors in nested sequences and mappings."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        for leaf in tree.values():
            yield from _tensors(leaf)
    elif isinstance(tree, Sequence) and not isinstance(tree, str):
        for leaf in tree:
            yield from _tensors(leaf)
