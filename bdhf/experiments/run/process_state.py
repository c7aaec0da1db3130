"""The state that runs of one process share: saved before a piece of work, restored after it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch.nn.modules import module as modules
from torch.optim import optimizer as optimizers

from bdhf.experiments.run.random_streams import global_state, set_global

#: Getter and setter of each setting of torch.
_SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
)

#: Flags of cuDNN: object and name.
_FLAGS: tuple[tuple[Any, str], ...] = (
    (torch.backends.cudnn, "benchmark"),
    (torch.backends.cudnn, "deterministic"),
)


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Restore the global generators, the settings of torch, its global hooks and warning filters.

    Warnings are off inside, because the run has done the same work before.
    """
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.callback(set_global, global_state(device), device)
        for read, write in _SETTINGS:
            with suppress(RuntimeError):  # torch cannot read a setting that was set in two ways
                stack.callback(_write, read, write, read())
        for owner, name in _FLAGS:
            stack.callback(setattr, owner, name, getattr(owner, name))
        for hooks in _global_hooks():
            stack.callback(_put_back, hooks, dict(hooks))
        yield


def _write(read: Callable[[], Any], write: Callable[[Any], Any], value: Any) -> None:
    if read() != value:
        write(value)


def _global_hooks() -> list[dict[int, Any]]:
    """Hooks on every module and every optimizer of this process."""
    names = [(module, name) for module in (modules, optimizers) for name in vars(module)]
    tables = (getattr(module, name) for module, name in names if name.startswith("_global_"))
    return [table for table in tables if isinstance(table, dict)]


def _put_back(table: dict[int, Any], content: dict[int, Any]) -> None:
    table.clear()
    table.update(content)


@contextmanager
def own_globals(device: torch.device) -> Iterator[None]:
    """Restore the global generators of this process afterwards."""
    before = global_state(device)
    try:
        yield
    finally:
        set_global(before, device)
