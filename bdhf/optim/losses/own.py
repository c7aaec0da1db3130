"""The parameters that a loss depends on directly: only its own.

A loss is linearised at fixed outputs, so a direct dependence on the model's parameters would be
missing from every gradient. Parameters that a loss module holds are trained; others are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.utils._pytree import tree_leaves

from bdhf.optim.errors import ModelError
from bdhf.optim.torch_support.graphs import nodes_behind

#: Names that an error lists.
LISTED = 3


def own_parameters(loss_fn: object) -> tuple[nn.Parameter, ...]:
    """The trainable parameters of a loss that is a module, each once; () for any other."""
    if not isinstance(loss_fn, nn.Module):
        return ()
    return tuple(parameter for parameter in loss_fn.parameters() if parameter.requires_grad)


def loss_name(loss_fn: object) -> str:
    """The name of a loss in errors."""
    return str(getattr(loss_fn, "__name__", type(loss_fn).__name__))


class OutsideParameterError(ModelError):
    """A loss that reads tensors which require a gradient and which it does not hold."""

    def __init__(self, loss_fn: object, leaves: Sequence[Tensor]) -> None:
        super().__init__(_explained(loss_fn, leaves, {}))
        self._loss_fn, self._leaves = loss_fn, leaves

    def named(self, model: nn.Module) -> ModelError:
        """The same error with their names in the model."""
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        return ModelError(_explained(self._loss_fn, self._leaves, names))


def refuse_outside_parameters(
    loss_fn: object, loss: Tensor, outputs: tuple[Tensor, Node | None], targets: Any
) -> None:
    """Raise OutsideParameterError for a loss that depends on more than it may.

    It may depend on the outputs, which are passed with the node that made them, on the targets, and
    on the parameters that it holds. The walk takes as many steps as the loss has operators.
    """
    z, behind = outputs
    constants = [leaf for leaf in tree_leaves(targets) if isinstance(leaf, Tensor)]
    allowed = {id(z), *map(id, constants), *map(id, own_parameters(loss_fn))}
    ends = {node for node in (behind, *(t.grad_fn for t in constants)) if node is not None}
    leaves = [leaf for leaf in _leaves(loss, ends) if id(leaf) not in allowed]
    if leaves:
        raise OutsideParameterError(loss_fn, leaves)


def _leaves(value: Tensor, ends: set[Node]) -> Iterator[Tensor]:
    """The leaves of the graph of a value, which is walked up to `ends`."""
    for node in nodes_behind([value], ends):
        if node.name() == "torch::autograd::AccumulateGrad":
            yield node.variable  # type: ignore[attr-defined]  # of this kind of node only


def _explained(loss_fn: object, leaves: Sequence[Tensor], names: Mapping[int, str]) -> str:
    listed = [
        repr(names[id(leaf)]) if id(leaf) in names else f"a tensor of shape {tuple(leaf.shape)}"
        for leaf in leaves
    ]
    what = ", ".join(sorted(listed)[:LISTED])
    if len(listed) > LISTED:
        what += f" and {len(listed) - LISTED} more"
    name = loss_name(loss_fn)
    reads = f"the loss {name} reads {what} besides the outputs, which a step would ignore; "
    ours = [leaf for leaf in leaves if id(leaf) in names]
    ways = []
    if len(ours) > 1:
        ways.append("if it calls the model, return what it needs from the model's forward")
    if ours:
        ways.append("for a penalty on the weights, use regularization=bdhf.L2(...)")
    if len(ours) < len(leaves):
        ways.append(
            "for a parameter of the loss, make the loss an nn.Module that holds it, which trains "
            "it; freeze a constant with requires_grad_(False)"
        )
    else:
        ways.append("for a term that shares a weight, make the loss an nn.Module that holds it too")
    return reads + "; ".join(ways)
