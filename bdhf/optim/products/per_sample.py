"""Squared per-sample gradients, from which Martens' preconditioner is made."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.utils._pytree import tree_leaves, tree_map

from bdhf.optim.errors import ModelError
from bdhf.optim.forward.objective import Objective, plain_kernels
from bdhf.optim.products.request import Request
from bdhf.optim.products.site_samples import OneHotInputs
from bdhf.optim.torch_support.failures import Failure, attempt
from bdhf.optim.vectors.layout import flatten

#: Entries of per-sample gradients that are held at a time.
MAX_ENTRIES = 2**24

#: Relative error of the gradients' sum that is rounding, by the precision of the parameters.
_TOLERANCES = {torch.float64: 1e-7, torch.float32: 1e-3}
_COARSE = 0.1

#: Σ_n of the samples' squared gradients, and of their gradients, (P,) each.
_Sums = Callable[[], tuple[Tensor, Tensor]]


def squared_gradients(
    request: Request, cotangents: Tensor, slots: Sequence[int] | None = None
) -> Tensor:
    """Σ_n (J_nᵀ u_n)² over the samples n, (P,), for cotangents u of the shape of the outputs.

    For some parameters, by their index, the entries of these alone (None: of all parameters).
    Samples go through the model in one vectorised pass where its operators allow it, and one by one
    where they do not. Raises ModelError where dimension 0 of an input or of the outputs does not
    count the samples, for a model that cannot run on a single sample, and for one whose outputs for
    a sample depend on the others.
    """
    objective, inputs = request.objective, request.batch[0]
    samples = cotangents.shape[0] if cotangents.dim() else 0
    lengths = {leaf.shape[0] if leaf.dim() else 0 for leaf in _tensors(inputs)}
    if lengths != {samples} or not samples:
        raise ModelError(
            f"squared gradients of samples need the samples in dimension 0 of inputs and outputs; "
            f"inputs have {sorted(lengths)}, outputs {tuple(cotangents.shape)}: use no "
            "preconditioner"
        )
    every = objective.parameters
    trained = every if slots is None else [every[i] for i in slots]
    names = _names(objective.model, trained)
    named = [parameter.detach() for parameter in trained]

    def sample_vjp(sample: Any, u: Tensor) -> tuple[Tensor, ...]:
        single = tree_map(lambda leaf: leaf[None] if isinstance(leaf, Tensor) else leaf, sample)

        def outputs(*parameters: Tensor) -> Tensor:
            by_name = {name: parameters[index] for name, index in names.items()}
            with plain_kernels(objective.model), objective.run.guard():
                result: Tensor = functional_call(
                    objective.model, by_name, (single,), tie_weights=False
                )
            return result

        pull_back = vjp(outputs, *named)[1]
        return tuple(pull_back(u[None]))

    size = sum(parameter.numel() for parameter in trained)
    chunk = max(1, MAX_ENTRIES // size)
    ways = (
        _quiet(vmap(sample_vjp)),
        _looped(sample_vjp),
        _looped(partial(_by_autograd, objective, trained)),
    )
    sums = [partial(_summed, many, inputs, cotangents, chunk) for many in ways]
    key = () if slots is None else (tuple(slots),)
    with request.flops.counting(("squared gradients", request.shapes, *key)):
        squares, added = _first_that_works(objective, sums)
    whole = flatten(_whole(objective, trained, request.batch[0], cotangents))
    _check_apart(objective, whole, squares, added)
    return squares


def _first_that_works(objective: Objective, sums: Sequence[_Sums]) -> tuple[Tensor, Tensor]:
    """The sums of squares and of gradients, in the first way that torch can compute."""
    reason = ""
    for add_up in sums:
        made = attempt(add_up)
        if not isinstance(made, Failure):
            return made
        reason = made.reason
    raise ModelError(
        f"{type(objective.model).__name__} cannot run on a single sample ({reason}), so there are "
        "no squared gradients of samples: use no preconditioner"
    )


def _check_apart(objective: Objective, whole: Tensor, squares: Tensor, added: Tensor) -> None:
    """Check that the per-sample gradients add up to the gradient; every time: data may couple them.

    Raises ModelError where a sample's outputs depend on the other samples.
    """
    error, size = (added - whole).norm(), squares.sum().sqrt()
    if error > _TOLERANCES.get(whole.dtype, _COARSE) * size:
        raise ModelError(
            f"the outputs of {type(objective.model).__name__} for a sample change with the "
            f"other samples of its batch: the per-sample gradients do not add up to the gradient "
            f"(relative difference {float(error / size):.2g}), so their squares have no meaning: "
            "use no preconditioner"
        )


def _by_autograd(
    objective: Objective, trained: Sequence[Tensor], sample: Any, u: Tensor
) -> tuple[Tensor, ...]:
    """J_nᵀ u_n by plain autograd, for functions that torch.func does not support."""
    single = tree_map(lambda leaf: leaf[None] if isinstance(leaf, Tensor) else leaf, sample)
    return _whole(objective, trained, single, u[None])


def _whole(
    objective: Objective, trained: Sequence[Tensor], inputs: Any, cotangents: Tensor
) -> tuple[Tensor, ...]:
    """Jᵀu over all samples of `inputs`, one tensor per parameter."""
    with torch.enable_grad():
        return torch.autograd.grad(
            objective.outputs(inputs, channels_last=False), trained, cotangents,
            allow_unused=True, materialize_grads=True,
        )  # fmt: skip


def _names(model: nn.Module, trained: Sequence[Tensor]) -> dict[str, int]:
    """Every name in the model under which a module holds a trained parameter -> its index.

    A module that is reached by two names counts once; a tensor that two modules hold counts twice.
    """
    index = {id(parameter): i for i, parameter in enumerate(trained)}
    return {
        f"{path}.{name}" if path else name: index[id(parameter)]
        for path, module in model.named_modules()
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
        if id(parameter) in index
    }


def _summed(
    many: Callable[..., Any], inputs: Any, cotangents: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """Add up every sample's squared gradient, and its gradient, `chunk` samples at a time."""
    totals = None
    for start in range(0, len(cotangents), chunk):
        part = slice(start, start + chunk)
        cut = tree_map(lambda x, p=part: x[p] if isinstance(x, Tensor) else x, inputs)
        gradients = many(cut, cotangents[part])
        both = flatten(g.square().sum(0) for g in gradients), flatten(g.sum(0) for g in gradients)
        totals = both if totals is None else (totals[0] + both[0], totals[1] + both[1])
    assert totals is not None  # there is at least one sample
    return totals


def _quiet(many: Callable[..., Any]) -> Callable[..., Any]:
    """Suppress vmap's warning that it loops over an operator: the fallback loops too."""

    def quiet(inputs: Any, cotangents: Tensor) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")
            return many(inputs, cotangents)

    return quiet


def _looped(sample_vjp: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
    """What vmap does, sample by sample."""

    def many(inputs: Any, cotangents: Tensor) -> tuple[Tensor, ...]:
        rows = [
            sample_vjp(tree_map(lambda x, n=n: x[n] if isinstance(x, Tensor) else x, inputs), u)
            for n, u in enumerate(cotangents)
        ]
        return tuple(torch.stack(column) for column in zip(*rows, strict=True))

    return many


def _tensors(inputs: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]


def gradient_squares(s: Tensor, a: Tensor) -> Tensor:
    """Σ (Σ_t s_t a_tᵀ)² over columns and samples, entry by entry: (groups, r, m).

    For k columns s (k, N, T, groups, r) and inputs a (N, T, groups or 1, m) at T positions.
    """
    groups = s.shape[3]
    a = a.expand(-1, -1, groups, -1)
    if s.shape[2] == 1:
        return s.square().sum((0, 2)).permute(1, 2, 0) @ a.square().sum(1).transpose(0, 1)
    if s.shape[4] == a.shape[3] == 1:
        return (s * a).sum(2).square().sum((0, 1)).unsqueeze(2)
    total = s.new_zeros(groups, s.shape[4], a.shape[3])
    for few in _chunks(s.shape[1], total.numel()):
        by_position = a[few].transpose(1, 2)  # (n, groups, T, m)
        for column in s:
            gradients = column[few].permute(0, 2, 3, 1) @ by_position
            total += gradients.square_().sum(0)
    return total


def one_hot_squares(s: Tensor, inputs: OneHotInputs) -> Tensor:
    """The same of k columns s (k, N, T, 1, r) and one-hot inputs of E entries: (1, r, E).

    Positions of one sample with the same entry are added before they are squared.
    """
    n = len(inputs.index)
    samples = torch.arange(n, device=s.device)[:, None] * inputs.entries
    index, active = inputs.index, inputs.index >= 0
    pairs, position = (samples + index)[active].unique(return_inverse=True)
    sums = s.new_zeros(len(s), len(pairs), s.shape[4])
    sums.index_add_(1, position, s[:, :, :, 0][:, active])
    total = s.new_zeros(s.shape[4], inputs.entries)
    total.index_add_(1, pairs % inputs.entries, sums.square_().sum(0).t())
    return total[None]


def _chunks(samples: int, entries: int) -> Iterator[slice]:
    """Slices of the samples, each with at most MAX_ENTRIES entries of gradients."""
    size = max(1, MAX_ENTRIES // max(1, entries))
    for start in range(0, samples, size):
        yield slice(start, start + size)
