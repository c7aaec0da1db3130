"""What a process shares between its runs: put back as it was, whatever is done meanwhile."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch.nn.modules import module as modules
from torch.optim import optimizer as optimizers

from bdhf.experiments.run.random_streams import global_state, set_global

#: What reads a setting of torch, and what writes it back.
_SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
)

#: Flags of cuDNN, by the object that has them.
_FLAGS: tuple[tuple[Any, str], ...] = (
    (torch.backends.cudnn, "benchmark"),
    (torch.backends.cudnn, "deterministic"),
)


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Leave the global generators, the settings of torch, its global hooks and filters as they are.

    Within it nothing warns: what is done there has been done before.
    """
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.callback(set_global, global_state(device), device)
        for read, write in _SETTINGS:
            with suppress(RuntimeError):  # torch reads no setting that was made in two ways
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
    names = [(home, name) for home in (modules, optimizers) for name in vars(home)]
    tables = (getattr(home, name) for home, name in names if name.startswith("_global_"))
    return [table for table in tables if isinstance(table, dict)]


def _put_back(table: dict[int, Any], content: dict[int, Any]) -> None:
    table.clear()
    table.update(content)


@contextmanager
def own_globals(device: torch.device) -> Iterator[None]:
    """Put the global generators of this process back where they were."""
    before = global_state(device)
    try:
        yield
    finally:
        set_global(before, device)
