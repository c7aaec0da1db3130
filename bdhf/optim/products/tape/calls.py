"""A call of an operator of torch, and which of its values the derivative reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten

#: Views to another shape; and operators that are linear in their first and only tensor.
VIEWS = (aten.view.default, aten._unsafe_view.default)

STRUCTURAL = (
    aten.t.default,
    aten.transpose.int, aten.permute.default, aten.expand.default, aten.squeeze.default,
    aten.squeeze.dim, aten.squeeze.dims, aten.unsqueeze.default, aten.select.int,
    aten.slice.Tensor, aten.split.Tensor, aten.unsafe_split.Tensor,
    aten.split_with_sizes.default, aten.unbind.int,
    aten.clone.default, aten._to_copy.default, aten.sum.default, aten.sum.dim_IntList,
    aten.mean.default, aten.mean.dim, aten.neg.default, aten.mul.Scalar, aten.div.Scalar,
    aten.constant_pad_nd.default, aten._adaptive_avg_pool2d.default, aten.avg_pool2d.default,
)  # fmt: skip

#: Operators whose rule reads the values of their result; other rules read its shape at most.
READS_RESULT = {
    aten.tanh.default, aten.sigmoid.default, aten.relu.default, aten.tanh_.default,
    aten.sigmoid_.default, aten.relu_.default, aten._softmax.default, aten._safe_softmax.default,
    aten._embedding_bag.default, aten._cdist_forward.default,
}  # fmt: skip

#: Operators whose rule does not read the values of their arguments.
READS_NO_ARGUMENT = (READS_RESULT - {aten._embedding_bag.default, aten._cdist_forward.default}) | {
    *STRUCTURAL, *VIEWS, aten.cat.default, aten.stack.default, aten.add.Tensor, aten.sub.Tensor,
    aten.add_.Tensor,
}  # fmt: skip


@dataclass(frozen=True)
class Hollow:
    """Replaces a tensor of which only the shape and the dtype are needed."""

    shape: torch.Size
    dtype: torch.dtype


@dataclass(frozen=True)
class OperatorCall:
    """An operator of torch with its arguments and its result."""

    func: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    result: Any

    def slim(self) -> OperatorCall:
        """The same without the values that its rule does not read."""
        args, result = self.args, self.result
        if self.func in READS_NO_ARGUMENT:
            args = _hollow(args)
        if self.func not in READS_RESULT:
            result = _hollow(result)
        return OperatorCall(self.func, args, self.kwargs, result)

    def detached(self) -> OperatorCall:
        """The same with detached values."""
        args, result = (_mapped(torch.Tensor.detach, x) for x in (self.args, self.result))
        return OperatorCall(self.func, args, self.kwargs, result)


def results(call: OperatorCall) -> list[Tensor | Hollow]:
    """The tensors of the result of a call, or their placeholders."""
    made = call.result if isinstance(call.result, (tuple, list)) else [call.result]
    return [x for x in made if isinstance(x, (Tensor, Hollow))]


def _hollow(tree: Any) -> Any:
    return _mapped(lambda tensor: Hollow(tensor.shape, tensor.dtype), tree)


def _mapped(change: Callable[[Tensor], Any], tree: Any) -> Any:
    """The tree with its tensors mapped; hand-written, since this runs for every operator."""
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, (tuple, list)):
        return type(tree)([_mapped(change, leaf) for leaf in tree])
    return tree
