"""Whether every run of ablations/smoke.yaml trained: `python -m tests.smoke RESULTS`.

A run passes if its validation loss is below that of predicting the mean of the training targets
(their class prior), or if it ended as diverged with a reason. What was skipped is listed.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import torch
from ruamel.yaml import YAML

import bdhf
from bdhf.experiments.parts.tables import problem_of


@cache
def baseline(problem: str) -> float:
    """Validation loss of the best constant prediction, by the training targets alone."""
    built = problem_of(YAML(typ="safe", pure=True).load(problem))
    data = built.load()
    targets, wanted = data.train[1], data.validation[1]
    if targets.is_floating_point():
        constant = targets.mean(0)
    else:
        constant = targets.bincount().double().div(len(targets)).log()
    return float(built.loss(constant.expand(len(wanted), *constant.shape).contiguous(), wanted))


def failures(folder: Path) -> list[str]:
    """One line per run that neither trained nor diverged."""
    runs, faults = bdhf.load(folder).runs, []
    yaml = YAML(typ="safe", pure=True)
    for row in runs.itertuples():
        if row.status == "skipped":
            print(f"skipped: {row.arm}: {row.reason}")  # noqa: T201 - this is a command
            continue
        if row.status == "diverged" and row.reason:
            continue
        spec = yaml.load((folder / "runs" / row.run_id / "spec.yaml").read_text(encoding="utf-8"))
        limit = baseline(repr(spec["problem"]))
        if row.status != "done" or not row.val_loss < limit:
            faults.append(
                f"{row.arm}: {row.status}, val_loss {row.val_loss:.4g}, not < {limit:.4g}"
            )
    return faults


if __name__ == "__main__":
    torch.set_num_threads(1)
    wrong = failures(Path(sys.argv[1]))
    print("\n".join(wrong) or "every run trained")  # noqa: T201
    sys.exit(bool(wrong))
