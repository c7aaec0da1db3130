"""Code that the caller compiled runs operator by operator inside an update.

A product records the operators of a forward pass one by one, under dispatch modes and `torch.func`.
Once torch's compiler (2.13) meets either in a module, it silently runs that module and all others
of its class operator by operator from then on. So inside an update it neither runs compiled code
nor compiles anything, and what it compiled before stays.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext

import torch


def caller_compiled_nothing() -> AbstractContextManager[object]:
    """In the body, functions and modules that the caller compiled run uncompiled."""
    return _stance("force_eager")


def compiler_runs() -> AbstractContextManager[object]:
    """In the body, torch's compiler works again: for a program that bdhf compiled itself."""
    return _stance("default")


def _stance(name: str) -> AbstractContextManager[object]:
    """A stance of torch's compiler; none if it is not loaded, since loading takes seconds."""
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    stance: AbstractContextManager[object] = torch.compiler.set_stance(name)
    return stance
