"""Whether the data, the model and the loss of a user's own problem fit each other.

A plan is made from `samples` and `example`; the loaded data are compared with them. Outputs, loss
and metrics are computed once, for a few samples.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from bdhf.errors import BdhfError
from bdhf.problems import Problem
from bdhf.problems.data import Data, Part
from bdhf.problems.shapes import wrong_shapes
from bdhf.records import of_what_kind

#: Samples that are evaluated.
SAMPLES = 8


class Misfit(BdhfError, ValueError):  # noqa: N818 - a fault of the problem, in one line
    """Data, model and loss of a problem do not fit each other."""


class NoExample(Exception):  # noqa: N818 - no fault
    """A problem that does not implement `example`."""


def example_of(problem: Problem, samples: int) -> Part:
    """The result of `example`, checked by its form; torch's random stream does not move.

    Raises NoExample if it is not implemented, and Misfit.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            made = problem.example(samples)
        except NotImplementedError:
            raise NoExample("it makes up no example") from None
        except Exception as error:  # the code of others may raise anything
            raise Misfit(f"example({samples}) raises {of_what_kind(error)}") from None
    wrong = _no_part(made)
    if wrong:
        raise Misfit(f"example({samples}) {wrong}")
    if len(made[0]) != samples:
        raise Misfit(f"example({samples}) makes up {len(made[0])} samples")
    return made


def loaded(problem: Problem) -> Data:
    """The data of a problem, compared with its `samples` and `example`. Raises Misfit."""
    data = problem.load()
    parts = {name: getattr(data, name, None) for name in ("train", "validation", "test")}
    if not hasattr(data, "map") or None in parts.values():
        raise Misfit(
            f"load() returns a {type(data).__name__}: return bdhf.problems.data.Data(train, "
            "validation, test), each a pair of tensors"
        )
    for name, part in parts.items():
        wrong = _no_part(part)
        if wrong:
            raise Misfit(f"the {name} part of load() {wrong}")
    samples = len(data.train[0])
    if samples != problem.samples:
        raise Misfit(
            f"`samples` says {problem.samples} training samples, and load() gives {samples}: "
            f"epochs would be counted wrong; return {samples}"
        )
    with suppress(NoExample):
        _refuse_unlike(example_of(problem, 2), parts)
    return data


def refuse_misfit(problem: Problem, model: nn.Module, part: Part) -> None:
    """Evaluate a few samples as a run does, without effects. Raises Misfit if that fails."""
    few = min(SAMPLES, len(part[0]))
    inputs, targets = part[0][:few], part[1][:few]
    devices = [inputs.device] if inputs.device.type == "cuda" else []
    was_training = model.training
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            wrong = _evaluated(problem, model.eval(), inputs, targets)
    finally:
        model.train(was_training)
    if wrong:
        raise Misfit(wrong)


def _evaluated(problem: Problem, model: nn.Module, inputs: Tensor, targets: Tensor) -> str:
    """The fault of outputs, loss or metrics; "" if there is none."""
    shape = f"inputs {_words(inputs)}"
    try:
        outputs = model(inputs)
    except Exception as error:  # the code of others may raise anything
        return f"the model cannot take {shape}: {of_what_kind(error)}"
    if not isinstance(outputs, Tensor):
        return f"the model must return a tensor of outputs; it returns {type(outputs).__name__}"
    pair = f"outputs {_words(outputs)} and targets {_words(targets)}"
    try:
        wrong = wrong_shapes(problem.loss, outputs, targets)
    except Exception as error:
        return f"the loss cannot take {pair}: {of_what_kind(error)}"
    if wrong:
        return wrong
    try:
        measured = list(problem.measure(outputs, targets))
    except Exception as error:
        return f"measure cannot take {pair}: {of_what_kind(error)}"
    missing = [name for name in problem.metrics if name not in measured]
    names = ", ".join(measured) or "nothing"
    return f"measure gives {names}, and lacks {', '.join(missing)} of `metrics`" if missing else ""


def _no_part(part: Any) -> str:
    """The fault in the form of a part of the data; "" if there is none."""
    is_pair = isinstance(part, (tuple, list)) and len(part) == 2
    if not is_pair or not all(isinstance(tensor, Tensor) for tensor in part):
        return f"must be a pair of tensors, inputs and targets; it is a {type(part).__name__}"
    if not all(tensor.dim() for tensor in part) or len(part[0]) != len(part[1]):
        shapes = " and ".join(str(tuple(tensor.shape)) for tensor in part)
        return (
            f"must have as many inputs as targets, along their first axis; the shapes are {shapes}"
        )
    return "" if len(part[0]) else "has no samples"


def _refuse_unlike(example: Part, parts: dict[str, Any]) -> None:
    """Raise Misfit for a part of other shapes or dtypes than those of the example."""
    for name, part in parts.items():
        for what, made, real in zip(("inputs", "targets"), example, part, strict=True):
            if _alike(made) != _alike(real):
                raise Misfit(
                    f"example makes up {what} {_words(made)}, and the {name} part of load() has "
                    f"{_words(real)}: make them alike except for the number of samples"
                )


def _alike(tensor: Tensor) -> tuple[Any, ...]:
    """Shape of a sample, and dtype; all floating types count as one, because runs cast them."""
    return (*tensor.shape[1:], "float" if tensor.is_floating_point() else tensor.dtype)


def _words(tensor: Tensor) -> str:
    """`(8, 1) float32`."""
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
