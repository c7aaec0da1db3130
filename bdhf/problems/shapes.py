"""Whether outputs and targets have shapes that a loss does not broadcast.

Outputs (N, 1) minus targets (N,) is (N, N): every output meets every target. The mean of that is a
number, but a model that ignores its inputs minimises it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from bdhf.problems.problem import Loss

#: Losses of torch that work entry by entry.
_ELEMENTWISE: Sequence[Callable[..., Any]] = (
    F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.binary_cross_entropy,
    F.binary_cross_entropy_with_logits, F.poisson_nll_loss, F.gaussian_nll_loss,
    F.soft_margin_loss, F.multilabel_soft_margin_loss, F.kl_div,
)  # fmt: skip

_ROUNDING = 1e-3  # relative, of a mean in float32


def wrong_shapes(loss: Loss, outputs: Tensor, targets: Tensor) -> str:
    """Why a loss is not a mean over samples for these outputs and targets; "" if it is.

    All functions that the loss calls are checked. Raises what the loss raises.

    >>> wrong_shapes(F.mse_loss, torch.zeros(4, 1), torch.zeros(4))[:55]
    'mse_loss takes outputs (4, 1) and targets (4,) entry by'
    >>> wrong_shapes(F.mse_loss, torch.zeros(4, 1), torch.zeros(4, 1))
    ''
    """
    with _Elementwise() as watch:
        value = loss(outputs, targets)
    if watch.unlike:
        name, left, right = watch.unlike[0]
        return (
            f"{name} takes outputs {left} and targets {right} entry by entry, so torch would "
            f"broadcast them: give both the same shape, for example with targets.reshape{left}"
        )
    if not isinstance(value, Tensor) or value.numel() != 1:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        return f"the loss must be one number, a mean over samples; it is {shape}"
    if _grows(outputs, targets) and not _is_mean(loss, outputs, targets, value):
        return (
            f"the loss of outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)} is no "
            "mean over samples, perhaps because torch broadcasts them: give both the same shape, "
            f"for example with targets.reshape{tuple(outputs.shape)}"
        )
    return ""


class _Elementwise(TorchFunctionMode):
    """Records every call of a loss of torch with outputs and targets of different shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.unlike: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Compare the shapes, then call the function if they are equal."""
        named = kwargs or {}
        if func in _ELEMENTWISE:
            pair = [*args[:2], *(named[key] for key in ("input", "target") if key in named)]
            left, right = (tuple(getattr(tensor, "shape", ())) for tensor in pair[:2])
            if left != right:
                self.unlike.append((func.__name__, left, right))
                return pair[0].sum() * 0.0  # any loss: the call is refused anyway
        return func(*args, **named)


def _grows(outputs: Tensor, targets: Tensor) -> bool:
    """Whether outputs and targets have more entries after broadcasting than either before."""
    try:
        together = torch.broadcast_shapes(outputs.shape, targets.shape)
    except RuntimeError:
        return False
    return bool(together.numel() > max(outputs.numel(), targets.numel()))


def _is_mean(loss: Loss, outputs: Tensor, targets: Tensor, value: Tensor) -> bool:
    """Whether the loss of a batch is the mean of the losses of its samples."""
    samples = range(len(outputs))
    losses = [float(loss(outputs[i : i + 1], targets[i : i + 1])) for i in samples]
    scale = max(map(abs, losses))
    return abs(sum(losses) / len(losses) - float(value)) <= _ROUNDING * scale
