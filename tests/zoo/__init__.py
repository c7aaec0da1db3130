"""Models, losses and batches of all kinds: each is right, or refused with what to do.

To add one: a module and a line in the table of its family. All are small (P up to 2,000, most under
100), in float32, and drawn from one seed.
"""

from __future__ import annotations

from dataclasses import replace

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
from tests.zoo.entry import Entry, cast, seeded

FAMILIES = (
    layers, recurrent, attention, embeddings, weights, functional, surrogates, graphs, physics,
    images, sequences, losses, refused,
)  # fmt: skip

ZOO: dict[str, Entry] = {
    name: entry for family in FAMILIES for name, entry in family.ENTRIES.items()
}

assert len(ZOO) == sum(len(family.ENTRIES) for family in FAMILIES), "a name of two families"


def build(name: str) -> Case:
    """Build an entry, in float32."""
    return seeded(ZOO[name].build)


def reference(name: str) -> Case:
    """The same numbers in float64, with the reference loss."""
    case, loss = build(name), ZOO[name].reference
    return cast(case if loss is None else replace(case, loss_fn=loss), torch.float64)
