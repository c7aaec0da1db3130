"""Whether the trained parameters are still those of the model.

After loading with assign=True, adding a parametrization or replacing a layer the model reads other
tensors, and updates of the former ones would have no effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from bdhf.optim.errors import ModelError
from bdhf.optim.refusals.refusals import modules_of
from bdhf.optim.vectors.layout import named_parameters

#: Names that an error lists; the rest is counted.
NAMES_LISTED = 5


def refuse_other_parameters(
    model: nn.Module, loss_fn: object, parameters: Sequence[nn.Parameter], names: Sequence[str]
) -> None:
    """Compare the trainable parameters of a model and its loss with `parameters`, by identity.

    `names` are their names at the start. Raises ModelError, naming those that were added, removed
    or frozen.
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
    """Raise ModelError for a parameter whose shape differs from that at the start."""
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
    added = [name for name, p in now.items() if p.requires_grad and id(p) not in trained]
    removed = [name for name, parameter in pairs if id(parameter) not in held]
    frozen = [n for n, p in pairs if not p.requires_grad and id(p) in held]
    changes = [
        f"{len(listed)} {what} since the blocks were made ({few(listed)})"
        for listed, what in ((added, "added"), (removed, "removed"), (frozen, "frozen"))
        if listed
    ]
    if changes:
        raise ModelError(
            f"the trainable parameters of {type(model).__name__} have changed: "
            f"{'; '.join(changes)}; build a new optimizer after changing the model or "
            "requires_grad (load_state_dict without assign=True keeps the parameters)"
        )


def few(names: Iterable[str]) -> str:
    """The first names of a list for an error, and the number of the others."""
    listed = [repr(name) for name in names]
    rest = len(listed) - NAMES_LISTED
    return ", ".join(listed[:NAMES_LISTED]) + (f" and {rest} more" if rest > 0 else "")
