"""Specs for the tests: a small valid one, and ways to change it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bdhf.experiments.plan.expand import Cell, Plan, expand
from bdhf.experiments.plan.limits import with_skips
from bdhf.experiments.run.execute import Outcome, Row, execute
from bdhf.experiments.spec.load import variants
from bdhf.experiments.spec.schema import Safety
from bdhf.experiments.spec.yaml_source import parse

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


#: The small spec for a study of two arms, and the study.
TWO_ARMS = changed(
    ("  full_hf: &hf {type: block_hf, partition: full, lr: 0.5, damping: 1.0e-2,\n                ",
     "  hf: {type: block_hf, partition: full, lr: 0.5, damping: 1.0e-2, "),
    ('  block_hf: {<<: *hf, partition: {type: groups, blocks: [["encoder.*"], ["decoder.*"]]}}\n',
     ""),
    ("count: 2", "count: 6"),
    ("updates: 6", "updates: 40"),
    ("at_budget", "at_target"),
    ("evaluate: {every_updates: 2}\n", ""),
    ("0.08", "0.1"),
    ("{name: block vs full, candidate: block_hf, baseline: full_hf}",
     "{name: hf vs adam, candidate: hf, baseline: adam, margin: 1.2}"),
)  # fmt: skip
STUDY = """\
schema: 1
name: small
ablation: small.yaml
spaces:
  adam: {lr: {log: [1.0e-4, 1.0]}}
  hf:
    lr: {linear: [0.1, 1.0]}
    damping:
      choice:
        constant: {value: {log: [1.0e-4, 1.0]}}
        levenberg_marquardt: {initial: {log: [1.0e-3, 10]}}
    solver.max_iters: {log: [2, 20], whole: true}
trials: 8
seeds: {count: 2, base: 100}
sampler: {type: tpe, startup: 3}
"""

#: The same, so short that its runs take a moment.
TINY = changed(
    ("name: small", "name: tiny"),
    ("count: 6", "count: 2"),
    ("updates: 40", "updates: 6"),
    ("targets:", "evaluate: {every_updates: 2}\ntargets:"),
    ("0.1}]", "0.08}]"),
    ("compare:\n  - {name: hf vs adam, candidate: hf, baseline: adam, margin: 1.2}\n", ""),
    text=TWO_ARMS,
)
TINY_STUDY = changed(
    ("name: small", "name: tiny"),
    ("small.yaml", "tiny.yaml"),
    ("log: [1.0e-4, 1.0]}}\n  hf", "log: [1.0e-3, 1.0e-1]}}\n  hf"),
    ("value: {log: [1.0e-4", "value: {log: [1.0e-3"),
    ("    solver.max_iters: {log: [2, 20], whole: true}\n", ""),
    ("trials: 8", "trials: 5"),
    ("startup: 3}", "startup: 2}\nheld_out: false"),
    text=STUDY,
)


def write_study(
    home: Path, *changes: tuple[str, str], text: str = STUDY, base: str = TWO_ARMS
) -> Path:
    """Write a study and its ablation into a folder, with pieces of their text replaced."""
    (name,) = re.findall(r"^ablation: (\S+)$", text, re.MULTILINE)
    for old, new in changes:
        assert old in text or old in base, old
        text, base = text.replace(old, new), base.replace(old, new)
    home.mkdir(parents=True, exist_ok=True)
    (home / name).write_text(base)
    (home / "study.yaml").write_text(text)
    return home / "study.yaml"


def planned(*changes: tuple[str, str], text: str = SMALL) -> Plan:
    """The plan of the small spec, changed."""
    checked = variants(parse(changed(*changes, text=text)))
    return with_skips(expand(checked), checked[0].spec.safety)


def cells(*changes: tuple[str, str]) -> tuple[Cell, ...]:
    """The cells of that plan."""
    return planned(*changes).cells


def cell(arm: str, *changes: tuple[str, str], **update: Any) -> Cell:
    """One cell of the small spec, its first seed."""
    first = next(c for c in cells(*changes) if c.arm == arm)
    return Cell(first.arm, first.seed, first.run.model_copy(update=update))


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
