"""The calls of affine functions on parameters in a forward pass, with their cached data.

A parameter, or a view of one, is identified by where it lies in memory.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from bdhf.optim.products.layer_io.affine_functions import AFFINE_FUNCTIONS, Affine
from bdhf.optim.products.layer_io.composites import COMPOSITES
from bdhf.optim.products.layer_io.parameter_uses import ParameterView
from bdhf.optim.products.tape.storage import storage_of
from bdhf.optim.torch_support.flops import Flops


@dataclass(frozen=True)
class AffineCall:
    """One intercepted call."""

    affine: Affine
    weight: ParameterView | None
    bias: ParameterView | None
    edge: GradientEdge
    shape: torch.Size  # of y
    flops: int

    @property
    def slot(self) -> int:
        """Index of a parameter that it uses."""
        view = self.weight or self.bias
        assert view is not None
        return view.slot


class Record(TorchFunctionMode):
    """Records the calls that use a parameter, while it is entered.

    `composites`: also those inside of attention and recurrent layers, which are then computed in
    another order of operations; FLOPs of calls are not counted then.
    """

    def __init__(self, parameters: Sequence[Tensor], composites: bool = False) -> None:
        super().__init__()
        self._composites = COMPOSITES if composites else {}
        self.calls: list[AffineCall] = []
        self._stored: dict[int, list[tuple[int, Tensor]]] = {}
        for slot, parameter in enumerate(parameters):
            storage = storage_of(parameter)
            if storage is not None:
                self._stored.setdefault(storage, []).append((slot, parameter))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in self._composites and torch.is_grad_enabled():
            out = self._composites[func](self._linear, *args, **kwargs)
            if out is not None:
                return out
        if (
            func not in AFFINE_FUNCTIONS
            or not torch.is_grad_enabled()
            or not self._uses(args, kwargs)
        ):
            return func(*args, **kwargs)
        meter = Flops()
        with nullcontext() if self._composites else meter.counting(func):
            out = func(*args, **kwargs)
        affine = self._affine(func, args, kwargs)
        if affine is not None:
            weight, bias = self._view(affine.weight), self._view(affine.bias)
            if weight or bias:
                edge = get_gradient_edge(out)  # now: out may be overwritten later
                self.calls.append(AffineCall(affine, weight, bias, edge, out.shape, meter.spent))
        return out

    def _linear(self, *args: Any) -> Any:
        """A linear layer inside a composite."""
        return self.__torch_function__(F.linear, (), args)

    def _uses(self, args: Any, kwargs: Any) -> bool:
        """Whether an argument is a parameter."""
        return any(self._view(x) is not None for x in (*args, *kwargs.values()))

    def _affine(self, func: Any, args: Any, kwargs: Any) -> Affine | None:
        """The result of the rule of a function, with everything but the parameters detached."""

        def bare(x: Any) -> Any:
            return x.detach() if isinstance(x, Tensor) and self._view(x) is None else x

        args, kwargs = tree_map(bare, (args, kwargs))
        rule = AFFINE_FUNCTIONS[func]
        try:
            inspect.signature(rule).bind(*args, **kwargs)
        except TypeError:  # an option without a rule
            return None
        with torch.no_grad():
            return rule(*args, **kwargs)

    def _view(self, tensor: Any) -> ParameterView | None:
        """Which parameter a tensor is, or is a view of."""
        if not isinstance(tensor, Tensor) or not tensor.requires_grad or not tensor.numel():
            return None
        storage = storage_of(tensor)
        for slot, p in self._stored.get(storage, ()) if storage is not None else ():
            whole = tuple(p.shape)
            begin = int(tensor.storage_offset() - p.storage_offset())
            if begin == 0 and tensor.shape == p.shape and tensor.stride() == p.stride():
                return ParameterView(slot, whole, None)
            pairs = [(n, s) for n, s in zip(tensor.shape, tensor.stride(), strict=True) if n > 1]
            end = begin + sum((n - 1) * s for n, s in pairs)
            inside = begin >= 0 and end < p.numel() and all(s for _, s in pairs)
            if inside and p.is_contiguous() and tensor.dtype == p.dtype:
                return ParameterView(slot, whole, (tuple(tensor.shape), tensor.stride(), begin))
        return None
