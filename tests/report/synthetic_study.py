"""Made-up studies that look like real ones: what a search would have left behind.

The cost of a trial is a bowl over log lr (and log damping): `best × (1 + curvature × distance²)`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bdhf.records import (
    Budget,
    Comparison,
    Estimand,
    Parameter,
    StudyRecords,
    Target,
    TunedArm,
    Tuning,
)

TARGET = Target(metric="val_loss", below=0.02)
UPDATES: Estimand = "updates_to_target"
SIZES = (125, 250, 500, 1000, 2000)
HORIZON = 300.0


@dataclass(frozen=True)
class Searched:
    """How the trials of an arm turn out."""

    best: float = 40.0  # updates, at the best settings
    lr: tuple[float, float] = (1e-4, 1e-1)  # the range; the best lies at `at` of it
    at: float = 0.6
    damped: bool = False  # whether damping is a choice that brings in a parameter of its own
    status: Mapping[int, tuple[str, str]] = dataclasses.field(default_factory=dict)
    trials: int | None = None  # finished; None: all


ARMS = {
    "adam": Searched(best=95.0),
    "block_hf": Searched(best=38.0, lr=(0.1, 1.0), damped=True),
    "full_hf": Searched(best=52.0, lr=(0.1, 1.0), damped=True,
                        status={5: ("diverged", "val_loss is not finite at update 14"),
                                7: ("pruned", "worse than the median at update 60")}),
}  # fmt: skip
ENTRIES = (
    Comparison(name="block vs full", candidate="block_hf", baseline="full_hf"),
    Comparison(name="block vs adam", candidate="block_hf", baseline="adam"),
)
LM = "damping=levenberg_marquardt"


def synthetic_study(
    arms: Mapping[str, Searched] = ARMS,
    *,
    sizes: Sequence[int] = (),
    trials: int = 16,
    seeds: Sequence[int] = (1000, 1001),
    objectives: Sequence[Estimand] = (UPDATES,),
    comparisons: Sequence[Comparison] = ENTRIES,
    folder: Path = Path("results/studies/made_up"),
) -> StudyRecords:
    """A study of these arms, at every batch size where `sizes` names some."""
    cells = [(name, size) for size in sizes or (0,) for name in arms]
    parts = [_cell(name, arms[name], size, trials, seeds, objectives) for name, size in cells]
    tuned, *tables = zip(*parts, strict=True)
    study = Tuning(
        name="made_up",
        ablation="../ablations/quickstart.yaml",
        problem={"type": "autoencoder"},
        objectives=tuple(objectives),
        target=TARGET if "target" in objectives[0] else None,
        trials=trials,
        seeds=tuple(seeds),
        held_out_seeds=tuple(range(8)),
        sampler="TPE, seed 0",
        pruner="none",
        comparisons=tuple(_at(entry, size) for entry in comparisons for size in sizes or (0,)),
        arms=tuned,
    )
    trial_table, parameters, runs = (pd.concat(each, ignore_index=True) for each in tables)
    text = (f"schema: 1\nname: made_up\nablation: {study.ablation}   # a comment that stays\n"
            f"trials: {trials}\n")  # fmt: skip
    return StudyRecords(folder, text, study, trial_table, parameters, runs, _curves(runs))


def label_of(name: str, size: int) -> str:
    """The label of an arm at a batch size; 0: there is no grid."""
    return f"{name} gradient={size}" if size else name


def _at(entry: Comparison, size: int) -> Comparison:
    if not size:
        return entry
    return entry.model_copy(
        update={
            "name": f"{entry.name} gradient={size}",
            "candidate": label_of(entry.candidate, size),
            "baseline": label_of(entry.baseline, size),
        }
    )


def _space(how: Searched) -> tuple[Parameter, ...]:
    low, high = how.lr
    lr = Parameter(name="lr", scale="log", low=low, high=high, default=float(np.sqrt(low * high)))
    if not how.damped:
        return (lr,)
    kinds = ("constant", "levenberg_marquardt")
    return (
        lr,
        Parameter(name="damping", scale="choice", choices=kinds, default="constant"),
        Parameter(name="damping.constant.value", scale="log", low=1e-5, high=1e-1, default=1e-3,
                  parent="damping=constant"),
        Parameter(name="damping.levenberg_marquardt.initial", scale="log", low=1e-3, high=10.0,
                  parent=LM),
        Parameter(name="solver.max_iters", scale="log", low=5, high=50, whole=True, default=30.0),
    )  # fmt: skip


def _cell(
    name: str,
    how: Searched,
    size: int,
    trials: int,
    seeds: Sequence[int],
    objectives: Sequence[Estimand],
) -> tuple[TunedArm, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng([11, len(name), size])
    label, space = label_of(name, size), _space(how)
    done = trials if how.trials is None else how.trials
    rows: list[dict[str, object]] = []
    settings: list[dict[str, object]] = []
    runs: list[dict[str, object]] = []
    for trial in range(done):
        places = {p.name: _drawn(p, trial, rng) for p in space}
        places = {p.name: places[p.name] for p in space if _is_there(p, places)}
        settings += [_setting(label, trial, p, places[p.name]) for p in space if p.name in places]
        costs = _costs(how, places, space, size, len(seeds), rng)
        status, reason = how.status.get(trial, ("done", ""))
        cut = np.minimum(costs, HORIZON)
        missed = HORIZON * (1 + min(0.9, costs.min() / 1e4)) if (costs > HORIZON).all() else None
        value = {"done": missed or cut.mean(), "pruned": np.nan}.get(status, 2 * HORIZON)
        hits = int((costs <= HORIZON).sum()) if status == "done" else 0
        rows.append(
            {
                "arm": label, "trial": trial, "number": trial, "status": status, "reason": reason,
                "is_default": trial == 0, "on_front": False, "hits": hits, "seeds": len(seeds),
                "updates": cut.sum(), "products": 20 * cut.sum(),
                "gradient_equivalents": 30 * cut.sum(), "seconds": 0.1 * cut.sum(),
                "wall_seconds": 0.12 * cut.sum(), "started": "2025-01-07T10:00:00Z",
                "finished": "2025-01-07T10:05:00Z", "host": "bench-1",
                **_objectives(objectives, float(value), places),
            }
        )  # fmt: skip
        for column, seed in enumerate(seeds):
            hit = bool(costs[column] <= HORIZON) and status == "done"
            cost = float(cut[column]) if status == "done" else HORIZON
            runs.append(
                {
                    "arm": label, "trial": trial, "seed": seed,
                    "run_id": f"{label}-{trial}-{seed}", "status": status, "reason": reason,
                    "hit": hit, "final": 0.0195 if hit else 0.02 * (1 + costs[column] / 1e3),
                    **_objectives(objectives, cost, places),
                }
            )  # fmt: skip
    table = pd.DataFrame(rows)
    if len(objectives) > 1:
        table["on_front"] = _on_front(table[list(objectives)].to_numpy(float))
    best = _best(table, objectives[0])
    spread = [float(str(run[objectives[0]])) for run in runs if run["trial"] == best]
    tuned = TunedArm(
        label=label,
        name=name,
        values={"batch.gradient": str(size)} if size else {},
        budget=Budget(updates=int(HORIZON)),
        gradient_batch=size or 2000,
        space=space,
        horizons={objective: HORIZON for objective in objectives if "target" in objective},
        finished=done,
        best=best,
        least=min(spread, default=None),
        largest=max(spread, default=None),
        settings={s["parameter"]: s["value"] if s["text"] is None else s["text"]
                  for s in settings if s["trial"] == best},
        at_edge=("lr",) if how.at in (0.0, 1.0) else (),
        importances={p.name: float(w) for p, w in zip(space, rng.dirichlet(np.ones(len(space))),
                                                      strict=True)},
    )  # fmt: skip
    return tuned, table, pd.DataFrame(settings), pd.DataFrame(runs)


def _drawn(parameter: Parameter, trial: int, rng: np.random.Generator) -> float:
    """Where in its range a trial stands, 0 to 1; of a choice its index."""
    drawn = float(rng.integers(len(parameter.choices))) if parameter.choices else rng.random()
    return {"choice": 0.0}.get(parameter.scale, 0.5) if trial == 0 else drawn


def _is_there(parameter: Parameter, places: Mapping[str, float]) -> bool:
    return not parameter.parent or places["damping"] == float(parameter.parent == LM)


def _setting(label: str, trial: int, p: Parameter, coordinate: float) -> dict[str, object]:
    row: dict[str, object] = {"arm": label, "trial": trial, "parameter": p.name}
    if p.choices:
        return row | {"value": np.nan, "text": p.choices[int(coordinate)]}
    assert p.low is not None
    assert p.high is not None
    value = p.low * (p.high / p.low) ** coordinate
    return row | {"value": float(round(value)) if p.whole else value, "text": None}


def _costs(
    how: Searched, places: Mapping[str, float], space: Sequence[Parameter], size: int, seeds: int,
    rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    far = (places["lr"] - how.at) ** 2 * 12
    far += sum((places[p.name] - 0.4) ** 2 * 3 for p in space if p.parent and p.name in places)
    slow = (1 + 400 / size) / 1.4 if size else 1.0
    return np.array(how.best * slow * (1 + far) * np.exp(rng.normal(0, 0.12, seeds)))


def _objectives(
    names: Sequence[str], value: float, places: Mapping[str, float]
) -> dict[str, float]:
    """The first is the cost; a second one trades off against it, by the learning rate."""
    seconds = value * (0.3 + 2 * (1 - places["lr"]) ** 2)
    return dict(zip(names, (value, min(seconds, 2 * HORIZON)), strict=False))


def _on_front(values: np.ndarray) -> list[bool]:
    return [
        bool(np.isfinite(v).all())
        and not any((w <= v).all() and (w < v).any() for w in values)
        for v in values
    ]  # fmt: skip


def _best(table: pd.DataFrame, objective: str) -> int | None:
    done = table[table["status"] == "done"] if len(table) else table
    return int(done.loc[done[objective].idxmin(), "trial"]) if len(done) else None


def _curves(runs: pd.DataFrame) -> pd.DataFrame:
    first = runs[["arm", "trial", "seed"]].assign(update=0, val_loss=0.231)
    return pd.concat([first, first.assign(update=40, val_loss=runs["final"])], ignore_index=True)
