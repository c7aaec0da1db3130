"""Models, losses and batches as people bring them: each is right, or refused with a way out.

To add one: a module and a line in the table of its family. All are small (P up to 2,000, most under
100), in float32, and drawn from one seed.
"""

from __future__ import annotations

import torch

from tests.cases import Case
from tests.zoo import (
    attention,
    embeddings,
    functional,
    graphs,
    images,
    layers,
    losses,
    physics,
    recurrent,
    refused,
    sequences,
    surrogates,
    weights,
)
from tests.zoo.entry import Entry, seeded

FAMILIES = (
    layers, recurrent, attention, embeddings, weights, functional, surrogates, graphs, physics,
    images, sequences, losses, refused,
)  # fmt: skip

ZOO: dict[str, Entry] = {
    name: entry for family in FAMILIES for name, entry in family.ENTRIES.items()
}

assert len(ZOO) == sum(len(family.ENTRIES) for family in FAMILIES), "a name of two families"


def build(name: str, dtype: torch.dtype = torch.float32) -> Case:
    """Build an entry; the same numbers in every precision."""
    return seeded(ZOO[name].build, dtype)
