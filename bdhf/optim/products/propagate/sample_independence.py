"""Whether samples stay independent behind a bottleneck: z_n depends on c_n, and on no other c_m.

With D = diag(d_1 … d_N) over the samples and J = ∂z/∂c,

    J D t = D J t  for random d and t,  exactly where J is block-diagonal in the samples

Whether a model mixes samples may depend on its data (a graph, an order), so it may do so on one
batch and not on another of the same shape. Operators that treat every row alone, whatever their
data, are checked once.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.graph import Node

from bdhf.optim.losses import OutputHessian
from bdhf.optim.products.tape.calls import Hollow
from bdhf.optim.products.tape.jvp_rules import ELEMENTWISE
from bdhf.optim.products.tape.route import Route
from bdhf.optim.products.tape.tape import TapeEntry
from bdhf.optim.torch_support.graphs import nodes_behind

aten = torch.ops.aten

#: Operators that keep dimension 0 where their shapes do.
_SHAPED = {
    aten.view.default, aten._unsafe_view.default, aten.clone.default, aten._to_copy.default,
}  # fmt: skip

#: Operators that act on every row of one argument alone, and its position.
_ROWS_OF = {
    aten.addmm.default: 1, aten.mm.default: 0, aten.bmm.default: 0, aten.convolution.default: 0,
}  # fmt: skip

#: Nodes of a graph that act on every row alone, and the names of leaves.
_ROWS_ALONE = {
    f"{name}Backward0" for name in (
        "Tanh", "Sigmoid", "Relu", "LeakyRelu", "Hardtanh", "Gelu", "Silu", "Elu", "Softplus",
        "Add", "MaxPool2DWithIndices", "AvgPool2D", "AdaptiveAvgPool2D",
    )
} | {"torch::autograd::AccumulateGrad"}  # fmt: skip

#: Nodes of products, and the position of the operand that must be a leaf, or a leaf transposed.
_LEAF_AT = {"AddmmBackward0": 2, "MmBackward0": 1, "ConvolutionBackward0": 1}

_VIEWS = {"ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0"}


def graph_apart(z: Tensor, uses: int) -> bool:
    """Whether every node behind the outputs treats each row alone, whatever the data are.

    For layers in sequence or added up, which read leaves `uses` times in all. False where the graph
    does not show it.
    """
    reads = 0
    for node in nodes_behind([z]):
        if not _node_apart(node, len(z)):
            return False
        reads += _leaves_read(node)
    return reads == uses


def _leaves_read(node: Node) -> int:
    """How many operands of a node are leaves, or leaves transposed."""
    if node.name() == "TBackward0":  # counted where it is read
        return 0
    return sum(_is_leaf(_untransposed(operand)) for operand, _ in node.next_functions)


def _node_apart(node: Node, samples: int) -> bool:
    name = node.name()
    if name in _VIEWS:  # a view keeps rows, or another one that does not undoes it
        return int(node._saved_self_sym_sizes[0]) == samples  # type: ignore[attr-defined]
    if name == "TBackward0":
        return _is_leaf(_untransposed(node))
    if name not in _LEAF_AT:
        return name in _ROWS_ALONE
    return _is_leaf(_untransposed(node.next_functions[_LEAF_AT[name]][0]))


def _untransposed(node: Node | None) -> Node | None:
    return node.next_functions[0][0] if node is not None and node.name() == "TBackward0" else node


def _is_leaf(node: Node | None) -> bool:
    return node is not None and node.name() == "torch::autograd::AccumulateGrad"


def always_apart(behind: Route, source: int, samples: int) -> bool:
    """Whether every operator of the route treats each sample alone, whatever the data are."""
    reached = {source}
    for entry in behind.entries:
        if not _row_by_row(entry, reached, samples):
            return False
        reached.update(entry.makes)
    return True


def _row_by_row(entry: TapeEntry, reached: set[int], samples: int) -> bool:
    func, result = entry.call.func, entry.call.result
    tensors = [x for x in entry.call.args if isinstance(x, (Tensor, Hollow))]
    if len(tensors) != len(entry.reads) or not isinstance(result, (Tensor, Hollow)):
        return False
    moved = [at for at, read in enumerate(entry.reads) if read in reached]
    if any(not _by_sample(tensors[at], samples) for at in moved) or not _by_sample(result, samples):
        return False
    if func in _ROWS_OF:
        return moved == [_ROWS_OF[func]]
    if func in ELEMENTWISE:  # broadcasting must not move dimension 0
        return all(len(tensors[at].shape) == len(result.shape) for at in moved)
    return func in _SHAPED


def _by_sample(tensor: Tensor | Hollow, samples: int) -> bool:
    return bool(tensor.shape) and tensor.shape[0] == samples


@torch.no_grad()
def apart(behind: Route, source: int, t: Tensor, moved: Tensor, tolerance: float) -> bool:
    """Whether J D t = D J t, for t of the shape of the bottleneck; `moved` is J t, (N, C)."""
    draws = torch.Generator().manual_seed(1)
    d = torch.randn(len(moved), 1, generator=draws).to(moved)
    scaled = behind({source: (d.to(t.dtype) * t.flatten(1)).view(t.shape)})
    assert scaled is not None  # the bottleneck is on the way to the outputs
    expected = d * moved
    return bool((scaled.flatten(1) - expected).norm() <= tolerance * expected.norm())


#: Tolerance for the Hessian of a loss, relative to that of products: contributions of many samples
#: add up.
FINER = 1e-2


@torch.no_grad()
def loss_apart(hessian: OutputHessian, z: Tensor, tolerance: float) -> bool:
    """Whether H D w = D H w for w of the shape of z; a loss may mix samples at some z only."""
    draws = torch.Generator().manual_seed(1)
    d, w = (torch.randn(*shape, generator=draws).to(z) for shape in ((len(z), 1), z.shape))
    d = d.view(-1, *[1] * (z.dim() - 1))
    expected = d * hessian(w)
    return bool((hessian(d * w) - expected).norm() <= FINER * tolerance * expected.norm())
