"""What is known of a problem's model without its weights: parameters, blocks, and what fits them.

A grid asks the same of thousands of arms, so answers are kept: of a model no more than its modules,
of blocks no more than their sizes.
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
    """The problem's model, its parameters without values; not to be changed."""
    return _weightless(problem) if _is_hashable(problem) else _weightless.__wrapped__(problem)


@lru_cache(maxsize=64)
def _weightless(problem: Problem) -> nn.Module:
    with torch.device("meta"):
        return problem.build()


def blocks_of(partition: Partition, problem: Problem) -> Blocks:
    """The blocks of a partition on the problem's model. Raises what the partition does."""
    return cut(layout_of(meta_model(problem)), partition)


def block_sizes(
    partition: Partition, problem: Problem, refusals: tuple[type[Exception], ...]
) -> Blocks | str:
    """The blocks without positions, which are as many as parameters; or why they do not fit.

    `refusals` are what the partition may raise at a model that it does not fit.
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


def _is_hashable(asked: object) -> bool:
    """Whether an answer can be kept: a user's own part may hold a list."""
    try:
        hash(asked)
    except TypeError:
        return False
    return True
