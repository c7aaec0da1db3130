"""The arms whose first update on synthetic data worked, so that no plan tries them again.

One empty file per arm in the user's cache folder. It may be removed at any time, and nothing is
kept if the folder cannot be written. Arms that failed are not kept, and are tried again.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

import torch

import bdhf
from bdhf.experiments.parts.user_source import sources
from bdhf.experiments.plan.runspec import RunSpec
from bdhf.experiments.plan.user_code import own_names


def key_of(run: RunSpec) -> str:
    """A hash of everything that a first update on synthetic data depends on.

    That is the problem, the optimizer, the versions and the dtype, the files of own parts, and
    whether there are two batch sizes; neither the seed nor the budget.
    """
    content = {
        "versions": [bdhf.__version__, run.algorithm, torch.__version__],
        "problem": run.problem,
        "optimizer": run.optimizer,
        "two batches": run.curvature_batch is not None,
        "energy": run.off_block_energy is not None,
        "dtype": run.dtype,
        "files": sorted(
            (str(source.file), source.digest)
            for name in own_names(run)
            for source in sources(name).values()
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
    """Record that an arm of this key has worked, if the folder can be written."""
    with suppress(OSError, RuntimeError):
        _folder().mkdir(parents=True, exist_ok=True)
        (_folder() / key).touch()


def _folder() -> Path:
    """`~/.cache/bdhf/tried`. Raises RuntimeError for a user without a home."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if cache else Path.home() / ".cache") / "bdhf" / "tried"
