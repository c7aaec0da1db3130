"""Whether the parameters that are trained are still those of the model.

Loading with assign=True, a parametrization that is added, a layer that is replaced: the model reads
other tensors afterwards, and updates of the former ones would move nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from bdhf.optim.errors import ModelError
from bdhf.optim.refusals.refusals import modules_of
from bdhf.optim.vectors.layout import named_parameters

#: Names that an error tells; the rest is counted.
TOLD = 5


def refuse_other_parameters(
    model: nn.Module, loss_fn: object, parameters: Sequence[nn.Parameter], names: Sequence[str]
) -> None:
    """Compare the trainable parameters of a model and its loss with those that were, by identity.

    `names` are the names of `parameters` at the outset. Raises ModelError, naming those that came,
    went or were frozen.
    """
    trained = {id(parameter) for parameter in parameters}
    roots = [model, loss_fn] if isinstance(loss_fn, nn.Module) else [model]
    trainable = {
        id(parameter)
        for root in roots
        for module in modules_of(root)
        for parameter in module._parameters.values()
        if parameter is not None and parameter.requires_grad
    }
    if trainable != trained:
        _refuse(model, loss_fn, parameters, names)


def refuse_other_shapes(
    parameters: Sequence[nn.Parameter], names: Sequence[str], shapes: Sequence[torch.Size]
) -> None:
    """Raise ModelError for a parameter whose data are of another shape than at the outset."""
    for name, parameter, shape in zip(names, parameters, shapes, strict=True):
        if parameter.shape != shape:
            raise ModelError(
                f"parameter {name!r} had shape {tuple(shape)} when the blocks were made and has "
                f"{tuple(parameter.shape)} now: build a new optimizer after changing the model"
            )


def _refuse(
    model: nn.Module, loss_fn: object, parameters: Sequence[nn.Parameter], names: Sequence[str]
) -> None:
    """Find what changed, by name. The model and a loss module may both hold parameters."""
    trained = {id(parameter) for parameter in parameters}
    now = named_parameters(model, loss_fn)
    held = {id(parameter) for parameter in now.values()}
    pairs = list(zip(names, parameters, strict=True))
    came = [name for name, p in now.items() if p.requires_grad and id(p) not in trained]
    went = [name for name, parameter in pairs if id(parameter) not in held]
    frozen = [n for n, p in pairs if not p.requires_grad and id(p) in held]
    changes = [
        f"{len(listed)} {what} since the blocks were made ({few(listed)})"
        for listed, what in ((came, "came"), (went, "went"), (frozen, "frozen"))
        if listed
    ]
    if changes:
        raise ModelError(
            f"the trainable parameters of {type(model).__name__} are no longer those that are "
            f"trained: {'; '.join(changes)}; build a new optimizer after changing the model or "
            "requires_grad (load_state_dict without assign=True keeps the parameters)"
        )


def few(names: Iterable[str]) -> str:
    """Some names for an error to tell, and how many more there are."""
    listed = [repr(name) for name in names]
    rest = len(listed) - TOLD
    return ", ".join(listed[:TOLD]) + (f" and {rest} more" if rest > 0 else "")
