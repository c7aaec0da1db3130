"""Tables of modules without a right curvature product, and of wrappers that distribute a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm

RefusalReason = tuple[str, str]  # why a module is refused, and what to do


@dataclass(frozen=True)
class Refusal:
    """Modules that are refused, and what their user can do."""

    kinds: tuple[type, ...]
    applies: Callable[[Any], bool]
    reason: str
    way_out: str


_EVAL = "put it into eval mode"
_POWER_ITERATION = "updates its power iteration in every forward pass"

#: The first that applies is reported.
MODULE_RULES = (
    Refusal(
        (_BatchNorm,),
        lambda m: m.running_mean is None and m.running_var is None,
        "couples the samples of a batch, in eval mode too, since it keeps no running statistics",
        "build it with track_running_stats=True and put it into eval mode, or use GroupNorm or "
        "LayerNorm",
    ),
    Refusal(
        (_BatchNorm,), lambda m: m.training,
        "couples the samples of a batch and updates its statistics in every forward pass",
        f"{_EVAL}, or use GroupNorm or LayerNorm",
    ),
    Refusal(
        (_InstanceNorm,), lambda m: m.training and m.running_mean is not None,
        "updates its running statistics in every forward pass, of which an update makes several",
        f"{_EVAL}, or build it with track_running_stats=False",
    ),
    Refusal(
        (nn.RReLU,), lambda m: m.training, "draws another slope in every forward pass",
        f"{_EVAL}, or use LeakyReLU",
    ),
    Refusal(
        (_DropoutNd,), lambda m: m.training and m.p > 0,
        "drops other units in every forward pass", f"{_EVAL}, or set its p to 0",
    ),
    Refusal(
        (nn.RNNBase, nn.MultiheadAttention), lambda m: m.training and m.dropout > 0,
        "drops other units in every forward pass", f"{_EVAL}, or set its dropout to 0",
    ),
    Refusal(
        (nn.FractionalMaxPool2d, nn.FractionalMaxPool3d), lambda m: m._random_samples is None,
        "draws other regions in every forward pass, in eval mode too",
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

_DRIFT = "leaves each rank with its own gradient, so that the ranks drift apart"

#: Wrappers and classes of parameters that distribute a model, by name: reason and what to do.
SHARED_OUT = {
    "DistributedDataParallel": (_DRIFT, "pass `model.module`, on one process"),
    "FullyShardedDataParallel": (
        "distributes its parameters over ranks",
        "pass the model before it is wrapped, on one process",
    ),
    "FSDPModule": (
        "distributes its parameters over ranks",
        "pass the model before fully_shard, on one process",
    ),
    "DataParallel": (
        "copies the parameters to every device, where no product can follow them",
        "pass `model.module`, on one device",
    ),
}  # fmt: skip


def shared_out(module: nn.Module) -> RefusalReason | None:
    """Why no product can follow the parameters of a wrapper; None for another module."""
    kind: type = type(module)
    return _of_type(kind)[1]


def refused(module: nn.Module) -> RefusalReason | None:
    """Why a module is refused in its current state; None where it is not."""
    kind: type = type(module)
    rules, wrapped = _of_type(kind)
    if wrapped is not None:
        return wrapped
    for rule in rules:
        if rule.applies(module):
            return rule.reason, rule.way_out
    return None


@cache
def _of_type(kind: type) -> tuple[tuple[Refusal, ...], RefusalReason | None]:
    """The rules for modules of a type, cached since every update needs them."""
    rules = tuple(rule for rule in MODULE_RULES if issubclass(kind, rule.kinds))
    ancestors = [ancestor.__name__ for ancestor in kind.__mro__ if _is_torchs(ancestor)]
    return rules, next((SHARED_OUT[name] for name in ancestors if name in SHARED_OUT), None)


def _is_torchs(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "torch"
