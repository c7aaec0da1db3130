"""A problem's model without weights: its parameters and blocks, and the partitions that fit.

A grid repeats these questions for thousands of arms, so answers are cached: the modules of a model,
and the sizes of blocks.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from functools import lru_cache

import torch
from torch import nn

from bdhf.optim.partitions import Partition
from bdhf.optim.partitions.blocks_of import cut
from bdhf.optim.vectors.blocks import Blocks
from bdhf.optim.vectors.layout import layout_of
from bdhf.problems import Problem


def meta_model(problem: Problem) -> nn.Module:
    """The problem's model with parameters without values; shared, so do not change it."""
    return _meta_model(problem) if _is_hashable(problem) else _meta_model.__wrapped__(problem)


@lru_cache(maxsize=64)
def _meta_model(problem: Problem) -> nn.Module:
    with torch.device("meta"):
        return problem.build()


def blocks_of(partition: Partition, problem: Problem) -> Blocks:
    """The blocks of a partition on the problem's model. Raises what the partition raises."""
    return cut(layout_of(meta_model(problem)), partition)


def block_sizes(
    partition: Partition, problem: Problem, refusals: tuple[type[Exception], ...]
) -> Blocks | str:
    """The blocks without positions, which take memory; or why the partition does not fit.

    `refusals` are the exceptions of a partition that does not fit a model.
    """
    if isinstance(partition, Hashable) and _is_hashable((partition, problem)):
        return _block_sizes(partition, problem, refusals)
    return _block_sizes.__wrapped__(partition, problem, refusals)


@lru_cache(maxsize=1024)
def _block_sizes(
    partition: Partition, problem: Problem, refusals: tuple[type[Exception], ...]
) -> Blocks | str:
    try:
        blocks = blocks_of(partition, problem)
    except refusals as error:
        return str(error) or type(error).__name__
    return replace(blocks, rows=(), views=(), permutation=None, blend=None)


def _is_hashable(key: object) -> bool:
    """Whether an answer can be cached: a user's own part may hold a list."""
    try:
        hash(key)
    except TypeError:
        return False
    return True
