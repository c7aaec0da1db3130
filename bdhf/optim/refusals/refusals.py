"""What has no right curvature product, told before anything runs: models, parameters and modules.

The table `MODULES` is read before every update, so a module that is put into training mode later is
found too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.utils._pytree import tree_leaves

from bdhf.optim.errors import ModelError, ModelTypeError


def named(path: str, module: nn.Module) -> str:
    """A module as errors call it: its path and its type."""
    where = repr(path) if path else "at the root"
    return f"module {where} ({type(module).__name__})"


@dataclass(frozen=True)
class Refusal:
    """Modules that are refused, and what their user can do."""

    kinds: tuple[type, ...]
    applies: Callable[[Any], bool]
    reason: str
    way_out: str


_EVAL = "put it into eval mode"
_POWER_ITERATION = "moves its power iteration at every forward pass"

#: The first that applies is told.
MODULES = (
    Refusal(
        (_BatchNorm,),
        lambda m: m.running_mean is None and m.running_var is None,
        "couples the samples of a batch, in eval mode too, since it keeps no running statistics",
        "build it with track_running_stats=True and put it into eval mode, or use GroupNorm or "
        "LayerNorm",
    ),
    Refusal(
        (_BatchNorm,), lambda m: m.training,
        "couples the samples of a batch and moves its statistics at every forward pass",
        f"{_EVAL}, or use GroupNorm or LayerNorm",
    ),
    Refusal(
        (_InstanceNorm,), lambda m: m.training and m.running_mean is not None,
        "moves its running statistics at every forward pass, of which an update makes several",
        f"{_EVAL}, or build it with track_running_stats=False",
    ),
    Refusal(
        (nn.RReLU,), lambda m: m.training, "draws another slope at every forward pass",
        f"{_EVAL}, or use LeakyReLU",
    ),
    Refusal(
        (_DropoutNd,), lambda m: m.training and m.p > 0,
        "drops other units at every forward pass", f"{_EVAL}, or set its p to 0",
    ),
    Refusal(
        (nn.RNNBase, nn.MultiheadAttention), lambda m: m.training and m.dropout > 0,
        "drops other units at every forward pass", f"{_EVAL}, or set its dropout to 0",
    ),
    Refusal(
        (nn.FractionalMaxPool2d, nn.FractionalMaxPool3d), lambda m: m._random_samples is None,
        "draws other regions at every forward pass, in eval mode too",
        "build it with _random_samples, or use MaxPool2d or AdaptiveMaxPool2d",
    ),
    Refusal(
        (_SpectralNorm,), lambda m: m.training and hasattr(m, "_u"), _POWER_ITERATION, _EVAL
    ),
    Refusal(
        (nn.Module,), lambda m: m._forward_pre_hooks and m.training and any(
            isinstance(hook, SpectralNorm) for hook in m._forward_pre_hooks.values()
        ),
        f"has a spectral_norm that {_POWER_ITERATION}", _EVAL,
    ),
    Refusal(
        (nn.Embedding, nn.EmbeddingBag), lambda m: m.sparse and m.weight.requires_grad,
        "has sparse gradients, and vectors of parameters are dense", "build it with sparse=False",
    ),
)  # fmt: skip

_DRIFT = "leaves each rank with a gradient of its own, so that the ranks drift apart"

#: Wrappers and classes of parameters that share a model out, by name: reason and way out.
SHARED_OUT = {
    "DistributedDataParallel": (_DRIFT, "pass `model.module`, on one process"),
    "FullyShardedDataParallel": (
        "shares its parameters out over ranks",
        "pass the model before it is wrapped, on one process",
    ),
    "FSDPModule": (
        "shares its parameters out over ranks",
        "pass the model before fully_shard, on one process",
    ),
    "DataParallel": (
        "copies the parameters to every device, where no product can follow them",
        "pass `model.module`, on one device",
    ),
}  # fmt: skip


def refuse_types(model: object, loss_fn: object) -> None:
    """Refuse what is no model, no loss, or has parameters that no vector can hold.

    Raises ModelTypeError for a wrong type; ModelError for a parameter that has no real values, and
    for a model that is shared out over ranks or devices.
    """
    if not isinstance(model, nn.Module):
        raise ModelTypeError(
            f"the model is an nn.Module; got {type(model).__name__}: pass the model itself, not "
            "model.parameters()"
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelTypeError(
            f"{named('', model)} is compiled by torch.jit, and its operators cannot be followed: "
            "pass the nn.Module that was scripted or traced"
        )
    _refuse_by(_shared_out, model)  # a wrapper may hide its parameters
    if isinstance(loss_fn, type) and issubclass(loss_fn, nn.Module):
        name = loss_fn.__name__
        raise ModelTypeError(f"the loss is the class {name}: make one of it, {name}()")
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
    """Why a parameter cannot be part of a flat real vector, and the way out; empty if it can."""
    if is_lazy(parameter):
        return "has no shape yet: run the model forward once before building blocks"
    if parameter.is_meta:
        return "is on the meta device and has no values: model.to_empty(device=...), then load them"
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
        return "is shared out over ranks: pass the model as it is on one process"
    return ""


def refuse_modules(model: nn.Module) -> None:
    """Refuse a model with a module whose forward pass is not a function of each sample alone.

    Raises ModelError, naming the module, the reason and the way out; also where the caller is in
    torch.inference_mode(), or the model is shared out over ranks or devices.
    """
    if torch.is_inference_mode_enabled():
        raise ModelError(
            "products need autograd, which torch.inference_mode() turns off: leave it (no_grad() "
            "is no obstacle)"
        )
    _refuse_by(_refused, model)


#: What each part may be, for those who give a name, a number or a class.
PARTS = {
    "curvature": "bdhf.GGN()",
    "partition": "bdhf.PerLayer(), or a function from a layout to blocks",
    "solver": "bdhf.CG()",
    "damping": "bdhf.Constant(1e-3)",
    "acceptance": "bdhf.FullStep()",
    "regularization": "bdhf.L2(1e-4)",
}


def refuse_no_parts(**parts: object) -> None:
    """Raise ModelTypeError for a part, by its keyword, that is a name, a number or a class."""
    for name, part in parts.items():
        if part is None or isinstance(part, (type, str, int, float, Tensor, list, tuple, dict)):
            kind = f"the class {part.__name__}" if isinstance(part, type) else repr(part)
            raise ModelTypeError(f"{name} is a part, such as {PARTS[name]}; got {kind}")


_Reason = tuple[str, str]  # why a module is refused, and the way out


def _refuse_by(reason_of: Callable[[nn.Module], _Reason | None], model: nn.Module) -> None:
    """Raise ModelError for the first module for which there is a reason."""
    if not any(map(reason_of, modules_of(model))):
        return
    for path, module in model.named_modules():
        if reason := reason_of(module):
            raise ModelError(f"{named(path, module)} {reason[0]}: {reason[1]}")


def _shared_out(module: nn.Module) -> _Reason | None:
    kind: type = type(module)
    return _of_type(kind)[1]


def _refused(module: nn.Module) -> _Reason | None:
    kind: type = type(module)
    rules, shared_out = _of_type(kind)
    if shared_out is not None:
        return shared_out
    for rule in rules:
        if rule.applies(module):
            return rule.reason, rule.way_out
    return None


def modules_of(model: nn.Module) -> Iterator[nn.Module]:
    """The model and all modules below, each once, in no order: `model.modules()` takes longer."""
    seen: set[nn.Module] = {model}
    todo = [model]
    while todo:
        module = todo.pop()
        yield module
        for child in module._modules.values():
            if child is not None and child not in seen:
                seen.add(child)
                todo.append(child)


@cache
def _of_type(kind: type) -> tuple[tuple[Refusal, ...], _Reason | None]:
    """What there is to ask of modules of a type: once, since this is asked at every update."""
    rules = tuple(rule for rule in MODULES if issubclass(kind, rule.kinds))
    ancestors = [ancestor.__name__ for ancestor in kind.__mro__ if _is_torchs(ancestor)]
    return rules, next((SHARED_OUT[name] for name in ancestors if name in SHARED_OUT), None)


def _is_torchs(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "torch"


def refuse_inference_tensors(batch: Any) -> None:
    """Raise ModelError for a batch of tensors that autograd may not keep."""
    if any(isinstance(leaf, Tensor) and leaf.is_inference() for leaf in tree_leaves(batch)):
        raise ModelError(
            "the batch holds tensors made in torch.inference_mode(), which autograd cannot keep: "
            "clone() them outside of it, or make them under no_grad()"
        )


def refuse_no_scalar(loss: object) -> None:
    """Raise ModelTypeError for a loss that returned something else than a Tensor."""
    if not isinstance(loss, Tensor):
        raise ModelTypeError(
            f"the loss returned {type(loss).__name__}; loss_fn(outputs, targets) must return a "
            "scalar Tensor: add the terms up in one, and return no log beside it"
        )
