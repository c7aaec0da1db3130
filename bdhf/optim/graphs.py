"""Walks over the graphs that autograd keeps behind tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor
from torch.autograd.graph import Node


def nodes_behind(tensors: Iterable[Tensor], ends: Iterable[Node] = ()) -> Iterator[Node]:
    """Every node of the graphs of some tensors, once, but for `ends` and what lies behind them."""
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


def ends_early(tensors: Iterable[Tensor]) -> bool:
    """Whether a graph ends in what torch puts behind `once_differentiable`.

    A reverse sweep through such a graph raises nothing: it leaves out what lies behind.
    """
    return any(node.name() == "torch::autograd::Error" for node in nodes_behind(tensors))
