"""FLOPs of operators of torch, by tables of formulas, and a mode that adds them up.

The tables are torch's own and `flop_formulas.py`, for operators that torch's lacks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from bdhf.optim.torch_support.dispatch import DispatchMode
from bdhf.optim.torch_support.flop_formulas import FORMULAS
from bdhf.optim.torch_support.flop_free import FREE


class Counter(DispatchMode):
    """Adds up the cost of every operator that reaches the dispatcher.

    Differs from torch.utils.flop_counter.FlopCounterMode, whose table it uses, in leaving no
    module hooks behind on a graph that is kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self.uncounted: dict[str, tuple[int, ...]] = {}  # operator -> matrix of parameters it read
        self._stored: set[int] = set()  # storages of the parameters so far

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        self._stored.update(_storage(x) for x in tensors if isinstance(x, nn.Parameter))
        if _formula(func) is not None:
            self.total += operator_flops(func, args, kwargs, result)
        elif not _is_free(func) and any(isinstance(x, Tensor) for x in tree_leaves(result)):
            self._note(str(func._overloadpacket), tensors)
        return result

    def _note(self, name: str, tensors: list[Tensor]) -> None:
        """Record an operator without a formula that reads a matrix of parameters, or a view."""
        read = [x for x in tensors if x.dim() > 1 and _storage(x) in self._stored - {0}]
        if read:
            self.uncounted.setdefault(name, tuple(read[0].shape))


def operator_flops(func: Any, args: Any, kwargs: Any, result: Any) -> int:
    """FLOPs of one operator; 0 for those without matrix products."""
    formula = _formula(func)
    return round(formula(*args, **kwargs, out_val=result)) if formula is not None else 0


def _formula(func: Any) -> Callable[..., float] | None:
    """Our formula for an operator, or torch's; None for those without matrix products."""
    packet = _packet(func)
    if func.namespace == "aten" and packet.__name__ in FORMULAS:
        return FORMULAS[packet.__name__]
    formula: Callable[..., float] | None = flop_registry.get(packet)
    return formula


def _packet(func: Any) -> Any:
    """The operator of a call; for an in-place one its counterpart, which the tables list."""
    packet = func._overloadpacket
    name = packet.__name__
    if func.namespace != "aten" or not name.endswith("_"):
        return packet
    return getattr(torch.ops.aten, name.rstrip("_"), packet)


@cache
def _is_free(func: Any) -> bool:
    """Whether an operator is known to be free: views, pointwise ones, and `FREE`."""
    if func.is_view or torch.Tag.pointwise in func.tags:
        return True
    name = func._overloadpacket.__name__
    return func.namespace in ("aten", "prim", "prims") and (
        name in FREE or name.startswith(("new_", "_new_", "empty", "zero", "one", "full", "rand"))
    )


def _storage(tensor: Tensor) -> int:
    """The address of a tensor; 0 for one without memory, such as a sparse one or a wrapper."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        return 0
