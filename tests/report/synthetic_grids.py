"""Made-up ablations with a grid: batch sizes, problems, and what the optimizer did."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from bdhf.records import Records
from tests.report.synthetic import Arm, synthetic_records

SIZES = (50, 100, 200, 400, 800)
CRITICAL = {"block_hf": 400.0, "full_hf": 250.0, "adam": 80.0}
_PACE = {"block_hf": 6.0, "full_hf": 9.0, "adam": 30.0}
_SECONDS = {"block_hf": 0.03, "full_hf": 0.04, "adam": 0.004}  # per update, of a batch of nothing
_FULL = 200  # samples that double them


def batches(sizes: Sequence[int] = SIZES, **how: object) -> Records:
    """Three optimizers at every batch size, whose time constants scale as their B_crit says.

    Seconds per update rise with the batch, so the seconds to the target fall and rise again.
    """
    arms, values = {}, {}
    for name, b_crit in CRITICAL.items():
        for size in sizes:
            label = f"{name} gradient={size}"
            tau, seconds = _PACE[name] * (1 + b_crit / size), _SECONDS[name] * (1 + size / _FULL)
            arms[label] = Arm(tau=tau, floor=0.009, seconds=seconds)
            values[label] = {"batch.gradient": str(size)}
    return _gridded(arms, values, **how)


def problems(count: int = 6, solvers: int = 4, **how: object) -> Records:
    """Optimizers on several problems, the later ones slower and problems of all difficulties."""
    arms, values = {}, {}
    for solver in range(solvers):
        for problem in range(count):
            label = f"solver_{solver} data=set_{problem}"
            arms[label] = Arm(tau=(4.0 + 3 * problem) * 1.3**solver, floor=0.009)
            values[label] = {"problem.data": f"set_{problem}"}
    return _gridded(arms, values, **how)


def diagnosed(records: Records) -> Records:
    """The same records with diagnostics, for arms with `hf` in their name."""
    curves, rng = records.curves, np.random.default_rng(3)
    update = curves["update"].to_numpy(float)
    noise = np.exp(rng.normal(0, 0.15, len(curves)))
    slow = 1 + curves["arm"].str.contains("full").to_numpy(float)
    converged = np.clip(0.7 - update / 400, 0, 1)
    columns = {
        "cg_iterations": (12 + 0.2 * update) * slow * noise,
        "damping": 0.05 * np.exp(-update / 40) * slow * noise,
        "reduction_ratio": 0.85 + 0.2 * np.log(noise) - 0.001 * update,
        "stop_converged": converged,
        "stop_progress": 0.8 * (1 - converged),
        "stop_max_iters": 0.2 * (1 - converged),
        "negative_curvature": np.zeros(len(curves)),
    }
    measured = curves["arm"].str.contains("hf") & (curves["update"] > 0)
    table = pd.DataFrame(columns, index=curves.index).where(measured)
    return dataclasses.replace(records, curves=curves.join(table))


def _gridded(arms: dict[str, Arm], values: dict[str, dict[str, str]], **how: object) -> Records:
    options = {"seeds": 5, "updates": 240, "every": 2, "comparisons": (), **how}
    records = synthetic_records(arms, **options)
    names = {label: label.split(" ")[0] for label in arms}
    return dataclasses.replace(records, values=values, names=names)
