"""Random streams: one per (seed, purpose), so that no arm can disturb its pairing with others."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def generator(seed: int, purpose: str) -> torch.Generator:
    """A generator whose stream depends on the seed and the purpose alone.

    >>> first, again, other = (generator(0, p).initial_seed() for p in ("order", "order", "init"))
    >>> first == again, first == other
    (True, False)
    """
    return torch.Generator().manual_seed(derive(seed, purpose))


def derive(seed: int, purpose: str) -> int:
    """The seed of a stream, below 2⁶³."""
    digest = hashlib.blake2b(f"{purpose}:{seed}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class BatchSampler:
    """Endless index batches of `size`: epoch after epoch, each sample once per epoch.

    Every batch is full and holds no sample twice. A batch that crosses the end of an epoch is
    filled with samples that it does not hold yet; these come first in the next epoch. Raises
    ValueError for a size above `samples`.

    >>> stream = BatchSampler(5, 2, torch.Generator().manual_seed(0))
    >>> epochs = torch.cat([next(stream) for _ in range(5)]).view(2, 5)
    >>> epochs.sort(dim=1).values.tolist()
    [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]
    """

    def __init__(self, samples: int, size: int, order: torch.Generator) -> None:
        if size > samples:
            raise ValueError(f"a batch of {size} cannot be drawn from {samples} samples")
        self._samples, self._size, self._order = samples, size, order
        self._queue = torch.randperm(samples, generator=order)

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        if len(self._queue) < self._size:
            self._queue = self._refilled()
        batch, self._queue = self._queue[: self._size], self._queue[self._size :]
        return batch

    def _refilled(self) -> Tensor:
        """The queue, then the next epoch, led by samples that the queue does not hold."""
        fresh = torch.randperm(self._samples, generator=self._order)
        held = torch.isin(fresh, self._queue)
        lead = (~held).nonzero().reshape(-1)[: self._size - len(self._queue)]
        rest = torch.ones(self._samples, dtype=torch.bool)
        rest[lead] = False
        return torch.cat([self._queue, fresh[lead], fresh[rest]])

    def state(self) -> dict[str, Tensor]:
        """The position of the stream: what `restore` needs to continue with the same batches."""
        return {"order": self._order.get_state(), "queue": self._queue.clone()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a state of a stream with the same samples and size."""
        self._order.set_state(state["order"])
        self._queue = state["queue"]


class Subsets:
    """Endless positions of a random subset of each batch, (chosen,).

    A smaller subset is the beginning of a larger one from the same stream, so that arms with
    different curvature batches stay paired.
    """

    def __init__(self, size: int, chosen: int, draws: torch.Generator) -> None:
        self._size, self._chosen, self._draws = size, chosen, draws

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        return torch.randperm(self._size, generator=self._draws)[: self._chosen]

    def state(self) -> dict[str, Tensor]:
        """The position of the stream: what `restore` needs to continue with the same subsets."""
        return {"draws": self._draws.get_state()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a state of a stream with the same sizes."""
        self._draws.set_state(state["draws"])


def seed_globals(seed: int) -> None:
    """Seed the global generators of torch, Python and NumPy, for code without its own generator."""
    torch.manual_seed(derive(seed, "global"))
    random.seed(derive(seed, "global python"))
    np.random.seed(derive(seed, "global numpy") % 2**32)


def global_state(device: torch.device) -> dict[str, Any]:
    """The state of the global generators: torch (CPU and the CUDA device in use), Python, NumPy."""
    on_cuda = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    numpy = np.random.get_state(legacy=False)
    key, position = numpy["state"]["key"], numpy["state"]["pos"]
    return {
        "torch": [torch.get_rng_state(), *on_cuda],
        "python": random.getstate(),
        "numpy": [key.tolist(), int(position), int(numpy["has_gauss"]), float(numpy["gauss"])],
    }


def set_global(state: Mapping[str, Any], device: torch.device) -> None:
    """Restore the global generators."""
    torch.set_rng_state(state["torch"][0])
    for on_cuda in state["torch"][1:]:
        torch.cuda.set_rng_state(on_cuda, device)
    random.setstate(state["python"])
    key, *rest = state["numpy"]
    np.random.set_state(("MT19937", np.array(key, dtype=np.uint32), *rest))
