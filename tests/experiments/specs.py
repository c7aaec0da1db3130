"""Specs for the tests: one that is valid and small, and ways to change it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bdhf.experiments.limits import with_skips
from bdhf.experiments.plan import Cell, Plan, expand
from bdhf.experiments.run import Outcome, Row, execute
from bdhf.experiments.schema import Safety
from bdhf.experiments.source import parse
from bdhf.experiments.spec import variants

#: A module with a partition of a user's own.
CHUNKS = """
from dataclasses import dataclass
import torch


@dataclass(frozen=True)
class Chunks:
    size: int = 5000

    def __call__(self, layout):
        return [chunk[None] for chunk in torch.arange(layout.size).split(self.size)]
"""

SMALL = """\
schema: 1
name: small
problem: {type: autoencoder, encoder: [784, 12, 4]}
batch: {gradient: 200, curvature: 50}
arms:
  adam: {type: torch.Adam, lr: 3.0e-3}
  full_hf: &hf {type: block_hf, partition: full, lr: 0.5, damping: 1.0e-2,
                solver: {type: cg, max_iters: 5}}
  block_hf: {<<: *hf, partition: {type: groups, blocks: [["encoder.*"], ["decoder.*"]]}}
seeds: {count: 2}
budget: {updates: 6}
stop: at_budget
evaluate: {every_updates: 2}
targets: [{metric: val_loss, below: 0.08}]
compare:
  - {name: block vs full, candidate: block_hf, baseline: full_hf}
"""


def changed(*changes: tuple[str, str], text: str = SMALL) -> str:
    """The small spec with pieces of text replaced; every piece must be there."""
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


def planned(*changes: tuple[str, str], text: str = SMALL) -> Plan:
    """The plan of the small spec, changed."""
    checked = variants(parse(changed(*changes, text=text)))
    return with_skips(expand(checked), checked[0].spec.safety)


def cells(*changes: tuple[str, str]) -> tuple[Cell, ...]:
    """The cells of that plan."""
    return planned(*changes).cells


def cell(arm: str, *changes: tuple[str, str], **update: Any) -> Cell:
    """One cell of the small spec, its first seed."""
    found = next(c for c in cells(*changes) if c.arm == arm)
    return Cell(found.arm, found.seed, found.run.model_copy(update=update))


def outcome(
    arm: str,
    *changes: tuple[str, str],
    safety: Safety = Safety(seconds=60),  # noqa: B008 - frozen
    observe: Callable[[Row], None] = lambda row: None,
    **update: Any,
) -> Outcome:
    """Execute one cell of the small spec, changed."""
    run = cell(arm, *changes, **update).run
    return execute(run, device="cpu", safety=safety, observe=observe)
