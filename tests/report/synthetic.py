"""Made-up ablations that look like real ones, from a few numbers and a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from bdhf.records import Budget, Comparison, Records, Target

TARGET = Target(metric="val_loss", below=0.02)


@dataclass(frozen=True)
class Arm:
    """How the runs of an arm fall: val_loss = floor + (first - floor) exp(-update / tau)."""

    tau: float  # updates
    floor: float = 0.012
    seconds: float = 0.05  # per update
    noise: float = 0.02  # of every evaluation, relative; 0 makes the loss fall monotonically
    status: Mapping[int, tuple[str | None, str]] = field(
        default_factory=dict
    )  # seed -> (status, reason)


QUICKSTART = {
    "adam": Arm(tau=95.0, floor=0.0115, seconds=0.011),
    "full_hf": Arm(
        tau=30.0, seconds=0.16, status={5: ("diverged", "val_loss is not finite at update 14")}
    ),
    "block_hf": Arm(tau=21.0, seconds=0.14, status={7: (None, "not run yet")}),
}
ENTRIES = (
    Comparison(name="block vs full", candidate="block_hf", baseline="full_hf"),
    Comparison(name="block vs adam", candidate="block_hf", baseline="adam"),
    Comparison(
        name="block vs full, seconds", candidate="block_hf", baseline="full_hf",
        estimand="seconds_to_target",
    ),
)  # fmt: skip


def synthetic_records(
    arms: Mapping[str, Arm] = QUICKSTART,
    *,
    seeds: int = 8,
    updates: int = 300,
    every: int = 2,
    targets: Sequence[Target] = (TARGET,),
    comparisons: Sequence[Comparison] = ENTRIES,
    stop_at_target: bool = True,
    name: str = "quickstart",
) -> Records:
    """The records of an ablation whose runs stop at the first of `targets`, or at the budget."""
    runs, curves = [], []
    for index, (arm, how) in enumerate(arms.items()):
        for seed in range(seeds):
            status, reason = how.status.get(seed, ("done", ""))
            rng = np.random.default_rng([7, index, seed])
            curve = _curve(how, rng, np.arange(0, updates + 1, every), status)
            if stop_at_target and targets and status == "done":
                hits = np.flatnonzero(curve["val_loss"] <= targets[0].below)
                curve = curve.iloc[: hits[0] + 1] if len(hits) else curve
                reason = (
                    "every target reached" if len(hits) else f"budget of {updates} updates spent"
                )
            cell = {"arm": arm, "seed": seed, "run_id": f"{index:02x}{seed:02x}c0ffee{index}{seed}"}
            if status is None:
                curve = curve.iloc[:0]
            curves.append(curve.assign(**cell))
            total = {c: curve[c].iloc[-1] if len(curve) else np.nan for c in ("update", "seconds")}
            runs.append({**cell, "status": status, "reason": reason, **total})
    table = pd.DataFrame(runs)
    return Records(
        name=name,
        spec_text=_spec(name, arms, seeds, updates),
        arms=tuple(arms),
        targets=tuple(targets),
        comparisons=tuple(comparisons),
        budget=Budget(updates=updates),
        alpha=0.05,
        evaluate_every=every,
        runs=table,
        curves=pd.concat(curves, ignore_index=True),
        environments=_environments(table),
    )


def _curve(
    how: Arm, rng: np.random.Generator, update: np.ndarray, status: str | None
) -> pd.DataFrame:
    tau = how.tau * np.exp(rng.normal(0, 0.16))
    floor = how.floor * np.exp(rng.normal(0, 0.28))
    wobble = np.exp(rng.normal(0, how.noise, len(update)))
    loss = (floor + (0.231 - floor) * np.exp(-update / tau)) * wobble
    loss[0] = 0.231
    if status == "diverged":
        update, loss = update[:8], loss[:8] * 1.6 ** np.arange(8)
        loss[-1] = np.nan
    if status in ("error", "timeout", "oom"):
        update, loss = update[:30], loss[:30]
    pace = how.seconds * np.exp(rng.normal(0, 0.08))
    return pd.DataFrame(
        {
            "update": update,
            "epoch": update * 0.4,
            "samples": update * 2000,
            "products": update * 20.0,
            "seconds": update * pace,
            "train_loss": loss * 0.94,
            "val_loss": loss,
            "test_loss": loss * 1.03,
            "val_squared_error": loss * 784,
            "test_squared_error": loss * 1.03 * 784,
        }
    )


def _environments(runs: pd.DataFrame) -> pd.DataFrame:
    finished = runs[runs["status"].notna()]
    return pd.DataFrame(
        {
            "run_id": run_id,
            "host": "bench-1",
            "cpu": "AMD EPYC 7543 32-Core Processor",
            "threads": 1,
            "python": "3.11.9",
            "torch": "2.9.1+cpu",
            "commit": "41b10f5",
            "gpu": "",
            "dirty": "",
            "started": f"2025-01-07T10:{n:02d}:00Z",
            "flags": {"tf32": False, "deterministic": True},
        }
        for n, run_id in enumerate(finished["run_id"])
    )


def _spec(name: str, arms: Mapping[str, Arm], seeds: int, updates: int) -> str:
    return f"""schema: 1
name: {name!r}
problem: {{type: autoencoder, data: mnist5k}}
arms: {{{", ".join(f"{arm!r}: {{type: block_hf, lr: 0.5}}" for arm in arms)}}}
seeds: {{count: {seeds}, base: 0}}
budget: {{updates: {updates}}}
evaluate: {{every_updates: 2}}   # a comment that stays
targets: [{{metric: val_loss, below: 0.02}}]
compare: [{{name: block vs full, candidate: block_hf, baseline: full_hf}}]
"""


def save(records: Records, folder: Path) -> Path:
    """Write what `bdhf.records.load` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.yaml").write_text(records.spec_text, encoding="utf-8")
    records.runs.to_parquet(folder / "runs.parquet", index=False)
    records.curves.to_parquet(folder / "curves.parquet", index=False)
    return folder
