"""A forward pass written down operator by operator, so that tangents can be sent along it.

Forward mode without a second forward pass: the tape holds what every operator read and gave, and a
product replays the derivative of those that its block reaches (`tangents.py` has the rules).
Writing it down costs some tens of microseconds an operator and update; there is nothing to trace
first.
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


@dataclass(frozen=True)
class TapeEntry:
    """One operator: which values it read, and which it made."""

    call: OperatorCall
    reads: tuple[int | None, ...]  # of every tensor argument, the value's number; None: constant
    makes: tuple[int, ...]

    @cached_property
    def flops(self) -> int:
        """What the operator cost; to be asked before the tape is made slim."""
        call = self.call
        return operator_flops(call.func, call.args, call.kwargs, call.result)


class Tape:
    """The operators between the parameters and the outputs, in the order in which they ran.

    Values are numbered; the parameters are the first. A tensor is known by where it lies in memory,
    since a view has another identity below autograd than above it.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.entries: list[TapeEntry] = []
        self.problem = ""  # why this pass cannot be replayed; empty: it can
        self.blind = ""  # why a comparison may miss what it lacks; empty: none can
        self._now: dict[StorageView, int] = {}  # view in memory -> number of its value
        self._views: dict[int, set[StorageView]] = {}  # storage -> its views that have a number
        self.output: int | None = None
        self._values = 0
        self._failed = False  # to write an operator down
        for parameter in parameters:
            self._number(parameter)
        self._given = frozenset(self._views)  # storages of the parameters

    def record(self, run: Callable[[], Tensor]) -> Tensor:
        """Do `run`, a forward pass, and write it down."""
        with _collector_paused(), _Recorder(self):
            outputs = run()
        self.output = self._number_of(outputs)
        if self.output is None and not self.problem:
            self.problem = "its outputs come from no operator that was seen"
        return outputs

    @cached_property
    def structure(self) -> int:
        """Which operators ran, and which values they read: equal where decisions hold again."""
        return hash((self.output, *((entry.call.func, entry.reads) for entry in self.entries)))

    @property
    def bytes(self) -> int:
        """What its values take beside the parameters; before the tape is made slim."""
        tensors = (tensor for entry in self.entries for tensor in tensors_in(entry.call.result))
        storages = {
            storage: tensor.untyped_storage().nbytes()
            for tensor in tensors
            if (storage := storage_of(tensor)) is not None
        }
        return sum(size for storage, size in storages.items() if storage not in self._given)

    def made(self, value: int) -> Tensor:
        """The tensor that is a value, as long as the tape has not been made slim."""
        entry = next(entry for entry in self.entries if value in entry.makes)
        return tensors_in(entry.call.result)[entry.makes.index(value)]

    def slim(self) -> None:
        """Let go of the values that no rule reads.

        Not before the pass has ended: memory that is used again would look like the same value.
        """
        if not self._now:  # it is slim
            return
        self.entries = [TapeEntry(e.call.slim(), e.reads, e.makes) for e in self.entries]
        self._now, self._views = {}, {}

    def add(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        """Write an operator down, if it depends on the parameters.

        Where that fails, the pass goes on, and the tape has a problem.
        """
        if self._failed:
            return
        outcome = attempt(lambda: self._add(func, args, kwargs, result))
        if isinstance(outcome, Failure):
            self._failed = True
            self.problem = self.problem or f"{func} cannot be written down: {outcome.reason}"

    def _add(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        tensors = [*tensors_in(args), *tensors_in(kwargs)]
        reads = tuple(self._number_of(tensor) for tensor in tensors)
        written = overwritten(func, args, kwargs)
        if not written and self._seen(result):  # another view of the same, as of a weight
            return
        made = tensors_in(result)
        for tensor, read in zip(tensors, reads, strict=True):
            # gradients are off in it, and a comparison may miss it, as behind a gate that is 0
            if read is None and is_own_function(tensor.grad_fn):
                self.blind = "the tape does not see into an autograd.Function"
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
        """Take note of new strides of a value, given in place; pooling does so in channels-last."""
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
        """A value that is overwritten by a constant."""
        for tensor in written:
            storage = storage_of(tensor)
            for view in self._views.get(storage, ()) if storage is not None else ():
                self._now.pop(view, None)

    def _check_inview_of(self, call: OperatorCall, written: Sequence[Tensor]) -> None:
        """What is overwritten may have no second view, and its rule must not need the old value."""
        storages = [storage_of(tensor) for tensor in written]
        shared = any(len(self._views.get(s, ())) > 1 for s in storages if s is not None)
        constant = all(self._number_of(tensor) is None for tensor in written)
        if shared or not in_place_rule(call.func, constant):
            self.problem = self.problem or f"{call.func} overwrites a value"

    def _number(self, tensor: Tensor, func: Any = None) -> int:
        """A new number; nobody reads that of a value which carries no tangent, as of an index."""
        view = view_of(tensor) if _carries(tensor) else None
        if view is not None:
            self._now[view] = self._values
            self._views.setdefault(view[0], set()).add(view)
        elif _carries(tensor):
            self.problem = self.problem or f"{func} makes a tensor without memory of its own"
        self._values += 1
        return self._values - 1


def taped(parameters: Sequence[Tensor], run: Callable[[], Tensor]) -> tuple[Tensor, Tape]:
    """The outputs of a forward pass, with its tape; an error of the model itself is raised."""
    tape = Tape(parameters)
    outputs = attempt(lambda: tape.record(run))
    if isinstance(outputs, Failure):
        tape = Tape(parameters)
        tape.problem = f"the forward pass cannot be recorded: {outputs.reason}"
        outputs = run()
    return outputs, tape


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Thousands of entries would set the garbage collector to walk over all of torch, in vain."""
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
    """Whether a tensor can have a tangent: whole numbers and truth values never have one."""
    return has_tangents(tensor) and bool(tensor.numel())
