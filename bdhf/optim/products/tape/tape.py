"""A forward pass recorded operator by operator, for JVPs along it.

Forward mode without a second forward pass: the tape holds arguments and result of every operator,
and a product replays the derivatives of those that its block reaches (`jvp_rules.py`). Recording
costs some tens of microseconds per operator and update; nothing is traced beforehand.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from bdhf.optim.products.tape.calls import OperatorCall
from bdhf.optim.products.tape.dual_numbers import has_tangents
from bdhf.optim.products.tape.in_place import overwritten, restrides, tensors_in
from bdhf.optim.products.tape.jvp_rules import NO_TANGENT, in_place_rule
from bdhf.optim.products.tape.storage import StorageView, entries_of, storage_of, view_of
from bdhf.optim.torch_support.dispatch import DispatchMode
from bdhf.optim.torch_support.failures import Failure, attempt
from bdhf.optim.torch_support.flop_counter import operator_flops
from bdhf.optim.torch_support.graphs import is_own_function

#: The problem of a tape without outputs.
NO_OUTPUT = "no recorded operator made its outputs"


@dataclass(frozen=True)
class TapeEntry:
    """One operator: which values it read, and which it made."""

    call: OperatorCall
    reads: tuple[int | None, ...]  # of every tensor argument, the value's number; None: constant
    makes: tuple[int, ...]

    @cached_property
    def flops(self) -> int:
        """The cost of the operator; only before `Tape.slim`."""
        call = self.call
        return operator_flops(call.func, call.args, call.kwargs, call.result)


class Tape:
    """The operators between the parameters and the outputs, in the order in which they ran.

    Values are numbered; the parameters are the first. A tensor is identified by where it lies in
    memory, since a view is another object below autograd than above it.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.entries: list[TapeEntry] = []
        self.problem = ""  # why this pass cannot be replayed; empty: it can
        self.blind = ""  # why a comparison may miss an error of the tape; empty: it cannot
        self._now: dict[StorageView, int] = {}  # view in memory -> number of its value
        self._views: dict[int, set[StorageView]] = {}  # storage -> its views that have a number
        self.output: int | None = None
        self._values = 0
        self._failed = False  # whether recording an operator failed
        for parameter in parameters:
            self._number(parameter)
        self._given = frozenset(self._views)  # storages of the parameters

    def record(self, run: Callable[[], Tensor]) -> Tensor:
        """Run a forward pass, and record it."""
        with _collector_paused(), _Recorder(self):
            outputs = run()
        self.output = self._number_of(outputs)
        if self.output is None and not self.problem:
            self.problem = NO_OUTPUT
        return outputs

    @cached_property
    def structure(self) -> int:
        """A hash of the operators and the values they read; decisions hold where it is equal."""
        return hash((self.output, *((entry.call.func, entry.reads) for entry in self.entries)))

    @property
    def bytes(self) -> int:
        """The memory of its values without the parameters; only before `slim`."""
        tensors = (tensor for entry in self.entries for tensor in tensors_in(entry.call.result))
        storages = {
            storage: tensor.untyped_storage().nbytes()
            for tensor in tensors
            if (storage := storage_of(tensor)) is not None
        }
        return sum(size for storage, size in storages.items() if storage not in self._given)

    def made(self, value: int) -> Tensor:
        """The tensor of a value; only before `slim`."""
        entry = next(entry for entry in self.entries if value in entry.makes)
        return tensors_in(entry.call.result)[entry.makes.index(value)]

    def slim(self) -> None:
        """Free the values that no rule reads.

        Only after the pass: reused memory would be taken for the same value.
        """
        if not self._now:  # it is slim
            return
        self.entries = [TapeEntry(e.call.slim(), e.reads, e.makes) for e in self.entries]
        self._now, self._views = {}, {}

    def add(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        """Record an operator, if it depends on the parameters.

        Where that fails, the pass continues, and the tape has a problem.
        """
        if self._failed:
            return
        outcome = attempt(lambda: self._add(func, args, kwargs, result))
        if isinstance(outcome, Failure):
            self._failed = True
            self.problem = self.problem or f"{func} cannot be recorded: {outcome.reason}"

    def _add(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        tensors = [*tensors_in(args), *tensors_in(kwargs)]
        reads = tuple(self._number_of(tensor) for tensor in tensors)
        written = overwritten(func, args, kwargs)
        if not written and self._seen(result):  # another view of a value, such as a weight
            return
        made = tensors_in(result)
        for tensor, read in zip(tensors, reads, strict=True):
            # no gradients inside it, and a comparison may miss it, such as behind a gate that is 0
            if read is None and is_own_function(tensor.grad_fn):
                self.blind = "the tape does not record inside an autograd.Function"
        constant = all(read is None for read in reads) or self._stops(func)
        if constant or not any(_carries(tensor) for tensor in made):
            self._forget(written)
            return
        call = OperatorCall(func, args, kwargs, result)
        if written:
            self._check_inview_of(call, written)
        makes = tuple(self._number(tensor, func) for tensor in made)
        self.entries.append(TapeEntry(call, reads, makes))

    def restride(self, func: Any, before: StorageView, tensor: Tensor) -> None:
        """Record in-place changes of the strides of a value, as by pooling in channels-last."""
        number, view = self._now.pop(before, None), view_of(tensor)
        if number is None or view is None:
            return
        if entries_of(before) != entries_of(view):
            self.problem = self.problem or f"{func} changes the shape of a value in place"
        self._now[view] = number
        self._views[view[0]].add(view)

    def _seen(self, result: Any) -> bool:
        return isinstance(result, Tensor) and self._number_of(result) is not None

    def _number_of(self, tensor: Tensor) -> int | None:
        """The number of the value that a tensor holds; None for a constant."""
        view = view_of(tensor)
        return None if view is None else self._now.get(view)

    def _stops(self, func: Any) -> bool:
        return func in NO_TANGENT or not torch.is_grad_enabled()

    def _forget(self, written: Iterable[Tensor]) -> None:
        """Forget values that a constant overwrote."""
        for tensor in written:
            storage = storage_of(tensor)
            for view in self._views.get(storage, ()) if storage is not None else ():
                self._now.pop(view, None)

    def _check_inview_of(self, call: OperatorCall, written: Sequence[Tensor]) -> None:
        """Check that no second view is overwritten, and that no rule needs the old value."""
        storages = [storage_of(tensor) for tensor in written]
        shared = any(len(self._views.get(s, ())) > 1 for s in storages if s is not None)
        constant = all(self._number_of(tensor) is None for tensor in written)
        if shared or not in_place_rule(call.func, constant):
            self.problem = self.problem or f"{call.func} overwrites a value"

    def _number(self, tensor: Tensor, func: Any = None) -> int:
        """A new number; that of a value without tangents, such as an index, is never read."""
        view = view_of(tensor) if _carries(tensor) else None
        if view is not None:
            self._now[view] = self._values
            self._views.setdefault(view[0], set()).add(view)
        elif _carries(tensor):
            self.problem = self.problem or f"{func} makes a tensor without memory"
        self._values += 1
        return self._values - 1


def taped(parameters: Sequence[Tensor], run: Callable[[], Tensor]) -> tuple[Tensor, Tape]:
    """The outputs of a forward pass with its tape. Raises the model's own errors."""
    tape = Tape(parameters)
    outputs = attempt(lambda: tape.record(run))
    if isinstance(outputs, Failure):
        tape = Tape(parameters)
        tape.problem = f"the forward pass cannot be recorded: {outputs.reason}"
        outputs = run()
    return outputs, tape


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause garbage collection: thousands of entries would trigger useless passes over memory."""
    paused = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if paused:
            gc.enable()


class _Recorder(DispatchMode):
    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self._tape = tape

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        before = view_of(args[0]) if restrides(func) else None
        result = func(*args, **kwargs)
        if before is None:
            self._tape.add(func, args, kwargs, result)
        else:
            self._tape.restride(func, before, args[0])
        return result


def _carries(tensor: Tensor) -> bool:
    """Whether a tensor can have a tangent, and has entries."""
    return has_tangents(tensor) and bool(tensor.numel())
