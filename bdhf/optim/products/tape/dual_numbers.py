"""The derivative of an operator by torch's forward mode, which runs the operator again."""

from __future__ import annotations

import importlib
import warnings
from functools import cache
from typing import Any

import torch
import torch.autograd.forward_ad as fwAD
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from bdhf.optim.products.tape.calls import OperatorCall

aten = torch.ops.aten

#: Operators whose rule in torch reads the tangent of every operand: under a dispatch mode, such as
#: the FLOP counter, it reads the missing tangent of a constant, and the process crashes.
MOVES_ALL = {
    aten.addmm.default, aten.baddbmm.default, aten.addcmul.default, aten.addcdiv.default,
    aten.rsub.Tensor, aten.index_add.default,
}  # fmt: skip

#: Operators that overwrite entries or add to them: their derivative does not read the old values.
ONTO_CONSTANTS = {
    aten.index_add_.default, aten.scatter_add_.default, aten.index_put_.default,
    aten.index_copy_.default, aten.scatter_.src, aten.masked_scatter_.default,
    aten.copy_.default, aten.sub_.Tensor,
}  # fmt: skip


@cache
def _load_forward_mode() -> None:
    """Load torch's scripted rules without its warnings about them.

    The category of the warnings changes between releases (FutureWarning in 2.15), and no caller can
    act on them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("torch._decomp.decompositions_for_jvp")


def by_dual_numbers(call: OperatorCall, *tangents: Tensor | None) -> list[Tensor | None]:
    """The tangents by torch's own rule, which runs the operator again."""
    _load_forward_mode()
    leaves, spec = tree_flatten((call.args, dict(call.kwargs)))
    remaining = iter(tangents)
    overwritten = call.args[0] if call.func in ONTO_CONSTANTS else None
    with fwAD.dual_level():
        duals: list[Any] = []
        for leaf in leaves:
            if isinstance(leaf, Tensor):
                tangent, leaf = next(remaining), leaf.detach()
                if tangent is None and call.func in MOVES_ALL and has_tangents(leaf):
                    tangent = torch.zeros_like(leaf)
                if tangent is not None:  # torch makes no dual of an expanded tensor
                    leaf = fwAD.make_dual(leaf.clone() if 0 in leaf.stride() else leaf, tangent)
                elif leaves[len(duals)] is overwritten:  # the graph of the pass reads it
                    leaf = leaf.clone()
            duals.append(leaf)
        args, kwargs = tree_unflatten(duals, spec)
        result = call.func(*args, **kwargs)
        made = result if isinstance(result, (tuple, list)) else [result]
        return [
            fwAD.unpack_dual(part).tangent if isinstance(part, Tensor) else None for part in made
        ]


def has_tangents(tensor: Tensor) -> bool:
    """Whether a tensor can have a tangent: integers and booleans have none."""
    return tensor.is_floating_point() or tensor.is_complex()
