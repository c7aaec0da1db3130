"""Traversals of autograd graphs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator

from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node


def nodes_behind(tensors: Iterable[Tensor], ends: Iterable[Node] = ()) -> Iterator[Node]:
    """Every node of the graphs of some tensors, once, without `ends` and what lies behind them."""
    seen = set(ends)
    todo = [node for node in (tensor.grad_fn for tensor in tensors) if node is not None]
    todo = [node for node in dict.fromkeys(todo) if node not in seen]
    seen.update(todo)
    while todo:
        node = todo.pop()
        yield node
        behind = {following for following, _ in node.next_functions if following is not None}
        todo += behind - seen
        seen |= behind


def structure_behind(tensor: Tensor) -> Hashable:
    """The nodes behind a tensor: names, dimensions, which inputs have a gradient; with counts."""
    return frozenset(
        Counter(
            (
                node.name(),
                str(getattr(node, "_saved_dim", "")),
                tuple(following is not None for following, _ in node.next_functions),
            )
            for node in nodes_behind([tensor])
        ).items()
    )


def ends_early(tensors: Iterable[Tensor]) -> bool:
    """Whether a graph ends in the node that torch puts behind `once_differentiable`.

    A reverse sweep through such a graph raises no error, but omits what lies behind.
    """
    return any(node.name() == "torch::autograd::Error" for node in nodes_behind(tensors))


def is_own_function(node: Node | None) -> bool:
    """Whether a node is a user's autograd.Function."""
    return isinstance(node, BackwardCFunction)
