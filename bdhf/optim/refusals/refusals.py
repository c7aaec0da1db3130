"""Refusals of models, parameters and modules without a right product, before anything runs.

The table of modules (`module_rules.py`) is checked before every update, so a module that is put
into training mode later is refused too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from bdhf.optim.errors import ModelError, ModelTypeError
from bdhf.optim.refusals.module_rules import RefusalReason, refused, shared_out


def named(path: str, module: nn.Module) -> str:
    """The name of a module in errors: its path and its type."""
    where = repr(path) if path else "at the root"
    return f"module {where} ({type(module).__name__})"


def refuse_types(model: object, loss_fn: object) -> None:
    """Refuse what is not a model or a loss, or has parameters that no vector can hold.

    Raises ModelTypeError for a wrong type; ModelError for a parameter without real values, and for
    a model that is distributed over ranks or devices.
    """
    if not isinstance(model, nn.Module):
        raise ModelTypeError(
            f"the model is an nn.Module; got {type(model).__name__}: pass the model itself, not "
            "model.parameters()"
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelTypeError(
            f"{named('', model)} is compiled by torch.jit, and its operators cannot be recorded: "
            "pass the nn.Module that was scripted or traced"
        )
    _refuse_by(shared_out, model)  # a wrapper may hide its parameters
    if isinstance(loss_fn, type) and issubclass(loss_fn, nn.Module):
        name = loss_fn.__name__
        raise ModelTypeError(f"the loss is the class {name}: pass an instance, {name}()")
    if not callable(loss_fn):
        raise ModelTypeError(
            f"the loss is a callable loss_fn(outputs, targets) that returns a scalar; got "
            f"{type(loss_fn).__name__}: pass one function or module, such as nn.CrossEntropyLoss()"
        )
    for root in (model, loss_fn) if isinstance(loss_fn, nn.Module) else (model,):
        for name, parameter in root.named_parameters():
            if reason := _no_real_vector(parameter):
                owner = name.rpartition(".")[0]
                where = named(owner, root.get_submodule(owner))
                raise ModelError(f"parameter {name!r} of {where} {reason}")


def _no_real_vector(parameter: nn.Parameter) -> str:
    """Why a parameter cannot be part of a flat real vector, and what to do; empty if it can."""
    if is_lazy(parameter):
        return "has no shape yet: run the model forward once before building blocks"
    if parameter.is_meta:
        return "is on the meta device without values: call model.to_empty(device=...) and load some"
    if not parameter.requires_grad:
        return ""
    if parameter.is_complex():
        return (
            "is complex, and curvature is defined for real parameters: hold real and imaginary "
            "part in one real tensor, and call torch.view_as_complex in the forward"
        )
    if not parameter.numel():
        return "has no entries: freeze it by requires_grad_(False), or remove it"
    if parameter.is_inference():
        return "was made in torch.inference_mode(): build the model outside of it"
    if type(parameter).__name__ == "DTensor":
        return "is distributed over ranks: pass the model of a single process"
    return ""


def refuse_modules(model: nn.Module) -> None:
    """Refuse a model with a module whose forward pass is not a function of each sample alone.

    Raises ModelError, naming the module, the reason and what to do; also under
    torch.inference_mode(), and for a model that is distributed over ranks or devices.
    """
    if torch.is_inference_mode_enabled():
        raise ModelError(
            "products need autograd, which torch.inference_mode() turns off: leave that mode "
            "(no_grad() is fine)"
        )
    _refuse_by(refused, model)


#: An example of each part, for the error.
_PARTS = {
    "curvature": "bdhf.GGN()",
    "partition": "bdhf.PerLayer(), or a function from a layout to blocks",
    "solver": "bdhf.CG()",
    "damping": "bdhf.Constant(1e-3)",
    "acceptance": "bdhf.FullStep()",
    "regularization": "bdhf.L2(1e-4)",
    "stop": "bdhf.RelativeResidual(0.1)",
    "momentum": "bdhf.QuadraticMomentum(), or None",
}


def refuse_no_parts(**parts: object) -> None:
    """Raise ModelTypeError for a name, a number or a class in place of a part, by its keyword.

    Momentum may be None.
    """
    for name, part in parts.items():
        if part is None and name == "momentum":
            continue
        if part is None or isinstance(part, (type, str, int, float, Tensor, list, tuple, dict)):
            kind = f"the class {part.__name__}" if isinstance(part, type) else repr(part)
            raise ModelTypeError(f"{name} is a part, such as {_PARTS[name]}; got {kind}")


def _refuse_by(reason_of: Callable[[nn.Module], RefusalReason | None], model: nn.Module) -> None:
    """Raise ModelError for the first module for which there is a reason."""
    if not any(map(reason_of, modules_of(model))):
        return
    for path, module in model.named_modules():
        if reason := reason_of(module):
            raise ModelError(f"{named(path, module)} {reason[0]}: {reason[1]}")


def modules_of(model: nn.Module) -> Iterator[nn.Module]:
    """The model and all modules below, each once, unordered: `model.modules()` takes longer."""
    seen: set[nn.Module] = {model}
    todo = [model]
    while todo:
        module = todo.pop()
        yield module
        for child in module._modules.values():
            if child is not None and child not in seen:
                seen.add(child)
                todo.append(child)


def refuse_inference_tensors(batch: Any) -> None:
    """Raise ModelError for a batch of tensors that autograd may not keep."""
    if any(isinstance(leaf, Tensor) and leaf.is_inference() for leaf in tree_leaves(batch)):
        raise ModelError(
            "the batch holds tensors made in torch.inference_mode(), which autograd cannot keep: "
            "clone() them outside of it, or make them under no_grad()"
        )


def refuse_no_scalar(loss: object) -> None:
    """Raise ModelTypeError for a loss that returned anything but a Tensor."""
    if not isinstance(loss, Tensor):
        raise ModelTypeError(
            f"the loss returned {type(loss).__name__}; loss_fn(outputs, targets) must return a "
            "scalar Tensor: add the terms up, and return nothing else"
        )
