"""Synthetic records from outcomes: for each arm and seed, the hit or how the run ended."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from bdhf.records import Budget, Comparison, Records, Status, Target

Outcome = int | str | None  # the update of the hit, a status or "planned", or None for a miss

TARGET = Target(metric="val_loss", below=0.02)
BLOCK_VS_FULL = Comparison(name="block vs full", candidate="block", baseline="full")


def synthetic(
    outcomes: Mapping[str, Sequence[Outcome]],
    *,
    comparisons: Sequence[Comparison] = (BLOCK_VS_FULL,),
    targets: Sequence[Target] = (TARGET,),
    budget: Budget | None = None,
    last: int = 300,
    every: int = 1,
    seconds: Mapping[str, float] | None = None,
    alpha: float = 0.05,
) -> Records:
    """Records in which seed i of an arm ends as its i-th outcome says.

    A miss ends at update `last`, a diverged or failed run at update 10; `seconds` is the time of
    one update of an arm (by default 1).
    """
    pace = {arm: (seconds or {}).get(arm, 1.0) for arm in outcomes}
    cells = [(arm, seed, end) for arm, ends in outcomes.items() for seed, end in enumerate(ends)]
    return Records(
        name="synthetic",
        spec_text="",
        arms=tuple(outcomes),
        targets=tuple(targets),
        comparisons=tuple(comparisons),
        budget=budget or Budget(updates=last),
        alpha=alpha,
        evaluate_every=every,
        runs=pd.DataFrame([_run(*cell, last, pace[cell[0]]) for cell in cells]),
        curves=pd.DataFrame(
            [row for cell in cells for row in _curve(*cell, last, every, pace[cell[0]])]
        ),
        environments=pd.DataFrame([_made(*cell) for cell in cells if cell[2] != "planned"]),
    )


def with_losses(
    curves: Mapping[str, Sequence[Sequence[float] | str]],
    *,
    estimand: str = "final_loss",
    margin: float | None = None,
    diverged: Sequence[tuple[str, int]] = (),
    last: int | None = None,
) -> Records:
    """Records in which seed i of an arm has the i-th losses, one an update, or a status.

    `diverged` names runs (arm, seed) that diverged; `last` is the budget in updates, by default the
    end of the longest curve. One comparison, block against full, of the losses.
    """
    longest = max(len(c) for arm in curves.values() for c in arm if not isinstance(c, str)) - 1
    ends = {arm: [c if isinstance(c, str) else len(c) - 1 for c in runs]
            for arm, runs in curves.items()}  # fmt: skip
    entry = BLOCK_VS_FULL.model_copy(update={"estimand": estimand, "margin": margin})
    records = synthetic(ends, comparisons=(entry,), targets=(), last=last or longest)
    runs = records.runs.copy()
    for arm, seed in diverged:
        runs.loc[(runs["arm"] == arm) & (runs["seed"] == seed), "status"] = Status.DIVERGED.value
    rows = [
        {"arm": arm, "seed": seed, "run_id": f"{arm}-{seed}", "update": i, "seconds": float(i),
         "val_loss": loss}
        for arm, ended in curves.items() for seed, curve in enumerate(ended)
        if not isinstance(curve, str) for i, loss in enumerate(curve)
    ]  # fmt: skip
    return replace(records, runs=runs, curves=pd.DataFrame(rows))


def _made(arm: str, seed: int, _: Outcome) -> dict[str, object]:
    """All on one machine, with the same versions."""
    return {
        "run_id": f"{arm}-{seed}", "host": "vm", "cpu": "EPYC", "gpu": "", "device": "cpu",
        "torch": "2.13.0", "tf32": False, "deterministic": False,
    }  # fmt: skip


def _end(outcome: Outcome, last: int) -> int:
    if isinstance(outcome, int):
        return outcome
    return last if outcome is None else 10


def _run(arm: str, seed: int, outcome: Outcome, last: int, pace: float) -> dict[str, object]:
    status = outcome if isinstance(outcome, str) else Status.DONE.value
    update = float("nan") if status == "planned" else _end(outcome, last)
    return {
        "arm": arm,
        "seed": seed,
        "run_id": f"{arm}-{seed}",
        "status": None if status == "planned" else status,
        "reason": "",
        "update": update,
        "seconds": update * pace,
    }


def _curve(
    arm: str, seed: int, outcome: Outcome, last: int, every: int, pace: float
) -> list[dict[str, object]]:
    """A few evaluations are enough: before the first update, the next one, and the last two."""
    end = _end(outcome, last)
    updates = [] if outcome == "planned" else sorted({0, min(every, end), max(end - every, 0), end})
    return [
        {
            "arm": arm,
            "seed": seed,
            "run_id": f"{arm}-{seed}",
            "update": update,
            "seconds": update * pace,
            "val_loss": 0.01 if isinstance(outcome, int) and update == end else 1.0,
        }
        for update in updates
    ]
