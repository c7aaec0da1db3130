"""Random streams: one per (seed, purpose), so that no arm can disturb what pairs it with others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor


def generator(seed: int, purpose: str) -> torch.Generator:
    """Give a generator whose stream depends on the seed and the purpose alone.

    >>> first, again, other = (generator(0, p).initial_seed() for p in ("order", "order", "init"))
    >>> first == again, first == other
    (True, False)
    """
    return torch.Generator().manual_seed(derive(seed, purpose))


def derive(seed: int, purpose: str) -> int:
    """Give the seed of a stream, below 2⁶³."""
    digest = hashlib.blake2b(f"{purpose}:{seed}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def batches(samples: int, size: int, order: torch.Generator) -> Iterator[Tensor]:
    """Index batches of `size` for ever: epoch after epoch, each sample once an epoch.

    Every batch is full and holds no sample twice: one that crosses the end of an epoch is filled
    with samples that it does not hold yet, first in the next epoch. Raises ValueError for a size
    above `samples`.

    >>> order = torch.Generator().manual_seed(0)
    >>> stream = batches(5, 2, order)
    >>> epochs = torch.cat([next(stream) for _ in range(5)]).view(2, 5)
    >>> epochs.sort(dim=1).values.tolist()
    [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]
    """
    if size > samples:
        raise ValueError(f"a batch of {size} cannot be drawn from {samples} samples")
    queue = torch.randperm(samples, generator=order)
    while True:
        if len(queue) < size:
            fresh = torch.randperm(samples, generator=order)
            held = torch.isin(fresh, queue)
            lead = (~held).nonzero().reshape(-1)[: size - len(queue)]
            rest = torch.ones(samples, dtype=torch.bool)
            rest[lead] = False
            queue = torch.cat([queue, fresh[lead], fresh[rest]])
        batch, queue = queue[:size], queue[size:]
        yield batch


def subsets(size: int, chosen: int, draws: torch.Generator) -> Iterator[Tensor]:
    """Positions of a random subset of each batch for ever, (chosen,).

    A smaller subset is the beginning of a larger one from the same stream, so that arms with
    different curvature batches stay paired.
    """
    while True:
        yield torch.randperm(size, generator=draws)[:chosen]
