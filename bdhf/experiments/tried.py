"""Which arms have made a first update on made-up data before, so that no plan tries them again.

An empty file an arm, in the user's cache folder: it may be removed at any time, and where nothing
can be written nothing is kept. Only what worked is kept: what failed is tried again.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

import bdhf
from bdhf.experiments.own import is_own
from bdhf.experiments.runspec import RunSpec


def key_of(run: RunSpec) -> str:
    """A hash of all that a first update on made-up data depends on.

    That is the problem, the optimizer and what they are computed with, and the files of a user's
    own parts; neither the seed nor the budget, and of batch sizes only that there are two.
    """
    content = {
        "versions": [bdhf.__version__, run.algorithm, torch.__version__],
        "problem": run.problem,
        "optimizer": run.optimizer,
        "two batches": run.curvature_batch is not None,
        "energy": run.off_block_energy is not None,
        "dtype": run.dtype,
        "files": sorted(
            (str(file), _digest(file))
            for name in set(_own_names([run.problem, run.optimizer]))
            for file in _files_of(name)
        ),
    }
    text = json.dumps(content, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def is_kept(key: str) -> bool:
    """Whether an arm of this key has worked."""
    with suppress(OSError, RuntimeError):
        return (_folder() / key).is_file()
    return False


def keep(key: str) -> None:
    """Remember that it has; where that cannot be written, do without."""
    with suppress(OSError, RuntimeError):
        _folder().mkdir(parents=True, exist_ok=True)
        (_folder() / key).touch()


def _folder() -> Path:
    """`~/.cache/bdhf/tried`. Raises RuntimeError for a user without a home."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if cache else Path.home() / ".cache") / "bdhf" / "tried"


def _own_names(node: Any) -> Iterator[str]:
    """Every name of a user's own part in a resolved one."""
    if isinstance(node, dict):
        if isinstance(node.get("type"), str) and is_own(node["type"]):
            yield node["type"]
        node = list(node.values())
    for inner in node if isinstance(node, list) else ():
        yield from _own_names(inner)


def _files_of(name: str) -> Iterator[Path]:
    """The file of a part's module, and those of its folder and package that are imported by now."""
    module = name.partition(":")[0]
    own = _file(module)
    if own is None:
        return
    yield own
    package = module.partition(".")[0]
    for other in tuple(sys.modules):
        file = _file(other)
        if file and (file.parent == own.parent or other.partition(".")[0] == package):
            yield file


def _file(module: str) -> Path | None:
    held = getattr(sys.modules.get(module), "__dict__", {})  # asks no lazy module to be imported
    file = held.get("__file__")
    return Path(file) if isinstance(file, str) else None


def _digest(file: Path) -> str:
    with suppress(OSError):
        return hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()
    return ""
