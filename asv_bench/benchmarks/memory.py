"""Peak memory of a computation: the bytes of its tensors that exist at the same time.

On the CPU a dispatch mode sees every operator below autograd and holds a weak reference to every
new storage, so tensors that autograd saves for a reverse sweep count until they are released.
Earlier storages (parameters, the batch) do not count, nor does temporary memory within an operator.
On CUDA torch's allocator gives the number, with that memory.
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
    """The largest number of bytes that `work` holds at once, in addition to those before."""
    gc.collect()  # else memory of reference cycles might be released during the work
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
    """Adds up the storages that operators create, while they exist."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        self.now = self.peak = 0
        self._storages: dict[int, weakref.ref[Any]] = {}  # address of a storage -> the storage

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for tensor in _tensors((args, kwargs)):
            self._add(tensor.untyped_storage(), 0)  # not made here: it was there before
        result = func(*args, **kwargs)
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            self._add(storage, storage.nbytes())
        return result

    def _add(self, storage: torch.UntypedStorage, size: int) -> None:
        address = storage._cdata
        if address in self._storages:
            return

        def forget(_: object) -> None:
            del self._storages[address]
            self.now -= size

        self._storages[address] = weakref.ref(storage, forget)
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
