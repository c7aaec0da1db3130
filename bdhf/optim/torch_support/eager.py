"""What the caller has compiled runs operator by operator inside an update.

A product reads the operators of a forward pass one by one, under modes that watch them, and through
`torch.func`. Once torch's compiler (2.13) has met either on its way through a module, it runs that
module and every other of its class operator by operator from then on, without a word. So it is kept
out: inside an update it neither runs what it made nor makes anything new, and what it made stays.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext

import torch


def caller_compiled_nothing() -> AbstractContextManager[object]:
    """In the body, functions and modules that the caller compiled run as they were written."""
    return _stance("force_eager")


def compiler_runs() -> AbstractContextManager[object]:
    """In the body, torch's compiler works again: for a program that bdhf compiled itself."""
    return _stance("default")


def _stance(name: str) -> AbstractContextManager[object]:
    """A stance of torch's compiler; nothing to do where nobody has loaded it, for seconds."""
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    stance: AbstractContextManager[object] = torch.compiler.set_stance(name)
    return stance
